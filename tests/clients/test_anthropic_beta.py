"""Anthropic's SDK for Python, with what the service does beside the engine: types, counts and the tool runner."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anthro_asgi.wire.compaction_prompt import SUMMARY_PROMPT
from tests.clients.client import Client
from tests.clients.engine import Json, call, delta, finish, last_role, text, usage
from tests.clients.scenario import PARIS, Served, said, served
from tests.clients.searxng import SearchEngine
from tests.clients.window import MODELS, OTHERS, length, within_window
from tests.support.llama.server import ALIAS, LlamaServer
from tests.support.pdf import document, pdf
from tests.support.service import Service
from tests.support.upstream import sse

DRIVER = "anthropic_python"

OURS = ["BetaModelInfo.created", "BetaModelInfo.object", "BetaModelInfo.owned_by"]
"""Fields that the types of the SDK do not have: for clients that expect OpenAI's list of models (contract 9.1)."""


def tool(name: str, **fields: object) -> Json:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"name": name, "description": f"Tell the {name}. " * 20, "input_schema": schema, **fields}


SEARCH = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
DEFERRED = [tool(f"{name}_{number}", defer_loading=True) for name in ("tide", "wind", "snow") for number in range(20)]
WEB = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}


def use(number: int) -> list[Json]:
    """A call and its result, which is about 100 tokens long, or 300 where a token is a letter."""
    called = {"type": "tool_use", "id": f"toolu_{number}", "name": "tide", "input": {"city": "Brest"}}
    result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": "high " * 40}
    return [{"role": "assistant", "content": [called]}, {"role": "user", "content": [result]}]


HISTORY: list[Json] = [
    {"role": "user", "content": "When is the tide?"},
    *(message for number in range(5) for message in use(number)),
]


def edited(*edits: Json) -> Json:
    return {"messages": HISTORY, "tools": [tool("tide")], "context_management": {"edits": list(edits)}}


def tokens(value: int) -> Json:
    return {"type": "input_tokens", "value": value}


# Case: the parameters of the request, the stop reason, and the types of the answer's blocks.
CASES: dict[str, tuple[Json, str, list[str]]] = {
    "text": ({}, "end_turn", ["text"]),
    "thinking": (
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
        "end_turn",
        ["thinking", "text"],
    ),
    "stop sequence": ({"stop_sequences": ["there"]}, "stop_sequence", ["text"]),
    "a call": ({"tools": [tool("weather")]}, "tool_use", ["tool_use"]),
    "tool search": (
        {"tools": [SEARCH, *DEFERRED]},
        "tool_use",
        ["server_tool_use", "tool_search_tool_result", "tool_use"],
    ),
    "web search": ({"tools": [WEB]}, "end_turn", ["server_tool_use", "web_search_tool_result", "text"]),
    "a document": (
        {"messages": [{"role": "user", "content": [document(pdf("Llamas hum."))]}]},
        "end_turn",
        ["text"],
    ),
    "warming": ({"max_tokens": 0}, "max_tokens", []),
    "diagnostics": ({"diagnostics": {"previous_message_id": "msg_of_another_day"}}, "end_turn", ["text"]),
    "cleared results": (
        edited({"type": "clear_tool_uses_20250919", "trigger": tokens(300), "keep": {"type": "tool_uses", "value": 1}}),
        "end_turn",
        ["text"],
    ),
    "cleared thinking": (edited({"type": "clear_thinking_20251015", "keep": "all"}), "end_turn", ["text"]),
    "a summary first": (
        edited({"type": "compact_20260112", "trigger": tokens(300)}),
        "end_turn",
        ["compaction", "text"],
    ),
    "a summary": (
        {"messages": HISTORY, "tools": [tool("tide")], "compaction": {"type": "summarize"}},
        "compaction",
        ["compaction"],
    ),
}


