"""`<think>…</think>` in an answer's text → Thinking, for engines that leave a model's reasoning in the content. Pure.

The block stands at the beginning of the answer; only white space may precede it. Tags later in the answer are text.
Some chat templates write `<think>` at the end of the prompt (`opened`). Then everything before `</think>` is thinking,
and a `<think>` that the model repeats is dropped. White space around the tags is dropped too.

A tag may arrive in any number of pieces. Text that may still become a tag is held back, so that no part of a tag is
ever sent. It is released if it does not become a tag, and so is white space beyond `_LONGEST` characters.

    LEADING   white space, or the beginning of <think>
    THINKING  inside the block
    TRAILING  white space after the block
    TEXT      everything passes unchanged
"""

from enum import Enum, auto
from typing import Final, Literal, assert_never

from ...wire.deltas import Thinking

ThinkTagMode = Literal["off", "tags", "open"]
"""`off`: tags are text. `tags`: the model writes both tags. `open`: the chat template writes the opening tag."""

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"
_LONGEST: Final = 4096  # characters of white space that count as part of a tag


class _State(Enum):
    LEADING = auto()
    THINKING = auto()
    TRAILING = auto()
    TEXT = auto()


class ThinkTagFilter:
    """The filter for the text of one answer. `opened`: the prompt ends inside the block."""

    __slots__ = ("_began", "_held", "_opened", "_state")

    def __init__(self, *, opened: bool) -> None:
        self._opened = opened
        self._state = _State.LEADING
        self._began = False  # thinking that is not white space was seen, so white space is part of the thinking
        self._held = ""

    def feed(self, text: str) -> list[str | Thinking]:
        """The deltas that the text so far allows. An empty text is returned as it is."""
        if self._state is _State.TEXT or not text:
            return [text]
        out: list[str | Thinking] = []
        rest: str | None = self._held + text
        self._held = ""
        while rest is not None:
            rest = self._step(rest, out)
        return out

    def flush(self) -> list[str | Thinking]:
        """The text that was held back, because something other than text follows. An open block stays open."""
        held, self._held = self._held, ""
        if self._state is _State.THINKING or (self._state is _State.LEADING and self._opened):
            return self._think(held)
        self._state = _State.TEXT
        return [held] if held else []

    def stop(self) -> list[str | Thinking]:
        """The engine reports reasoning in a field of its own: release what was held, and pass all later text."""
        out = self.flush()
        self._state = _State.TEXT
        return out

    def _step(self, text: str, out: list[str | Thinking]) -> str | None:
        """Handle `text` in the current state. Returns the rest if the state changed, None if more text is needed."""
        match self._state:
            case _State.LEADING:
                return self._lead(text)
            case _State.THINKING:
                thought, tag, rest = text.partition(_CLOSE)
                if not tag:
                    thought = _before(text, _CLOSE)
                    self._held = text[len(thought) :]
                out += self._think(thought.rstrip() if tag else thought)
                self._state = _State.TRAILING if tag else _State.THINKING
                return rest if tag else None
            case _State.TRAILING:
                rest = text.lstrip()
                if not rest:
                    return None
                self._state = _State.TEXT
                return rest
            case _State.TEXT:
                if text:
                    out.append(text)
                return None
            case _:
                assert_never(self._state)

    def _lead(self, text: str) -> str | None:
        word = text.lstrip()
        if word.startswith(_OPEN):
            self._state = _State.THINKING
            return word[len(_OPEN) :]
        if _OPEN.startswith(word) and len(text) <= _LONGEST:  # true for an empty `word` too
            self._held = text
            return None
        self._state = _State.THINKING if self._opened else _State.TEXT
        return text

    def _think(self, text: str) -> list[str | Thinking]:
        if not self._began:
            text = text.lstrip()
            self._began = bool(text)
        return [Thinking(text)] if text else []


def _before(text: str, tag: str) -> str:
    """`text` without an end that may be the beginning of `tag`, and without the white space before that."""
    start = text.find("<", max(0, len(text) - len(tag) + 1))
    while start >= 0 and not tag.startswith(text[start:]):
        start = text.find("<", start + 1)
    whole = text if start < 0 else text[:start]
    before = whole.rstrip()
    return before if len(whole) - len(before) <= _LONGEST else whole


def think_tag_filter(kind: ThinkTagMode, *, thinking_disabled: bool) -> ThinkTagFilter | None:
    """The filter for one answer, None for mode `off`. With thinking disabled the chat template opens no block."""
    return None if kind == "off" else ThinkTagFilter(opened=kind == "open" and not thinking_disabled)
