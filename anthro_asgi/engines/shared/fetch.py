"""Asking an engine: a short question and its whole answer, and what a client is told when there is none."""

import asyncio
import logging
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import orjson

from ...upstream.errors import Broken, ConnectFailed, PoolExhausted, Timeout, TooLarge, UpstreamError
from ...upstream.origin import Origin
from ...upstream.pool import Body, Exchange, Pool
from ...upstream.request import RequestHeaders
from ...upstream.sse import EventTooLarge
from ...wire.answer_limits import AnswerLimits
from ...wire.errors import AnswerTooLarge, ApiError, BadUpstream, Overloaded, UpstreamTimeout
from .upstream_errors import failure

_LONGEST: Final = 16 * 1024 * 1024  # bytes of an answer: the tokens of a prompt are told one by one
_LONGEST_ERROR: Final = 64 * 1024  # bytes of an error body that are read
_ADVICE: Final = (b"retry-after-ms", b"x-should-retry")  # what SDKs heed beside `retry-after`
_PLAIN: Final = re.compile(rb"[!-~][ -~]{0,63}")  # a number, a word or a date
_VAGUE: Final = (b"text/plain", b"application/octet-stream")  # types of those who have not thought about it
_TYPE: Final = re.compile(rb"(?:application|audio|image|multipart|text|video)/[a-z0-9.+-]{1,40}")
_TELLING: Final = 6  # characters that a secret begins with
_FAREWELL: Final = 5.0  # seconds for the words of a refusal
_PATIENCE: Final = 10.0  # seconds: who asks for a list or a count is waiting for it
_log = logging.getLogger(__name__)


class FetchResult(NamedTuple):
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


async def fetch(pool: Pool, target: str, headers: RequestHeaders, body: Body | None = None) -> FetchResult:
    """GET `target`, or POST a JSON `body` to it. Raises UpstreamError, and TimeoutError after ten seconds."""
    method = "GET" if body is None else "POST"
    fields = [*headers] if body is None else [*headers, (b"content-type", b"application/json")]
    async with asyncio.timeout(_PATIENCE), pool.exchange(method, target, fields, body or b"") as response:
        whole = await response.read_all(_LONGEST)
        return FetchResult(response.status, whole, (response.header(b"server") or b"").decode("latin-1"))


async def raise_for_status(response: Exchange) -> None:
    """Raises ApiError for an answer whose status says that it is none."""
    if response.status == 200:
        return
    body = b""
    with suppress(UpstreamError, TimeoutError):  # the status has said enough
        async with asyncio.timeout(_FAREWELL):
            body = await response.read_all(_LONGEST_ERROR)
    _log.warning("upstream: status %d", response.status)
    error = failure(response.status, _told(response, b"retry-after"), body)
    advice = ((name.decode(), _told(response, name)) for name in _ADVICE)
    error.headers += tuple((name, told) for name, told in advice if told is not None)
    raise error


def is_json(response: Exchange) -> bool:
    """Whether the engine answers with one JSON value, though a stream was asked for. Raises BadUpstream for what is
    neither, as a page is: it might go on for long and say nothing.
    """
    kind = (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if (response.header(b"content-encoding") or b"identity").lower() != b"identity":
        raise BadUpstream("the engine compressed its answer unasked")
    if kind and b"event-stream" not in kind and b"json" not in kind and kind not in _VAGUE:
        _log.warning("upstream: content type %s", kind.decode() if _TYPE.fullmatch(kind) else "that is none")
        raise BadUpstream("the engine gave neither a stream nor JSON")
    return b"json" in kind and b"event-stream" not in kind


async def read_body(response: Exchange, limits: AnswerLimits) -> bytes:
    """All of an answer. Raises AnswerTooLarge, and UpstreamError."""
    try:
        return await response.read_all(limits.max_answer)
    except TooLarge as exc:
        raise AnswerTooLarge(f"it is larger than {limits.max_answer} bytes (max-answer)") from exc


def _told(response: Exchange, name: bytes) -> str | None:
    """A header that goes on to the client, if it is one that may."""
    value = response.header(name)
    return value.decode() if value is not None and _PLAIN.fullmatch(value) else None


def redact(error: ApiError, keys: Iterable[str], origin: Origin) -> ApiError:
    """The same error without the keys and the engine's address: an engine may have said them back.

    Its notes stay on it, for `check`: they are the engine's words on its own failure, and may be those of a prompt.
    """
    host = origin.host
    names = [str(origin), origin.socket, host and f"{host}:{origin.port}", host and f"[{host}]:{origin.port}"]
    names += [host] if "." in host or ":" in host else []  # else it may be any word

    def masked(words: str) -> str:
        for secret in filter(None, (*keys, *names)):
            words = words.replace(secret, "…")
            cut = next((size for size in range(len(secret) - 1, _TELLING - 1, -1) if words.endswith(secret[:size])), 0)
            words = f"{words[:-cut]}…" if cut else words  # long words were cut off, perhaps in the midst of it
        return words

    error.__notes__ = [masked(note) for note in getattr(error, "__notes__", ())]
    error.message = masked(error.message)
    error.args = (error.message,)
    return error


def lost(exc: UpstreamError | TimeoutError) -> ApiError:
    """What a client is told of an engine that is away, slow or broken. The log is told why, but not who it is."""
    _log.warning("upstream: %s: %s", type(exc).__name__, _why(exc))
    if isinstance(exc, PoolExhausted):
        return Overloaded("every connection to the engine is in use")
    if isinstance(exc, TimeoutError) or (isinstance(exc, Timeout) and exc.phase != "connect"):
        return UpstreamTimeout("the engine took too long")
    if isinstance(exc, TooLarge):
        return AnswerTooLarge(f"{exc} (max-event)" if isinstance(exc, EventTooLarge) else str(exc))
    if isinstance(exc, Broken):
        return BadUpstream("the connection to the engine broke")
    return Overloaded("the engine is not reachable")


def kind_of(exc: Exception, status: int = 200) -> str:
    """What sort of failure it is, for whoever counts them; `status` is that of the engine's answer, if it gave one."""
    if 400 <= status < 600:
        return f"status_{status // 100}xx"
    match exc:
        case PoolExhausted():
            return "exhausted"
        case ConnectFailed():
            return "connect"
        case Timeout(phase=phase):
            return f"timeout_{phase.replace(' ', '_')}"
        case TimeoutError():
            return "timeout_total"
        case TooLarge() | AnswerTooLarge():
            return "too_large"
        case UpstreamError():
            return "broken"
        case ApiError(status=told) if not isinstance(exc, BadUpstream):  # an error that the engine sent as a stream
            return f"status_{told // 100}xx"
    return "nonsense"


def _why(exc: BaseException) -> str:
    """What went wrong, in words without an address: who reads the log need not learn it."""
    if isinstance(exc, Timeout):
        return exc.phase
    cause = exc.__cause__
    if not isinstance(exc, ConnectFailed) or cause is None:
        return str(exc).partition(": ")[2] or str(exc)  # what stands before is the address
    if isinstance(cause, socket.gaierror):
        return "no such host"
    told = getattr(cause, "verify_message", None)  # on a certificate; whose it should be stands behind a comma
    if told:
        return f"certificate verify failed: {str(told).partition(',')[0]}"
    number = getattr(cause, "errno", None)
    return getattr(cause, "reason", None) or (os.strerror(number) if number else type(cause).__name__)
