"""Applies the context edits of a request to its messages, before the engine gets them (contract 3.45). Pure.

    clear_tool_uses_20250919    the results of old tool calls become a short mark; if asked for, their inputs become {}
    clear_thinking_20251015     thinking is removed from old turns

A conversation that an agent sends again and again grows by its tool results. An edit clears the oldest of them once the
prompt passes a trigger, so that the rest fits into the engine's window. What is cleared depends on the request alone.
The messages of the body stay as they are, because a relayed upstream receives them and edits them itself.
"""

from typing import Any, Final

from .context_edits import CLEAR_THINKING, CLEAR_TOOL_USES, ClearThinking, ClearToolUses
from .estimate import CHARACTERS, content_in_steps, estimate_in_steps
from .large.cooperative import Steps
from .request import MessagesRequest

Json = dict[str, Any]

CLEARED_RESULT: Final = "[This tool result was removed to save context.]"
"""What the model reads in the place of a cleared result."""
_OVER: Final = 4  # an estimate is at most so many times the length of the prompt
_UNDER: Final = 8  # and the length at most so many times the estimate: a character may be two tokens
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
_MESSAGES_PER_STEP: Final = 64
_BLOCKS_PER_STEP: Final = 256


def needs_prompt_length(request: MessagesRequest) -> Steps[bool]:
    """Whether the edits depend on the exact length of the prompt, because its estimate is too close to a trigger.

    The estimate is made in steps.
    """
    edits = [edit for edit in request.context_edits if isinstance(edit, ClearToolUses)]
    triggers = [edit.trigger_tokens for edit in edits if edit.trigger_tokens is not None]
    estimate = (yield from estimate_in_steps(request)) if triggers else 0
    return any(is_too_close(estimate, trigger) for trigger in triggers)


def is_too_close(estimate: int, trigger: int) -> bool:
    """Whether the length of the prompt may be on the other side of `trigger` than its estimate. Both are in tokens."""
    return estimate < trigger * _OVER and trigger < estimate * _UNDER


def edit_context(request: MessagesRequest, tokens: int | None = None) -> Steps[None]:
    """Apply the edits to `request.messages`, in steps, and list those that changed something in `applied_edits`.

    `tokens` is the length of the prompt, None if only an estimate is known. The lengths of what is cleared are shares
    of it, in proportion to the estimates.
    """
    estimate = yield from estimate_in_steps(request)
    scale = 1.0 if tokens is None else tokens / estimate
    remaining = estimate
    for edit in request.context_edits:
        if isinstance(edit, ClearThinking):
            applied = yield from _clear_thinking(request, edit, scale)
        else:
            applied = yield from _clear_tool_uses(request, edit, scale, round(remaining * scale))
        if applied is not None:
            request.applied_edits.append(applied)
            remaining = yield from estimate_in_steps(request)


def _clear_thinking(request: MessagesRequest, edit: ClearThinking, scale: float) -> Steps[Json | None]:
    if edit.keep is None:
        return None
    turns: list[list[int]] = [[]]  # for each assistant turn, the indices of its messages with thinking
    for index, message in enumerate(request.messages):
        if message["role"] == "assistant":
            if _has_thinking(message):
                turns[-1].append(index)
        elif turns[-1] and not _continues_turn(message):
            turns.append([])
        if index % _MESSAGES_PER_STEP == 0:
            yield
    turns = [turn for turn in turns if turn]
    cleared = turns[: -edit.keep]
    if not cleared:
        return None
    indices = {index for turn in cleared for index in turn}
    freed = in_cuts = 0
    messages: list[Json] = []
    for index, message in enumerate(request.messages):
        if index in indices:
            content = yield from _without_thinking(message["content"])
            tokens, characters = yield from _freed(request, message["content"], content)
            freed += tokens
            in_cuts += characters
            if content:
                messages.append({**message, "content": content})
        else:
            messages.append(message)
        if index % _MESSAGES_PER_STEP == 0:
            yield
    request.messages = messages
    freed += _uncount(request, in_cuts)
    return {
        "type": CLEAR_THINKING,
        "cleared_thinking_turns": len(cleared),
        "cleared_input_tokens": round(freed * scale),
    }


