"""Settings, tool changes and marks in the history, as the engine receives them; and which tools are offered to it."""

from typing import Any

import orjson
import pytest

from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.engines.openai.dialects import VLLM
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import MessagesRequest, parse_request, parse_request_in_steps

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
GO: Json = {"role": "user", "content": "Go on"}
YES: Json = {"role": "assistant", "content": "Yes"}
LOOK: Json = {"name": "look", "description": "Looks around."}
HIDDEN: Json = {"name": "hidden", "description": "Rarely used.", "defer_loading": True}
OTHER: Json = {"name": "other", "defer_loading": True}
# As Claude Code 2.1.332 sends them.
SEARCH: Json = {
    "name": "ToolSearch",
    "description": "Fetches full schema definitions for deferred tools so they can be called.",
}
PLACEHOLDER: Json = {
    "name": "DeferredToolPlaceholder",
    "description": "Reserved placeholder that keeps deferred tool loading active; never call this tool.",
    "defer_loading": True,
}


def parse(*messages: Json, **fields: Any) -> MessagesRequest:
    """The request, parsed at once; parsing in steps and for a count gives the same."""
    body = orjson.dumps({"model": "m", "max_tokens": 10, "messages": list(messages), **fields})
    request = parse_request(body)
    in_steps = run_to_end(parse_request_in_steps([body]))
    counted = parse_request(body, counting=True)
    assert in_steps == request
    assert (counted.messages, counted.tools) == (request.messages, request.tools)
    return request


def refusal(*messages: Json, **fields: Any) -> str:
    body = orjson.dumps({"model": "m", "max_tokens": 10, "messages": list(messages), **fields})
    with pytest.raises(InvalidRequest) as at_once:
        parse_request(body)
    with pytest.raises(InvalidRequest) as in_steps:
        run_to_end(parse_request_in_steps([body]))
    assert in_steps.value.message == at_once.value.message
    return at_once.value.message


def offered(*messages: Json, **fields: Any) -> list[str]:
    return [tool.name for tool in parse(*messages, **fields).tools]


def system(*blocks: Json, **settings: Any) -> Json:
    return {"role": "system", "content": list(blocks), **settings}


def added(name: str) -> Json:
    return {"type": "tool_addition", "tool": {"type": "tool_reference", "name": name}}


def defined(definition: Json) -> Json:
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}


def removed(name: str) -> Json:
    return {"type": "tool_removal", "tool": {"type": "tool_reference", "name": name}}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def answered(*content: Json) -> list[Json]:
    """A call, and its result that holds `content`."""
    return [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": list(content)}]},
    ]


# deferred tools


@pytest.mark.clause("3.13")
@pytest.mark.parametrize(
    "search",
    [
        SEARCH,
        {"name": "tool_search"},
        {"name": "find", "description": "Answers with a tool_reference for each match."},
        {"name": "find", "description": "Loads a deferred tool."},
    ],
    ids=lambda tool: tool["name"],
)
def test_a_deferred_tool_is_not_offered_while_a_search_tool_can_load_it(search: Json) -> None:
    assert offered(HI, tools=[LOOK, search, HIDDEN]) == ["look", search["name"]]


@pytest.mark.clause("3.13")
def test_a_deferred_tool_is_offered_once_a_reference_in_a_result_names_it() -> None:
    loaded = answered({"type": "tool_reference", "tool_name": "hidden"}, {"type": "tool_reference", "tool_name": "no"})
    assert offered(HI, *loaded, tools=[LOOK, SEARCH, OTHER, HIDDEN]) == ["look", "ToolSearch", "hidden"]
    assert offered(HI, *loaded, tools=[LOOK, OTHER, HIDDEN]) == ["look", "hidden"]


def test_a_deferred_tool_is_offered_once_a_search_of_anthropics_server_has_found_it() -> None:
    found = {
        "type": "tool_search_tool_search_result",
        "tool_references": [{"type": "tool_reference", "tool_name": "hidden"}],
    }
    turn = {"role": "assistant", "content": [{"type": "tool_search_tool_result", "tool_use_id": "s", "content": found}]}
    assert offered(HI, turn, GO, tools=[LOOK, OTHER, HIDDEN]) == ["look", "hidden"]


