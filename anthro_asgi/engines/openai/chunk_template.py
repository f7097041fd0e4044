"""The bytes that all chunks of one stream share: learned from one chunk, so that the next need no parsing. Pure.

While an engine streams, each event equals the one before it, except for the text and perhaps for the token counts:

    data: {…,"delta":{"content":" the"},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":4}}
    └───────── before ─────────┘└text┘└───────────── after ───────────┘└───────────────── counts ────────────────┘

If the next event has the same `before` and `after`, and one JSON string between them, then this string is its text and
everything else in it equals the first chunk. A template is verified when it is learned: another string is put in the
place of the text, the chunk is parsed, and the result must equal the original except for that one value. JSON has no
context, so what holds for one string holds for every string. The counts are verified in the same way.

Counts are numbers in a fixed order, and some of them change with each chunk. They are recognised by their shape: the
bytes with every digit except 0 replaced by 1. Of two byte strings with the same shape, both are valid JSON or neither
is, because only a leading 0 could make a difference; and both have the same keys. A new shape is parsed once and
remembered for all streams.
"""

import re
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

_KEYS: Final = ("content", "reasoning_content", "reasoning", "reasoning_text", "thinking")
_STRING: Final = rb'[ \t]*:[ \t]*("(?:[^"\\]|\\.)*")'
_PLACES: Final = {key: re.compile(b'"%b"' % key.encode() + _STRING, re.DOTALL) for key in (*_KEYS, "arguments")}
_COUNTS: Final = re.compile(rb'"usage"[ \t]*:[ \t]*(?=\{)')
_LONGEST_COUNTS: Final = 512  # bytes
_MOST_PLACES: Final = 8  # candidates for the position of the text; each one costs parsing the chunk
_MARK: Final = "\x00 another text \x00"
_MARKED: Final = orjson.dumps(_MARK)

_Place = tuple[dict[str, Any], dict[str, Any], str]  # the delta, the object in it that holds the text, the text's key

DIGIT_SHAPE: Final = bytes.maketrans(b"23456789", b"11111111")
"""Table for `bytes.translate` that turns counts into their shape."""
_DIGITS: Final = re.compile(rb"[0-9]+")
_LONG_NUMBER: Final = re.compile(rb"[0-9]{16}|[0-9][eE.]")  # a float, or perhaps an integer beyond 64 bits
_MOST_SHAPES: Final = 4096  # for all engines together; each is one pattern of zeros in three or four numbers
_shapes: dict[bytes, set[bytes]] = {}  # known shapes, by the counts with every number replaced by 0


@dataclass(frozen=True, slots=True)
class ChunkTemplate:
    """The constant bytes of a stream's events.

    `before` begins with `data: `. Without counts, `after` includes the blank line that ends the event.
    `delta` is the parsed delta of the chunk, and `place[key]` is the position of the text in it.
    """

    before: bytes
    after: bytes
    shapes: set[bytes] | None  # known shapes of the counts up to the end of the event; None without counts
    numberless: bytes  # the counts with every number replaced by 0
    delta: dict[str, Any]
    place: dict[str, Any]
    key: str

    def accepts(self, counts: bytes) -> bool:
        """Whether `counts`, of a shape that is not known yet, differ from the learned counts in numbers only.

        If so, the shape is remembered.
        """
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
    """`{"usage": …}` for the end of a chunk from its counts on. Raises orjson.JSONDecodeError."""
    return orjson.loads(b'{"usage":' + counts)


def learn_template(payload: bytes, chunk: dict[str, Any]) -> ChunkTemplate | None:
    """The template of a chunk that only continues a text, thinking or a call's arguments; None for any other chunk.

    `chunk` is `payload` parsed, and the reader has read it without an error.
    """
    found = _place(chunk)
    if found is None or b"\n" in payload:
        return None
    delta, place, key = found
    for match in islice(_PLACES[key].finditer(payload), _MOST_PLACES):
        begin, end = match.span(1)
        after, counts = _cut(payload[end:])
        if _is_verified(payload[:begin], after, counts, chunk, found):
            before = b"data: " + payload[:begin]
            if not counts:
                return ChunkTemplate(before, after + b"\n\n", None, b"", delta, place, key)
            counts += b"\n\n"
            numberless = _DIGITS.sub(b"0", counts)
            template = ChunkTemplate(before, after, known_shapes(numberless), numberless, delta, place, key)
            # a known shape is that of another stream of the same engine
            known = counts.translate(DIGIT_SHAPE) in template.shapes  # type: ignore[operator]  # it has counts
            return template if known or template.accepts(counts) else None
    return None


def _place(chunk: dict[str, Any]) -> _Place | None:
    """The delta, and the position of the only text in it; None if there is no text or more than one."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    delta = choices[0].get("delta")
    if not isinstance(delta, dict) or choices[0].get("index") or choices[0].get("finish_reason"):
        return None
    texts = [key for key, value in delta.items() if value and key in _KEYS]
    if texts == ["content"] and delta.get("reasoning_details"):
        return None
    calls = delta.get("tool_calls")
    if len(texts) == 1 and isinstance(delta[texts[0]], str) and not calls:
        return delta, delta, texts[0]
    if not texts and isinstance(calls, list) and len(calls) == 1 and isinstance(calls[0], dict):
        function = calls[0].get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str) and function["arguments"]:
            return delta, function, "arguments"
    return None


def _cut(rest: bytes) -> tuple[bytes, bytes]:
    """`rest`, the bytes after the text, split before the counts; the second part is empty if there are none."""
    begin = max((match.end() for match in _COUNTS.finditer(rest)), default=0)
    if not begin or len(rest) - begin > _LONGEST_COUNTS:
        return rest, b""
    return rest[:begin], rest[begin:]


def _is_verified(before: bytes, after: bytes, counts: bytes, chunk: dict[str, Any], mine: _Place) -> bool:
    """Whether the chunk with another text, and with null for the counts, differs from `chunk` in these values only."""
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
        parsed = parse_counts(counts)
    except orjson.JSONDecodeError:
        return False
    if list(parsed) != ["usage"]:
        return False
    other["usage"] = parsed["usage"]
    return _same(other, chunk)


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:  # nested more deeply than Python can compare
        return False


def known_shapes(numberless: bytes) -> set[bytes]:
    """The shapes of counts that were found so far, of all streams with these `numberless` counts. The set grows."""
    if len(_shapes) >= _MOST_SHAPES and numberless not in _shapes:
        _shapes.clear()
    return _shapes.setdefault(numberless, set())
