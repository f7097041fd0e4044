"""An upstream that serves the Messages API itself: asked in the client's own words, its stream watched and mended.

The body goes up as it came, but for the model's name (an alias resolved), `stream` (always: only a stream can be
cancelled), `stop_sequences` (matched here, since most such servers stop in silence and say `end_turn`), `thread`, which
is this service's to answer, and an engine's own switch for thinking where it is known. What comes back is read as
deltas, so its breaches of the contract end in `events` and in this service's encoder.
"""

from collections.abc import AsyncIterator
from typing import Any, Final, Unpack

from ...upstream.errors import UpstreamError
from ...upstream.origin import Origin
from ...upstream.request import RequestHeaders
from ...upstream.sse import SSEParser
from ...wire.deltas import Delta
from ...wire.errors import ApiError
from ...wire.request import MessagesRequest
from ..openai.chat_request import add_thinking
from ..openai.dialects import LLAMACPP, PLAIN, Dialect, recognise
from ..openai.encoded_request import EncodedRequest
from ..shared.fetch import is_json, kind_of, raise_for_status, read_body
from ..shared.remote import RemoteEngine, RemoteOptions, new_call_id, read_trailer
from ..shared.upstream_errors import failure
from .event_reader import EventReader

_KEPT_HERE: Final = ("stop_sequences", "thread")
_VERSION: Final = (b"anthropic-version", b"2023-06-01")
_JSON: Final = (b"content-type", b"application/json")


class MessagesEngine(RemoteEngine):
    """The Messages server at `origin`. `key` is sent as `x-api-key` and as a bearer token, since servers differ."""

    def __init__(self, origin: Origin, **how: Unpack[RemoteOptions]) -> None:
        super().__init__(origin, **how)
        self._target = origin.target("/messages")
        self._dialect: Dialect | None = None

    def __repr__(self) -> str:
        return f"<MessagesEngine {self._pool!r}>"

    def _signed(self, key: bytes | None) -> RequestHeaders:
        return (_VERSION,) if key is None else (_VERSION, (b"x-api-key", key), (b"authorization", b"Bearer " + key))

    async def detect(self) -> Dialect:
        """Which engine it is, by its model list. Raises ApiError when it is not reachable."""
        answer = await self._list_models()
        told = recognise(answer.json() if answer.status == 200 else None, answer.server)
        dialect = self._dialect = told or PLAIN
        return dialect

    async def is_messages_server(self) -> bool:
        """Whether the model list has the shape of this API. Raises ApiError when the server is not reachable."""
        answer = (await self._list_models()).json()
        entries = answer.get("data") if isinstance(answer, dict) else None
        return isinstance(entries, list) and any(
            isinstance(entry, dict) and entry.get("type") == "model" for entry in entries
        )

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The server's own count. Raises NotImplementedError where it has none."""
        body = {key: value for key, value in request.raw.items() if key not in ("stream", "max_tokens", *_KEPT_HERE)}
        asked = EncodedRequest(request, {**body, "model": request.engine_model})
        answer = await self._fetch(f"{self._target}/count_tokens", await asked.encoded())
        if answer.status in (404, 405, 501):
            raise NotImplementedError
        counted = answer.json()
        if answer.status != 200 or not isinstance(counted, dict) or type(counted.get("input_tokens")) is not int:
            raise self._redact(failure(answer.status, None, answer.body))
        tokens: int = counted["input_tokens"]
        return tokens

    # one answer

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        """The answer, read by read. Raises ApiError."""
        dialect = self._dialect or await self.detect()
        may_call = request.tool_choice is None or request.tool_choice.type != "none"
        asked = EncodedRequest(request, _body(request, dialect, keeps_tools=may_call or dialect is not LLAMACPP))
        exchange = self._pool.exchange(
            "POST", self._target, (_JSON, *self._headers, *request.trace_headers), await asked.encoded()
        )
        del request  # it is let go of with `asked`
        reader = EventReader(new_call_id, calls=may_call, limits=self._limits)
        parser = SSEParser(self._limits.max_event)
        try:
            async with exchange as response:
                await asked.release()
                await raise_for_status(response)
                if is_json(response):
                    yield reader.whole(await read_body(response, self._limits))
                else:
                    while not reader.finished and (data := await response.read()):
                        deltas = reader.feed(parser.feed(data))
                        if deltas:
                            yield deltas
                            reader.feed(())  # raises what came behind them
                    said = await read_trailer(response, lambda data: reader.feed(parser.feed(data)), reader)
                    yield said + reader.feed(parser.end())
                response.drain_on_exit()
            last = reader.end()
        except ApiError as exc:
            self.observe("upstream_error", kind_of(exc, exchange.status))
            raise self._redact(exc) from exc.__cause__
        except UpstreamError as exc:
            if not reader.finished:
                raise self._lost(exc) from exc
            last = reader.end()
        finally:
            self._report(reader.repairs)
        yield last

    def _lost(self, exc: UpstreamError | TimeoutError) -> ApiError:
        self._dialect = None
        return super()._lost(exc)


def _body(request: MessagesRequest, dialect: Dialect, *, keeps_tools: bool) -> dict[str, Any]:
    """What the server is asked. llama.cpp calls tools though the choice is none, unless it is given none."""
    body = {key: value for key, value in request.raw.items() if key not in _KEPT_HERE}
    if not keeps_tools:
        body = {key: value for key, value in body.items() if key not in ("tools", "tool_choice")}
    add_thinking(body, request, dialect)
    return {**body, "model": request.engine_model, "stream": True}
