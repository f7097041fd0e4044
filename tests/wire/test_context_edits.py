"""`context_management.edits` of a request: which values are valid, and what an edit clears."""

from copy import deepcopy
from typing import Any

import orjson
import pytest

from anthro_asgi.wire.context_editing import CLEARED_RESULT, edit_context, needs_prompt_length
from anthro_asgi.wire.context_edits import ClearThinking, ClearToolUses
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import MessagesRequest, parse_request

Json = dict[str, Any]
CLEAR: Json = {"type": "clear_tool_uses_20250919", "trigger": {"type": "tool_uses", "value": 1}}
THINK: Json = {"type": "clear_thinking_20251015"}
RESULT = "word " * 100


def parse(*edits: Json, messages: list[Json] | None = None, **fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 9, "messages": messages or [{"role": "user", "content": "Hi"}], **fields}
    return parse_request(orjson.dumps({**body, "context_management": {"edits": edits}}))


def edited(*edits: Json, messages: list[Json], tokens: int | None = None) -> MessagesRequest:
    """The request after its edits. The messages of the body must stay as they were."""
    request = parse(*edits, messages=messages)
    before = deepcopy(request.raw["messages"])
    run_to_end(edit_context(request, tokens))
    assert request.raw["messages"] == before
    return request


def tool_turns(count: int, *, name: str = "look", thinking: bool = False) -> list[Json]:
    """A question and `count` calls with a result each: one turn of the assistant."""
    messages: list[Json] = [{"role": "user", "content": "Go"}]
    for number in range(count):
        call = {"type": "tool_use", "id": f"t{number}", "name": name, "input": {"path": f"/{number}"}}
        thought = [{"type": "thinking", "thinking": "I think. " * 20, "signature": "s"}] if thinking else []
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": [{"type": "text", "text": RESULT}]}
        messages += [{"role": "assistant", "content": [*thought, call]}, {"role": "user", "content": [result]}]
    return messages


def results(request: MessagesRequest) -> list[bool]:
    """For each tool result whether it is cleared."""
    blocks = [block for message in request.messages if type(message["content"]) is list for block in message["content"]]
    return [block["content"] == CLEARED_RESULT for block in blocks if block["type"] == "tool_result"]


# reading


@pytest.mark.parametrize(
    ("edit", "meaning"),
    [
        ({"type": "clear_tool_uses_20250919"}, ClearToolUses(100_000, None, 3, 0, frozenset(), False)),
        (CLEAR, ClearToolUses(None, 1, 3, 0, frozenset(), False)),
        (
            {
                "type": "clear_tool_uses_20250919",
                "trigger": {"type": "input_tokens", "value": 30_000},
                "keep": {"type": "tool_uses", "value": 0},
                "clear_at_least": {"type": "input_tokens", "value": 5_000},
                "exclude_tools": ["look"],
                "clear_tool_inputs": ["write"],
            },
            ClearToolUses(30_000, None, 0, 5_000, frozenset({"look"}), frozenset({"write"})),
        ),
        (
            {**CLEAR, "clear_tool_inputs": True, "keep": None},
            ClearToolUses(None, 1, 3, 0, frozenset(), True),
        ),
        (THINK, ClearThinking(1)),
        ({**THINK, "keep": "all"}, ClearThinking(None)),
        ({**THINK, "keep": {"type": "all"}}, ClearThinking(None)),
        ({**THINK, "keep": {"type": "thinking_turns", "value": 2}}, ClearThinking(2)),
    ],
)
def test_an_edit_is_read_with_the_defaults_of_the_api(edit: Json, meaning: Any) -> None:
    request = parse(edit)
    assert request.context_edits == (meaning,)
    assert request.ignored == []


