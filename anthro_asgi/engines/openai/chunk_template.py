"""What the chunks of one stream have in common: learned from one of them, so that the next need no parsing. Pure.

While an engine streams, each event is the one before it with another text in it, and perhaps other counts:

    data: {…,"delta":{"content":" the"},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":4}}
    └───────── before ─────────┘└text┘└───────────── after ───────────┘└───────────────── counts ────────────────┘

What lies where the text was is the text of the next chunk if, and only if, it is one JSON string; the chunk then says
all else that the first one said. That is not taken on trust: a template is proved when it is learned. Another string is
put in the place and the chunk is parsed, and it must be the same but for that one value. JSON knows no context, so what
holds for one string holds for every string. The same is done with the counts.

Counts are numbers in a fixed order, and some are others each time. So they are known by their shape: the bytes with
every digit but 0 made a 1. Two of one shape are both JSON or both not, as only a leading 0 could make the difference,
and have the same keys. A new shape is parsed once and remembered, for all streams.
"""

import re
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

_KEYS: Final = ("content", "reasoning_content", "reasoning")
_STRING: Final = rb'[ \t]*:[ \t]*("(?:[^"\\]|\\.)*")'
_PLACES: Final = {key: re.compile(b'"%b"' % key.encode() + _STRING, re.DOTALL) for key in (*_KEYS, "arguments")}
_COUNTS: Final = re.compile(rb'"usage"[ \t]*:[ \t]*(?=\{)')
_LONGEST_COUNTS: Final = 512  # bytes
_MOST_PLACES: Final = 8  # that a text may be in; each costs parsing the chunk
_MARK: Final = "\x00 another text \x00"
_MARKED: Final = orjson.dumps(_MARK)

_Place = tuple[dict[str, Any], dict[str, Any], str]  # the delta, the part of it that has the text, and its key there

DIGIT_SHAPE: Final = bytes.maketrans(b"23456789", b"11111111")
"""For `bytes.translate`: makes the shape of counts."""
_DIGITS: Final = re.compile(rb"[0-9]+")
_LONG_NUMBER: Final = re.compile(rb"[0-9]{16}|[0-9][eE.]")  # what its digits could make no integer
_MOST_SHAPES: Final = 4096  # of all engines together; each comes of a pattern of zeros in three or four numbers
_shapes: dict[bytes, set[bytes]] = {}  # by the counts with every number a 0


@dataclass(frozen=True, slots=True)
class ChunkTemplate:
    """`before` begins with `data: `. Without counts `after` ends with the blank line.

    `delta` is the chunk's, and `place[key]` in it is where the text belongs.
    """

    before: bytes
    after: bytes
    shapes: set[bytes] | None  # that counts may have, with what follows them and the blank line; None without counts
    numberless: bytes  # the counts with every number a 0
    delta: dict[str, Any]
    place: dict[str, Any]
    key: str

    def accepts(self, counts: bytes) -> bool:
        """Whether counts of a shape not met before are like the others but for their numbers; then it is remembered."""
        if self.shapes is None or _DIGITS.sub(b"0", counts) != self.numberless or _LONG_NUMBER.search(counts):
            return False
        try:
            parse_counts(counts)
        except orjson.JSONDecodeError:
            return False
        if len(self.shapes) >= _MOST_SHAPES:
            self.shapes.clear()
        self.shapes.add(counts.translate(DIGIT_SHAPE))
        return True


def parse_counts(counts: bytes) -> Any:
    """The chunk that counts are the end of, less all before them. Raises orjson.JSONDecodeError."""
    return orjson.loads(b'{"usage":' + counts)


def learn_template(payload: bytes, chunk: dict[str, Any]) -> ChunkTemplate | None:
    """The frame of a chunk that does nothing but go on with a text, with thinking or with a call; else None.

    `chunk` is `payload` parsed, and was read without an error.
    """
    found = _place(chunk)
    if found is None or b"\n" in payload:
        return None
    delta, place, key = found
    for match in islice(_PLACES[key].finditer(payload), _MOST_PLACES):
        begin, end = match.span(1)
        after, counts = _cut(payload[end:])
        if _proves(payload[:begin], after, counts, chunk, found):
            before = b"data: " + payload[:begin]
            if not counts:
                return ChunkTemplate(before, after + b"\n\n", None, b"", delta, place, key)
            counts += b"\n\n"
            numberless = _DIGITS.sub(b"0", counts)
            template = ChunkTemplate(before, after, _shapes_of(numberless), numberless, delta, place, key)
            return template if template.accepts(counts) else None
    return None


def _place(chunk: dict[str, Any]) -> _Place | None:
    """The delta, and where in it the one text is that goes on."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    delta = choices[0].get("delta")
    if not isinstance(delta, dict) or choices[0].get("index") or choices[0].get("finish_reason"):
        return None
    texts = [key for key in _KEYS if delta.get(key)]
    calls = delta.get("tool_calls")
    if len(texts) == 1 and isinstance(delta[texts[0]], str) and not calls:
        return delta, delta, texts[0]
    if not texts and isinstance(calls, list) and len(calls) == 1 and isinstance(calls[0], dict):
        function = calls[0].get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str) and function["arguments"]:
            return delta, function, "arguments"
    return None


def _cut(rest: bytes) -> tuple[bytes, bytes]:
    """What follows the text, and of that the counts and what follows them, if it ends with such."""
    begin = max((match.end() for match in _COUNTS.finditer(rest)), default=0)
    if not begin or len(rest) - begin > _LONGEST_COUNTS:
        return rest, b""
    return rest[:begin], rest[begin:]


def _proves(before: bytes, after: bytes, counts: bytes, chunk: dict[str, Any], mine: _Place) -> bool:
    """Whether another text, and nothing for the counts, make the same chunk but for these."""
    try:
        other = orjson.loads(before + _MARKED + after + (counts and b"null}"))
    except orjson.JSONDecodeError:
        return False
    found, key = _place(other), mine[2]
    if found is None or found[2] != key or found[1][key] != _MARK:
        return False
    found[1][key] = mine[1][key]
    if not counts:
        return _same(other, chunk)
    if other.get("usage", 0) is not None:
        return False
    try:
        other["usage"] = parse_counts(counts)["usage"]
    except (orjson.JSONDecodeError, LookupError):
        return False
    return _same(other, chunk) and list(parse_counts(counts)) == ["usage"]


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:  # they have more levels than Python walks
        return False


def _shapes_of(numberless: bytes) -> set[bytes]:
    if len(_shapes) >= _MOST_SHAPES and numberless not in _shapes:
        _shapes.clear()
    return _shapes.setdefault(numberless, set())