def _without_thinking(blocks: list[Json]) -> Steps[list[Json]]:
    others: list[Json] = []
    for number, block in enumerate(blocks, 1):
        if block["type"] not in _THINKING:
            others.append(block)
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return others


def _freed(request: MessagesRequest, before: list[Json], after: list[Json]) -> Steps[tuple[int, int]]:
    """By how much the content of a message has become shorter: in tokens, and in characters that were cut out."""
    tokens = (yield from content_in_steps(before)) // CHARACTERS - (yield from content_in_steps(after)) // CHARACTERS
    if request.cuts is None:
        return tokens, 0
    characters = request.cuts.length(before)
    yield
    characters -= request.cuts.length(after)
    yield
    return tokens, characters


def _has_thinking(message: Json) -> bool:
    content = message["content"]
    return type(content) is list and any(block["type"] in _THINKING for block in content)


def _continues_turn(message: Json) -> bool:
    """Whether a message between two of the assistant holds only tool results: then both belong to one turn."""
    content = message["content"]
    return type(content) is list and all(block["type"] == "tool_result" for block in content)


def _clear_tool_uses(request: MessagesRequest, edit: ClearToolUses, scale: float, tokens: int) -> Steps[Json | None]:
    names = yield from _called_tools(request.messages)
    if edit.trigger_tokens is not None:
        is_triggered = tokens > edit.trigger_tokens
    else:
        is_triggered = len(names) > (edit.trigger_uses or 0)
    yield
    candidates = [identity for identity, name in names.items() if name not in edit.excluded]
    cleared = set(candidates[: max(0, len(candidates) - edit.keep)])
    if not is_triggered or not cleared:
        return None
    yield
    freed = in_cuts = 0
    messages: list[Json] = []
    for index, message in enumerate(request.messages):
        content = message["content"]
        if type(content) is list:
            edited, is_changed = yield from _with_cleared(content, cleared, edit)
            if is_changed:
                shorter, characters = yield from _freed(request, content, edited)
                freed += shorter
                in_cuts += characters
                message = {**message, "content": edited}
        messages.append(message)
        if index % _MESSAGES_PER_STEP == 0:
            yield
    freed = round((freed + in_cuts // CHARACTERS) * scale)
    if freed <= 0 or freed < edit.clear_at_least:
        return None
    request.messages = messages
    _uncount(request, in_cuts)
    return {"type": CLEAR_TOOL_USES, "cleared_tool_uses": len(cleared), "cleared_input_tokens": freed}


def _called_tools(messages: list[Json]) -> Steps[dict[str, str]]:
    """The name of the tool of each call, by the id of the call."""
    names: dict[str, str] = {}
    for index, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "assistant" and type(content) is list:
            for number, block in enumerate(content, 1):
                if block["type"] == "tool_use":
                    names[block["id"]] = block["name"]
                if number % _BLOCKS_PER_STEP == 0:
                    yield
        if index % _MESSAGES_PER_STEP == 0:
            yield
    return names


def _uncount(request: MessagesRequest, characters: int) -> int:
    """Leave out these characters, which were cut out, of the length of the prompt. Returns the tokens."""
    if request.cuts is not None:
        request.cuts.size -= characters
    return characters // CHARACTERS


def _with_cleared(blocks: list[Json], cleared: set[str], edit: ClearToolUses) -> Steps[tuple[list[Json], bool]]:
    """The blocks, and whether one of them was changed."""
    edited: list[Json] = []
    is_changed = False
    for number, block in enumerate(blocks, 1):
        edited.append(_cleared(block, cleared, edit))
        is_changed = is_changed or edited[-1] is not block
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return edited, is_changed


def _cleared(block: Json, cleared: set[str], edit: ClearToolUses) -> Json:
    if block["type"] == "tool_result" and block["tool_use_id"] in cleared:
        return {**block, "content": CLEARED_RESULT}
    if (
        block["type"] == "tool_use"
        and block["id"] in cleared
        and edit.clears_input_of(block["name"])
        and block["input"]
    ):
        return {**block, "input": {}}
    return block