class Script:
    """What the engine plays: its answers in turn if it has any, else a call of what is offered, else some words."""

    def __init__(self) -> None:
        self.answers: tuple[bytes, ...] = ()

    def __call__(self, body: Json, number: int) -> bytes:
        return self.answers[number] if self.answers else what_is_offered(body)


SCRIPT = Script()


def what_is_offered(body: Json) -> bytes:
    prompt = length(body)
    if said(body).startswith(SUMMARY_PROMPT[:60]):
        return text("<summary>The tide is high.</summary>", prompt=prompt)
    names = [tool["function"]["name"] for tool in body.get("tools", [])]
    if last_role(body) == "user" and "web_search" in names:
        return call("web_search", json.dumps({"query": "llamas"}), prompt=prompt)
    if last_role(body) == "user" and SEARCH["name"] in names:
        return call(SEARCH["name"], json.dumps({"query": "snow 7"}), prompt=prompt)
    wanted = next((name for name in names if name in ("weather", "snow_7")), None)
    if wanted is not None:
        return call(wanted, json.dumps({"city": "Paris"}), "call_2", prompt=prompt)
    thinking = [delta(reasoning_content="I greet.")] if body.get("max_tokens") == 2000 else []
    return sse(delta(role="assistant"), *thinking, delta(content="Hello there"), finish("stop"), usage(prompt))


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with (
        SearchEngine() as search,
        served(within_window(SCRIPT), "--web-search", search.url, models=MODELS, others=OTHERS) as s,
    ):
        yield s


@contextmanager
def engine_says(service: Served, *answers: bytes) -> Iterator[list[Json]]:
    """Let the engine give these answers. Yields the requests that it gets."""
    service.engine.chats.clear()
    SCRIPT.answers = answers
    try:
        yield service.engine.chats
    finally:
        SCRIPT.answers = ()


@pytest.mark.parametrize("case", CASES)
def test_an_answer_and_its_count_have_the_fields_of_the_sdks_types_and_no_others(
    client: Client, service: Served, case: str
) -> None:
    params, stop, blocks = CASES[case]
    whole, streamed = (client.run(service.url, kind="strict", stream=stream, params=params) for stream in (False, True))
    assert (whole.error, streamed.error) == (None, None)
    assert whole.fields["unknown"] == streamed.fields["unknown"] == OURS
    (message,) = whole.fields["objects"]
    events = streamed.fields["objects"]
    started = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    (ended,) = (event for event in events if event["type"] == "message_delta")
    assert [block["type"] for block in message["content"]] == started == blocks
    assert message["stop_reason"] == ended["delta"]["stop_reason"] == stop
    assert message["usage"] == ended["usage"]
    assert message.get("context_management") == ended.get("context_management")
    # With a stop sequence the engine is left before it tells its count; a count never compacts.
    if case not in ("stop sequence", "a summary first", "a summary"):
        first = message["usage"].get("iterations", [message["usage"]])[0]
        assert first["input_tokens"] == whole.fields["tokens"] == streamed.fields["tokens"]


def prompt_tokens(usage: Json) -> int:
    return sum(usage.get(name) or 0 for name in ("input_tokens", "cache_read_input_tokens"))


REAL: dict[str, tuple[Json, list[str]]] = {
    "tool search": ({"tools": [SEARCH, *DEFERRED]}, ["text"]),
    "cleared results": (
        edited({"type": "clear_tool_uses_20250919", "trigger": tokens(300), "keep": {"type": "tool_uses", "value": 1}}),
        ["text"],
    ),
    "a summary first": (edited({"type": "compact_20260112", "trigger": tokens(300)}), ["compaction", "text"]),
    "a summary": (
        {"messages": HISTORY, "tools": [tool("tide")], "compaction": {"type": "summarize"}},
        ["compaction"],
    ),
}


