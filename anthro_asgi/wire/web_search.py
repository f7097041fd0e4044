"""Web search: the tool as a request declares it, queries, hits and results (contract 3.54). Pure.

The operator's own search engine answers the queries. Nothing here or behind it fetches a page that a prompt names.
"""

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from .field_checks import FieldError, one_of, optional, optional_array, optional_integer
from .large.cooperative import Steps

Json = dict[str, Any]

MAX_HITS: Final = 10
"""Hits of one search that the model gets at most."""
_MAX_QUERY: Final = 1_000  # characters
_MAX_DOMAINS: Final = 1_000
_ENTRIES_PER_STEP: Final = 256
_MAX_SNIPPET: Final = 2_000  # characters
_MARK: Final = "anthro-asgi:"  # before a snippet in `encrypted_content`
_LOCATION: Final = ("city", "region", "country", "timezone")


@dataclass(frozen=True, slots=True)
class WebQuery:
    """What is searched for. `user_location` has some of city, region, country and timezone."""

    text: str
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    user_location: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WebHit:
    """A page that was found. `snippet` is its text as far as the search engine tells it; `age` a date or an age."""

    url: str
    title: str
    snippet: str = ""
    age: str | None = None


WebSearcher = Callable[[WebQuery], Awaitable[Iterable[WebHit]]]
"""Searches the web. Raises SearchRefused, or any exception if the search is not available."""


class SearchRefused(Exception):
    """`error_code` is one of those of `web_search_tool_result_error`."""

    def __init__(self, error_code: str) -> None:
        super().__init__(error_code)
        self.error_code = error_code


@dataclass(frozen=True, slots=True)
class WebSearch:
    """The tool `web_search` of a request. `max_uses` limits the searches in one answer."""

    max_uses: int | None = None
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    user_location: Mapping[str, str] = field(default_factory=dict)
    name: str = "web_search"

    @property
    def description(self) -> str:
        return "Searches the web, and returns titles, addresses and short texts of the pages found."

    @property
    def input_schema(self) -> Json:
        query = {"type": "string", "description": "What to search for."}
        return {"type": "object", "properties": {"query": query}, "required": ["query"]}

    def query(self, arguments: Json | None) -> WebQuery:
        """The query of a call. Raises SearchRefused."""
        text = None if arguments is None else arguments.get("query")
        if type(text) is not str or not text.strip():
            raise SearchRefused("invalid_tool_input")
        if len(text) > _MAX_QUERY:
            raise SearchRefused("query_too_long")
        return WebQuery(text, self.allowed_domains, self.blocked_domains, self.user_location)


def read_web_search(entry: Json) -> WebSearch:
    """The tool in an entry of `tools`. Raises FieldError."""
    if entry.get("name", "web_search") != "web_search":
        raise FieldError("name", "must be 'web_search'")
    allowed, blocked = _domains(entry, "allowed_domains"), _domains(entry, "blocked_domains")
    if allowed and blocked:
        raise FieldError("blocked_domains", "cannot be combined with allowed_domains")
    location: dict[str, str] = {}
    found = optional(entry, "user_location", dict)
    if found is not None:
        try:
            one_of(found, "type", {"approximate"})
            location = {key: text for key in _LOCATION if (text := optional(found, key, str))}
        except FieldError as error:
            raise error.within("user_location") from None
    return WebSearch(optional_integer(entry, "max_uses", 1), allowed, blocked, location)


def _domains(entry: Json, key: str) -> tuple[str, ...]:
    domains = optional_array(entry, key, _MAX_DOMAINS)
    for index, domain in enumerate(domains):
        if type(domain) is not str or not domain:
            raise FieldError(f"{key}.{index}", "must be a non-empty string")
    return tuple(domains)


def permitted_hits(query: WebQuery, hits: Iterable[WebHit]) -> list[WebHit]:
    """The first hits on http(s) whose domains the query permits."""
    permitted: list[WebHit] = []
    for hit in hits:
        if len(permitted) == MAX_HITS:
            break
        allowed = not query.allowed_domains or _is_in(hit.url, query.allowed_domains)
        if allowed and hit.url.startswith(("http://", "https://")) and not _is_in(hit.url, query.blocked_domains):
            permitted.append(hit)
    return permitted


def _is_in(url: str, domains: Sequence[str]) -> bool:
    """Whether the address is in one of the domains, or in a subdomain. A domain may have a path."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
    except ValueError:
        return False
    for domain in domains:
        name, slash, path = domain.lower().removeprefix("https://").removeprefix("http://").partition("/")
        in_domain = host == name or host.endswith(f".{name}")
        if in_domain and (not path or f"{parts.path}/".startswith(f"{slash}{path.removesuffix('/')}/")):
            return True
    return False


# Results


def web_search_result(call_id: str, hits: Iterable[WebHit]) -> Json:
    """The result of a search.

    `encrypted_content` carries the snippet, so that the model still has it when the client sends the result back.
    """
    content = [
        {
            "type": "web_search_result",
            "url": hit.url,
            "title": hit.title or hit.url,
            "page_age": hit.age,
            "encrypted_content": b64encode(
                f"{_MARK}{hit.snippet[:_MAX_SNIPPET]}".encode("utf-8", "surrogatepass")
            ).decode(),
        }
        for hit in hits
    ]
    return {"type": "web_search_tool_result", "tool_use_id": call_id, "content": content}


def web_search_error(call_id: str, error_code: str) -> Json:
    """The result of a search that failed."""
    content = {"type": "web_search_tool_result_error", "error_code": error_code}
    return {"type": "web_search_tool_result", "tool_use_id": call_id, "content": content}


def web_search_text(content: Any) -> Steps[tuple[str, bool]]:
    """What the engine reads of a result, and whether it is an error. The text is made in steps."""
    if type(content) is not list:
        code = content.get("error_code") if type(content) is dict else None
        return f"error: {code if type(code) is str else 'unavailable'}", True
    pages: list[str] = []
    for number, entry in enumerate(content, 1):
        if type(entry) is dict:
            pages.append(_page(entry))
        if number % _ENTRIES_PER_STEP == 0:
            yield
    return "\n\n".join(pages) or "Nothing was found.", False


def _page(entry: Json) -> str:
    lines = [entry.get("title"), entry.get("url"), entry.get("page_age"), _snippet(entry.get("encrypted_content"))]
    return "\n".join(line for line in lines if type(line) is str and line)


def _snippet(encrypted: Any) -> str:
    """The text that `web_search_result` has put there; empty for the content of another server."""
    if type(encrypted) is not str:
        return ""
    try:
        text = b64decode(encrypted, validate=True).decode()
    except ValueError:
        return ""
    return text.removeprefix(_MARK) if text.startswith(_MARK) else ""
