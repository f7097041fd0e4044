"""Stop sequences, matched here for every engine, whatever it says itself (contract section 4).

Text is released as soon as no stop sequence can begin in it any more; what may still become one is held back. The match
that completes first in the text wins; of two that complete at the same character, the longer. Fragmentation never
matters, as text arrives in characters, not bytes.

Theory: Knuth, Morris and Pratt's search, once for each stop sequence. Each knows how many of its characters the text
ends with (`begun`), and that is all there is to remember: what is held back is the beginning of whichever has begun
with the most. No character is looked at twice, however long a stop sequence is and however often it nearly matches,
and the table of borders grows only as far as the text has come into it.

Stop sequences are looked for in text, not in thinking or tool input, and not across the blocks between which they lie:
whatever ends a run of text gives back what was held.
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
    """One stop sequence, of which the text so far ends with the first `begun` characters."""

    __slots__ = ("_borders", "begun", "first", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.first = text[0]
        self.begun = 0
        self._borders = [0, 0]  # for each length of a beginning, that of the longest shorter one it ends with

    def read(self, text: str, end: int) -> int:
        """Reads `text[:end]`. Where in it the stop sequence is complete: the position after it, 0 if it is not."""
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
    """One run of text. `matched` is the stop sequence that ended it, if any."""

    __slots__ = ("_deepest", "_firsts", "_held", "_stops", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [_StopSequence(stop) for stop in sorted(stops, key=len, reverse=True)]
        self._firsts = sorted({stop[0] for stop in stops})
        self._held = 0  # characters held back:
        self._deepest = ""  # the first ones of this stop sequence
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """What of the text so far can be released; once `matched` is set, all that came before the match."""
        if not self._held:  # so none has begun
            for first in self._firsts:
                if first in text:
                    break
            else:
                return text
        end = len(text)
        held, deepest = 0, ""
        for stop in self._stops:
            if stop.begun or stop.first in text:
                # of those that match, a later one in the list is shorter and must complete earlier to win
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
        """What was held and then `text`, without the last characters."""
        count = self._held + len(text) - last
        return self._deepest[: min(count, self._held)] + text[: max(0, count - self._held)]

    def flush(self) -> str:
        """What was held back, now that the text goes on no further."""
        for stop in self._stops:
            stop.begun = 0
        held = self._deepest[: self._held]
        self._held = 0
        return held


class StopSequenceFilter:
    """Deltas in, deltas out, with a Finish where a stop sequence matched."""

    __slots__ = ("_matcher", "unread")

    def __init__(self, stops: Sequence[str]) -> None:
        self._matcher = StopSequenceMatcher(stops)
        self.unread = 0  # deltas of the last batch that came behind the match

    @property
    def matched(self) -> str | None:
        """The stop sequence at which the answer was cut off here."""
        return self._matcher.matched

    def feed(self, batch: Batch) -> Batch:
        """The batch, filtered; after a Finish in it nothing more may be fed."""
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
                if held:
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
