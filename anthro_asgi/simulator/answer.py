"""Plans an answer: all its tokens, before the first one is due."""

import re
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

from ..wire.deltas import Delta, StopReason, Thinking, ToolJson, ToolStart
from ..wire.request import MessagesRequest, Tool
from .profile import Profile
from .prompt import as_json
from .prose import echoed, prose
from .recordings import RecordedAnswer
from .schema_example import example, tool_input

Answer = tuple[Sequence[Delta], StopReason]

_ID: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")  # a tool's name


def plan_answer(request: MessagesRequest, profile: Profile, rng: Random) -> Answer:
    """All tokens of the answer, from 1 to `max_tokens`, and its stop reason."""
    room = request.max_tokens
    tokens: list[Delta] = []
    stop_reason: StopReason = "end_turn"
    thought = profile.thinking_tokens.whole(rng)
    if _thinks(request, profile, rng):
        budget = request.thinking.budget_tokens if request.thinking else None
        tokens += map(Thinking, prose(rng, min(thought, budget or thought, room + 1)))
    tool, forced = _called(request, profile, rng)
    if tool is not None:
        tokens += [] if forced else prose(rng, rng.randint(5, 9))
        tokens += _call(tool, rng)
        stop_reason = "tool_use"
    elif request.output_schema is not None:
        tokens += _pieces(as_json(example(request.output_schema, rng)).decode(), rng)
    elif profile.text == "echo":
        tokens += echoed("\n".join(_said(request.messages)))
    else:
        tokens += prose(rng, min(profile.output_tokens.whole(rng), room + 1))
    return _within(tokens, stop_reason, room)


def replay_answer(recorded: RecordedAnswer, room: int, rng: Random) -> Answer:
    """A recorded answer, cut to at most `room` tokens."""
    return _within([_delta(kind, text, rng) for kind, text in recorded.parts], recorded.stop_reason, room)


def _within(tokens: list[Delta], stop_reason: StopReason, room: int) -> Answer:
    return (tokens, stop_reason) if len(tokens) <= room else (tokens[:room], "max_tokens")


def _delta(kind: str, text: str, rng: Random) -> Delta:
    match kind:
        case "text":
            return text
        case "thinking":
            return Thinking(text)
        case "json":
            return ToolJson(text)
    return ToolStart(_identity(rng), text)


def _thinks(request: MessagesRequest, profile: Profile, rng: Random) -> bool:
    """Whether the answer has thinking: as the client asks, or else at random by `thinking_rate`."""
    if request.thinking is not None:
        return request.thinking.type != "disabled"
    return rng.random() < profile.thinking_rate if profile.thinking_rate else False


def _called(request: MessagesRequest, profile: Profile, rng: Random) -> tuple[Tool | None, bool]:
    """The tool to call, if any, and whether the client forced a call."""
    choice = request.tool_choice.type if request.tool_choice else "auto"
    tools = {tool.name: tool for tool in request.tools}
    if choice == "none" or not tools:
        return None, False
    if choice == "any":
        return rng.choice(request.tools), True
    if choice == "tool" and request.tool_choice:
        return tools.get(request.tool_choice.name or ""), True
    named = next((tools[word] for word in _asked(request.messages) if word in tools), None)
    if named is None and profile.tool_rate and rng.random() < profile.tool_rate:
        named = rng.choice(request.tools)
    return named, False


def _last(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of the last user message."""
    content = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _asked(messages: list[dict[str, Any]]) -> Iterable[str]:
    """The words of the last user message; none when it holds a tool result, which is answered by text."""
    blocks = _last(messages)
    if any(block["type"] == "tool_result" for block in blocks):
        return []
    return (word for block in blocks if block["type"] == "text" for word in _NAME.findall(block["text"]))


def _said(messages: list[dict[str, Any]]) -> Iterable[str]:
    """The texts of the last user message, including those in tool results."""
    for block in _last(messages):
        content = block.get("content") if block["type"] == "tool_result" else [block]
        inner = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        yield from (part["text"] for part in inner if part["type"] == "text")


def _call(tool: Tool, rng: Random) -> list[Delta]:
    arguments = as_json(tool_input(tool.input_schema, rng)).decode()
    return [ToolStart(_identity(rng), tool.name), *map(ToolJson, _pieces(arguments, rng))]


def _identity(rng: Random) -> str:
    return "toolu_" + "".join(rng.choices(_ID, k=24))


def _pieces(text: str, rng: Random) -> list[str]:
    pieces, start = [], 0
    while start < len(text):
        end = start + rng.randint(2, 6)
        pieces.append(text[start:end])
        start = end
    return pieces
