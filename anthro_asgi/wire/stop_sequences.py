"""Stop sequences, matched here for every engine, also if the engine matches them itself (contract section 4).

Text is released as soon as no stop sequence can begin in it; text that may be the beginning of one is held back. The
match that completes first in the text wins; if two complete at the same character, the longer one. How the text is
divided into pieces makes no difference, as it arrives in characters, not bytes.

Theory: one Knuth-Morris-Pratt search for each stop sequence. A search remembers only with how many characters of its
stop sequence the text ends (`begun`). The text to hold back is the beginning of the stop sequence that has begun with
the most characters. No character is read twice, however long a stop sequence is and however often it nearly matches.
The table of borders grows only as far as the text has matched.

Stop sequences are searched in text only, not in thinking or tool input, and not across blocks: a delta that ends a run
of text releases what was held back.
"""

from collections.abc import Sequence
from typing import assert_never

from .deltas import (
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    Signature,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
    deltas_of,
)


class _StopSequence:
    """One stop sequence. The text so far ends with its first `begun` characters."""

    __slots__ = ("_borders", "begun", "first", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.first = text[0]
        self.begun = 0
        self._borders = [0, 0]  # by prefix length: length of the longest shorter prefix that it ends with

    def read(self, text: str, end: int) -> int:
        """Reads `text[:end]`. Returns the position after the first complete match, 0 if there is none."""
        stop, begun, borders = self.text, self.begun, self._borders
        position = 0
        while position < end:
            if not begun:
                position = text.find(self.first, position, end)
                if position < 0:
                    break
            elif text[position] != stop[begun]:
                begun = borders[begun]
                continue
            position += 1
            begun += 1
            if begun == len(stop):
                return position
            if begun == len(borders):
                borders.append(self._border(begun))
        self.begun = begun
        return 0

    def _border(self, length: int) -> int:
        last = self.text[length - 1]
        border = self._borders[length - 1]
        while border and self.text[border] != last:
            border = self._borders[border]
        return border + 1 if self.text[border] == last else 0


class StopSequenceMatcher:
    """Searches one run of text. `matched` is the stop sequence that ended it, if any."""

    __slots__ = ("_deepest", "_firsts", "_held", "_stops", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [_StopSequence(stop) for stop in sorted(stops, key=len, reverse=True)]
        self._firsts = sorted({stop[0] for stop in stops})
        self._held = 0  # number of characters held back
        self._deepest = ""  # stop sequence that begins with them
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that can be released now; once `matched` is set, the rest of the text before the match."""
        if not self._held:  # no stop sequence has begun
            for first in self._firsts:
                if first in text:
                    break
            else:
                return text
        end = len(text)
        held, deepest = 0, ""
        for stop in self._stops:
            if stop.begun or stop.first in text:
                # Stop sequences are sorted by length: a later one is shorter, and wins only if it completes earlier.
                found = stop.read(text, end if self.matched is None else end - 1)
                if found:
                    self.matched, end = stop.text, found
                elif stop.begun > held:
                    held, deepest = stop.begun, stop.text
        if self.matched is not None:
            held, deepest = 0, ""
            text = self._all_but(len(self.matched), text[:end])
        elif held or self._held:
            text = self._all_but(held, text)
        self._held, self._deepest = held, deepest
        return text

    def _all_but(self, last: int, text: str) -> str:
        """The held characters and `text`, without the last `last` characters."""
        count = self._held + len(text) - last
        return self._deepest[: min(count, self._held)] + text[: max(0, count - self._held)]

    def flush(self) -> str:
        """The characters held back, at the end of a run of text."""
        for stop in self._stops:
            stop.begun = 0
        held = self._deepest[: self._held]
        self._held = 0
        return held


class StopSequenceFilter:
    """Deltas in, deltas out, with a Finish at the place where a stop sequence matched."""

    __slots__ = ("_matcher", "unread")

    def __init__(self, stops: Sequence[str]) -> None:
        self._matcher = StopSequenceMatcher(stops)
        self.unread = 0  # deltas after the match in the last batch

    @property
    def matched(self) -> str | None:
        """The stop sequence at which the answer was cut, if any."""
        return self._matcher.matched

    def feed(self, batch: Batch) -> Batch:
        """The filtered batch. If it holds a Finish, nothing more may be fed."""
        out: list[Delta] = []
        matcher = self._matcher
        if type(batch) is str:
            released = matcher.feed(batch)
            if matcher.matched is None:
                return released if released or not batch else out
            match = Finish("stop_sequence", matcher.matched)
            return [released, match] if released else [match]
        deltas = deltas_of(batch)
        for number, delta in enumerate(deltas, 1):
            if type(delta) is str:
                released = matcher.feed(delta)
                if released or not delta:
                    out.append(released)
                if matcher.matched is not None:
                    out.append(Finish("stop_sequence", matcher.matched))
                    self.unread = len(deltas) - number
                    return out
                continue
            if _ends_text(delta):
                held = matcher.flush()
                if held and not _belongs_to_stop(held, delta):
                    out.append(held)
            out.append(delta)
        return out


def _ends_text(delta: Delta) -> bool:
    """Whether text after `delta` belongs to another run of text; False for a delta that writes nothing."""
    match delta:
        case Usage() | Thinking("") | Signature(""):
            return False
        case (
            str() | Thinking() | Signature() | ToolStart() | ToolJson() | Citation() | BlockStop() | Block() | Finish()
        ):
            return True
        case _:
            assert_never(delta)


def _belongs_to_stop(held: str, delta: Delta) -> bool:
    """Whether the text held at the end is the beginning of the stop sequence that the engine says has matched.

    SGLang emits the first character of a stop sequence that begins with a multibyte character.
    """
    matched = delta.stop_sequence if isinstance(delta, Finish) else None
    return matched is not None and matched.startswith(held) and not held.isascii()
