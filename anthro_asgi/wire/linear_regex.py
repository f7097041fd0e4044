"""Regular expressions in linear time, for patterns that a model writes. Pure.

Python's `re` tries one way through a pattern after the other. For some patterns that takes longer than anyone waits,
nothing can interrupt it, and it holds the event loop. Here all ways are followed at the same time, one character after
the other (Thompson's construction). The states that were reached together are remembered, so that a character usually
costs one look-up.

    pattern ─► _Parser ─► nodes of an automaton ─► Pattern.search(text), in steps

The syntax is the part of Python's that needs no memory of what was matched: literals, `.`, classes, escapes, groups,
`|`, the quantifiers with their lazy forms, `^ $ \\A \\Z \\b \\B`, and `(?i)` at the start. Case is never distinguished.
"""

from collections.abc import Callable
from typing import Final

from .large.cooperative import Steps

MAX_PATTERN: Final = 200  # characters
_MAX_NODES: Final = 2_000
_MAX_REPEAT: Final = 100
_MAX_STATES: Final = 4_000  # remembered
_BUDGET: Final = 200_000  # visits of nodes in one search: some tenths of a second
_CHARACTERS_PER_STEP: Final = 4_096
_VISITS_PER_STEP: Final = 4_000

Test = Callable[[str], bool]


class PatternError(ValueError):
    """The pattern cannot be read. The text says why."""


class SearchTooLong(Exception):
    """The search needs more work than it may take."""


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


_CLASSES: Final[dict[str, Test]] = {
    "d": str.isdecimal,
    "D": lambda char: not char.isdecimal(),
    "s": str.isspace,
    "S": lambda char: not char.isspace(),
    "w": _is_word,
    "W": lambda char: not _is_word(char),
}
_CONTROL: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0", "a": "\a"}
_ASSERTIONS: Final = frozenset("^$AZbB")
_START, _WORD, _OTHER, _END = range(4)  # what stands beside a position


class _Node:
    """A node of the automaton: it reads a character (`test`), asserts something of its place, or only leads on."""

    __slots__ = ("assertion", "leads_to", "test")

    def __init__(self, test: Test | None = None, assertion: str = "") -> None:
        self.test = test
        self.assertion = assertion
        self.leads_to: list[int] = []


# What the parser builds: a list of alternatives, each a list of items. An item is read once or repeated.
class _Item:
    """A test, an assertion or a group, and how often it is repeated: from `least` to `most`, None without a bound."""

    __slots__ = ("assertion", "group", "least", "most", "test")

    def __init__(self, test: Test | None = None, assertion: str = "", group: "list[list[_Item]] | None" = None) -> None:
        self.test = test
        self.assertion = assertion
        self.group = group
        self.least = 1
        self.most: int | None = 1


