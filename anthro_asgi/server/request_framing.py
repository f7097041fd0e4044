"""Finds where each request begins and ends in the bytes of a connection. Pure: bytes in, bytes out.

Request smuggling exploits bytes that two HTTP parsers read differently, and the two parsers behind this class differ.
So this class checks what frames a request, before either parser sees it, strictly by RFC 9112. An ambiguous request is
refused. A parser then gets one request at a time, in a form that can be read in one way only:

    head       complete, with CRLF only, without Upgrade (no upgrade is supported), the target as a path
    body       with a Content-Length: unchanged;  chunked: chunked again, without chunk extensions and trailers

    ──► _head ──► (no body) ───────────────────────────────► _end ──► advance() ──► _head
          ├─────► _sized ────────────────────────────────────► │
          └─────► _chunk ──► _chunk_data ──► _chunk_end ──► _chunk
                     └─────► _trailers ────────────────────────┘

To editors: a step removes what it needs from the front of the buffer. It returns the bytes for the parser, or None when
it needs more. Bytes that are not checked yet stay in the buffer. One call of `feed` does a bounded number of steps, so
that no bytes of a client can hold the event loop; `unfinished` says that more steps are possible. The work for one
request is bounded too: by the number of header fields, and by the bytes that frame its chunks.
"""

import re
from collections.abc import Callable
from math import inf
from typing import Final

from ..wire.errors import HeadersTooLarge, InvalidRequest, MethodNotAllowed

_METHODS: Final = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE".split())  # those that both parsers know
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]"
_MAX_METHOD: Final = 32
_REQUEST_START: Final = re.compile(rb"%s{1,%d}(?: |\Z)" % (_TOKEN, _MAX_METHOD))
_REQUEST_LINE: Final = re.compile(
    rb"(%s{1,%d}) (?:[Hh][Tt][Tt][Pp][Ss]?://[^/?# ]+)?([!-~]*) HTTP/1\.([01])\r\n" % (_TOKEN, _MAX_METHOD)
)
_FIELDS: Final = re.compile(rb"(?:%s++:%s*+\r\n)*+\r\n" % (_TOKEN, _VALUE))
_FRAMING_FIELDS: Final = re.compile(
    rb"^(content-length|transfer-encoding|host|expect|upgrade):([^\r\n]*)\r\n", re.IGNORECASE | re.MULTILINE
)
_HOST: Final = re.compile(rb"[\w.~%!$&'()*+;=:\[\]-]*", re.ASCII)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[\t ]*;%s*)?)" % _VALUE)
_TRAILER: Final = re.compile(rb"%s+:%s*" % (_TOKEN, _VALUE))
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*+")
_MAX_FIELDS: Final = 256  # header fields; both parsers do work for each
_MAX_TARGET: Final = 8192  # bytes; the service has only short paths, and unquoting takes time
_CHUNK_LINES: Final = 4  # bytes of the two CRLF of a chunk
MAX_STEPS: Final = 192
"""Steps of one call of `feed`; a chunk takes three. Both parsers need less than 2 ms of CPU for them."""


