"""Small requests to an engine, with whole responses: model list, token count, health."""

import asyncio
from typing import Any, Final, NamedTuple

import orjson

from ...upstream.http_parsers import ResponseHeaders
from ...upstream.pool import Body, Pool
from ...upstream.request import RequestHeaders
from ...wire.errors import ApiError
from .upstream_errors import error_from_response

_MAX_BODY: Final = 16 * 1024 * 1024  # bytes; a token count may list every token
_TIMEOUT: Final = 10.0  # seconds for a whole request


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
