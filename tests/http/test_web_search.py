"""Web search by the operator's own search engine (contract 3.54)."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import anthropic
import orjson
import pytest
from anthropic.types.beta import BetaMessage

from anthro_asgi import MessagesApp, parse_request
from anthro_asgi.engines.searxng import SearxngSearch
from anthro_asgi.factory import build_app
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import ConfigError
from anthro_asgi.testing.driver import Driver
from anthro_asgi.testing.in_process import InProcessApp
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request_policy import Rules
from anthro_asgi.wire.web_search import (
    MAX_HITS,
    SearchRefused,
    WebHit,
    WebQuery,
    WebSearch,
    permitted_hits,
    web_search_text,
)
from tests.support.scripted_engine import ScriptedAnswers, call, calling, saying
from tests.support.upstream import ScriptedUpstream, json_answer

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True])
TOOL: Json = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
ASKED: Json = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "News?"}], "tools": [TOOL]}
HITS = [WebHit("https://a.example/1", "One", "First text.", "2026-11-29"), WebHit("https://b.example/2", "", "Two")]
ROME = call("web_search", {"query": "Rome"})


class Searcher:
    """Finds HITS, or raises. Keeps the queries."""

    def __init__(self, error: Exception | None = None) -> None:
        self.queries: list[WebQuery] = []
        self.error = error

    async def __call__(self, query: WebQuery) -> list[WebHit]:
        self.queries.append(query)
        if self.error is not None:
            raise self.error
        return HITS


async def ask(engine: ScriptedAnswers, search: Any, *, stream: bool = False, **changes: Any) -> BetaMessage:
    app = MessagesApp(engine, web_search=search)
    options: Any = {"max_retries": 0, "_strict_response_validation": True}
    async with InProcessApp(app) as running, running.client(anthropic.AsyncAnthropic, **options) as client:
        if not stream:
            whole: BetaMessage = await client.beta.messages.create(**{**ASKED, **changes})
            return whole
        async with client.beta.messages.stream(**{**ASKED, **changes}) as events:
            final: BetaMessage = await events.get_final_message()
            return final


@pytest.mark.clause("3.54")
@BOTH
async def test_a_search_its_results_and_the_text_are_one_answer(stream: bool) -> None:
    engine = ScriptedAnswers(calling(ROME), saying("All well."))
    search = Searcher()
    message = await ask(engine, search, stream=stream)
    use, result, text = message.content
    assert use.type == "server_tool_use"
    assert (use.name, use.input) == ("web_search", {"query": "Rome"})
    assert result.type == "web_search_tool_result"
    assert result.tool_use_id == use.id
    assert isinstance(result.content, list)
    assert [(page.url, page.title, page.page_age) for page in result.content] == [
        ("https://a.example/1", "One", "2026-11-29"),
        ("https://b.example/2", "https://b.example/2", None),
    ]
    assert text.type == "text"
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 1
    assert [query.text for query in search.queries] == ["Rome"]


@pytest.mark.clause("3.54")
async def test_the_model_reads_the_texts_now_and_when_they_come_back() -> None:
    engine = ScriptedAnswers(calling(ROME), saying("All well."), saying("Yes."))
    search = Searcher()
    message = await ask(engine, search)
    content = [block.model_dump(exclude_none=True) for block in message.content]
    history = [*ASKED["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "Sure?"}]
    await ask(engine, search, messages=history)
    (result,) = engine.requests[1].messages[-1]["content"]
    assert result["content"] == (
        "One\nhttps://a.example/1\n2026-11-29\nFirst text.\n\nhttps://b.example/2\nhttps://b.example/2\nTwo"
    )
    assert engine.requests[2].messages[:3] == engine.requests[1].messages


@pytest.mark.clause("3.54")
@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        ({}, None, "invalid_tool_input"),
        ("]", None, "invalid_tool_input"),
        ({"query": "x" * 1_001}, None, "query_too_long"),
        ({"query": "x"}, SearchRefused("too_many_requests"), "too_many_requests"),
        ({"query": "x"}, OSError("secret"), "unavailable"),
    ],
)
async def test_a_search_that_fails_is_a_result(arguments: object, error: Exception | None, code: str) -> None:
    engine = ScriptedAnswers(calling(call("web_search", arguments)), saying("Sorry."))
    message = await ask(engine, Searcher(error))
    result = message.content[1]
    assert result.type == "web_search_tool_result"
    assert not isinstance(result.content, list)
    assert result.content.error_code == code
    assert message.usage.server_tool_use is None
    (read,) = engine.requests[1].messages[-1]["content"]
    assert (read["content"], read["is_error"]) == (f"error: {code}", True)


@pytest.mark.clause("3.54")
async def test_more_searches_than_max_uses_fail() -> None:
    other = call("web_search", {"query": "Paris"}, "call_2")
    engine = ScriptedAnswers(calling(ROME, other), saying("Done."))
    search = Searcher()
    message = await ask(engine, search, tools=[{**TOOL, "max_uses": 1}])
    refused = message.content[3]
    assert refused.type == "web_search_tool_result"
    assert not isinstance(refused.content, list)
    assert refused.content.error_code == "max_uses_exceeded"
    assert len(search.queries) == 1


@pytest.mark.clause("3.54")
async def test_domains_and_location_are_honoured() -> None:
    engine = ScriptedAnswers(calling(ROME), saying("Done."))
    search = Searcher()
    where = {"type": "approximate", "city": "Rome", "country": "IT"}
    tool = {**TOOL, "type": "web_search_20260318", "allowed_domains": ["a.example"], "user_location": where}
    message = await ask(engine, search, tools=[tool])
    assert search.queries == [WebQuery("Rome", ("a.example",), (), {"city": "Rome", "country": "IT"})]
    result = message.content[1]
    assert result.type == "web_search_tool_result"
    assert isinstance(result.content, list)
    assert [page.url for page in result.content] == ["https://a.example/1"]


@pytest.mark.clause("3.14", "3.16")
async def test_without_a_search_engine_the_tool_is_refused() -> None:
    response = await Driver(MessagesApp(ScriptedAnswers())).request("POST", "/v1/messages", body=orjson.dumps(ASKED))
    assert response.status == 400
    assert response.json()["error"]["message"].startswith("tools.0.type: 'web_search_20250305' is a server tool")


# domains


@pytest.mark.parametrize(
    ("allowed", "blocked", "urls"),
    [
        ((), (), ["https://a.example/x/1", "http://www.a.example/y", "https://nota.example/"]),
        (("a.example",), (), ["https://a.example/x/1", "http://www.a.example/y"]),
        (("https://A.example/x/",), (), ["https://a.example/x/1"]),
        ((), ("a.example",), ["https://nota.example/"]),
        ((), ("a.example/y",), ["https://a.example/x/1", "https://nota.example/"]),
    ],
)
def test_only_permitted_pages_are_returned(allowed: Any, blocked: Any, urls: list[str]) -> None:
    found = ["https://a.example/x/1", "http://www.a.example/y", "https://nota.example/", "ftp://a.example/", "http://["]
    hits = permitted_hits(WebQuery("q", allowed, blocked), [WebHit(url, "t") for url in found])
    assert [hit.url for hit in hits if hit.url != "http://["] == urls


def test_no_more_hits_are_returned_than_the_bound() -> None:
    assert len(permitted_hits(WebQuery("q"), [WebHit("https://a.example/", "t")] * 50)) == MAX_HITS


def test_content_of_another_server_is_not_read_as_text() -> None:
    for encrypted in (None, 1, "!", "aGVsbG8="):
        entry = {"type": "web_search_result", "title": "t", "url": "u", "encrypted_content": encrypted}
        assert run_to_end(web_search_text([entry, 5])) == ("t\nu", False)
    assert run_to_end(web_search_text([])) == ("Nothing was found.", False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allowed_domains": ["a"], "blocked_domains": ["b"]}, "blocked_domains: cannot be combined"),
        ({"allowed_domains": [1]}, "allowed_domains.0: must be a non-empty string"),
        ({"max_uses": 0}, "max_uses: must be 1 or more"),
        ({"user_location": {"type": "exact"}}, "user_location.type: must be one of approximate"),
        ({"user_location": {"type": "approximate", "city": 1}}, "user_location.city: must be a string"),
        ({"name": "search"}, "name: must be 'web_search'"),
    ],
)
def test_an_invalid_tool_is_refused(changes: Json, message: str) -> None:
    body = orjson.dumps({**ASKED, "tools": [{**TOOL, **changes}]})
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body, rules=Rules(web_search=True))
    assert caught.value.message.startswith(f"tools.0.{message}")


def test_null_options_of_the_tool_are_absent() -> None:
    tool = {**TOOL, "max_uses": None, "allowed_domains": None, "blocked_domains": None, "user_location": None}
    request = parse_request(orjson.dumps({**ASKED, "tools": [tool]}), rules=Rules(web_search=True))
    assert request.server_tools == {"web_search": WebSearch()}


# SearXNG

PAGES = {
    "results": [
        {"url": "https://a.example/1", "title": "One", "content": "First.", "publishedDate": "2026-11-29T00:00:00"},
        {"url": "https://b.example/2", "title": None, "content": None, "publishedDate": None},
        {"title": "without an address"},
        5,
    ]
}


@pytest.mark.clause("3.54")
async def test_a_searxng_server_is_asked_for_json_and_nothing_else_is_fetched() -> None:
    query = WebQuery("see http://evil.example/ & co", ("a.example", "b.example"), (), {"country": "IT"})
    async with ScriptedUpstream(json_answer(200, PAGES)) as upstream:
        hits = await SearxngSearch(f"{upstream.url}/my/search")(query)
        (request,) = upstream.requests
        assert upstream.accepted == 1
    parts = urlsplit(request.target)
    assert (request.method, parts.path) == ("GET", "/my/search")
    assert parse_qs(parts.query) == {
        "q": ["see http://evil.example/ & co (site:a.example OR site:b.example)"],
        "format": ["json"],
        "country": ["IT"],
    }
    assert hits == [
        WebHit("https://a.example/1", "One", "First.", "2026-11-29T00:00:00"),
        WebHit("https://b.example/2", "", "", None),
    ]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (json_answer(429, {}), "too_many_requests"),
        (json_answer(403, {}), "unavailable"),
        (json_answer(302, {}, [("location", "http://evil.example/")]), "unavailable"),
        (json_answer(200, []), "unavailable"),
    ],
)
async def test_another_answer_of_the_server_is_a_failure(answer: bytes, code: str) -> None:
    async with ScriptedUpstream(answer) as upstream:
        with pytest.raises(SearchRefused) as caught:
            await SearxngSearch(upstream.url)(WebQuery("x"))
        assert urlsplit(upstream.requests[0].target).path == "/search"
    assert caught.value.error_code == code


async def search(query: WebQuery) -> list[WebHit]:
    """For `--web-search`."""
    return HITS


async def test_the_option_names_a_server_or_a_function() -> None:
    for name in (f"{__name__}:search", "http://127.0.0.1:8888/search"):
        app = build_app(ScriptedAnswers(), (), load_settings({"web-search": [name]}, {}))
        assert app._web_search is not None
    assert build_app(ScriptedAnswers(), (), load_settings({}, {}))._web_search is None


@pytest.mark.parametrize("name", ["nothing", "no.such:module", f"{__name__}:HITS", "http://a b/", "http://a/?q=1"])
def test_an_option_that_names_neither_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="--web-search: "):
        build_app(ScriptedAnswers(), (), load_settings({"web-search": [name]}, {}))
