"""Compaction: a summary takes the place of the conversation (contract 3.51)."""

from typing import Any

import anthropic
import orjson
import pytest
from anthropic.types.beta import BetaMessage

from anthro_asgi import ContextTooLong, Finish, MessagesApp, MessagesRequest, Usage, parse_request
from anthro_asgi.conformance.grammar import check_stream, parse_events
from anthro_asgi.testing.driver import Driver
from anthro_asgi.testing.in_process import InProcessApp
from anthro_asgi.wire.compaction import SUMMARY_TOKENS, Compaction, summary_of
from anthro_asgi.wire.compaction_prompt import SUMMARY_PROMPT
from anthro_asgi.wire.errors import InvalidRequest
from tests.support.scripted_engine import ScriptedAnswers, Step, call, calling, saying

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True])
TURNS: list[Json] = [
    {"role": "user", "content": "Count to three."},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "Go on."},
]
ASKED: Json = {"model": "m", "max_tokens": 50, "messages": TURNS}
SUMMARY: list[Step] = ["Well. <summary>\nAt ", "one.\n</summary>", [Usage(900, 30), Finish("end_turn")]]
STANDS_FOR_IT: Json = {"role": "user", "content": "<summary>\nAt one.\n</summary>"}
STRICT: Any = {"max_retries": 0, "_strict_response_validation": True}


def editing(trigger: int = 1, **options: Any) -> Json:
    edit = {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": trigger}, **options}
    return {**ASKED, "context_management": {"edits": [edit]}}


async def ask(engine: ScriptedAnswers, body: Json, *, stream: bool = False) -> BetaMessage:
    app = MessagesApp(engine)
    async with InProcessApp(app) as running, running.client(anthropic.AsyncAnthropic, **STRICT) as client:
        if not stream:
            whole: BetaMessage = await client.beta.messages.create(**body)
            return whole
        async with client.beta.messages.stream(**body) as events:
            final: BetaMessage = await events.get_final_message()
            return final


def contents(message: BetaMessage) -> list[Json]:
    return [block.model_dump(exclude_none=True) for block in message.content]


# compaction: {"type": "summarize"}


@pytest.mark.clause("3.51")
@BOTH
async def test_a_conversation_is_summarized_and_nothing_else(stream: bool) -> None:
    engine = ScriptedAnswers(SUMMARY)
    message = await ask(engine, {**ASKED, "compaction": {"type": "summarize"}}, stream=stream)
    assert contents(message) == [{"type": "compaction", "content": "At one."}]
    assert message.stop_reason == "compaction"
    (request,) = engine.requests
    assert request.messages == [*TURNS, {"role": "user", "content": SUMMARY_PROMPT}]
    assert request.raw["messages"] == request.messages
    assert "compaction" not in request.raw
    assert request.max_tokens == SUMMARY_TOKENS


@pytest.mark.clause("3.51")
def test_the_sync_client_gets_the_summary_in_one_delta() -> None:
    app = MessagesApp(ScriptedAnswers(SUMMARY))
    with InProcessApp(app) as running, running.client(anthropic.Anthropic, **STRICT) as client:
        events = list(client.beta.messages.create(**ASKED, compaction={"type": "summarize"}, stream=True))
    (start,) = [event.content_block for event in events if event.type == "content_block_start"]
    (delta,) = [event.delta for event in events if event.type == "content_block_delta"]
    assert (start.type, delta.type) == ("compaction", "compaction_delta")
    assert delta.type == "compaction_delta"
    assert delta.content == "At one."


@pytest.mark.clause("3.51")
@BOTH
async def test_the_tokens_of_a_summary_are_listed_and_not_summed(stream: bool) -> None:
    usage = (await ask(ScriptedAnswers(SUMMARY), {**ASKED, "compaction": {"type": "summarize"}}, stream=stream)).usage
    assert usage.iterations is not None
    (entry,) = usage.iterations
    assert (entry.type, entry.input_tokens, entry.output_tokens) == ("compaction", 900, 30)
    assert usage.output_tokens == 0
    assert 0 < usage.input_tokens < 900


async def test_instructions_replace_the_words_of_the_service() -> None:
    engine = ScriptedAnswers(SUMMARY)
    await ask(engine, {**ASKED, "compaction": {"type": "summarize", "instructions": "Be brief."}})
    assert engine.requests[0].messages[-1] == {"role": "user", "content": "Be brief."}


@BOTH
async def test_a_model_that_writes_no_summary_gives_a_block_without_content(stream: bool) -> None:
    engine = ScriptedAnswers([[Usage(9, 9), Finish("end_turn")]])
    message = await ask(engine, {**ASKED, "compaction": {"type": "summarize"}}, stream=stream)
    assert [block.type for block in message.content] == ["compaction"]
    assert contents(message) == [{"type": "compaction"}]
    assert message.stop_reason == "compaction"


@BOTH
async def test_a_failure_of_the_summary_has_its_own_status(stream: bool) -> None:
    engine = ScriptedAnswers([ContextTooLong(9, 8)])
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await ask(engine, {**ASKED, "compaction": {"type": "summarize"}}, stream=stream)


# the edit compact_20260112


@pytest.mark.clause("3.51")
@BOTH
async def test_the_engine_goes_on_from_the_summary_in_the_same_answer(stream: bool) -> None:
    engine = ScriptedAnswers(SUMMARY, saying("Two."))
    message = await ask(engine, editing(), stream=stream)
    assert contents(message) == [{"type": "compaction", "content": "At one."}, {"type": "text", "text": "Two."}]
    assert message.stop_reason == "end_turn"
    assert engine.requests[1].messages == [STANDS_FOR_IT]
    assert engine.requests[1].raw["messages"] == [STANDS_FOR_IT]
    assert engine.requests[1].raw["context_management"] == {"edits": []}
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens) == (200, 20)
    assert usage.iterations is not None
    assert [entry.type for entry in usage.iterations] == ["compaction", "message"]