@pytest.mark.clause("3.13")
def test_a_deferred_tool_is_offered_once_an_addition_names_it() -> None:
    assert offered(HI, system(added("hidden")), tools=[LOOK, OTHER, HIDDEN]) == ["look", "hidden"]


@pytest.mark.clause("3.13")
def test_all_tools_are_offered_when_nothing_can_load_a_deferred_one() -> None:
    assert offered(HI, tools=[LOOK, HIDDEN, OTHER]) == ["look", "hidden", "other"]


def test_a_search_tool_that_is_deferred_itself_loads_nothing() -> None:
    assert offered(HI, tools=[LOOK, {**SEARCH, "defer_loading": True}, HIDDEN]) == ["look", "ToolSearch", "hidden"]


@pytest.mark.clause("3.13")
@pytest.mark.parametrize("others", [[LOOK], [LOOK, SEARCH]], ids=len)
def test_a_placeholder_is_never_offered(others: list[Json]) -> None:
    assert offered(HI, tools=[*others, PLACEHOLDER]) == [tool["name"] for tool in others]
    assert "DeferredToolPlaceholder" not in offered(
        HI, system(added(PLACEHOLDER["name"])), tools=[*others, PLACEHOLDER]
    )


def test_a_tool_that_only_speaks_like_a_placeholder_is_offered() -> None:
    careful = {"name": "rm", "description": "A placeholder. Never call this tool twice."}
    asking = {"name": "pay", "description": "Never call this tool without asking.", "defer_loading": True}
    assert offered(HI, tools=[careful, asking]) == ["rm", "pay"]


@pytest.mark.clause("3.13")
def test_the_beginning_of_a_description_counts() -> None:
    far = " " * 16_384
    late = {**PLACEHOLDER, "name": "late", "description": far + PLACEHOLDER["description"]}
    search = {"name": "find", "description": far + SEARCH["description"]}
    assert offered(HI, tools=[LOOK, late, HIDDEN]) == ["look", "late", "hidden"]
    assert offered(HI, tools=[LOOK, search, HIDDEN]) == ["look", "find", "hidden"]
    assert offered(HI, tools=[LOOK, {**search, "description": search["description"][8_192:]}, HIDDEN]) == [
        "look",
        "find",
    ]


def test_a_tool_that_tool_choice_names_is_offered_although_it_is_deferred() -> None:
    request = parse(HI, tools=[LOOK, SEARCH, HIDDEN], tool_choice={"type": "tool", "name": "hidden"})
    assert [tool.name for tool in request.tools] == ["look", "ToolSearch", "hidden"]


@pytest.mark.clause("3.13")
def test_a_deferred_tool_costs_no_tokens_until_it_is_loaded() -> None:
    without = estimate_tokens(parse(HI, tools=[LOOK, SEARCH]))
    assert estimate_tokens(parse(HI, tools=[LOOK, SEARCH, HIDDEN])) == without
    assert estimate_tokens(parse(HI, tools=[LOOK, HIDDEN])) > estimate_tokens(parse(HI, tools=[LOOK]))


@pytest.mark.clause("3.13", "3.33")
def test_a_relayed_upstream_receives_tools_and_messages_as_the_client_wrote_them() -> None:
    tools, messages = [LOOK, SEARCH, HIDDEN, PLACEHOLDER], [HI, system(added("hidden"), text("Now look."))]
    raw = parse(*messages, tools=tools).raw
    assert (raw["tools"], raw["messages"]) == (tools, messages)


def test_defer_loading_is_a_boolean() -> None:
    assert refusal(HI, tools=[{"name": "a", "defer_loading": 1}]) == "tools.0.defer_loading: must be a boolean"


# tools that change in mid-conversation


