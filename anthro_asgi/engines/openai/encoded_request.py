"""A request in the form in which it is sent. A large one is converted in steps, so that other requests run meanwhile.

A prompt can be large, and its answer streams for long. So the prompt is released as soon as the engine has begun to
answer. Until then the request may have to be sent again.
"""

from time import perf_counter
from typing import Any

from ...wire.large.cooperative import drop_in_steps, run_with_yields
from ...wire.large.cuts import Cuts
from ...wire.request import MessagesRequest
from .chat_request import call_ids, call_ids_in_steps, encode_body, encode_in_steps, to_chat, to_chat_in_steps
from .dialects import Dialect

Json = dict[str, Any]


async def chat_body(request: MessagesRequest, dialect: Dialect) -> Json:
    """The body of the chat request. Raises InvalidRequest."""
    if request.is_large:
        return await run_with_yields(to_chat_in_steps(request, dialect), perf_counter)
    return to_chat(request, dialect)


async def earlier_call_ids(request: MessagesRequest) -> set[str]:
    """The ids of the tool calls in the history."""
    return await run_with_yields(call_ids_in_steps(request), perf_counter) if request.is_large else call_ids(request)


async def encoded_in_steps(body: Json, cuts: Cuts | None) -> list[bytes]:
    """`body` as JSON in pieces, with all that was cut out of the request. Raises InvalidRequest."""
    pieces = await run_with_yields(encode_in_steps(body), perf_counter)
    return pieces if not cuts else await run_with_yields(cuts.fill(pieces), perf_counter)


class EncodedRequest:
    """A request and the `body` to send for it. After `release`, neither may be used any more."""

    __slots__ = ("_body", "_request", "request_id")

    def __init__(self, request: MessagesRequest, body: Json) -> None:
        self._request: MessagesRequest | None = request
        self._body: Json | None = body
        self.request_id = request.request_id

    @property
    def request(self) -> MessagesRequest:
        assert self._request is not None  # noqa: S101 - for the type checker
        return self._request

    @property
    def body(self) -> Json:
        assert self._body is not None  # noqa: S101 - for the type checker
        return self._body

    async def encoded(self) -> list[bytes]:
        """The body as JSON, in pieces. Raises InvalidRequest."""
        if self.request.is_large:
            return await encoded_in_steps(self.body, self.request.cuts)
        return [encode_body(self.body)]

    async def release(self) -> bool:
        """Drop the request and its body. Returns True."""
        held: list[Any] | None = None
        if self.request.is_large:
            held = self.request.hold()
            held.append(self.body)
        self._request = self._body = None
        if held is not None:
            await run_with_yields(drop_in_steps(held), perf_counter)
        return True
