"""The arguments of one tool call, as engines send them → the text of one JSON object, piece by piece. Pure.

A client joins the pieces of a call and parses the result (contract 5.7), so the pieces of a complete call must always
be one JSON object. What was sent cannot be taken back. Therefore:

    UNDECIDED  white space, a byte order mark or `{` so far: nothing is released
    STREAMED   the text begins with `{"`: each piece is copied, and repaired, as soon as it can mean only one thing
    HELD       anything else, and an object that arrives in one piece: released as a whole when the call is closed

Held are: JSON that is encoded twice, `null`, arrays, code fences, and `{}`, because some engines send `{}` first and
the real arguments after it, or a growing snapshot of them. `parse_tool_input` decides which object they are.

A streamed object is copied by a small JSON machine. These can mean only one thing, and are repaired: a raw control
character in a string, a backslash that begins no escape, a comma before a closing bracket, Python's and JavaScript's
constants, brackets that are missing at the end, and text after the end. After anything else the machine stops
(`broken`), and the object is closed behind its last value.

The machine takes about two microseconds per token, so a megabyte of small numbers would take seconds. Therefore a long
piece is cut before its last comma, and orjson checks what is before the cut: valid JSON is copied at once (`_Stretch`).
"""

import json
import re
from enum import Enum, auto
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from ...wire.defaults import MAX_DEPTH
from ...wire.json_codec import dumps, is_shallow, loads_exactly
from ...wire.tool_input import parse_tool_input

