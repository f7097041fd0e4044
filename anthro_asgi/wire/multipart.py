"""Reads a body of `multipart/form-data` (RFC 7578) piece by piece, so that memory does not grow with the file. Pure.

    preamble --B␍␊ header␍␊ header␍␊ ␍␊ content ␍␊--B␍␊ header␍␊ ␍␊ content ␍␊--B-- epilogue
    └PREAMBLE┘  └HEAD──────────────────┘└CONTENT┘   └HEAD─────────┘└CONTENT┘      └─ENDED──┘

A delimiter is a line end, two hyphens and the boundary `B` (RFC 2046, section 5.1.1). A line end before the body lets
the first delimiter match at the very beginning. The reader holds back only what could be the beginning of a delimiter,
or a head that is not complete.
"""

import re
from typing import Final, NamedTuple

from .errors import InvalidRequest

_MAX_HEAD: Final = 8 * 1024  # bytes of the headers of one part
_MAX_PARTS: Final = 32
_MAX_PADDING: Final = 256  # bytes of white space between a boundary and its line end
_LONGEST_BOUNDARY: Final = 70  # characters (RFC 2046, section 5.1.1)
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER: Final = re.compile(rb""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^;" \t]*))[ \t]*""")
_QUOTED_PAIR: Final = re.compile(r'\\(["\\])')  # a backslash before anything else is part of a path of Windows
_ENCODINGS: Final = frozenset({b"7bit", b"8bit", b"binary"})
_LINE_END: Final = b"\r\n"
_PREAMBLE, _DELIMITER, _HEAD, _CONTENT, _ENDED = range(5)


class PartBegin(NamedTuple):
    """A part begins. `filename` is None for a field without a file, `content_type` None without such a header."""

    name: str
    filename: str | None
    content_type: str | None


class PartEnd(NamedTuple):
    """The open part ends."""


PartEvent = PartBegin | bytes | PartEnd
"""`bytes` are content of the open part."""


def boundary_of(content_type: bytes | None) -> bytes:
    """The boundary in a `content-type` header. Raises InvalidRequest if it is no `multipart/form-data`."""
    kind, parameters = _header_value(content_type or b"")
    boundary = parameters.get(b"boundary", b"")
    if kind != b"multipart/form-data":
        raise InvalidRequest("content-type: must be multipart/form-data")
    if len(boundary) > _LONGEST_BOUNDARY or _BOUNDARY.fullmatch(boundary) is None:
        raise InvalidRequest("content-type: must name a boundary of 1 to 70 characters")
    return boundary


class MultipartReader:
    """Reads one body. `boundary` is without the hyphens before it."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._held = b"\r\n"
        self._state = _PREAMBLE
        self._parts = 0

    def feed(self, data: bytes) -> list[PartEvent]:
        """What ends or goes on in this piece of the body. Raises InvalidRequest."""
        events: list[PartEvent] = []
        self._held += data
        while self._state != _ENDED and self._step(events):
            pass
        if self._state == _ENDED:
            self._held = b""
        return events

    def close(self) -> None:
        """The body has ended. Raises InvalidRequest if its last part has not."""
        if self._state != _ENDED:
            raise InvalidRequest("body: ends before its last boundary")

    def _step(self, events: list[PartEvent]) -> bool:
        """Read what is held, up to the next change of the state. Whether there was one."""
        if self._state == _DELIMITER:
            return self._read_delimiter()
        if self._state == _HEAD:
            return self._read_head(events)
        found = self._held.find(self._delimiter)
        end = self._certain() if found < 0 else found
        if self._state == _CONTENT and end:
            events.append(self._held[:end])
        self._held = self._held[end:]
        if found < 0:
            return False
        if self._state == _CONTENT:
            events.append(PartEnd())
        self._held = self._held[len(self._delimiter) :]
        self._state = _DELIMITER
        return True

    def _certain(self) -> int:
        """The number of held bytes before an unfinished delimiter."""
        start = max(0, len(self._held) - len(self._delimiter) + 1)
        while start < len(self._held):
            start = self._held.find(b"\r", start)
            if start < 0:
                break
            if self._delimiter.startswith(self._held[start:]):
                return start
            start += 1
        return len(self._held)

    def _read_delimiter(self) -> bool:
        """What follows a boundary: two hyphens after the last part, else white space and a line end."""
        if len(self._held) < len(_LINE_END):
            return False
        if self._held.startswith(b"--"):
            self._state = _ENDED
            return True
        end = self._held.find(_LINE_END)
        padding = self._held if end < 0 else self._held[:end]
        if padding.strip(b" \t") not in (b"", b"\r" if end < 0 else b"") or len(padding) > _MAX_PADDING:
            raise InvalidRequest("body: a boundary must be followed by a line end")
        if end < 0:
            return False
        self._held = self._held[end:]  # its line end is kept, so that a head without headers ends in the same way
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(f"body: more than {_MAX_PARTS} parts")
        self._state = _HEAD
        return True

    def _read_head(self, events: list[PartEvent]) -> bool:
        end = self._held.find(b"\r\n\r\n")
        if (len(self._held) if end < 0 else end) > _MAX_HEAD:
            raise InvalidRequest(f"body: the headers of a part are longer than {_MAX_HEAD} bytes")
        if end < 0:
            return False
        events.append(_part(self._held[len(_LINE_END) : end]))
        self._held = self._held[end + 2 * len(_LINE_END) :]
        self._state = _CONTENT
        return True


def _part(head: bytes) -> PartBegin:
    """The part that these headers begin. Raises InvalidRequest."""
    headers = {}
    for line in head.split(_LINE_END):
        name, colon, value = line.partition(b":")
        if not colon:
            raise InvalidRequest("body: a part has an invalid header")
        headers[name.strip().lower()] = value.strip(b" \t")
    kind, parameters = _header_value(headers.get(b"content-disposition", b""))
    if kind != b"form-data" or b"name" not in parameters:
        raise InvalidRequest("body: each part must have a content-disposition of form-data with a name")
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _ENCODINGS:
        raise InvalidRequest("body: a part has a content-transfer-encoding, which is not supported")
    filename = parameters.get(b"filename")
    content_type = headers.get(b"content-type")
    try:
        return PartBegin(
            _unquoted(parameters[b"name"]),
            None if filename is None else _unquoted(filename),
            None if content_type is None else content_type.decode("ascii"),
        )
    except UnicodeDecodeError:
        raise InvalidRequest("body: a part has a header that is not UTF-8") from None


def _header_value(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The value of a header in lower case, and its parameters; quoted pairs stay as they are."""
    kind, semicolon, rest = header.partition(b";")
    parameters: dict[bytes, bytes] = {}
    at, rest = 0, semicolon + rest
    while (found := _PARAMETER.match(rest, at)) is not None:
        name, quoted, plain = found.groups()
        parameters.setdefault(name.lower(), plain if quoted is None else quoted)
        at = found.end()
    return kind.strip().lower(), parameters


def _unquoted(value: bytes) -> str:
    """Raises UnicodeDecodeError."""
    return _QUOTED_PAIR.sub(r"\1", value.decode())