@pytest.mark.clause("3.45")
@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ("clear", "edits.0: must be an object"),
        ({}, "edits.0.type: required"),
        ({"type": 7}, "edits.0.type: must be a string"),
        ({**CLEAR, "trigger": 7}, "edits.0.trigger: must be an object"),
        ({**CLEAR, "trigger": {"type": "turns", "value": 1}}, "edits.0.trigger.type: must be one of"),
        ({**CLEAR, "trigger": {"type": "tool_uses"}}, "edits.0.trigger.value: required"),
        ({**CLEAR, "trigger": {"type": "tool_uses", "value": 0}}, "edits.0.trigger.value: must be 1 or more"),
        ({**CLEAR, "keep": {"type": "tool_uses", "value": -1}}, "edits.0.keep.value: must be 0 or more"),
        ({**CLEAR, "clear_at_least": {"type": "tool_uses", "value": 1}}, "edits.0.clear_at_least.type: must be one of"),
        ({**CLEAR, "exclude_tools": "look"}, "edits.0.exclude_tools: must be an array"),
        ({**CLEAR, "exclude_tools": [1]}, "edits.0.exclude_tools.0: must be a string"),
        ({**CLEAR, "clear_tool_inputs": "look"}, "edits.0.clear_tool_inputs: must be a boolean"),
        ({**THINK, "keep": "none"}, "edits.0.keep: must be an object"),
        ({**THINK, "keep": {"type": "thinking_turns", "value": 0}}, "edits.0.keep.value: must be 1 or more"),
    ],
)
def test_an_invalid_edit_is_refused_with_its_path(edit: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(edit)
    assert caught.value.message.startswith(f"context_management.{path}")


def test_an_edit_that_the_service_does_not_know_is_reported() -> None:
    request = parse(THINK, {"type": "clear_images_20300101"})
    assert request.ignored == ["context_management.edits.1"]
    assert request.context_edits == (ClearThinking(1),)


# tool uses


@pytest.mark.clause("3.45")
def test_the_oldest_results_are_cleared_and_the_last_ones_stay() -> None:
    request = edited(CLEAR, messages=tool_turns(5))
    assert results(request) == [True, True, False, False, False]
    (applied,) = request.applied_edits
    assert (applied["type"], applied["cleared_tool_uses"]) == ("clear_tool_uses_20250919", 2)
    assert 200 < applied["cleared_input_tokens"] < 250  # two results of 500 characters, less the marks
    assert request.messages[1]["content"][0]["input"] == {"path": "/0"}


def test_nothing_is_cleared_below_the_trigger() -> None:
    request = edited({**CLEAR, "trigger": {"type": "tool_uses", "value": 5}}, messages=tool_turns(5))
    assert (results(request), request.applied_edits) == ([False] * 5, [])


@pytest.mark.parametrize(("tokens", "clears"), [(1_000, False), (1_001, True)])
def test_a_trigger_in_tokens_is_compared_with_the_length_of_the_prompt(tokens: int, clears: bool) -> None:
    edit = {**CLEAR, "trigger": {"type": "input_tokens", "value": 1_000}}
    assert any(results(edited(edit, messages=tool_turns(5), tokens=tokens))) is clears


def test_cleared_tokens_are_a_share_of_the_length_of_the_prompt() -> None:
    messages = tool_turns(5)
    estimate = estimate_tokens(parse(messages=messages))
    (by_estimate,) = edited(CLEAR, messages=messages).applied_edits
    (by_count,) = edited(CLEAR, messages=messages, tokens=estimate * 3).applied_edits
    assert by_count["cleared_input_tokens"] == 3 * by_estimate["cleared_input_tokens"]


def test_an_edit_that_would_clear_too_little_is_not_applied() -> None:
    edit = {**CLEAR, "clear_at_least": {"type": "input_tokens", "value": 10_000}}
    request = edited(edit, messages=tool_turns(5))
    assert (results(request), request.applied_edits) == ([False] * 5, [])


def test_excluded_tools_keep_their_results() -> None:
    request = edited({**CLEAR, "exclude_tools": ["look"]}, messages=tool_turns(5))
    assert (results(request), request.applied_edits) == ([False] * 5, [])


@pytest.mark.parametrize(("inputs", "cleared"), [(True, {}), (["look"], {}), (["write"], {"path": "/0"})])
def test_inputs_are_cleared_on_request(inputs: Any, cleared: Json) -> None:
    request = edited({**CLEAR, "clear_tool_inputs": inputs}, messages=tool_turns(5))
    assert request.messages[1]["content"][0]["input"] == cleared
    assert request.messages[-2]["content"][0]["input"] == {"path": "/4"}


# thinking


def conversation(*turns: bool) -> list[Json]:
    """A question and an answer for each turn; the answer has thinking if the turn is True."""
    messages: list[Json] = []
    for number, thinks in enumerate(turns):
        thought = [{"type": "thinking", "thinking": "I think. " * 20, "signature": "s"}] if thinks else []
        answer = {"role": "assistant", "content": [*thought, {"type": "text", "text": f"answer {number}"}]}
        messages += [{"role": "user", "content": f"question {number}"}, answer]
    return [*messages, {"role": "user", "content": "and now?"}]


def thinking(request: MessagesRequest) -> list[bool]:
    """For each assistant message whether it has thinking."""
    answers = [message["content"] for message in request.messages if message["role"] == "assistant"]
    return [any(block["type"] == "thinking" for block in content) for content in answers]


@pytest.mark.clause("3.45")
def test_thinking_of_old_turns_is_cleared() -> None:
    request = edited(THINK, messages=conversation(True, True, False, True))
    assert thinking(request) == [False, False, False, True]
    (applied,) = request.applied_edits
    assert applied["cleared_thinking_turns"] == 2
    assert 80 < applied["cleared_input_tokens"] < 100


def test_all_messages_of_a_tool_loop_are_one_turn() -> None:
    request = edited(THINK, messages=tool_turns(3, thinking=True))
    assert (thinking(request), request.applied_edits) == ([True] * 3, [])


@pytest.mark.parametrize("keep", ["all", {"type": "thinking_turns", "value": 3}])
def test_thinking_that_is_kept_changes_nothing(keep: Any) -> None:
    request = edited({**THINK, "keep": keep}, messages=conversation(True, True, True))
    assert (thinking(request), request.applied_edits) == ([True] * 3, [])


def test_a_message_of_thinking_alone_disappears() -> None:
    messages = conversation(True, True)
    messages[1]["content"].pop()
    request = edited(THINK, messages=messages)
    assert [message["role"] for message in request.messages] == ["user", "user", "assistant", "user"]


def test_both_edits_are_applied_in_their_order() -> None:
    messages = [*conversation(True)[:-1], *tool_turns(5, thinking=True)]
    request = edited(THINK, CLEAR, messages=messages)
    kinds = [applied["type"] for applied in request.applied_edits]
    assert kinds == ["clear_thinking_20251015", "clear_tool_uses_20250919"]


# when the engine counts


@pytest.mark.parametrize(("trigger", "needed"), [(10, False), (1_000, True), (100_000, False)])
def test_the_engine_counts_only_if_an_estimate_cannot_decide(trigger: int, needed: bool) -> None:
    edit = {**CLEAR, "trigger": {"type": "input_tokens", "value": trigger}}
    assert run_to_end(needs_prompt_length(parse(edit, messages=tool_turns(5)))) is needed


def test_triggers_without_tokens_need_no_count() -> None:
    assert run_to_end(needs_prompt_length(parse(CLEAR, THINK, messages=tool_turns(5)))) is False
