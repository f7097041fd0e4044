"""Asking an engine: a short question and its whole answer, and what a client is told when there is none."""

import asyncio
import logging
from typing import Any, Final, NamedTuple

import orjson

from ..upstream.errors import Broken, PoolExhausted, Timeout, UpstreamError
from ..upstream.pool import Body, Exchange, Pool
from ..upstream.request import Fields
from ..upstream.sse import EventTooLarge
from ..wire.errors import ApiError, BadUpstream, Overloaded, UpstreamTimeout
from .failures import failure

_LONGEST: Final = 16 * 1024 * 1024  # bytes of an answer: the tokens of a prompt are told one by one
_LONGEST_ERROR: Final = 64 * 1024  # bytes of an error body that are read
_ADVICE: Final = (b"retry-after-ms", b"x-should-retry")  # what SDKs heed beside `retry-after`
_PATIENCE: Final = 10.0  # seconds: who asks for a list or a count is waiting for it
_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What an engine said. `server` is the header of that name."""

    status: int
    body: bytes
    server: str = ""

    def json(self) -> Any:
        """The body's meaning; None when it is no JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


async def ask(pool: Pool, target: str, headers: Fields, body: Body | None = None) -> Answer:
    """GET `target`, or POST a JSON `body` to it. Raises UpstreamError, and TimeoutError after ten seconds."""
    method = "GET" if body is None else "POST"
    fields = [*headers] if body is None else [*headers, (b"content-type", b"application/json")]
    async with asyncio.timeout(_PATIENCE), pool.exchange(method, target, fields, body or b"") as response:
        whole = await response.read_all(_LONGEST)
        return Answer(response.status, whole, (response.header(b"server") or b"").decode("latin-1"))


async def refuse(response: Exchange) -> None:
    """Raises ApiError for an answer whose status says that it is none."""
    if response.status == 200:
        return
    try:
        body = await response.read_all(_LONGEST_ERROR)
    except Broken:
        body = b""  # the status has said enough
    _log.warning("upstream: status %d", response.status)
    error = failure(response.status, _told(response, b"retry-after"), body)
    advice = ((name.decode(), _told(response, name)) for name in _ADVICE)
    error.headers += tuple((name, told) for name, told in advice if told is not None)
    raise error


def is_whole(response: Exchange) -> bool:
    """Whether the engine answers with one JSON value, though a stream was asked for."""
    kind = (response.header(b"content-type") or b"").lower()
    return b"json" in kind and b"event-stream" not in kind


def _told(response: Exchange, name: bytes) -> str | None:
    value = response.header(name)
    return None if value is None else value.decode("latin-1")


def discreet(error: ApiError, key: str | None) -> ApiError:
    """The same error, its notes sent to the log, and without the key: an engine may have said it back."""

    def without_key(words: str) -> str:
        return words if key is None else words.replace(key, "…")

    notes, error.__notes__ = getattr(error, "__notes__", []), []
    for note in notes:
        _log.warning("upstream: %s", without_key(note))
    error.message = without_key(error.message)
    error.args = (error.message,)
    return error


def lost(exc: UpstreamError | EventTooLarge | TimeoutError) -> ApiError:
    """What a client is told of an engine that is away, slow or broken. Who it is goes to the log."""
    _log.warning("upstream: %s: %s", type(exc).__name__, exc)
    if isinstance(exc, PoolExhausted):
        return Overloaded("every connection to the engine is in use")
    if isinstance(exc, TimeoutError) or (isinstance(exc, Timeout) and exc.phase != "connect"):
        return UpstreamTimeout("the engine took too long")
    if isinstance(exc, EventTooLarge):
        return BadUpstream("the engine sent an event that is too large")
    if isinstance(exc, Broken):
        return BadUpstream("the connection to the engine broke")
    return Overloaded("the engine is not reachable")