@pytest.mark.clause("3.51")
@BOTH
async def test_an_answer_may_pause_after_the_summary(stream: bool) -> None:
    engine = ScriptedAnswers(SUMMARY)
    message = await ask(engine, editing(pause_after_compaction=True), stream=stream)
    assert contents(message) == [{"type": "compaction", "content": "At one."}]
    assert message.stop_reason == "compaction"


@pytest.mark.clause("3.51")
async def test_a_block_in_the_history_stands_for_what_was_before_it() -> None:
    engine = ScriptedAnswers(SUMMARY, saying("Two."), saying("Three."))
    first = await ask(engine, editing())
    answer = {"role": "assistant", "content": contents(first)}
    await ask(engine, {**editing(100_000), "messages": [*TURNS, answer, TURNS[2]]})
    two = {"role": "assistant", "content": [{"type": "text", "text": "Two."}]}
    assert engine.requests[2].messages == [STANDS_FOR_IT, two, TURNS[2]]
    assert engine.requests[2].messages[:1] == engine.requests[1].messages, "the prefix cache of the engine holds them"


async def test_a_prompt_below_the_trigger_is_not_compacted() -> None:
    engine = ScriptedAnswers(saying("Two."))
    message = await ask(engine, editing(10_000))
    assert contents(message) == [{"type": "text", "text": "Two."}]
    assert engine.requests[0].messages == TURNS
    assert message.usage.iterations is None


class Counting(ScriptedAnswers):
    """Counts each prompt as `tokens`."""

    tokens = 100

    async def count_tokens(self, request: MessagesRequest) -> int:
        return self.tokens


@pytest.mark.parametrize(("trigger", "compacts"), [(100, True), (101, False)])
async def test_the_engines_own_count_decides(trigger: int, compacts: bool) -> None:
    text = [{"role": "user", "content": "x" * 400}]
    engine = Counting(*([SUMMARY] if compacts else []), saying("Two."))
    message = await ask(engine, {**editing(trigger), "messages": text})
    assert (message.content[0].type == "compaction") is compacts


