"""Limits on how much of an engine's answer is held in memory at one time. Pure.

A streamed answer is passed on and not held. Held is only what must be complete before it can be sent: one event, text
that waits behind an unfinished tool call, and the answer to a client that wants one whole Message.
"""

from dataclasses import dataclass
from typing import Final, assert_never

from . import defaults
from .deltas import (
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
)
from .errors import AnswerTooLarge
from .json_codec import dumps

BLOCK_OVERHEAD: Final = 256
"""Bytes counted for each block beside its content, so that a flood of empty blocks reaches the limit, too."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """Limits in bytes of UTF-8."""

    max_event: int = defaults.MAX_EVENT
    """One event of a stream, with all its lines."""
    max_tool_input: int = defaults.MAX_TOOL_INPUT
    """The input of one tool call, where it is held."""
    max_answer: int = defaults.MAX_ANSWER
    """An answer that is received or given whole; and all that waits behind a tool call in a streamed one."""

    def check_tool_input(self, held: int) -> None:
        """Raises AnswerTooLarge if `held` bytes of a tool call's input are over the limit."""
        if held > self.max_tool_input:
            raise AnswerTooLarge(
                f"the input of a tool call is larger than {self.max_tool_input} bytes (max-tool-input)"
            )

    def check_answer(self, held: int) -> None:
        """Raises AnswerTooLarge if `held` bytes of an answer are over the limit."""
        if held > self.max_answer:
            raise AnswerTooLarge(f"the part held in memory is larger than {self.max_answer} bytes (max-answer)")


DEFAULT_LIMITS: Final = AnswerLimits()


def utf8_size(text: str) -> int:
    """Bytes of `text` as UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def delta_size(delta: Delta) -> int:
    """Bytes of content in `delta`, as UTF-8. Usage, BlockStop and Finish hold no content: 0."""
    match delta:
        case str():
            return utf8_size(delta)
        case Thinking(text) | Signature(text) | ToolJson(text):
            return utf8_size(text)
        case ToolStart(identity, name, fields):
            return utf8_size(identity) + utf8_size(name) + (0 if fields is None else len(dumps(fields)))
        case Block(content, _, deltas):
            return len(dumps(content)) + sum(len(dumps(piece)) for piece in deltas)
        case Citation(content) | MessageFields(content) | OtherDelta(_, content):
            return len(dumps(content))
        case BlockStop() | ThinkingEstimate() | Usage() | Finish():
            return 0
        case _:
            assert_never(delta)
