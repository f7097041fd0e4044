"""Web search by a SearXNG server, or another one with the same JSON (`--web-search URL`)."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from ..upstream.origin import Origin
from ..upstream.pool import Pool
from ..wire.web_search import SearchRefused, WebHit, WebQuery
from .shared.fetch import fetch

_MAX_SITES: Final = 8  # domains that are written into a query
_HEADERS: Final = ((b"accept", b"application/json"),)


class SearxngSearch:
    """Searches at `url`, such as `http://127.0.0.1:8888/search`. Redirects are not followed.

    Raises ValueError for an invalid URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.query or parts.fragment:
            raise ValueError("the URL has a query or a fragment")
        self._origin = Origin.parse(f"{parts.scheme}://{parts.netloc}")
        self._path = quote(parts.path or "/search", safe="/%")

    async def __call__(self, query: WebQuery) -> list[WebHit]:
        """The hits. Raises SearchRefused, UpstreamError and TimeoutError."""
        sites = query.allowed_domains if len(query.allowed_domains) <= _MAX_SITES else ()
        words = [query.text, *([f"({' OR '.join(f'site:{site}' for site in sites)})"] if sites else [])]
        fields = {"q": " ".join(words), "format": "json", **query.user_location}
        pool = Pool(self._origin, limit=1)
        try:
            result = await fetch(pool, f"{self._path}?{urlencode(fields)}", _HEADERS)
        finally:
            await pool.aclose()
        if result.status != 200:
            raise SearchRefused("too_many_requests" if result.status == 429 else "unavailable")
        return list(_hits(result.json()))


def _hits(answer: Any) -> Iterator[WebHit]:
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise SearchRefused("unavailable")
    for entry in results:
        if isinstance(entry, dict) and isinstance(entry.get("url"), str):
            age = entry.get("publishedDate")
            yield WebHit(
                entry["url"],
                str(entry.get("title") or ""),
                str(entry.get("content") or ""),
                age if isinstance(age, str) else None,
            )