async def test_instructions_of_the_edit_are_added_to_the_words_of_the_service() -> None:
    engine = ScriptedAnswers(SUMMARY, saying("Two."))
    await ask(engine, editing(instructions="Keep all numbers."))
    assert engine.requests[0].messages[-1]["content"] == f"{SUMMARY_PROMPT}\nKeep all numbers.\n"


@BOTH
async def test_without_a_summary_the_conversation_stays(stream: bool) -> None:
    engine = ScriptedAnswers([*calling(call("look")), Finish("tool_use")], saying("Two."))
    body = {**editing(), "tools": [{"name": "look", "input_schema": {"type": "object"}}]}
    message = await ask(engine, body, stream=stream)
    assert [block.type for block in message.content] == ["compaction", "text"]
    assert engine.requests[1].messages == TURNS


async def test_the_request_for_the_summary_has_no_bounds_of_the_answer() -> None:
    engine = ScriptedAnswers(SUMMARY, saying("Two."))
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    output = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    choice = {"type": "any"}
    await ask(
        engine, {**editing(), "tools": tools, "stop_sequences": ["x"], "output_config": output, "tool_choice": choice}
    )
    asked, answer = engine.requests
    assert (asked.stop_sequences, asked.output_schema, asked.tool_choice) == ((), None, None)
    assert asked.tools == answer.tools, "tools stand at the beginning of the prompt"
    assert not asked.raw.keys() & {"stop_sequences", "output_config", "tool_choice"}
    assert (answer.stop_sequences, answer.tool_choice and answer.tool_choice.type) == (("x",), "any")


async def test_the_block_names_the_tools_that_were_loaded() -> None:
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    far = [{"name": name, "input_schema": {"type": "object"}, "defer_loading": True} for name in ("near", "far")]
    found = {
        "type": "tool_search_tool_search_result",
        "tool_references": [{"type": "tool_reference", "tool_name": "far"}],
    }
    searched = [
        {"type": "server_tool_use", "id": "s1", "name": "tool_search_tool_bm25", "input": {"query": "far"}},
        {"type": "tool_search_tool_result", "tool_use_id": "s1", "content": found},
    ]
    history = [TURNS[0], {"role": "assistant", "content": searched}, TURNS[2]]
    engine = ScriptedAnswers(SUMMARY, saying("Two."), saying("Three."))
    body = {**editing(), "tools": [search, *far], "messages": history}
    message = await ask(engine, body)
    block = contents(message)[0]
    assert block["tool_changes"] == [
        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "far"}},
    ]
    later = [{"role": "assistant", "content": contents(message)}, TURNS[2]]
    await ask(engine, {**editing(100_000), "tools": [search, *far], "messages": later})
    assert [[tool.name for tool in request.tools] for request in engine.requests] == [
        ["tool_search_tool_bm25", "far"]
    ] * 3


@pytest.mark.clause("3.51")
@BOTH
async def test_the_block_keeps_the_tools_that_the_conversation_added_and_removed(stream: bool) -> None:
    """The tool runner of Anthropic's SDK sends the block and nothing before it."""
    new = {"name": "new", "description": "Added later.", "input_schema": {"type": "object", "properties": {}}}
    changes = [
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": new}},
        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "old"}},
    ]
    tools = [{"name": "old", "input_schema": {"type": "object"}}]
    history = [*TURNS, {"role": "system", "content": changes}]
    engine = ScriptedAnswers(SUMMARY, saying("Two."), saying("Three."))
    message = await ask(engine, {**editing(), "tools": tools, "messages": history}, stream=stream)
    assert contents(message)[0]["tool_changes"] == changes
    later = [{"role": "assistant", "content": contents(message)}, TURNS[2]]
    await ask(engine, {**ASKED, "tools": tools, "messages": later})
    assert [[tool.name for tool in request.tools] for request in engine.requests] == [["new"]] * 3
    in_the_same_answer = engine.requests[1].raw
    assert in_the_same_answer["tools"] == [new], "a relayed upstream gets no message that adds it"


