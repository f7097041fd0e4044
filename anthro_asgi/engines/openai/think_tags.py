"""`<think>…</think>` in an answer's text → Thinking, for engines that leave a model's reasoning in the content. Pure.

The block stands at the head of the answer, behind white space at the most; later tags are text. Some templates have
opened it themselves at the end of the prompt (`opened`): then all is thinking up to `</think>`, and a `<think>` said
once more is passed over. White space around the tags belongs to them and is left out.

A tag may come in any number of pieces. What may still become one is held back, so that no part of a tag ever shows;
what does not become one is given back, and so is more white space than anybody puts around a tag. The states are:
LEADING (white space, or the beginning of a tag), THINKING, TRAILING (white space behind the block) and TEXT, in which
everything passes.
"""

from enum import Enum, auto
from typing import Final, Literal

from ...wire.deltas import Thinking

ThinkTagMode = Literal["off", "tags", "open"]
"""What an engine is known for: no tags, a block of them, or one that its template opens."""

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"
_LONGEST: Final = 4096  # characters of white space that may belong to a tag


class _State(Enum):
    LEADING = auto()
    THINKING = auto()
    TRAILING = auto()
    TEXT = auto()


class ThinkTagFilter:
    """One answer. `opened` says that the prompt ended within the block."""

    __slots__ = ("_began", "_held", "_opened", "_state")

    def __init__(self, *, opened: bool) -> None:
        self._opened = opened
        self._state = _State.LEADING
        self._began = False  # the thinking has begun: white space is part of it
        self._held = ""

    def feed(self, text: str) -> list[str | Thinking]:
        """What can be said of the text so far. An empty text stays one."""
        if self._state is _State.TEXT or not text:
            return [text]
        out: list[str | Thinking] = []
        rest: str | None = self._held + text
        self._held = ""
        while rest is not None:
            rest = self._step(rest, out)
        return out

    def flush(self) -> list[str | Thinking]:
        """What was held, now that something else follows. The block stays open until its tag comes."""
        held, self._held = self._held, ""
        if self._state is _State.THINKING or (self._state is _State.LEADING and self._opened):
            return self._think(held)
        self._state = _State.TEXT
        return [held] if held else []

    def stop(self) -> list[str | Thinking]:
        """The engine tells its reasoning apart by itself: from here on everything passes."""
        out = self.flush()
        self._state = _State.TEXT
        return out

    def _step(self, text: str, out: list[str | Thinking]) -> str | None:
        """Takes what it can of `text`; the rest, if the state has changed, and None when it waits for more."""
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

    def _lead(self, text: str) -> str | None:
        word = text.lstrip()
        if word.startswith(_OPEN):
            self._state = _State.THINKING
            return word[len(_OPEN) :]
        if _OPEN.startswith(word) and len(text) <= _LONGEST:  # also when there is no word yet
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
    """`text` without the end that may be white space before `tag`, or the beginning of it."""
    start = text.find("<", max(0, len(text) - len(tag) + 1))
    while start >= 0 and not tag.startswith(text[start:]):
        start = text.find("<", start + 1)
    whole = text if start < 0 else text[:start]
    before = whole.rstrip()
    return before if len(whole) - len(before) <= _LONGEST else whole


def think_tag_filter(kind: ThinkTagMode, *, thinking_disabled: bool) -> ThinkTagFilter | None:
    """The filter for one answer. Where the engine was told not to think, its template opens nothing."""
    return None if kind == "off" else ThinkTagFilter(opened=kind == "open" and not thinking_disabled)
