"""Cross-origin requests of web pages (the Fetch standard, "CORS protocol"; contract 1.7).

A browser lets a page read a response of another origin only if the response allows the page's origin. Before a request
with a key or a JSON body, the browser asks with OPTIONS, which is called a preflight. It carries no key, so it is
answered without one. A page that a public site serves may reach a private address only if the preflight's response
allows that too.

Without configured origins nothing here runs: OPTIONS is refused, and no response has a header of this file.
"""

import re
from collections.abc import Iterable
from typing import Final

from .http_request import HttpRequest

_METHODS: Final = "GET, HEAD, POST, DELETE"
_EXPOSED: Final = (
    "request-id, retry-after, retry-after-ms, x-should-retry, www-authenticate, "
    "anthro-asgi-ignored, anthro-asgi-token-count, anthro-asgi-compacted, anthro-asgi-engine, anthro-asgi-finished"
)
_MAX_AGE: Final = "600"  # seconds for which a browser may remember the response to a preflight
_HEADER_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_LONGEST: Final = 4096  # bytes of the names of request headers in a preflight


class Cors:
    """Allows the pages of `origins` to use the service. `*` stands for every origin."""

    __slots__ = ("_any", "_origins")

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)
        self._any = b"*" in self._origins

    def __repr__(self) -> str:
        return f"<Cors {'*' if self._any else len(self._origins)}>"

    async def handle(self, http_request: HttpRequest) -> bool:
        """Add the headers that the response needs. True if the request was a preflight, which is answered then."""
        origin = http_request.header(b"origin")
        allowed = self._any or origin in self._origins
        headers: list[tuple[str, str]] = []
        if not self._any:
            headers.append(("vary", "origin"))
        if allowed and origin is not None:
            headers.append(("access-control-allow-origin", "*" if self._any else origin.decode("latin-1")))
        if http_request.method != "OPTIONS" or not http_request.header(b"access-control-request-method"):
            if allowed and origin is not None:
                headers.append(("access-control-expose-headers", _EXPOSED))
            http_request.cors_headers = tuple(headers)
            return False
        if allowed:
            headers += self._preflight(http_request)
        http_request.cors_headers = tuple(headers)
        await http_request.respond_empty(204 if allowed else 403)
        return True

    def _preflight(self, http_request: HttpRequest) -> Iterable[tuple[str, str]]:
        """The headers that allow what the preflight asks for. Which headers a request has does not matter here."""
        yield "access-control-allow-methods", _METHODS
        names = http_request.header(b"access-control-request-headers") or b""
        if len(names) <= _LONGEST and _HEADER_NAMES.fullmatch(names):
            yield "access-control-allow-headers", names.decode("latin-1")
        if http_request.header(b"access-control-request-private-network") == b"true":
            yield "access-control-allow-private-network", "true"
        yield "access-control-max-age", _MAX_AGE
