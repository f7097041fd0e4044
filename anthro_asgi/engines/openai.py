"""An OpenAI-compatible engine behind a URL: the conversion of `chat` and `chunks`, over a pool of `upstream`.

It always streams from the engine, also for a client that does not: a stream is the only call that every engine stops
when the connection is closed, so that a client that left frees its slot.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import orjson

from ..upstream.errors import Broken, PoolExhausted, Timeout, UpstreamError
from ..upstream.origin import Origin
from ..upstream.pool import Deadlines, Exchange, Pool
from ..upstream.sse import EventTooLarge, SSEParser
from ..wire.deltas import Delta
from ..wire.errors import ApiError, BadUpstream, Overloaded, UpstreamTimeout
from ..wire.request import MessagesRequest
from . import ModelInfo
from .chat import called, encode, to_chat
from .chunks import ChatReader
from .dialects import DIALECTS, Dialect, recognise
from .failures import failure

_LONGEST_ERROR: Final = 64 * 1024  # bytes of an error body that are read
_LONGEST_ANSWER: Final = 16 * 1024 * 1024  # bytes of an answer that should have been a stream
_LONGEST_LIST: Final = 4 * 1024 * 1024  # bytes of a model list
_TAIL: Final = 5.0  # seconds after its finish for an engine to tell the usage and to end its stream
_PATIENCE: Final = 10.0  # seconds for the model list: who asks for it is waiting to start
_AWAY: Final = frozenset({429, 502, 503, 504, 529})  # says nothing of who it is, nor that it will be so in a second
_KEY: Final = re.compile("[!-~]+")
_STREAM_HEADERS: Final = ((b"content-type", b"application/json"), (b"accept", b"text/event-stream"))
_log = logging.getLogger(__name__)


class OpenAIEngine:
    """The engine at `origin`. `key` is sent as a bearer token. `dialect` names one of DIALECTS; None is to detect it.

    Raises ValueError for a dialect that does not exist or a key that cannot stand in a header.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        key: str | None = None,
        deadlines: Deadlines | None = None,
        limit: int = 1024,
        dialect: str | None = None,
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect {dialect!r}: known are {', '.join(DIALECTS)}")
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the upstream key is empty or has characters that a header cannot carry")
        self._origin = origin
        self._key = key
        self._pool = Pool(origin, limit=limit, deadlines=deadlines or Deadlines())
        self._chosen = DIALECTS[dialect] if dialect is not None else None
        self._dialect = self._chosen
        self._headers = [(b"authorization", b"Bearer " + key.encode())] if key is not None else []
        self._stream_headers = [*_STREAM_HEADERS, *self._headers]
        self._target = origin.target("/chat/completions")

    def __repr__(self) -> str:
        return f"<OpenAIEngine {self._dialect.name if self._dialect else 'undetected'} {self._pool!r}>"

    # life

    async def start(self) -> None:
        """Asks the engine who it is. One that is not up yet is asked again by the first request."""
        try:
            await self.detect()
        except ApiError:
            _log.warning("the engine does not answer yet")

    async def stop(self) -> None:
        await self._pool.aclose()

    async def detect(self) -> Dialect:
        """The dialect: as chosen, or by the engine's model list. Raises ApiError when the engine is not reachable.

        One that is reached but not itself yet, as while it loads its model, is asked again by the next request.
        """
        if self._chosen is not None:
            return self._chosen
        _, _, server = await self._get_models()
        return self._dialect or recognise(None, server)

    async def ready(self) -> bool:
        """Whether the engine answers, and not that it is away, as while it loads its model."""
        try:
            status, _, _ = await self._get_models()
        except ApiError:
            return False
        return status not in _AWAY

    async def models(self) -> list[ModelInfo]:
        """The engine's own list. Raises ApiError when it has none to give."""
        status, body, _ = await self._get_models()
        if status != 200:
            raise self._discreet(failure(status, None, body))
        listed = _json(body)
        entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(entries, list):
            raise BadUpstream("the engine's model list is none")
        return [_model(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]

    async def _get_models(self) -> tuple[int, bytes, str]:
        try:
            async with (
                asyncio.timeout(_PATIENCE),
                self._pool.exchange("GET", self._origin.target("/models"), self._headers) as response,
            ):
                body = await response.read_all(_LONGEST_LIST)
                server = (response.header(b"server") or b"").decode("latin-1")
                self._note_who(response.status, body, server)
                return response.status, body, server
        except UpstreamError as exc:
            raise self._lost(exc) from exc
        except TimeoutError as exc:
            raise UpstreamTimeout("the engine took too long") from exc

    def _note_who(self, status: int, body: bytes, server: str) -> None:
        """A list tells who answers, each time anew; a refusal of it, only that it is nobody special."""
        if self._chosen is None and (status == 200 or (self._dialect is None and status not in _AWAY)):
            self._dialect = recognise(_json(body) if status == 200 else None, server)

    # one answer

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        """The answer, read by read. Raises ApiError."""
        dialect = self._dialect or await self.detect()
        body = encode(to_chat(request, dialect))
        reader = ChatReader(request.stop_sequences, _new_call_id, called(request))
        parser = SSEParser()
        try:
            async with self._pool.exchange("POST", self._target, self._stream_headers, body) as response:
                if response.status != 200:
                    raise await _failure(response)
                if _is_whole(response):
                    yield reader.feed([await response.read_all(_LONGEST_ANSWER)])
                else:
                    while not reader.finished and (data := await response.read()):
                        deltas = reader.feed(parser.feed(data))
                        if deltas:
                            yield deltas
                    yield await _tail(response, parser, reader)
                response.done()
        except ApiError as exc:
            raise self._discreet(exc) from exc.__cause__
        except EventTooLarge:
            if not reader.finished:
                raise BadUpstream("the engine sent an event that is too large") from None
        except UpstreamError as exc:
            if not reader.finished:
                raise self._lost(exc) from exc
        if not reader.finished:
            self._dialect = self._chosen
        yield reader.end()

    def _discreet(self, error: ApiError) -> ApiError:
        """The same error, its notes sent to the log, and without the key: an engine may have said it back."""
        notes, error.__notes__ = getattr(error, "__notes__", []), []
        for note in notes:
            _log.warning("upstream: %s", self._without_key(note))
        error.message = self._without_key(error.message)
        error.args = (error.message,)
        return error

    def _without_key(self, words: str) -> str:
        return words if self._key is None else words.replace(self._key, "…")

    def _lost(self, exc: UpstreamError) -> ApiError:
        """The engine is away, slow or broken. Whoever is there next time may speak another dialect."""
        _log.warning("upstream: %s: %s", type(exc).__name__, exc)
        if isinstance(exc, PoolExhausted):
            return Overloaded("every connection to the engine is in use")
        self._dialect = self._chosen
        if isinstance(exc, Timeout) and exc.phase != "connect":
            return UpstreamTimeout("the engine took too long")
        if isinstance(exc, Broken):
            return BadUpstream("the connection to the engine broke")
        return Overloaded("the engine is not reachable")


def _is_whole(response: Exchange) -> bool:
    """Whether the engine answers with one completion, though a stream was asked for: it is read as a single chunk."""
    kind = (response.header(b"content-type") or b"").lower()
    return b"json" in kind and b"event-stream" not in kind


async def _tail(response: Exchange, parser: SSEParser, reader: ChatReader) -> list[Delta]:
    """What follows the finish, or the last event of a body that ended: a usage, as a rule, and `[DONE]`."""
    out: list[Delta] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(_TAIL):
            while not reader.done and (data := await response.read()):
                out += reader.feed(parser.feed(data))
    return out + reader.feed(parser.end())


async def _failure(response: Exchange) -> ApiError:
    try:
        body = await response.read_all(_LONGEST_ERROR)
    except Broken:
        body = b""  # the status has said enough
    retry_after = response.header(b"retry-after")
    error = failure(response.status, None if retry_after is None else retry_after.decode("latin-1"), body)
    _log.warning("upstream: status %d", response.status)
    return error


def _new_call_id() -> str:
    return f"toolu_{secrets.token_urlsafe(18)}"


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _model(entry: dict[str, Any]) -> ModelInfo:
    """A list entry; the window is `max_model_len` in vLLM and SGLang, `meta.n_ctx` in llama.cpp, `context_length` in
    SambaNova, which tells the longest answer too.
    """
    meta = entry.get("meta")
    inner = meta.get("n_ctx") if isinstance(meta, dict) else None
    told = (entry.get("max_model_len"), entry.get("context_length"), inner)
    window = next((length for length in told if type(length) is int), None)
    longest = entry.get("max_completion_tokens")
    created = entry.get("created")
    return ModelInfo(
        id=entry["id"],
        display_name=entry["id"],
        created=created if type(created) is int else 0,
        max_input_tokens=window,
        max_tokens=longest if type(longest) is int else window,
        owned_by=entry["owned_by"] if isinstance(entry.get("owned_by"), str) else "",
    )