def test_the_real_llama_cpp_gives_the_same_shapes_and_counts(client: Client, llama: LlamaServer) -> None:
    with Service("--upstream", f"{llama.url}/v1") as service:
        for case, (params, blocks) in REAL.items():
            params = {"model": ALIAS, **params}
            whole, streamed = (
                client.run(service.url, kind="strict", stream=stream, params=params) for stream in (False, True)
            )
            assert (whole.error, streamed.error) == (None, None), case
            assert whole.fields["unknown"] == streamed.fields["unknown"] == OURS, case
            (message,) = whole.fields["objects"]
            events = streamed.fields["objects"]
            started = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
            assert [block["type"] for block in message["content"]] == started == blocks, case
            (ended,) = (event for event in events if event["type"] == "message_delta")
            if "compaction" in blocks:  # a count never compacts
                for first in (message["usage"]["iterations"][0], ended["usage"]["iterations"][0]):
                    assert first["type"] == "compaction", case
                    assert prompt_tokens(first) > whole.fields["tokens"], case
            else:
                assert prompt_tokens(message["usage"]) == prompt_tokens(ended["usage"]) == whole.fields["tokens"], case


# --- the tool runner ---


def test_the_runner_compacts_and_keeps_the_tools_that_it_has_added(
    client: Client, service: Served, stream: bool
) -> None:
    answers = (
        call("weather", json.dumps(PARIS)),
        text("<summary>It is sunny. Ask the clock.</summary>"),
        call("clock", "{}", "call_2"),
        text("Done"),
    )
    with engine_says(service, *answers) as chats:
        outcome = client.run(service.url, kind="compacting", stream=stream)
        assert (outcome.error, outcome.text) == (None, "Done")
        assert [call["name"] for call in outcome.calls] == ["weather", "clock"]
        assert outcome.fields["stops"] == ["tool_use", "compaction", "tool_use", "end_turn"]
        offered = [sorted(tool["function"]["name"] for tool in chat["tools"]) for chat in chats]
        assert offered == [["weather"], ["clock", "weather"], ["clock", "weather"], ["clock"]]
        assert "It is sunny" in said(chats[2])
        assert len(chats[2]["messages"]) == 1
        assert last_role(chats[3]) == "tool"


@pytest.mark.parametrize("pause", [False, True], ids=["goes on", "pauses"])
def test_the_runner_goes_on_from_a_summary_that_an_edit_asks_for(
    client: Client, service: Served, stream: bool, pause: bool
) -> None:
    edit = {"type": "compact_20260112", "trigger": tokens(300), "pause_after_compaction": pause}
    params = {"context_management": {"edits": [edit]}, "betas": ["compact-2026-01-12"]}
    answers = (text("<summary>It was high.</summary>"), call("weather", json.dumps(PARIS)), text("Done"))
    with engine_says(service, *answers) as chats:
        outcome = client.run(service.url, stream=stream, history=HISTORY, params=params)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, "Done", [PARIS])
        assert outcome.fields["stops"] == [*(["compaction"] if pause else []), "tool_use", "end_turn"]
        last = chats[-1]["messages"]
        assert [message["role"] for message in last] == ["user", "assistant", "tool"]
        assert "It was high." in str(last[0]["content"])


def test_the_runner_calls_a_deferred_tool_that_the_model_has_found(
    client: Client, service: Served, stream: bool
) -> None:
    answers = (
        call(SEARCH["name"], json.dumps({"query": "city"})),
        call("weather", json.dumps(PARIS), "call_2"),
        text("Done"),
    )
    with engine_says(service, *answers) as chats:
        outcome = client.run(service.url, stream=stream, search=SEARCH, tools=["weather", "clock"])
        assert (outcome.error, outcome.text, outcome.inputs) == (None, "Done", [PARIS])
        offered = [{tool["function"]["name"] for tool in chat["tools"]} for chat in chats]
        assert offered == [{SEARCH["name"]}, {SEARCH["name"], "weather"}, {SEARCH["name"], "weather"}]