@pytest.mark.clause("10.5")
async def test_a_count_never_compacts() -> None:
    engine = Counting()
    for more in (editing(), {**ASKED, "compaction": {"type": "summarize"}}):
        body = {key: value for key, value in more.items() if key != "max_tokens"}
        response = await Driver(MessagesApp(engine)).request(
            "POST", "/v1/messages/count_tokens", body=orjson.dumps(body)
        )
        assert (response.status, response.json()["input_tokens"]) == (200, 100)
    assert engine.requests == []


async def test_a_slow_summary_is_bridged_by_pings() -> None:
    """The stream is valid also if the head is sent before the summary is there."""
    app = MessagesApp(ScriptedAnswers(SUMMARY, saying("Two.")), ping_interval=0.0001)
    response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps({**editing(), "stream": True}))
    check_stream(parse_events(response.body))


# reading


def parse(**fields: Any) -> MessagesRequest:
    return parse_request(orjson.dumps({**ASKED, **fields}))


@pytest.mark.parametrize(
    ("edit", "meaning"),
    [
        ({}, Compaction(150_000, False)),
        ({"trigger": None, "pause_after_compaction": None, "instructions": " "}, Compaction(150_000, False)),
        ({"trigger": {"type": "input_tokens", "value": 5}, "pause_after_compaction": True}, Compaction(5, True)),
    ],
)
def test_an_edit_is_read_with_its_defaults(edit: Json, meaning: Compaction) -> None:
    request = parse(context_management={"edits": [{"type": "compact_20260112", **edit}]})
    assert request.compaction == meaning
    assert request.context_edits == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compaction": 1}, "compaction: must be an object"),
        ({"compaction": {}}, "compaction.type: required"),
        ({"compaction": {"type": "x"}}, "compaction.type: must be one of summarize"),
        ({"compaction": {"type": "summarize", "instructions": 1}}, "compaction.instructions: must be a string"),
        (
            {"compaction": {"type": "summarize"}, "context_management": {"edits": []}},
            "compaction: cannot be combined with context_management",
        ),
    ],
)
def test_an_invalid_compaction_is_refused(fields: Json, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ({"trigger": {"type": "tool_uses", "value": 1}}, "trigger.type"),
        ({"trigger": {"type": "input_tokens"}}, "trigger.value"),
        ({"trigger": {"type": "input_tokens", "value": 0}}, "trigger.value"),
        ({"pause_after_compaction": 1}, "pause_after_compaction"),
        ({"instructions": 1}, "instructions"),
    ],
)
def test_an_invalid_edit_is_refused(edit: Json, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(context_management={"edits": [{"type": "compact_20260112", **edit}]})
    assert caught.value.message.startswith(f"context_management.edits.0.{path}: ")


def test_two_compactions_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="a second edit"):
        parse(context_management={"edits": [{"type": "compact_20260112"}] * 2})


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("<summary>a</summary> b", "a"),
        ("x <summary> a\nb", "a\nb"),
        (" plain ", "plain"),
        ("<summary> </summary>", None),
        ("", None),
    ],
)
def test_a_summary_stands_between_its_tags(text: str, summary: str | None) -> None:
    assert summary_of(text) == summary


class Cutting(ScriptedAnswers):
    takes_cuts = True


async def test_a_definition_in_a_large_request_comes_back_whole() -> None:
    """Long strings of a large body are cut out of the request, which has marks instead."""
    new = {"name": "new", "input_schema": {"type": "object", "properties": {}, "examples": [{"text": "word " * 500}]}}
    addition = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": new}}
    history = [{"role": "user", "content": "long " * 500_000}, {"role": "system", "content": [addition]}]
    engine = Cutting(SUMMARY)
    body = {**ASKED, "messages": history, "compaction": {"type": "summarize"}}
    response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=orjson.dumps(body))
    (request,) = engine.requests
    assert request.cuts is not None
    assert len(request.cuts) > 1
    (block,) = response.json()["content"]
    assert block["tool_changes"] == [addition]
