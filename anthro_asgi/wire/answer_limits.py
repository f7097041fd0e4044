"""How much of an engine's answer is kept here at one time. Pure.

What streams is passed on and not kept. Kept is what has to be whole before it can be said: an event, what waits for its
turn behind a tool call, and the answer to a client that wants one Message.
"""

from dataclasses import dataclass
from typing import Final, assert_never

from . import defaults
from .deltas import Block, BlockStop, Citation, Delta, Finish, Signature, Thinking, ToolJson, ToolStart, Usage
from .errors import AnswerTooLarge
from .json_codec import dumps

BLOCK_OVERHEAD: Final = 256
"""Bytes that a block costs beside what it says, so that a flood of empty ones has an end too."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """Bytes, as UTF-8."""

    max_event: int = defaults.MAX_EVENT
    """One event of a stream, with all of its lines."""
    max_tool_input: int = defaults.MAX_TOOL_INPUT
    """The input of one tool call, where it is kept."""
    max_answer: int = defaults.MAX_ANSWER
    """An answer that comes whole, or is to be given whole; and all that waits for its turn in one that streams."""

    def check_tool_input(self, kept: int) -> None:
        """Raises AnswerTooLarge."""
        if kept > self.max_tool_input:
            raise AnswerTooLarge(f"the input of a tool call passed {self.max_tool_input} bytes (max-tool-input)")

    def check_answer(self, kept: int) -> None:
        """Raises AnswerTooLarge."""
        if kept > self.max_answer:
            raise AnswerTooLarge(f"what has to be kept of it passed {self.max_answer} bytes (max-answer)")


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
        case ToolStart(identity, name):
            return utf8_size(identity) + utf8_size(name)
        case Citation(content) | Block(content):
            return len(dumps(content))
        case BlockStop() | Usage() | Finish():
            return 0
        case _:
            assert_never(delta)
