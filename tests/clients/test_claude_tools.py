"""The real Claude Code finds a tool of an MCP server among forty, and searches the web."""

import json
from pathlib import Path

from tests.clients import mcp_server
from tests.clients.claude import session
from tests.clients.engine import Json, call, text, tool_results
from tests.clients.searxng import HITS, SearchEngine


def offered(body: Json) -> list[str]:
    """The names of the tools that the engine sees."""
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def test_one_of_forty_mcp_tools_is_found_and_called(tmp_path: Path) -> None:
    wanted = "mcp__office__find_parcel"

    def play(body: Json, number: int) -> bytes:
        results = tool_results(body)
        if wanted not in offered(body):
            assert number == 0, "found with one search"
            return call("ToolSearch", json.dumps({"query": "find parcel", "max_results": 3}))
        if "was called with" not in str(results):
            return call(wanted, json.dumps({"name": "red box"}), "call_2")
        return text(f"It said: {results[0]}")

    assert len(mcp_server.TOOLS) == 40
    with session(tmp_path, play) as s:
        result = s.claude.ask("Where is my parcel?", *mcp_server.OPTIONS)
        assert not result.is_error, result
        assert result.text == f"It said: {mcp_server.called('find_parcel', {'name': 'red box'})}"
        first, *others = s.engine.chats
        assert [name for name in offered(first) if "office" in name] == []
        for chat in others:
            assert 1 <= len([name for name in offered(chat) if "office" in name]) <= 3
        whole = len(json.dumps(mcp_server.TOOLS))
        assert len(json.dumps(others[-1])) - len(json.dumps(first)) < whole // 5, "the other tools cost nothing"


def test_web_search_gives_what_the_operators_search_engine_finds(tmp_path: Path) -> None:
    query = "weight of a llama"

    def play(body: Json, number: int) -> bytes:
        results = tool_results(body)
        if "web_search" in offered(body):  # Claude Code's own request for the search
            if results:
                return text(f"Found: {results[0]}")
            return call("web_search", json.dumps({"query": query}), "call_3")
        if "Found: " in str(results):
            return text(f"As I read: {results[0]}")
        if "WebSearch" in offered(body):
            return call("WebSearch", json.dumps({"query": query}), "call_2")
        return call("ToolSearch", json.dumps({"query": "select:WebSearch"}))

    with SearchEngine() as search, session(tmp_path, play, "--web-search", search.url) as s:
        result = s.claude.ask("How heavy is a llama?")
        assert not result.is_error, result
        assert [query["q"] for query in search.queries] == [query]
        for hit in HITS:
            assert hit["url"] in result.text
            assert hit["content"] in result.text
        usage = result.fields["modelUsage"]["local"]
        assert usage["webSearchRequests"] == 1