@pytest.mark.clause("3.33")
def test_tools_are_added_and_removed_in_the_order_of_the_messages() -> None:
    tools = [LOOK, {"name": "see"}]
    see, hear = defined({"name": "see"}), defined({"name": "hear", "input_schema": {"type": "object"}})
    assert offered(HI, system(hear), tools=tools) == ["look", "see", "hear"]
    assert offered(HI, system(removed("look")), tools=tools) == ["see"]
    assert offered(HI, system(removed("look")), YES, GO, system(added("look")), tools=tools) == ["look", "see"]
    assert offered(HI, system(added("look")), YES, GO, system(removed("look")), tools=tools) == ["see"]
    assert offered(HI, system(hear), YES, GO, system(removed("hear"), removed("see")), tools=tools) == ["look"]
    assert offered(HI, system(see, hear)) == ["see", "hear"]


@pytest.mark.clause("3.33")
def test_a_definition_replaces_the_tool_of_the_same_name() -> None:
    (tool,) = parse(HI, system(defined({"name": "look", "description": "Looks better."})), tools=[LOOK]).tools
    assert tool.description == "Looks better."


@pytest.mark.clause("3.33")
def test_the_engine_receives_one_list_of_tools_and_the_text_of_the_message() -> None:
    request = parse(HI, system(text("Now"), defined({"name": "hear"}), removed("look"), text("listen.")), tools=[LOOK])
    body = to_chat(request, VLLM)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["hear"]
    assert "Now\nlisten." in orjson.loads(orjson.dumps(body["messages"]))[-1]["content"]
    assert parse(HI, system(removed("look")), tools=[LOOK]).messages == [HI]