_SPECIAL: Final = re.compile(r'["\\\x00-\x1f]').search
_CLEAN: Final = re.compile(r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+').fullmatch
_RUN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE: Final = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_PARTIAL_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_WORD: Final = re.compile(r'[^ \t\n\r{}\[\],:"]+')
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_VALUE: Final = re.compile(f"true|false|null|{_NUMBER.pattern}")
_CONSTANTS: Final = {
    "True": "true",
    "False": "false",
    "None": "null",
    "undefined": "null",
    "NaN": "null",
    "Infinity": "null",
    "-Infinity": "null",
}
_CLOSERS: Final = {"{": "}", "[": "]"}
_BEGINNING: Final = re.compile(r'[\ufeff \t\n\r]*\{[ \t\n\r]*"')
_UNDECIDED: Final = re.compile(r"[\ufeff \t\n\r]*(?:\{[ \t\n\r]*)?")
_FENCE: Final = "```"
_FENCE_LINE: Final = re.compile(r"```[a-zA-Z]*+[^\S\n]*+\n")
# What some engines send first in place of the real arguments. Only at the start: a string may hold the same text.
_PLACEHOLDERS: Final = re.compile(r"(?:\s*+(?:\{\s*+\}|null))+(?=\s*+\{)")
_STRUCTURE: Final = re.compile(r'["{}\[\]]|\\.?', re.DOTALL)
# The parts of a JSON text that the digest covers. White space outside strings is left out, except after a comma.
_DIGESTED: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|,[ \t\n\r]*+|[^ \t\n\r",]++', re.DOTALL)
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_LEFT_OPEN: Final = re.compile(rb"([\]}]*+)([\[{]*+)")

_BLANKS: Final = "\ufeff \t\n\r"
_MAX_RECENT: Final = 64  # pieces kept before they are folded, so that a long call does not keep all of its pieces
_MAX_PIECE: Final = 64 * 1024  # characters; a piece of this length is folded at once
_MAX_WORD: Final = 4096  # characters of a number
_MAX_UNDECIDED: Final = 4096  # characters of white space before the arguments
_MIN_STRETCH: Final = 256  # characters; fewer are copied token by token
_MAX_STRETCH: Final = 64 * 1024  # characters


class _Expect(Enum):
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    COMMA = auto()


class _Stretch(NamedTuple):
    """The beginning of a text that was checked to be valid JSON at its place in an object."""

    text: str
    stack: list[str]
    """The brackets that are open after it."""
    has_space: bool
    """Whether there is white space outside its strings."""


_LETTERS: Final = {_Expect.KEY: "k", _Expect.COLON: ":", _Expect.VALUE: "v", _Expect.COMMA: ","}

# What must precede a stretch to make it JSON by itself: for the innermost bracket, and what is expected in it.
_BEFORE_STRETCH: Final = {
    ("{", _Expect.KEY): "{",
    ("{", _Expect.COLON): '{""',
    ("{", _Expect.VALUE): '{"":',
    ("{", _Expect.COMMA): '{"":0',
    ("[", _Expect.VALUE): "[",
    ("[", _Expect.COMMA): "[0",
}


def _stretch(text: str, stack: list[str], expect: _Expect) -> _Stretch | None:
    """The part of `text` before its last comma that is between values, if it is valid JSON; else None.

    `stack` and `expect` say where in an object `text` begins.
    """
    parts = text.replace("\\\\", "__").replace('\\"', "__").split('"')  # every second part is in a string
    last = len(parts) - 1
    last -= last % 2  # an unfinished string does not count
    while last >= 0 and "," not in parts[last]:
        last -= 2
    if last < 0:
        return None
    end = parts[last].rindex(",")
    between = "".join(parts[0:last:2]) + parts[last][:end]
    text = text[: sum(map(len, parts[:last])) + last + end]
    brackets = between.encode("utf-8", "surrogatepass").translate(None, _NOT_BRACKETS)
    levels = 0
    while (fewer := brackets.replace(b"[]", b"").replace(b"{}", b"")) != brackets and levels < MAX_DEPTH:
        brackets = fewer
        levels += 1
    left = _LEFT_OPEN.fullmatch(brackets)
    if left is None or len(stack) + levels + len(left[2]) > MAX_DEPTH:
        return None
    closed = len(left[1])
    if closed >= len(stack) or left[1].decode() != _closers(stack[len(stack) - closed :]):
        return None
    after = stack[: len(stack) - closed] + list(left[2].decode())
    before = "".join(['{"":' if bracket == "{" else "[" for bracket in stack[:-1]])
    try:
        orjson.loads(before + _BEFORE_STRETCH[stack[-1], expect] + text + _closers(after))
    except ValueError:
        return None
    return _Stretch(text, after, len(between.split(maxsplit=1)) != 1 or between != between.strip())


def _closers(stack: list[str]) -> str:
    """The brackets that close those in `stack`."""
    return "".join([_CLOSERS[bracket] for bracket in reversed(stack)])


def stays_in_string(text: str) -> bool:
    """Whether `text`, in an open string of a JSON text, is copied as it is and leaves the string open."""
    return not _SPECIAL(text) or _CLEAN(text) is not None


class JsonObject:
    """Copies the text of one JSON object and repairs it. `repaired`: the copy differs from the text."""

    __slots__ = (
        "_comma",
        "_copied",
        "_digest",
        "_escape",
        "_expect",
        "_in_string",
        "_is_key",
        "_recent",
        "_stack",
        "_word",
        "broken",
        "done",
        "repaired",
    )

    def __init__(self) -> None:
        self._stack: list[str] = []  # open brackets
        self._expect = _Expect.VALUE
        self._in_string = False
        self._is_key = False
        self._escape = ""  # an escape that is not complete
        self._comma = ""  # a comma and the white space after it, held until something other than a bracket follows
        self._word = ""  # a number or constant that is not complete
        self._copied = 0  # characters of it that are copied already
        self._recent: list[str] = []  # copied tokens that are not in the digest yet
        self._digest = blake2b(digest_size=16)
        self.done = False
        self.broken = False
        self.repaired = False

    def feed(self, text: str) -> str:
        """What can be copied of the text so far."""
        if self._in_string and not self._escape and (not _SPECIAL(text) or _CLEAN(text)):
            self._recent.append(text)
            if len(self._recent) > _MAX_RECENT or len(text) > _MAX_PIECE:
                self._fold()
            return text
        if self.done or self.broken:
            return self._after(text)
        out: list[str] = []
        text, self._escape = self._escape + text, ""
        position = 0
        size = 4 * _MIN_STRETCH  # of the next stretch to try, which grows while it is valid
        try_at = 0 if len(text) >= _MIN_STRETCH else len(text)
        while position < len(text) and not self.broken and not self.done:
            if self._in_string:
                position = self._string(text, position, out)
            elif position < try_at or self._word or not self._stack:
                position = self._token(text, position, out)
            else:
                copied = self._copy_stretch(text[position : position + size], out)
                position += copied
                if not copied:
                    try_at = position + size
                size = min(2 * size, _MAX_STRETCH) if copied else max(size // 8, _MIN_STRETCH)
        if position < len(text):
            out.append(self._after(text[position:]))
        if self.done or len(self._recent) > _MAX_RECENT or len(text) > _MAX_PIECE:
            self._fold()
        return "".join(out)

    def end(self) -> str:
        """What closes the object, if it is incomplete."""
        if self.done:
            return ""
        self.repaired = True
        out: list[str] = []
        if self._word and not self.broken:
            self._end_word(out)
        if self._in_string:
            out.append('"')
            self._expect = _Expect.COLON if self._is_key else _Expect.COMMA
        if self._stack[-1] == "{":
            if self._expect is _Expect.COLON:
                out.append(":null")
            elif self._expect is _Expect.VALUE:
                out.append("null")
        out += [_CLOSERS[bracket] for bracket in reversed(self._stack)]
        self._in_string = False
        self.done = True
        return "".join(out)

    def held(self) -> str:
        """The text that is held back at the moment, unrepaired."""
        return self._comma + self._word[self._copied :] + self._escape

    def place(self) -> bytes:
        """Where the text goes on, for a native pump: the open brackets, and a letter for what may follow.

        k and K: a key and the inside of one; v and ": a value and the inside of a string; a colon; a comma. b"" while
        something is held back or a number may go on, and after the end.
        """
        if self.done or self.broken or not self._stack or self._comma or self._word or self._escape:
            return b""
        in_string = "K" if self._is_key else '"'
        return ("".join(self._stack) + (in_string if self._in_string else _LETTERS[self._expect])).encode()

    def digest(self) -> bytes:
        """A digest of the copy without the white space between tokens."""
        self._fold()
        return self._digest.digest()

    def has_digest_of(self, text: str) -> bool:
        """Whether the object is complete, and `text` has its tokens."""
        tokens = _DIGESTED.findall(text.strip())
        digest = blake2b("".join(tokens).encode("utf-8", "surrogatepass"), digest_size=16)
        return self.done and self.digest() == digest.digest()

    def _fold(self) -> None:
        self._digest.update("".join(self._recent).encode("utf-8", "surrogatepass"))
        self._recent.clear()

    def _copy_stretch(self, text: str, out: list[str]) -> int:
        """Copy the beginning of `text` if it is valid JSON. Returns the number of characters."""
        if len(text) < _MIN_STRETCH or (self._comma and text.lstrip()[:1] in ("]", "}")):
            return 0
        stretch = _stretch(text, self._stack, self._expect)
        if stretch is None or not stretch.text:
            return 0
        copied = self._comma + stretch.text
        self._comma = ""
        out.append(copied)
        self._recent.append("".join(_DIGESTED.findall(copied)) if stretch.has_space else copied)
        self._stack = stretch.stack
        self._expect = _Expect.COMMA
        return len(stretch.text)

    def _after(self, text: str) -> str:
        """The part of `text` that may follow the object: white space."""
        if self.done and not _SPACE.sub("", text):
            return text
        self.repaired = True
        return ""

    def _string(self, text: str, position: int, out: list[str]) -> int:
        run = _RUN.match(text, position)
        if run is not None and run[0]:
            self._copy(run[0], out)
            return run.end()
        character = text[position]
        if character == '"':
            self._copy(character, out)
            self._in_string = False
            self._expect = _Expect.COLON if self._is_key else _Expect.COMMA
            return position + 1
        if character != "\\":
            self.repaired = True
            self._copy(json.dumps(character)[1:-1], out)
            return position + 1
        escape = _ESCAPE.match(text, position)
        if escape is not None:
            self._copy(escape[0], out)
            return escape.end()
        if _PARTIAL_ESCAPE.fullmatch(text, position):
            self._escape = text[position:]
            return len(text)
        self.repaired = True
        if text[position + 1] == "'":
            self._copy("'", out)
            return position + 2
        self._copy("\\\\", out)
        return position + 1

    def _token(self, text: str, position: int, out: list[str]) -> int:
        word = _WORD.match(text, position)
        if word is not None:
            self._word += word[0]
            self.broken = self._expect is not _Expect.VALUE or not self._stack or len(self._word) > _MAX_WORD
            number = _NUMBER.match(self._word)
            if not self.broken and number is not None and number.end() > self._copied:
                self._emit(self._word[self._copied : number.end()], out)
                self._copied = number.end()
            return word.end()
        if self._word:
            self._end_word(out)
            return position
        space = _SPACE.match(text, position)
        if space is not None and space[0]:
            if self._comma:
                self._comma += space[0]
            else:
                out.append(space[0])
            return space.end()
        self._mark(text[position], out)
        return position + 1

    def _mark(self, mark: str, out: list[str]) -> None:
        expect, stack = self._expect, self._stack
        if mark == '"' and stack and expect in (_Expect.KEY, _Expect.VALUE):
            self._is_key = expect is _Expect.KEY
            self._in_string = True
            self._emit(mark, out)
        elif mark in "{[" and expect is _Expect.VALUE and len(stack) < MAX_DEPTH:
            self._emit(mark, out)
            stack.append(mark)
            self._expect = _Expect.KEY if mark == "{" else _Expect.VALUE
        elif mark == ":" and expect is _Expect.COLON:
            self._copy(mark, out)
            self._expect = _Expect.VALUE
        elif mark == "," and expect is _Expect.COMMA:
            self._comma = mark
            self._expect = _Expect.KEY if stack[-1] == "{" else _Expect.VALUE
        elif self._may_close(mark):
            if self._comma:
                self.repaired = True
                out.append(self._comma[1:])
                self._comma = ""
            self._copy(mark, out)
            stack.pop()
            self._expect = _Expect.COMMA
            self.done = not stack
        else:
            self.broken = True

    def _may_close(self, mark: str) -> bool:
        if not self._stack or _CLOSERS[self._stack[-1]] != mark:
            return False
        return self._expect is _Expect.COMMA or self._expect is (_Expect.KEY if mark == "}" else _Expect.VALUE)

    def _end_word(self, out: list[str]) -> None:
        word, copied = self._word, self._copied
        self._word, self._copied = "", 0
        value: str | None = word
        if not _VALUE.fullmatch(word):
            value = word[:copied] or _CONSTANTS.get(word)
            self.broken = bool(copied) or value is None
            self.repaired = True
        if value is not None:
            self._emit(value[copied:], out)
            self._expect = _Expect.COMMA

    def _copy(self, token: str, out: list[str]) -> None:
        out.append(token)
        self._recent.append(token)

    def _emit(self, token: str, out: list[str]) -> None:
        if self._comma:
            self._copy(self._comma, out)
            self._comma = ""
        if token:
            self._copy(token, out)


class ToolArguments:
    """The arguments of one call. `repaired`: the released text differs from what the engine sent."""

    __slots__ = (
        "_depth",
        "_in_string",
        "_is_whole",
        "_object",
        "_pieces",
        "_undecided",
        "_unread",
        "closed",
        "repaired",
    )

    def __init__(self) -> None:
        self._object: JsonObject | None = None  # once the arguments are streamed, or closed
        self._pieces: list[str] = []  # held pieces
        self._undecided = True
        self._unread: list[str] = []  # held pieces that are not scanned for the end of the JSON
        self._depth = 0
        self._in_string = False
        self._is_whole = False
        self.closed = False
        self.repaired = False

    def feed(self, piece: str) -> str:
        """Add a piece; return the text that may be released."""
        if self._object is not None:
            return self._object.feed(piece)
        self._pieces.append(piece)
        self._unread.append(piece)
        if not self._undecided:
            return ""
        text = "".join(self._pieces)
        if len(text) < _MAX_UNDECIDED and _UNDECIDED.fullmatch(text):
            return ""
        self._undecided = False
        if _BEGINNING.match(text) is None or (len(self._pieces) == 1 and _object_in(piece) is not None):
            return ""
        self._object = JsonObject()
        self._pieces.clear()
        self._unread.clear()
        json_text = text.lstrip(_BLANKS)
        self.repaired = "\ufeff" in text[: len(text) - len(json_text)]
        return self._object.feed(json_text)

    @property
    def is_streamed(self) -> bool:
        return self._object is not None

    def place(self) -> bytes:
        """Where streamed arguments go on (see `JsonObject.place`)."""
        return b"" if self._object is None else self._object.place()

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing but white space."""
        return self._object is None and not any(piece.strip() for piece in self._pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are a whole JSON value, as far as its brackets and quotes tell."""
        if self._object is not None:
            return self._object.done or self._object.broken
        self._scan()
        return self._is_whole

    def close(self, *, cut: bool = False) -> str | None:
        """Release what is left, and ignore later pieces. None if no object can be read from held arguments.

        `cut`: the token limit ended the answer, so streamed arguments are left incomplete.
        """
        self.closed = True
        if self._object is not None:
            if cut and not self._object.done:
                return self._object.held()
            text: str | None = self._object.end()
            self.repaired |= self._object.repaired
            return text
        text = "".join(self._pieces).lstrip(_BLANKS) if cut and self._undecided else self._held_text()
        self._pieces.clear()
        self._unread.clear()
        self._object = JsonObject()
        if text:
            self._object.feed(text)
        self._object.done = True
        return text

    def equals(self, text: str) -> bool:
        """Whether `text` is a whole object, and the same one."""
        if len(text) > _MAX_STRETCH:  # the same digest means that it is the same valid object
            return self._object is not None and self._object.has_digest_of(text)
        if _object_in(text) is None:
            return False
        own = self._object
        if own is None:
            held = self._held_text()
            if held is None:
                return False
            own = JsonObject()
            own.feed(held or "{}")
        other = JsonObject()
        other.feed(text.strip())
        return own.digest() == other.digest()

    @property
    def is_without_input(self) -> bool:
        """Whether there was nothing but white space, `null` or an empty object."""
        if self._object is not None:
            return False
        if sum(map(len, self._pieces)) > _MAX_UNDECIDED:
            return False
        return "".join(self._pieces).strip(_BLANKS) in ("", "null") or self.is_empty_object()

    def is_empty_object(self) -> bool:
        if self._object is not None or self._undecided or sum(map(len, self._pieces)) > _MAX_UNDECIDED:
            return False
        return _object_in("".join(self._pieces)) == {}

    def grows_into(self, text: str) -> bool:
        """Whether the arguments are held, and `text` is a larger object with the same members and more."""
        if self._object is not None or not self._pieces:
            return False
        old, new = _object_in(self._pieces[-1]), _object_in(text)
        return old is not None and new is not None and old != new and _grows(old, new)

    def _scan(self) -> None:
        text = "".join(self._unread)
        # a backslash at the end waits for the character that it escapes
        self._unread = ["\\"] if (len(text) - len(text.rstrip("\\"))) % 2 else []
        for match in _STRUCTURE.finditer(text[: len(text) - len(self._unread)]):
            mark = match[0]
            if mark == '"':
                self._in_string = not self._in_string
                self._is_whole = not self._in_string and self._depth == 0
            elif self._in_string or mark[0] == "\\":
                continue
            else:
                self._depth += 1 if mark in "{[" else -1
                self._is_whole = self._depth == 0

    def _held_text(self) -> str | None:
        """The object in the held pieces as JSON text; "" for white space, None if no object can be read."""
        sent = "".join(self._pieces)
        text = sent.strip(_BLANKS)
        fence = _FENCE_LINE.match(text)
        if fence is not None and text.endswith(_FENCE, fence.end()):
            text = text[fence.end() : -len(_FENCE)].strip()
        if not text:
            return ""
        if text[0] == "{" or text.startswith("null"):
            text = self._latest_snapshot() or _without_placeholders(text)
        if text[0] == "{":
            copy = JsonObject()
            copied = copy.feed(text) + copy.end()
            if not copy.broken or len(copied) > len("{}"):
                self.repaired |= copy.repaired or copied.strip() != sent.strip()
                return copied
        self.repaired = True
        value = parse_tool_input(text)
        return None if value is None else dumps(value).decode()

    def _latest_snapshot(self) -> str:
        """The last of several whole objects of which each grows into the next; "" if the pieces are not snapshots."""
        if len(self._pieces) < 2:
            return ""
        objects = [_object_in(piece) for piece in self._pieces]
        if objects[-1] and _object_in(_without_placeholders("".join(self._pieces))) is None:
            known: dict[str, Any] = {}
            latest = ""
            for piece, found in zip(self._pieces, objects, strict=True):
                if found is not None and _grows(known, found):
                    known, latest = found, piece
            return latest.strip()
        return ""


def _without_placeholders(text: str) -> str:
    found = _PLACEHOLDERS.match(text)
    return text if found is None else text[found.end() :].lstrip()


def _object_in(text: str) -> dict[str, Any] | None:
    """The object that `text` is as it stands."""
    if text.strip()[:1] != "{":
        return None
    try:
        value, _ = loads_exactly(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict) and is_shallow(value) else None


def _grows(old: Any, new: Any) -> bool:
    """Whether `new` is `old` with something added at its end."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and _grows(value, new[key]) for key, value in old.items())
    if isinstance(old, str) and isinstance(new, str):
        return new.startswith(old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) <= len(new) and all(map(_grows, old, new))
    return bool(old == new)
