"""Small requests to an engine (model list, token count, health), and the checks on the head of every response."""

import asyncio
import re
from contextlib import suppress
from typing import Any, Final, NamedTuple

import orjson

from ...upstream.errors import TooLarge, UpstreamError
from ...upstream.http_parsers import ResponseHeaders
from ...upstream.pool import Body, Exchange, Pool
from ...upstream.request import RequestHeaders
from ...wire.answer_limits import AnswerLimits
from ...wire.errors import AnswerTooLarge, ApiError, BadUpstream
from .upstream_errors import error_from_response

_MAX_BODY: Final = 16 * 1024 * 1024  # bytes; a token count may list every token
_MAX_ERROR_BODY: Final = 64 * 1024  # bytes
_TIMEOUT: Final = 10.0  # seconds for a whole request
_ERROR_BODY_TIMEOUT: Final = 5.0  # seconds
_UNSPECIFIC_TYPES: Final = (b"text/plain", b"application/octet-stream")  # a stream may have them by mistake
_SAFE_TYPE: Final = re.compile(rb"(?:application|audio|image|multipart|text|video)/[a-z0-9.+-]{1,40}")


class FetchResult(NamedTuple):
    """A whole response. `headers` have lower-case names."""

    status: int
    body: bytes
    headers: ResponseHeaders

    @property
    def server(self) -> str:
        """The `server` header."""
        return next((value for name, value in self.headers if name == b"server"), b"").decode("latin-1")

    def json(self) -> Any:
        """The parsed body; None when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def error(self) -> ApiError:
        """The error for a response that has an error status, or has status 200 and not the expected body."""
        return error_from_response(self.status, self.body, self.headers)


async def fetch(pool: Pool, target: str, headers: RequestHeaders, body: Body | None = None) -> FetchResult:
    """GET `target`, or POST a JSON `body` to it. Raises UpstreamError, and TimeoutError after ten seconds."""
    method = "GET" if body is None else "POST"
    fields = [*headers] if body is None else [*headers, (b"content-type", b"application/json")]
    async with asyncio.timeout(_TIMEOUT), pool.exchange(method, target, fields, body or b"") as response:
        whole = await response.read_all(_MAX_BODY)
        return FetchResult(response.status, whole, response.headers)


async def raise_for_status(response: Exchange) -> None:
    """Raise ApiError for a response whose status is not 200."""
    if response.status == 200:
        return
    body = b""
    with suppress(UpstreamError, TimeoutError):  # the status alone is enough
        async with asyncio.timeout(_ERROR_BODY_TIMEOUT):
            body = await response.read_all(_MAX_ERROR_BODY)
    raise error_from_response(response.status, body, response.headers)


def is_json(response: Exchange) -> bool:
    """Whether the response is one JSON value, although a stream was requested.

    Raises BadUpstream when it is neither JSON nor a stream: a web page might be long and never contain an event.
    """
    content_type = (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if (response.header(b"content-encoding") or b"identity").lower() != b"identity":
        raise BadUpstream("the engine compressed its response, which was not requested")
    stream = b"event-stream" in content_type
    json = b"json" in content_type
    if content_type and not stream and not json and content_type not in _UNSPECIFIC_TYPES:
        found = content_type.decode() if _SAFE_TYPE.fullmatch(content_type) else "an unknown type"
        raise BadUpstream(f"the engine returned neither an event stream nor JSON, but {found}")
    return json and not stream


async def read_body(response: Exchange, limits: AnswerLimits) -> bytes:
    """The whole body of an answer. Raises AnswerTooLarge and UpstreamError."""
    try:
        return await response.read_all(limits.max_answer)
    except TooLarge as exc:
        raise AnswerTooLarge(f"it is larger than {limits.max_answer} bytes (max-answer)") from exc