@pytest.mark.clause("3.33")
def test_a_reference_to_an_unknown_tool_is_refused() -> None:
    path = "messages.1.content.1"
    assert refusal(HI, system(text("a"), added("no")), tools=[LOOK]) == (
        f"{path}.tool_addition.tool.name: no tool is named 'no'"
    )
    assert refusal(HI, system(text("a"), removed("no"))) == f"{path}.tool_removal.tool.name: no tool is named 'no'"
    toolset = {"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "server_name": "s"}}
    assert refusal(HI, system(text("a"), toolset)).startswith(
        f"{path}.tool_addition.tool.type: 'mcp_toolset_reference'"
    )
    assert refusal(HI, system(text("a"), defined({"name": "a b"}))) == (
        f"{path}.tool_addition.tool.definition.name: must be 1 to 128 letters, digits, _ or -"
    )


def test_a_tool_that_is_only_added_later_can_be_chosen() -> None:
    choice = {"type": "tool", "name": "hear"}
    assert offered(HI, system(defined({"name": "hear"})), tool_choice=choice) == ["hear"]
    assert refusal(HI, system(removed("look")), tools=[LOOK], tool_choice={"type": "tool", "name": "look"}) == (
        "tool_choice.name: no tool is named 'look'"
    )


# settings in system messages


@pytest.mark.clause("3.34")
def test_a_system_message_may_hold_only_settings() -> None:
    request = parse(HI, {"role": "system", "output_config": {"effort": "low"}}, output_config={"effort": "high"})
    assert (request.messages, request.effort) == ([HI], "low")
    assert refusal(HI, {"role": "system"}) == "messages.1.content: required"
    assert refusal(HI, {"role": "system", "output_config": {}}) == "messages.1.content: required"
    assert refusal(HI, {"role": "system", "output_config": {"effort": 1}}) == (
        "messages.1.output_config.effort: must be a string"
    )


@pytest.mark.clause("3.34")
def test_the_effort_of_a_system_message_holds_for_its_turn() -> None:
    low = {"role": "system", "output_config": {"effort": "low"}}
    assert parse(HI, low, *answered(text("a"))).effort == "low"
    assert parse(HI, low, YES, GO).effort is None


@pytest.mark.clause("3.34")
def test_a_text_until_the_next_user_message_is_gone_after_it() -> None:
    hint = system(text("Be quick."), clear_at="next_user_message")
    plain: Json = {"role": "system", "content": "Be quick.", "clear_at": "next_user_message"}
    assert parse(HI, hint).messages == [HI, system(text("Be quick."))]
    assert parse(HI, hint, YES, GO).messages == [HI, YES, GO]
    assert parse(HI, plain, YES, GO).messages == [HI, YES, GO]
    assert parse(HI, {**plain, "clear_at": "never"}, YES, GO).messages[1] == {"role": "system", "content": "Be quick."}
    tools = parse(HI, system(defined(LOOK), clear_at="next_user_message"), YES, GO).tools
    assert [tool.name for tool in tools] == ["look"]
    assert refusal(HI, {**plain, "clear_at": "soon"}) == "messages.1.clear_at: must be one of never, next_user_message"


# history of today's API


@pytest.mark.clause("3.32")
def test_a_compaction_replaces_everything_before_it() -> None:
    compacted = {
        "role": "assistant",
        "content": [text("old"), {"type": "compaction", "content": "So far."}, text("new")],
    }
    assert parse(HI, YES, GO, compacted, GO).messages == [
        {"role": "user", "content": "<summary>\nSo far.\n</summary>"},
        {"role": "assistant", "content": [text("new")]},
        GO,
    ]


@pytest.mark.clause("3.32")
def test_a_compaction_that_failed_has_no_effect() -> None:
    failed = {"role": "assistant", "content": [{"type": "compaction", "content": None}]}
    assert parse(HI, failed, GO).messages == [HI, GO]


@pytest.mark.clause("3.32")
def test_a_compaction_restores_the_tools_of_what_it_replaces() -> None:
    block = {"type": "compaction", "content": "So far.", "tool_changes": [defined({"name": "hear"}), removed("look")]}
    assert offered({"role": "assistant", "content": [block]}, GO, tools=[LOOK]) == ["hear"]
    unknown = {**block, "tool_changes": [removed("no")]}
    assert refusal({"role": "assistant", "content": [unknown]}, GO) == (
        "messages.0.content.0.compaction.tool_changes.0.tool_removal.tool.name: no tool is named 'no'"
    )


@pytest.mark.clause("3.32")
def test_marks_for_anthropics_api_are_left_out() -> None:
    marks = [
        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
        {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []},
    ]
    assert parse(HI, {"role": "assistant", "content": [*marks, text("a")]}, GO).messages == [
        HI,
        {"role": "assistant", "content": [text("a")]},
        GO,
    ]
    assert parse(HI, {"role": "assistant", "content": marks}, GO).messages == [HI, GO]


@pytest.mark.clause("3.32")
@pytest.mark.parametrize("key", ["connector_text", "text"])
def test_connector_text_becomes_text(key: str) -> None:
    turn = {"role": "assistant", "content": [{"type": "connector_text", key: "Found it.", "signature": "s"}]}
    assert parse(HI, turn, GO).messages[1] == {"role": "assistant", "content": [text("Found it.")]}


@pytest.mark.clause("3.32")
def test_the_result_of_an_advisor_becomes_text() -> None:
    advice = {"type": "advisor_tool_result", "tool_use_id": "a", "content": {"type": "advisor_result", "text": "Wait."}}
    request = parse(HI, {"role": "assistant", "content": [advice]}, GO)
    assert "Wait." in to_chat(request, VLLM)["messages"][1]["content"]


@pytest.mark.clause("3.32")
def test_the_state_of_a_browser_becomes_text() -> None:
    state = {
        "type": "browser_state",
        "tabs": [
            {"tab_id": "1", "title": "News", "url": "https://news.example/", "active": True},
            {"tab_id": "2", "title": "", "url": ""},
        ],
        "state_changes": [
            {"type": "tab_opened", "tab_id": "2"},
            {"type": "download_failed", "download_id": "d", "url": "https://x.example/a", "error": "gone"},
        ],
    }
    request = parse(HI, *answered(text("Done."), state))
    assert request.messages[-1]["content"][0]["content"] == [
        text("Done."),
        text(
            "Open browser tabs:\n1 (active): News https://news.example/\n2:\n"
            "tab_opened: 2\ndownload_failed: d https://x.example/a gone"
        ),
    ]
    assert "News" in to_chat(request, VLLM)["messages"][-1]["content"]


def test_a_request_whose_messages_hold_nothing_for_the_engine_is_refused() -> None:
    only = {"role": "system", "output_config": {"effort": "low"}}
    assert refusal(only) == "messages: must hold at least one message with content"
