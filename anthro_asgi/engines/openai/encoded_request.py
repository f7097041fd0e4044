"""What a client asked and how it is put to an engine: at once, or in turns of the event loop where it is large.

An answer streams for long and a prompt is large, so that it is let go of once the engine speaks: until then it may have
to be asked again.
"""

from time import perf_counter
from typing import Any

from ...wire.large.cooperative import LARGE_BODY, Steps, run_with_yields
from ...wire.request import MessagesRequest
from .chat_request import encode, encode_in_steps, to_chat, to_chat_in_steps
from .dialects import Dialect

Json = dict[str, Any]


async def chat_body(request: MessagesRequest, dialect: Dialect) -> Json:
    """The body of the chat request. Raises InvalidRequest."""
    if request.body_size > LARGE_BODY:
        return await run_with_yields(to_chat_in_steps(request, dialect), perf_counter)
    return to_chat(request, dialect)


class EncodedRequest:
    """A request, and the `body` it has become. It has both until it lets go of them."""

    __slots__ = ("_body", "_request")

    def __init__(self, request: MessagesRequest, body: Json) -> None:
        self._request: MessagesRequest | None = request
        self._body: Json | None = body

    @property
    def request(self) -> MessagesRequest:
        assert self._request is not None  # noqa: S101 - for the type checker
        return self._request

    @property
    def body(self) -> Json:
        assert self._body is not None  # noqa: S101 - for the type checker
        return self._body

    async def encoded(self) -> list[bytes]:
        """The body as it is sent, in pieces. Raises InvalidRequest."""
        if self.request.body_size > LARGE_BODY:
            return await run_with_yields(encode_in_steps(self.body), perf_counter)
        return [encode(self.body)]

    async def release(self) -> bool:
        """Keep nothing of the prompt. True."""
        held = [*self.request.messages, *self.body["messages"]] if self.request.body_size > LARGE_BODY else []
        self._request = self._body = None
        if held:
            await run_with_yields(_given_up(held), perf_counter)
        return True


def _given_up(held: list[Any]) -> Steps[None]:
    """Drops messages, and what they hold, one by one: it takes its time to give much memory back."""
    while held:
        thing = held.pop()
        content = thing.get("content") if type(thing) is dict else None
        if type(content) is list:
            held += content
        del thing, content
        yield