class RequestFraming:
    """The requests of one connection, one after the other.

    `limit` is the largest size of a head in bytes. These count as part of the head: empty lines before it, trailers,
    chunk extensions, and the bytes by which the framing of a chunk is longer than its data. `whole` is True when a
    request was returned completely. `unfinished` is True when `feed(b"")` has more to do for the current request.
    `expects` is True while the client may be waiting for `100 Continue`, that is, it sent `Expect: 100-continue` and
    none of its body yet.
    """

    __slots__ = ("_allowance", "_buffer", "_left", "_limit", "_scanned", "_step", "expects", "unfinished", "whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self.advance()

    def __repr__(self) -> str:
        return f"<RequestFraming {self._step.__name__.strip('_')}, {len(self._buffer)} bytes held>"

    @property
    def begun(self) -> bool:
        """Whether a byte of the request has arrived."""
        return self._step is not RequestFraming._head or bool(self._buffer)

    @property
    def held(self) -> int:
        """Bytes that have arrived and were not returned."""
        return len(self._buffer)

    def advance(self) -> None:
        """Go on to the next request, when `whole` is True."""
        self._step: Callable[[RequestFraming], bytes | None] = RequestFraming._head
        self._scanned = 0  # bytes of the buffer that were searched for the end of the head
        self._left = 0  # bytes of the body, or of the chunk, that have not arrived
        self._allowance = self._limit  # bytes that chunk extensions and trailers may still take
        self.whole = self.expects = self.unfinished = False

    @property
    def remainder(self) -> float:
        """Bytes of the body that were not returned; infinite for a chunked body."""
        if self._step is RequestFraming._sized:
            return self._left
        return 0 if self.whole else inf

    def hold(self, data: bytes) -> None:
        """Take `data` for the next call of `feed`."""
        self._buffer += data

    def feed(self, data: bytes) -> bytes:
        """Take `data`, and return what is complete and checked of the current request. Bytes of later ones are held.

        Raises InvalidRequest, MethodNotAllowed and HeadersTooLarge; the object must not be used after that.
        """
        if self._step is RequestFraming._sized and not self._buffer and len(data) < self._left:
            # the usual case of a large body: no copy
            self.expects = False
            self._left -= len(data)
            return data
        self._buffer += data
        output = bytearray()
        self.unfinished = False
        for _ in range(MAX_STEPS):
            piece = self._step(self)
            if piece is None:
                return bytes(output)
            output += piece
        self.unfinished = True
        return bytes(output)

    # the head

    def _head(self) -> bytes | None:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):  # RFC 9112 section 2.2 allows empty lines before a request
            empty = _EMPTY_LINES.match(buffer, 0, self._allowance + 2)
            size = 0 if empty is None else empty.end()
            self._charge(size)
            del buffer[:size]
        last = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        size = last + 4 if last >= 0 else len(buffer)
        if size > self._limit:
            raise HeadersTooLarge(f"the request head is larger than {self._limit} bytes")
        if last < 0:
            self._check_incomplete_head()
            return None
        self._charge(size)
        return self._check_head(self._take(size))

    def _check_incomplete_head(self) -> None:
        """Refuse bytes that cannot become a valid head at once, without waiting for its end."""
        buffer = self._buffer
        if buffer and buffer != b"\r" and not _REQUEST_START.match(buffer):
            raise _invalid_request_line()
        if _BARE_LF.search(buffer, self._scanned):
            raise InvalidRequest("the request has a line that does not end with CRLF")
        self._scanned = len(buffer)

    def _check_head(self, head: bytes) -> bytes:
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise _invalid_request_line()
        method, target, minor = line.groups()
        if method not in _METHODS:
            raise MethodNotAllowed("the request method is unknown", headers=(("allow", "GET, HEAD, POST"),))
        if head.count(b"\r\n") - 2 > _MAX_FIELDS:
            raise HeadersTooLarge(f"the request head has more than {_MAX_FIELDS} fields")
        if not _FIELDS.fullmatch(head, line.end()):
            raise InvalidRequest("the request has a malformed header field")
        if len(target) > _MAX_TARGET:
            raise HeadersTooLarge(f"the request target is larger than {_MAX_TARGET} bytes")
        if target[:1] != b"/":
            if line.end(1) + 1 == line.start(2) or target[:1] not in (b"", b"?"):
                raise InvalidRequest("the request target is not a path")
            target = b"/" + target
        if b"#" in target:
            raise InvalidRequest("the request target has a fragment")
        fields = head[line.end() :]
        dropped = self._frame_body(_FRAMING_FIELDS.findall(fields), http_1_0=minor == b"0")
        if dropped:
            fields = _FRAMING_FIELDS.sub(lambda field: b"" if field[1].lower() in dropped else field[0], fields)
        return b"%s %s HTTP/1.%s\r\n%s" % (method, target, minor, fields)

    def _frame_body(self, fields: list[tuple[bytes, bytes]], *, http_1_0: bool) -> set[bytes]:
        """Choose the step that reads the body. Returns the names of the header fields to leave out."""
        values: dict[bytes, bytes] = {}
        for name, value in fields:
            name = name.lower()
            if name in values and name not in (b"expect", b"upgrade"):
                raise InvalidRequest(f"the request has more than one {name.decode()}")
            values[name] = value.strip(b"\t ")
        if not _HOST.fullmatch(values.get(b"host", b"" if http_1_0 else b"/")):
            raise InvalidRequest("the request has no valid host")
        length = values.get(b"content-length")
        coding = values.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                raise InvalidRequest("the request has both content-length and transfer-encoding")
            if http_1_0 or coding.lower() != b"chunked":
                raise InvalidRequest("the request has a transfer-encoding other than chunked")
            self._step = RequestFraming._chunk
        elif length is not None and not _LENGTH.fullmatch(length):
            raise InvalidRequest("the request has an invalid content-length")
        else:
            self._left = int(length or 0)
            self._step = RequestFraming._sized if self._left else RequestFraming._end
        self.expects = not http_1_0 and values.get(b"expect", b"").lower() == b"100-continue"
        return values.keys() & ({b"upgrade", b"expect"} if http_1_0 else {b"upgrade"})

    # the body

    def _sized(self) -> bytes | None:
        data = self._take(self._left)
        self._left -= len(data)
        if data:
            self.expects = False
        if not self._left:
            self._step = RequestFraming._end
        return data or None

    def _chunk(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        chunk = _CHUNK.fullmatch(line)
        if chunk is None:
            raise InvalidRequest("the body has a malformed chunk")
        self._left = int(chunk[1], 16)
        self._charge(len(chunk[2]) + max(0, len(chunk[1]) + _CHUNK_LINES - self._left))
        self._step = RequestFraming._chunk_data if self._left else RequestFraming._trailers
        return b"%x\r\n" % self._left if self._left else b""

    def _chunk_data(self) -> bytes | None:
        data = self._take(self._left)
        self._left -= len(data)
        if not self._left:
            self._step = RequestFraming._chunk_end
        return data or None

    def _chunk_end(self) -> bytes | None:
        end = bytes(self._buffer[:2])
        if not b"\r\n".startswith(end):
            raise InvalidRequest("the body has a chunk that is longer than its size")
        if len(end) < 2:
            return None
        self._step = RequestFraming._chunk
        return self._take(2)

    def _trailers(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        if not line:
            self._step = RequestFraming._end
            return b"0\r\n\r\n"
        if not _TRAILER.fullmatch(line):
            raise InvalidRequest("the body has a malformed trailer")
        self._charge(len(line))
        return b""

    def _end(self) -> None:
        self.whole = True
        self.expects = False

    # the buffer

    def _take(self, most: int) -> bytes:
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        self.expects = self.expects and not data
        return data

    def _line(self) -> bytes | None:
        """The next line without its CRLF, or None if it is incomplete."""
        end = self._buffer.find(b"\r\n")
        line = bytes(self._buffer[: end if end >= 0 else None])
        if b"\n" in line:
            raise InvalidRequest("the body has a line that does not end with CRLF")
        if end >= 0:
            del self._buffer[: end + 2]
            self.expects = False
            return line
        if len(line) > self._allowance + 16:
            self._charge(len(line))
        return None

    def _charge(self, size: int) -> None:
        self._allowance -= size
        if self._allowance < 0:
            raise HeadersTooLarge(
                f"the request head with its trailers and the framing of its chunks is larger than {self._limit} bytes"
            )


def _invalid_request_line() -> InvalidRequest:
    return InvalidRequest("the request is not valid HTTP/1.1")
