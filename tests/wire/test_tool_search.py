"""Which tools a search finds (contract 3.48)."""

from typing import Any

import orjson
import pytest

from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.engines.openai.dialects import VLLM
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import MessagesRequest, Tool, parse_request
from anthro_asgi.wire.request_policy import Rules
from anthro_asgi.wire.tool_search import MAX_FOUND, SearchFailed, SearchKind, search_tools

Json = dict[str, Any]


def schema(**descriptions: str) -> Json:
    properties = {name: {"type": "string", "description": text} for name, text in descriptions.items()}
    return {"type": "object", "properties": properties}


TOOLS = [
    Tool("github_create_issue", "Opens an issue in a repository.", schema(title="The title.", body="The text.")),
    Tool("github_list_issues", "Lists the issues of a repository.", schema(state="open or closed")),
    Tool("slackSendMessage", "Posts to a channel.", schema(channel="Name of the channel.", text="What to post.")),
    Tool("weather", "Tells the forecast.", schema(city="The city.", unit="Celsius or Fahrenheit")),
    Tool("query", None, {"type": "object", "properties": {"rows": {"items": {"properties": {"invoice": {}}}}}}),
    Tool("ping", "Answers.", None),
]


def found(kind: SearchKind, query: str, tools: list[Tool] = TOOLS) -> list[str]:
    return run_to_end(search_tools(kind, {"query": query}, tools))


@pytest.mark.clause("3.48")
@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("create an issue", "github_create_issue"),
        ("list issues", "github_list_issues"),
        ("send a slack message", "slackSendMessage"),
        ("temperature forecast", "weather"),
        ("fahrenheit", "weather"),
        ("invoices", "query"),
    ],
)
def test_words_are_found_in_names_descriptions_and_arguments(query: str, best: str) -> None:
    assert found("bm25", query)[0] == best


@pytest.mark.clause("3.48")
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("github_.*issue", ["github_create_issue", "github_list_issues"]),
        ("(?i)SLACK", ["slackSendMessage"]),
        ("^weather$|^ping$", ["weather", "ping"]),
        ("channel", ["slackSendMessage"]),
        ("forecast|ping", ["ping", "weather"]),
        ("nothing", []),
    ],
)
def test_a_pattern_is_searched_in_names_first(query: str, names: list[str]) -> None:
    assert found("regex", query) == names


def test_no_more_tools_are_returned_than_the_bound() -> None:
    many = [Tool(f"look_{number}", "Looks.", None) for number in range(20)]
    assert len(found("bm25", "look", many)) == len(found("regex", "look", many)) == MAX_FOUND
    assert found("bm25", "look", []) == found("regex", "look", []) == []


@pytest.mark.parametrize("arguments", [{}, {"query": 1}, {"query": " "}])
@pytest.mark.parametrize("kind", ["bm25", "regex"])
def test_a_search_without_a_query_fails(kind: SearchKind, arguments: Json) -> None:
    with pytest.raises(SearchFailed) as caught:
        run_to_end(search_tools(kind, arguments, TOOLS))
    assert caught.value.error_code == "invalid_tool_input"


def test_a_pattern_may_also_be_called_pattern() -> None:
    assert run_to_end(search_tools("regex", {"pattern": "weather"}, TOOLS)) == ["weather"]


# in a request

WORDS = "word " * 230


def large(number: int) -> Json:
    """A tool of about 300 tokens."""
    return {
        "name": f"tool_{number}",
        "description": WORDS,
        "input_schema": schema(a="An argument."),
        "defer_loading": True,
    }


def parse(tools: list[Json], rules: Rules = Rules(), **fields: Any) -> MessagesRequest:  # noqa: B008 - it is frozen
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "tools": tools, **fields}
    return parse_request(orjson.dumps(body), rules=rules)


SEARCH = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}


@pytest.mark.clause("3.48")
def test_200_deferred_tools_of_300_tokens_cost_under_2_000_tokens_until_one_is_found() -> None:
    deferred = [large(number) for number in range(200)]
    assert estimate_tokens(parse([{**tool, "defer_loading": False} for tool in deferred])) > 60_000
    request = parse([SEARCH, *deferred])
    assert estimate_tokens(request) < 2_000
    assert len(orjson.dumps(to_chat(request, VLLM))) < 2_000 * 4
    assert len(request.deferred_tools) == 200


@pytest.mark.parametrize("kind", ["tool_search_tool_regex", "tool_search_tool_regex_20251119"])
def test_a_search_tool_is_known_with_and_without_its_date(kind: str) -> None:
    request = parse([{"type": kind, "name": "tool_search_tool_regex"}, large(1)])
    assert list(request.server_tools) == ["tool_search_tool_regex"]
    assert request.ignored == []


def test_a_removed_tool_cannot_be_found() -> None:
    removal = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "tool_1"}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "system", "content": [removal]}]
    request = parse([SEARCH, large(1), large(2)], messages=messages)
    assert [tool.name for tool in request.deferred_tools] == ["tool_2"]


def test_a_passed_search_tool_is_left_to_the_relayed_upstream() -> None:
    request = parse([SEARCH, large(1)], Rules(pass_server_tools=True))
    assert request.server_tools == {}
    assert [path.partition(":")[0] for path in request.relay_only] == ["tools.0.type"]