class _Parser:
    """Reads a pattern, already in lower case where that does not change its meaning."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def parse(self) -> list[list[_Item]]:
        while self._pattern.startswith("(?i)", self._at):
            self._at += 4
        found = self._alternatives()
        if self._at < len(self._pattern):
            raise PatternError("unbalanced parenthesis")
        return found

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise PatternError("the pattern ends too early")
        self._at += 1
        return char

    def _alternatives(self) -> list[list[_Item]]:
        self._depth += 1
        if self._depth > _MAX_REPEAT:
            raise PatternError("too many groups inside each other")
        found: list[list[_Item]] = [[]]
        while (char := self._peek()) and char != ")":
            if char == "|":
                self._at += 1
                found.append([])
            else:
                item = self._item()
                self._quantify(item)
                found[-1].append(item)
        self._depth -= 1
        return found

    def _item(self) -> _Item:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return _Item(self._class())
        if char == ".":
            return _Item(lambda read: read != "\n")
        if char in "^$":
            return _Item(assertion=char)
        if char in "*+?":
            raise PatternError("nothing to repeat")
        if char == "\\":
            return self._escape()
        return _Item(_literal(char))

    def _group(self) -> _Item:
        if self._peek() == "?":
            self._at += 1
            kind = self._next()
            if kind == "P" and self._peek() == "<":
                end = self._pattern.find(">", self._at)
                if end < 0:
                    raise PatternError("a group name has no end")
                self._at = end + 1
            elif kind != ":":
                raise PatternError("of the groups with (? only (?: is supported, and (?i) at the start")
        group = self._alternatives()
        if self._next() != ")":
            raise PatternError("unbalanced parenthesis")
        return _Item(group=group)

    def _escape(self) -> _Item:
        char = self._next()
        if char in "AZbB":
            return _Item(assertion=char)
        if char in _CLASSES:
            return _Item(_CLASSES[char])
        if char in "123456789":
            raise PatternError("references to groups are not supported")
        return _Item(_literal(_CONTROL.get(char, char)))

    def _class(self) -> Test:
        negated = self._peek() == "^"
        self._at += negated
        singles: set[str] = set()
        ranges: list[tuple[str, str]] = []
        classes: list[Test] = []
        first = True
        while first or self._peek() != "]":
            first = False
            char = self._next()
            if char == "\\":
                char = self._next()
                if char in _CLASSES:
                    classes.append(_CLASSES[char])
                    continue
                char = _CONTROL.get(char, char)
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._next()
                last = self._next() if last == "\\" else last
                if last < char:
                    raise PatternError(f"bad range {char}-{last}")
                ranges.append((char, last))
            else:
                singles |= {char, char.lower()}
        self._at += 1

        def test(read: str) -> bool:
            inside = (
                read in singles
                or any(low <= read <= high or low <= read.upper() <= high for low, high in ranges)
                or any(belongs(read) for belongs in classes)
            )
            return inside is not negated

        return test

    def _quantify(self, item: _Item) -> None:
        char = self._peek()
        if char in ("*", "+", "?"):
            self._at += 1
            item.least, item.most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char != "{" or not self._counted(item):
            return
        if self._peek() in ("?", "+"):  # lazy or possessive: the same texts match, as far as this search can tell
            self._at += 1
        if self._peek() in ("*", "+", "?"):
            raise PatternError("multiple repeat")

    def _counted(self, item: _Item) -> bool:
        """Reads `{m}`, `{m,}`, `{,n}` or `{m,n}`. Anything else is a brace, as in Python."""
        end = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : end].partition(",")
        if end < 0 or not all(part == "" or part.isdecimal() for part in (low, high)) or not (low or high):
            return False
        self._at = end + 1
        item.least = int(low or 0)
        item.most = (int(high) if high else None) if comma else item.least
        if item.least > _MAX_REPEAT or (item.most or 0) > _MAX_REPEAT:
            raise PatternError(f"a repetition may be at most {_MAX_REPEAT}")
        if item.most is not None and item.most < item.least:
            raise PatternError("the minimum of a repetition is above its maximum")
        return True


def _literal(char: str) -> Test:
    return char.lower().__eq__


class Pattern:
    """A pattern, ready to search. Raises PatternError for one that it cannot read."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise PatternError(f"the pattern is longer than {MAX_PATTERN} characters")
        self._nodes: list[_Node] = []
        self._built = 0
        alternatives = _Parser(pattern).parse()
        self._accept = self._node()
        self._start = self._build(alternatives, self._accept)
        self._visits = 0
        self._forget()

    def _forget(self) -> None:
        self._ids: dict[tuple[frozenset[int], int], int] = {}
        self._states: list[tuple[frozenset[int], int]] = []
        self._rows: list[dict[str, int]] = []

    # building: each part is built from its end, and returns the node where it begins

    def _node(self, test: Test | None = None, assertion: str = "") -> int:
        if len(self._nodes) >= _MAX_NODES:
            raise PatternError("the pattern is too large")
        self._nodes.append(_Node(test, assertion))
        return len(self._nodes) - 1

    def _build(self, alternatives: list[list[_Item]], end: int) -> int:
        self._built += 1  # empty groups make no nodes, and nested repetitions of them would be built forever
        if self._built > _MAX_NODES:
            raise PatternError("the pattern is too large")
        begins = []
        for items in alternatives:
            at = end
            for item in reversed(items):
                at = self._repeated(item, at)
            begins.append(at)
        return self._fork(*begins)

    def _fork(self, *targets: int) -> int:
        if len(targets) == 1:
            return targets[0]
        fork = self._node()
        self._nodes[fork].leads_to += targets
        return fork

    def _repeated(self, item: _Item, end: int) -> int:
        at = end
        if item.most is None:
            loop = self._node()
            self._nodes[loop].leads_to += [self._once(item, loop), end]
            at = loop
        else:
            for _ in range(item.most - item.least):
                at = self._fork(self._once(item, at), end)
        for _ in range(item.least):
            at = self._once(item, at)
        return at

    def _once(self, item: _Item, end: int) -> int:
        if item.group is not None:
            return self._build(item.group, end)
        node = self._node(item.test, item.assertion)
        self._nodes[node].leads_to.append(end)
        return node

    # searching

    def search(self, text: str) -> Steps[bool]:
        """Whether the pattern matches anywhere in `text`, in steps. Raises SearchTooLong.

        The searches of one Pattern share a bound of the work they may take together.
        """
        text = text.lower()
        state = self._state(frozenset(), _START)
        due = self._visits + _VISITS_PER_STEP
        for index, char in enumerate(text):
            following = self._rows[state].get(char)
            if following is None:
                following = self._step(state, char)
                if self._visits >= due:
                    due = self._visits + _VISITS_PER_STEP
                    yield
            if following < 0:
                return True
            state = following
            if index % _CHARACTERS_PER_STEP == 0:
                yield
        nodes, before = self._states[state]
        return self._accept in self._reach(nodes, before, _END)

    def _state(self, nodes: frozenset[int], before: int) -> int:
        key = (nodes, before)
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self._states)
            self._states.append(key)
            self._rows.append({})
        return found

    def _step(self, state: int, char: str) -> int:
        """The state after `char`; -1 if the pattern matches before it."""
        nodes, before = self._states[state]
        kind = _WORD if _is_word(char) else _OTHER
        reached = self._reach(nodes, before, kind)
        if self._accept in reached:
            following = -1
        else:
            after = set()
            for index in reached:
                node = self._nodes[index]
                if node.test is not None and node.test(char):
                    after.update(node.leads_to)
            if len(self._states) >= _MAX_STATES:
                self._forget()
                return self._state(frozenset(after), kind)
            following = self._state(frozenset(after), kind)
        self._rows[state][char] = following
        return following

    def _reach(self, nodes: frozenset[int], before: int, after: int) -> set[int]:
        """All nodes that can be reached without reading a character, at a place between `before` and `after`."""
        reached: set[int] = set()
        waiting = [*nodes, self._start]
        while waiting:
            index = waiting.pop()
            if index in reached:
                continue
            reached.add(index)
            node = self._nodes[index]
            if node.test is None and (not node.assertion or _holds(node.assertion, before, after)):
                waiting += node.leads_to
        self._visits += len(reached)
        if self._visits > _BUDGET:
            raise SearchTooLong
        return reached


def _holds(assertion: str, before: int, after: int) -> bool:
    if assertion in "^A":
        return before == _START
    if assertion in "$Z":
        return after == _END
    at_boundary = (before == _WORD) is not (after == _WORD)
    return at_boundary is (assertion == "b")
