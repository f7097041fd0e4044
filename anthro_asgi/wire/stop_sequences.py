"""Stop sequences, matched here for every engine, also if the engine matches them itself (contract section 4).

Text is released as soon as no stop sequence can begin in it; text that may be the beginning of one is held back. The
match that completes first in the text wins; if two complete at the same character, the longer one. How the text is
divided into pieces makes no difference, as it arrives in characters, not bytes.

Theory: one automaton searches for all stop sequences at once. It remembers only the longest beginning of a stop
sequence with which the text ends: that is the text to hold back. The time is linear in the text, however many stop
sequences there are, however long they are and however often they nearly match. The automaton grows only as far as the
text has matched.

Stop sequences are searched in text only, not in thinking or tool input, and not across blocks: a delta that ends a run
of text releases what was held back.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from .deltas import (
    Batch,
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
    deltas_of,
)


class _Automaton:
    """The searches for all stop sequences at once (Aho and Corasick, 1975), built as far as the text has matched.

    A state stands for a beginning of one or more stop sequences; state 0 is the empty one. The stop sequences are
    sorted, so those with the same beginning are neighbours: `stops[low:high]`.

    Attributes:
        stops: the stop sequences, sorted.
        lows, depths: by state: its first stop sequence, and the number of characters of the beginning.
        matches: by state: the longest stop sequence with which the text ends, None if there is none.
        known: by state and character: what `after` has returned. It holds the usual characters after a beginning.
    """

    __slots__ = ("_fails", "_highs", "_nexts", "depths", "known", "lows", "matches", "stops")

    _MOST_KNOWN = 4096  # entries of `known`; a text may have any number of characters

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = sorted(set(stops))
        self.lows, self._highs = [0], [len(self.stops)]
        self.depths = [0]
        self.matches: list[str | None] = [None]
        self._fails = [0]  # by state: the longest state with which its characters end
        self._nexts: dict[tuple[int, str], int] = {}
        self.known: dict[tuple[int, str], int] = {}

    def after(self, state: int, character: str) -> int:
        """The state after a further character of the text. `known` holds it from then on."""
        if len(self.known) >= self._MOST_KNOWN:
            self.known.clear()
        result = self.known[state, character] = self._search(state, character)
        return result

    def _search(self, state: int, character: str) -> int:
        result = 0
        built: list[int] = []  # states that are new; each fails to the next one
        while True:
            following = self._nexts.get((state, character), 0)
            is_known = following != 0
            following = following or self._build(state, character)
            if following:
                result = result or following
                if built:
                    self._fails[built[-1]] = following
                if is_known:
                    break
                built.append(following)
            if not state:
                break
            state = self._fails[state]
        for new in reversed(built):
            self.matches[new] = self.matches[new] or self.matches[self._fails[new]]
        return result

    def _build(self, state: int, character: str) -> int:
        """The new state that continues `state`; 0 if no stop sequence does."""
        depth, low, high = self.depths[state], self.lows[state], self._highs[state]
        if high - low == 1 and self.stops[low][depth : depth + 1] != character:  # the usual case, without a search
            return 0

        def at_depth(stop: str) -> str:
            return stop[depth : depth + 1]

        low = bisect_left(self.stops, character, low, high, key=at_depth)
        if low == high or at_depth(self.stops[low]) != character:
            return 0
        built = len(self.depths)
        self.lows.append(low)
        self._highs.append(bisect_right(self.stops, character, low, high, key=at_depth))
        self.depths.append(depth + 1)
        self.matches.append(self.stops[low] if len(self.stops[low]) == depth + 1 else None)
        self._fails.append(0)
        self._nexts[state, character] = built
        return built


class StopSequenceMatcher:
    """Searches one run of text. `matched` is the stop sequence that ended it, if any."""

    __slots__ = ("_automaton", "_deepest", "_find_first", "_firsts", "_held", "_state", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        self._automaton = _Automaton(stops)
        self._firsts = sorted({stop[0] for stop in stops})
        firsts = re.escape("".join(self._firsts))
        self._find_first = re.compile(f"[{firsts}]" if firsts else r"(?!)").search
        self._state = 0
        self._held = 0  # number of characters held back
        self._deepest = ""  # stop sequence that begins with them
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that can be released now; once `matched` is set, the rest of the text before the match."""
        state, position, end = self._state, 0, len(text)
        if not state:  # faster than a regular expression for the few first characters that are usual
            for first in self._firsts:
                if first in text:
                    break
            else:
                return text
        automaton = self._automaton
        known, matches = automaton.known, automaton.matches
        while position < end:
            if not state:
                begin = self._find_first(text, position)
                if begin is None:
                    break
                position = begin.start()
            step = (state, text[position])
            position += 1
            following = known.get(step)
            state = automaton.after(*step) if following is None else following
            matched = matches[state]
            if matched is not None:
                self.matched, self._state = matched, 0
                released = self._all_but(len(matched), text[:position])
                self._held, self._deepest = 0, ""
                return released
        if not state:  # the usual case: nothing is held any more
            if self._held:
                text = self._deepest[: self._held] + text
                self._state, self._held, self._deepest = 0, 0, ""
            return text
        held = automaton.depths[state]
        text = self._all_but(held, text)
        self._state, self._held = state, held
        self._deepest = automaton.stops[automaton.lows[state]]
        return text

    def _all_but(self, last: int, text: str) -> str:
        """The held characters and `text`, without the last `last` characters."""
        count = self._held + len(text) - last
        return self._deepest[: min(count, self._held)] + text[: max(0, count - self._held)]

    def flush(self) -> str:
        """The characters held back, at the end of a run of text."""
        held = self._deepest[: self._held]
        self._state = self._held = 0
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
        matcher = self._matcher
        if type(batch) is str:
            released = matcher.feed(batch)
            if matcher.matched is None:
                return released if released or not batch else []
            match = Finish("stop_sequence", matcher.matched)
            return [released, match] if released else [match]
        out: list[Delta] = []
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


MAX_PIECE: Final = 2048
"""Characters of text that are searched at once. The worst text takes a microsecond per character."""


def divide(batch: Batch) -> Iterator[tuple[Batch, bool]]:
    """The batch in pieces of at most `MAX_PIECE` characters of text, and whether each continues the piece before it."""
    if type(batch) is str:
        for start in range(0, max(1, len(batch)), MAX_PIECE):
            yield batch[start : start + MAX_PIECE], start > 0
        return
    held: list[Delta] = []
    size = 0
    for delta in deltas_of(batch):
        length = len(delta) if type(delta) is str else 1
        if held and size + length > MAX_PIECE:
            yield held, False
            held, size = [], 0
        if type(delta) is str and length > MAX_PIECE:
            yield from divide(delta)
        else:
            held.append(delta)
            size += length
    if held:
        yield held, False


def _ends_text(delta: Delta) -> bool:
    """Whether text after `delta` belongs to another run of text; False for a delta that writes nothing."""
    match delta:
        case Usage() | MessageFields() | Thinking("") | Signature(""):
            return False
        case (
            str()
            | Thinking()
            | Signature()
            | ToolStart()
            | ToolJson()
            | Citation()
            | BlockStop()
            | Block()
            | ThinkingEstimate()
            | OtherDelta()
            | Finish()
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
