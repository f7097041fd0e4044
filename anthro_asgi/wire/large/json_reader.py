"""Reads JSON that is too large to parse in one slice of the event loop. Pure. (`json_writer` writes such JSON.)

Two things are done with the document as it goes by, window after window:

1. The content of long strings is cut out (see `cuts`), and a mark takes its place. What is left is the text.
2. The text is parsed in chunks that end at a comma:

    {"model":"m","messages":[{"role":"user","content":"MARK"},{"role":…},…,{"role":"user"},{"role":…}],"tools":…}
    └────────────────────── chunk 1 ────────────────────────┘└────── chunk 2 ────────────┘└─────── chunk 3 ──────┘

A chunk is made a document of its own by the arrays and objects that are open where it begins and where it ends:

    {"in":["first", {"role":…},…,{"role":"user"} ,"last"]}

Theory: what may follow a value in JSON depends on the open arrays and objects alone. So the document is valid exactly
if each chunk is, in these surroundings. Its values are then added to the open containers of the chunks before. Each
byte is looked at a constant number of times, whatever the shape, and no step depends on the size of the document.

Where strings begin and end is known exactly: a window begins outside an escape, so escaped quotes and backslashes are
found from left to right. If the document is not valid, this may be wrong from the first invalid byte on. That byte
itself is left in the text, or in a string whose content is checked, so it is found. No window ends inside an escape, a
surrogate pair or a character, so lone surrogates are replaced (see `json_codec`) as in the whole document.

With `cuts`, values that the service does not read are cut out, too. An array or object with one of these paths becomes
JSON text again as soon as its chunk is parsed: see `_ROOT`.

Values that are not cut out become Python objects. Their memory is estimated chunk by chunk, and a document beyond the
limit is refused.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from ..defaults import MAX_DEPTH, MAX_EXPANSION
from ..errors import InvalidRequest, RequestTooLarge
from ..json_codec import count_values, depth_and_rounding, dumps, is_shallow, loads, loads_exactly, replace_lone_halves
from .cooperative import Steps, drop_in_steps
from .cuts import MARK, MARK_JSON, Cuts, is_mark, is_value_mark, note_bare

_WHOLE: Final = 512 * 1024  # bytes up to which a document with few values is parsed at once, which is faster
_WINDOW: Final = 32 * 1024  # bytes read in a step
_CHUNK: Final = 16 * 1024  # bytes of text that are parsed at once, unless there is no comma to cut at
_DENSE: Final = 2048  # what a window may weigh to be read at once; a heavier one is read in smaller ones
_WEIGHTS: Final = ((b"[", 4), (b"{", 4), (b":", 2), (b'"', 1))
"""How long the punctuation of a window takes, in quotes. An array or object is allocated, the key of a member, too."""
_COMMAS: Final = 2  # that take as long as a quote
_SURROGATES: Final = (b"\\ud", b"\\uD")
_MANY_SURROGATES: Final = 1024  # escapes of a document that is parsed at once; replacing them takes a millisecond
_SURROGATE: Final = 4  # how long the escape of one takes, in quotes
_DENSE_WINDOW: Final = 4 * 1024
_MAX_CONTAINERS: Final = 1_000_000
_MAX_MEMBERS: Final = 1_000_000  # of an object; when it grows, all its members are moved at once
_LONG: Final = 1024  # bytes from which a string is cut out
_LONG_IF_WIDE: Final = 96  # … if it takes four times its size in memory
_LONGEST_KEY: Final = 256 * 1024  # bytes
_LARGE: Final = 512  # bytes from which a value that is not read is cut out
_REPORTED: Final = 1024 * 1024  # bytes of an invalid document up to which it is parsed whole, to find the error

# An estimate of what a value takes in memory, beside its text: CPython 3.11, 64 bit.
_OBJECT: Final = 120
_MEMBER: Final = 76
_MEMBER_OF_MANY: Final = 140  # a key that occurs once is kept, too
_MANY: Final = 64
_ARRAY: Final = 72
_ELEMENT: Final = 48
_ALWAYS: Final = 1024 * 1024  # bytes that the values of any document may take
_LIMITS: Final = {False: (MAX_EXPANSION, _ALWAYS), True: (2 * MAX_EXPANSION, 16 * 1024 * 1024)}
"""The expansion and the bytes that are always allowed, without a limit of the caller; True if nothing is cut out."""

_SPACE: Final = b" \t\r\n"
_TWO: Final = b"\0\0"
_BACKSLASH: Final = ord("\\")
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_PAIRS_REMOVED: Final = 4  # rounds in which adjacent brackets are removed, before the rest is looked at one by one
_BRACKETS_AT_ONCE: Final = 4096
_DEEPEST: Final = 1024  # levels that orjson reads
_DICT, _LIST = b"{["
_KIND_OF: Final = {ord("}"): _DICT, ord("]"): _LIST}
_VALUES_PER_STEP: Final = 4096
_PIECES_PER_STEP: Final = 16
_ESCAPE: Final = len(b"\\ud83d")
_FIRST_HALVES: Final = frozenset((b"d8", b"d9", b"da", b"db"))
_WIDE: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4", b"\\ud", b"\\uD")
"""What a character takes from which Python gives each character of its string four bytes."""
_WIDEST: Final = 4
_MANY_VALUES: Final = 16 * 1024  # of such a document; as many take two milliseconds
_MAX_QUOTES: Final = 4096  # to look at to measure strings with wide characters one by one
_QUOTES_PER_STEP: Final = 512
_CUT_PER_STEP: Final = 64  # strings
_MAX_LEVELS: Final = 900  # open arrays and objects; orjson reads 1024

# Keys and elements that stand for what was open before a chunk, and what is open after it.
_OUTER, _FIRST, _LAST = (f"{MARK}{name}" for name in ("outer", "first", "last"))
_OUTER_JSON, _FIRST_JSON, _LAST_JSON = (dumps(name) for name in (_OUTER, _FIRST, _LAST))


class _Unread(NamedTuple):
    """The shape of a value that is cut out."""

    depth_checked: bool = True  # it may not be deeper than allowed
    is_prompt: bool = False
    is_schema: bool = False  # it matters whether it has properties
    is_object: bool = False  # an array stays in the request, which is then refused


# Which values are cut out, by their path: a dict has the members of an object, a list what all elements are.
Shape = dict[str, Any] | list[Any] | _Unread | None
_ANY: Final = "*"
_UNKNOWN: Final = _Unread(depth_checked=False)
_INPUT: Final = _Unread(is_prompt=True, is_object=True)
_MESSAGE: Final = {"content": [{"input": _INPUT}]}
_TOOL: Final = {"input_schema": _Unread(is_prompt=True, is_schema=True, is_object=True)}
_FORMAT: Final = {"schema": _Unread(is_object=True)}
_READ: Final = (
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "mcp_servers",
    "stop_sequences",
    "system",
    "thinking",
    "thread",
    "tool_choice",
)
_ROOT: Final[Shape] = {
    "messages": [_MESSAGE],
    "tools": [_TOOL],
    "output_config": {"format": _FORMAT},
    "output_format": _FORMAT,
    "metadata": {_ANY: _UNKNOWN},
    **dict.fromkeys(_READ),
    _ANY: _UNKNOWN,
}
ANY_MEMBER: Final[Shape] = {_ANY: _UNKNOWN}
"""The shape of an object of which the keys and the short values are read."""
INPUT: Final[Shape] = [_INPUT]
"""The shape of an array whose element is the input of a tool call."""
_READ_AS_MARKS: Final = frozenset({"content", "data", "signature", "text", "thinking"})
"""Keys whose string may be a mark. Code that reads them joins texts, or asks `Cuts` for the text."""
_NO_PROMPT: Final = frozenset({"data", "signature"})
_SCHEMA_KEYS: Final = ("type", "properties")


class _CannotCut(ValueError):
    """The document is not valid. `loads_exactly` says why."""


def loads_in_steps(
    pieces: Sequence[bytes],
    cuts: Cuts | None = None,
    *,
    expansion: float | None = None,
    max_depth: int = MAX_DEPTH,
    shape: Shape = _ROOT,
) -> Steps[tuple[Any, int]]:
    """`loads_exactly` of the joined pieces, in steps: the value and its depth.

    Args:
        cuts: receives what is cut out of the body of a request. Without it, nothing is left out of the value.
        expansion: memory that the values may take, as a multiple of the document's size. By default 3.5 with `cuts`;
            7, and at least 16 MiB, without.
        max_depth: levels of a value that may be cut out; deeper ones stay in the request, which is then refused.
        shape: of the document; by default that of a request.

    Raises orjson.JSONDecodeError; InvalidRequest for keys of more than 256 KiB; RequestTooLarge for values that would
    take too much memory, and for more than a million arrays and objects, or members of an object.
    """
    size = sum(map(len, pieces))
    if size <= _WHOLE:
        whole = b"".join(pieces)
        if (yield from _is_light(whole, (MAX_EXPANSION if expansion is None else expansion) * size)):
            try:
                value = loads(whole)
                yield
                levels, rounded = depth_and_rounding(value)
                if not rounded:
                    return value, levels
                del value
            except ValueError:
                pass
        del whole
        yield
    budget = _Budget(size, *(_LIMITS[cuts is None] if expansion is None else (expansion, _ALWAYS)))
    reader = _Reader(cuts, budget, max_depth, shape)
    try:
        return (yield from reader.read(pieces))
    except ValueError:
        pass
    except (InvalidRequest, RequestTooLarge) as exc:
        exc.with_traceback(None)  # its frames hold values
        yield from drop_in_steps([reader.take_root()])
        raise
    yield from drop_in_steps([reader.take_root()])
    return (yield from _loads_whole(pieces, size, reader.taken))


def _loads_whole(pieces: Sequence[bytes], size: int, end: int) -> Steps[tuple[Any, int]]:
    """`loads_exactly` of an invalid document, for its error, which is in the first `end` bytes.

    A large one must not hold many values.
    """
    values = 0
    for piece in pieces:
        values += count_values(piece)
        yield
    if values > _MANY_VALUES and (size > _REPORTED or values * _MEMBER > size):
        raise InvalidRequest(f"body: not valid JSON, or nested too deeply, before byte {end}")
    return loads_exactly(b"".join(pieces))


class _Budget:
    """The most bytes of memory that the values of a document of `size` bytes may take."""

    __slots__ = ("_containers", "_expansion", "_left")

    def __init__(self, size: int, expansion: float, always: int) -> None:
        self._containers = 0
        self._expansion = expansion
        self._left = max(always, expansion * size)

    def count(self, containers: int) -> None:
        """Raises RequestTooLarge for too many arrays and objects: parsing them takes long."""
        self._containers += containers
        if self._containers > _MAX_CONTAINERS:
            raise RequestTooLarge(f"body: more than {_MAX_CONTAINERS} arrays and objects")

    def take(self, size: float) -> None:
        """Raises RequestTooLarge when the memory of all values is beyond the limit."""
        self._left -= size
        if self._left < 0:
            reason = f"its values would take more than {self._expansion:g} times its size in memory"
            raise RequestTooLarge(f"body: {reason}")


class _Frame:
    """An array or object that is open where a chunk ends. `container` is None inside a value that is cut out."""

    __slots__ = ("container", "kind", "shape")

    def __init__(self, kind: int, container: Any = None, shape: Shape = None) -> None:
        self.kind = kind
        self.container = container
        self.shape = shape


class _Reader:
    """Reads one document."""

    def __init__(self, cuts: Cuts | None, budget: _Budget, max_depth: int, shape: Shape = _ROOT) -> None:
        self._shape = shape
        self._cuts = cuts
        self._strings = Cuts() if cuts is None else cuts
        self._budget = budget
        self._max_depth = max_depth
        self._text = bytearray()  # not parsed yet
        self._cut_at = 0  # length of the part of it that ends before the last comma
        self._brackets = bytearray()  # in that part
        self._brackets_behind = bytearray()  # … and behind the comma; a bytearray, because it may grow in many steps
        self._long: list[bytes] | None = None  # the content of the long string that the last window ended in
        self._long_length = 0  # its characters
        self._stack: list[_Frame] = []  # what is open where the next chunk begins
        self._unread: int | None = None  # index of the frame that is cut out
        self._unread_pieces: list[bytes] = []  # its text
        self._unread_mark: dict[str, Any] = {}
        self._unread_shape = _UNKNOWN
        self._unread_keys: dict[str, Any] = {}  # of a schema: its type, and whether it has properties
        self._width = 1  # of the chunk
        self._root: Any = None
        self._levels = 0
        self.taken = 0
        """Bytes of the document that were looked at."""

    def take_root(self) -> Any:
        """What was read before an error. The reader holds no value any more."""
        root, self._root, self._stack = self._root, None, []
        return root

    def read(self, pieces: Sequence[bytes]) -> Steps[tuple[Any, int]]:
        """The value and its depth. Raises ValueError if the document is not valid, RequestTooLarge."""
        held: list[bytes] = []
        size = rest_size = 0
        for part, enough in _parts(pieces):
            held.append(part)
            size += len(part)
            self.taken += len(part)
            if size >= rest_size + max(enough, rest_size):  # a rest that cannot be cut is looked at log(n) times
                rest = yield from self._scan(b"".join(held), is_last=False)
                yield
                held, size, rest_size = [rest], len(rest), len(rest)
                if self._cut_at >= _CHUNK or enough < _WINDOW:
                    yield from self._read_chunk(is_last=False)
        yield from self._scan(b"".join(held), is_last=True)
        if self._long is not None:
            raise _CannotCut
        yield from self._read_chunk(is_last=True)
        return self._root, self._levels

    # 1. cutting out long strings

    def _scan(self, data: bytes, *, is_last: bool) -> Steps[bytes]:
        """Add a window to the text; returns what has to be at the beginning of the next window."""
        clean = data
        if b"\\" in data:  # no quote in `clean` is escaped
            clean = data.replace(b"\\\\", _TWO).replace(b'\\"', _TWO)
        end = len(data) if is_last else _safe_end(clean)
        parts = clean[:end].split(b'"')
        first_outside = 0 if self._long is None else 1
        long = _LONG if _width(data) < _WIDEST else _LONG_IF_WIDE
        copied = [(0, len(self._text))]  # places in the window and in the text where the same bytes begin
        taken = 0
        lengths = list(map(len, parts))
        last = len(parts) - 1
        ends = list(accumulate(lengths))  # without the quotes
        looked_at = [index for index, length in enumerate(lengths) if length >= long]
        if first_outside and looked_at[:1] != [0]:
            looked_at.insert(0, 0)  # the string that the last window ended in
        if looked_at[-1:] != [last] and (last or not first_outside):
            looked_at.append(last)
        for number, index in enumerate(looked_at, 1):
            if number % _CUT_PER_STEP == 0:
                yield
            if not (index ^ first_outside) & 1:
                continue
            part = parts[index]
            at = ends[index] - len(part) + index
            is_open = index == last and not is_last
            if index and not (len(part) >= _LONG or (len(part) >= long and _width(part) == _WIDEST)):
                if is_open:
                    end = at - 1  # with its opening quote
                    break
                continue
            self._text += data[taken:at]
            taken = at + len(part)
            self._add_content(data[at:taken])
            if is_open or (index + 1 == last and not is_last and not parts[-1].strip(_SPACE)):
                end = taken  # the next window shows whether the string is a key
                break
            if index < last:
                self._text += self._end_long(is_key=parts[index + 1].lstrip(_SPACE).startswith(b":"))
                copied.append((taken, len(self._text)))
        self._text += data[taken:end]
        self._find_comma(parts, first_outside, copied)
        return data[end:]

    def _add_content(self, content: bytes) -> None:
        """Add to the long string. Raises ValueError if it is no valid content of a string."""
        if self._long is None:
            self._long = []
        if content:
            content = replace_lone_halves(content)
            self._long_length += len(loads(b'"%b"' % content))
            self._long.append(content)

    def _end_long(self, *, is_key: bool) -> bytes:
        """What stands in the text for the long string. Raises InvalidRequest for a very long key."""
        pieces, length = self._long or [], self._long_length
        self._long, self._long_length = None, 0
        if not is_key:
            return self._strings.add_string(pieces, length).encode()
        if sum(map(len, pieces)) > _LONGEST_KEY:
            raise InvalidRequest(f"body: a key is longer than {_LONGEST_KEY} bytes")
        return b"".join(pieces)

    def _find_comma(self, parts: list[bytes], first_outside: int, copied: list[tuple[int, int]]) -> None:
        """Note the last comma of the window outside strings, and the brackets before and behind it."""
        last = len(parts) - 1
        at = sum(map(len, parts)) + last
        for index in range(last, -1, -1):
            at -= len(parts[index])
            comma = parts[index].rfind(b",") if not (index ^ first_outside) & 1 else -1
            if comma >= 0:
                outside = parts[first_outside::2]
                place = (index - first_outside) // 2
                before = b"".join(outside[:place]) + parts[index][:comma]
                behind = parts[index][comma:] + b"".join(outside[place + 1 :])
                self._brackets += self._brackets_behind + before.translate(None, _NO_BRACKETS)
                self._brackets_behind = bytearray(behind.translate(None, _NO_BRACKETS))
                start, length = next(pair for pair in reversed(copied) if pair[0] <= at + comma)
                self._cut_at = length + at + comma - start
                return
            at -= 1
        self._brackets_behind += b"".join(parts[first_outside::2]).translate(None, _NO_BRACKETS)

    # 2. parsing the text in chunks

    def _read_chunk(self, *, is_last: bool) -> Steps[None]:
        """Parse the text up to the last comma, or all of it, and add its values to the root."""
        if not is_last and not self._cut_at:
            return
        if is_last:
            text, brackets = bytes(self._text), bytes(self._brackets + self._brackets_behind)
        else:
            text, brackets = bytes(self._text[: self._cut_at]), bytes(self._brackets)
            del self._text[: self._cut_at + 1]
        self._cut_at, self._brackets = 0, bytearray()
        self._budget.count(len(brackets) // 2)
        kinds, low = _opened([frame.kind for frame in self._stack], brackets)
        if is_last is bool(kinds):
            raise _CannotCut
        text = replace_lone_halves(text)
        value, levels = loads_exactly(_opening(self._stack) + text + _closing(kinds))
        self._levels = max(self._levels, levels)
        yield
        self._width = _width(text)
        self._budget.take(len(text) * self._width)
        yield from self._add(value, text, kinds, low, is_deep=levels > self._max_depth)

    def _add(self, value: Any, text: bytes, kinds: list[int], low: int, *, is_deep: bool) -> Steps[None]:
        """Add the values of a chunk to the open containers.

        `kinds` are the containers that are open behind it; the first `low` of them were open all the time.
        """
        before, unread = self._stack, self._unread
        nodes = _outer_nodes(value, before)
        if unread is not None and low > unread:  # all of the chunk is inside
            self._add_unread(b"," + text, nodes[unread], is_deep=is_deep)
            self._stack = before[:low] + [_Frame(kind) for kind in kinds[low:]]
            return
        if unread is not None:
            self._add_unread(_tail(nodes[unread]), nodes[unread], is_deep=is_deep)
            if self._unread_shape.is_schema and _is_bare(self._unread_keys):
                note_bare(self._unread_mark)
            self._unread = None
            nodes = nodes[:unread]
        opened: list[_Frame] = []
        if kinds:
            start, shape = (nodes[low - 1], before[low - 1].shape) if low else ([value], [self._shape])
            opened = self._open(start, shape, kinds[low:], low, is_deep=is_deep)
        is_marked = MARK_JSON in text
        for node, frame in zip(nodes, before, strict=False):
            if frame.kind == _DICT:
                node.pop(_OUTER, None)
                node.pop(_FIRST, None)
            else:
                del node[0]
            if node:
                yield from self._visit(node, frame.shape, is_marked=is_marked, is_deep=is_deep)
                frame.container.update(node) if frame.kind == _DICT else frame.container.extend(node)
                if frame.kind == _DICT and len(frame.container) > _MAX_MEMBERS:
                    raise RequestTooLarge(f"body: an object has more than {_MAX_MEMBERS} members")
        if not before:
            whole = [value]
            yield from self._visit(whole, [self._shape], is_marked=is_marked, is_deep=is_deep)
            self._root = whole[0]
        self._stack = before[:low] + opened

    def _open(self, start: Any, shape: Shape, kinds: list[int], low: int, *, is_deep: bool) -> list[_Frame]:
        """The frames of the containers that the chunk has opened inside `start`. The last one is freed of its mark."""
        spine = _spine(start, kinds)
        if spine is None:
            raise _CannotCut
        frames: list[_Frame] = []
        parent = start
        for index, (key, child) in enumerate(spine):
            shape = _inner_shape(shape, key)
            if type(shape) is _Unread and self._cuts is not None and not (shape.is_object and kinds[index] == _LIST):
                self._unread = low + index
                self._unread_pieces = []
                self._unread_mark = self._cuts.add_value(self._unread_pieces)
                self._unread_shape = shape
                self._unread_keys = {}
                parent[key] = self._unread_mark
                self._add_unread(_head(child), child, is_deep=is_deep)
                return frames + [_Frame(kind) for kind in kinds[index:]]
            frames.append(_Frame(kinds[index], child, shape))
            parent = child
        parent.popitem() if type(parent) is dict else parent.pop()
        return frames

    def _add_unread(self, text: bytes, value: Any, *, is_deep: bool) -> None:
        """Add to the value that is cut out. `value` is the part of it that the chunk holds."""
        self._unread_pieces.append(text)
        self._note_cut(self._unread_mark, self._unread_shape, text)
        if self._unread_shape.is_schema and type(value) is dict:
            self._unread_keys.update({key: value[key] for key in _SCHEMA_KEYS if key in value})
        if is_deep and self._unread_shape.depth_checked and not is_shallow(value, self._max_depth):
            for key in self._unread_mark:
                self._unread_mark[key] = _nested(self._max_depth + 1)  # is refused with its path

    def _note_cut(self, mark: dict[str, Any], shape: _Unread, text: bytes) -> None:
        self._budget.take(-len(text) * self._width)
        if self._cuts is not None and shape.is_prompt:
            self._cuts.count_value(mark, text)

    # 3. looking at the values of a chunk

    def _visit(self, container: Any, shape: Shape, *, is_marked: bool, is_deep: bool) -> Steps[None]:
        """Cut out what is not read, put back strings that are read, and take the memory of the rest from the budget."""
        todo: list[tuple[Any, Shape]] = [(container, shape)]
        memory = seen = 0
        while todo:
            outer, shape = todo.pop()
            count = len(outer)
            if type(outer) is list:
                memory += _ARRAY + _ELEMENT * count
                inner = shape[0] if type(shape) is list else None
                if type(inner) is _Unread:
                    self._cut_elements(outer, inner, is_deep=is_deep)
                todo += [(value, inner) for value in outer if type(value) is dict or type(value) is list]
                for index, value in enumerate(outer if is_marked else ()):
                    if is_mark(value):
                        outer[index] = yield from self._restored(value)
            else:
                memory += _OBJECT + count * (_MEMBER if count <= _MANY else _MEMBER_OF_MANY)
                for key, value in outer.items():
                    kind = type(value)
                    if kind is dict or kind is list:
                        inner = _inner_shape(shape, key)
                        mark = self._cut(value, inner, is_deep=is_deep) if type(inner) is _Unread else None
                        if mark is None:
                            todo.append((value, inner if type(inner) is not _Unread else None))
                        else:
                            outer[key] = mark
                    elif is_marked and is_mark(value):
                        if self._cuts is not None and key in _READ_AS_MARKS:
                            self._note_string(outer, key, value)
                        else:
                            outer[key] = yield from self._restored(value)
            seen += count + 1
            if seen >= _VALUES_PER_STEP:
                seen = 0
                self._budget.take(memory)
                memory = 0
                yield
        self._budget.take(memory)

    def _cut_elements(self, elements: list[Any], shape: _Unread, *, is_deep: bool) -> None:
        for index, value in enumerate(elements):
            if type(value) is dict or type(value) is list:
                mark = self._cut(value, shape, is_deep=is_deep)
                if mark is not None:
                    elements[index] = mark

    def _cut(self, value: Any, shape: _Unread, *, is_deep: bool) -> dict[str, Any] | None:
        """The mark of a value that is not read; None if it stays: it is small, too deep, or no object."""
        if self._cuts is None or (is_deep and not is_shallow(value, self._max_depth)):
            return None
        if shape.is_object and type(value) is list:
            return None
        if is_value_mark(value):  # it goes on in the next chunk
            return value
        text = dumps(value)
        if len(text) < _LARGE and MARK_JSON not in text:
            return None
        mark = self._cuts.add_value([text])
        self._note_cut(mark, shape, text)
        if shape.is_schema and _is_bare(value):
            note_bare(mark)
        return mark

    def _note_string(self, outer: dict[str, Any], key: str, mark: str) -> None:
        """A string stays cut out. It is part of the prompt, unless it is an image or a signature."""
        is_prompt = key not in _NO_PROMPT or (key == "data" and outer.get("type") != "base64")
        if self._cuts is not None:
            self._cuts.count_string(mark, is_prompt=is_prompt)

    def _restored(self, mark: str) -> Steps[str]:
        pieces = self._strings.pieces(mark)
        parts: list[str] = []
        for piece in pieces:
            parts.append(loads(b'"%b"' % piece))
            self._budget.take(len(piece) * _width(piece))
            if len(parts) % _PIECES_PER_STEP == 0:
                yield
        pieces.clear()
        yield
        return "".join(parts)


def _parts(pieces: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """The document in parts, and how many bytes are enough for a window: few where there are many brackets."""
    for piece in pieces:
        for start in range(0, len(piece), _WINDOW):
            part = piece[start : start + _WINDOW]
            if _weight(part) < _DENSE:
                yield part, _WINDOW
            else:
                for begin in range(0, len(part), _DENSE_WINDOW):
                    yield part[begin : begin + _DENSE_WINDOW], _DENSE_WINDOW


def _weight(part: bytes) -> int:
    weight = sum(weight * part.count(mark) for mark, weight in _WEIGHTS) + part.count(b",") // _COMMAS
    return weight + _SURROGATE * sum(map(part.count, _SURROGATES)) if b"\\u" in part else weight


def _safe_end(clean: bytes) -> int:
    """The end of a window, before an escape, a surrogate pair or a character that goes on in the next one.

    Of every backslash that is left in `clean`, an escape begins.
    """
    end = len(clean)
    for _ in range(2):  # a pair consists of two escapes
        at = clean.rfind(b"\\", max(0, end - _ESCAPE), end)
        if at >= 0:
            is_unicode = clean[at + 1 : at + 2] in (b"u", b"")
            length = end - at
            is_half = length == _ESCAPE and clean[at + 2 : at + 4].lower() in _FIRST_HALVES
            if length < (_ESCAPE if is_unicode else 2) or is_half:
                end = at
    for back in range(1, min(4, end) + 1):
        byte = clean[end - back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            return end - back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else end
    return end


def _opened(kinds: list[int], brackets: bytes) -> tuple[list[int], int]:
    """The containers that are open behind the brackets, and how many of `kinds` were open all the time."""
    for _ in range(_PAIRS_REMOVED):
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    kinds = list(kinds)
    low = len(kinds)
    for start in range(0, len(brackets), _BRACKETS_AT_ONCE):
        for bracket in brackets[start : start + _BRACKETS_AT_ONCE]:
            if bracket in b"{[":
                kinds.append(bracket)
            elif not kinds or kinds.pop() != _KIND_OF[bracket]:
                raise _CannotCut
            else:
                low = min(low, len(kinds))
        if len(kinds) > _DEEPEST:
            raise _CannotCut
    if len(kinds) > _MAX_LEVELS:
        raise _CannotCut
    return kinds, low


def _opening(stack: list[_Frame]) -> bytes:
    """What makes a chunk valid that begins inside the containers of `stack`."""
    if not stack:
        return b""
    outer = [b"{%b:" % _OUTER_JSON if frame.kind == _DICT else b"[" for frame in stack[:-1]]
    inner = b"{%b:0," % _FIRST_JSON if stack[-1].kind == _DICT else b"[%b," % _FIRST_JSON
    return b"".join(outer) + inner


def _closing(kinds: list[int]) -> bytes:
    """What makes a chunk valid that ends inside containers of these kinds."""
    if not kinds:
        return b""
    inner = b",%b:0}" % _LAST_JSON if kinds[-1] == _DICT else b",%b]" % _LAST_JSON
    return inner + b"".join(b"}" if kind == _DICT else b"]" for kind in reversed(kinds[:-1]))


def _outer_nodes(value: Any, stack: list[_Frame]) -> list[Any]:
    """The parts of a parsed chunk that belong to the containers of `stack`."""
    nodes: list[Any] = []
    for frame in stack:
        nodes.append(value)
        value = value[0] if frame.kind == _LIST else value.get(_OUTER)
    return nodes


def _spine(node: Any, kinds: list[int]) -> list[tuple[Any, Any]] | None:
    """The containers inside `node` that are open behind the chunk, with their keys; None if there are none.

    Usually each is the last value of the one before. In an object in which a key occurs twice it may be another one.
    """
    if not kinds:
        last = next(reversed(node)) if node else None
        return [] if last == _LAST else None
    kind = dict if kinds[0] == _DICT else list
    children = reversed(node.items()) if type(node) is dict else [(len(node) - 1, node[-1])] if node else []
    for key, child in children:
        if type(child) is kind:
            rest = _spine(child, kinds[1:])
            if rest is not None:
                return [(key, child), *rest]
    return None


def _head(value: Any) -> bytes:
    """The text of a value that the chunk has opened, without its end."""
    text = dumps(value)
    return text[: text.rindex(b"," + _LAST_JSON)]


def _tail(value: Any) -> bytes:
    """The text of a value that ends in the chunk, without its beginning."""
    text = dumps(value)
    at = text.index(_FIRST_JSON) + len(_FIRST_JSON)
    return text[at + 2 :] if text.startswith(b":0", at) else text[at:]


def _inner_shape(shape: Shape, key: Any) -> Shape:
    """The shape of the value at `key`."""
    if type(shape) is dict:
        inner: Shape = shape[key] if key in shape else shape.get(_ANY)
        return inner
    return shape[0] if type(shape) is list else None


def _width(text: bytes) -> int:
    """Bytes of memory that a byte of the strings in `text` takes at most, roughly. Most text is ASCII."""
    if text.isascii() and b"\\u" not in text:
        return 1
    return _WIDEST if any(map(text.__contains__, _WIDE)) else 2


def _is_light(text: bytes, memory: float) -> Steps[bool]:
    """Whether a document has few values, which take at most `memory`: it is parsed at once, which is faster."""
    if sum(map(text.count, _SURROGATES)) > _MANY_SURROGATES:
        return False
    values = count_values(text)
    yield
    if values > _MANY_VALUES:  # most of it may be punctuation in strings
        values = 0
        for outside in _outside_strings(text):
            values += count_values(outside)
            yield
        if values > _MANY_VALUES:
            return False
    text_memory = yield from _text_memory(text)
    return values * _MEMBER + text_memory <= memory


def _outside_strings(text: bytes) -> Iterator[bytes]:
    """The text without its strings, in windows."""
    in_string = 0
    clean = text.replace(b"\\\\", _TWO).replace(b'\\"', _TWO) if b"\\" in text else text
    for start in range(0, len(clean), _WINDOW):
        parts = clean[start : start + _WINDOW].split(b'"')
        yield b"".join(parts[in_string::2])
        in_string ^= (len(parts) - 1) & 1


def _text_memory(text: bytes) -> Steps[int]:
    """Bytes of memory that the strings in `text` take at most, roughly. One wide character widens its whole string."""
    width = _width(text)
    if width < _WIDEST:
        return width * len(text)
    if any(map(text.__contains__, _WIDE[1:])):
        return _WIDEST * len(text)
    yield
    memory = 2 * len(text)
    end = quotes = steps = 0
    at = text.find(_WIDE[0])
    while at >= 0:
        before = end
        begin = text.rfind(b'"', before, at)
        while begin > before and text[begin - 1] == _BACKSLASH and quotes < _MAX_QUOTES:  # perhaps an escaped quote
            begin = text.rfind(b'"', before, begin)
            quotes += 1
        end = text.find(b'"', at)
        while end >= 0 and text[end - 1] == _BACKSLASH and quotes < _MAX_QUOTES:
            end = text.find(b'"', end + 1)
            quotes += 1
        quotes += 2
        if quotes >= _MAX_QUOTES or end < 0:
            return _WIDEST * len(text)
        if quotes // _QUOTES_PER_STEP > steps:
            steps += 1
            yield
        memory += 2 * (end - max(begin, before))
        at = text.find(_WIDE[0], end)
    return memory


def _is_bare(schema: Any) -> bool:
    """Whether it is the schema of an object without `properties`."""
    return type(schema) is dict and schema.get("type") == "object" and "properties" not in schema


def _nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value
