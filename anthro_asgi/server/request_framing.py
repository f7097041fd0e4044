"""Where each request begins and ends in the bytes of a connection. Pure: bytes in, bytes out.

Request smuggling lives on what two readers of HTTP take differently, and the two parsers that may stand behind this do.
So what frames a request is judged here, before either of them, by the letter of RFC 9112; what is in doubt is refused.
A parser then gets one request at a time, in a form of which there is but one reading:

    head       whole, CRLF only, without an offer to upgrade (none is taken up) and without a target's scheme and host
    body       of a told length: as it came;  chunked: chunks anew, without extensions and trailers

    ──► _head ──► (no body) ───────────────────────────────► _end ──► advance() ──► _head
          ├─────► _sized ────────────────────────────────────► │
          └─────► _chunk ──► _chunk_data ──► _chunk_end ──► _chunk
                     └─────► _trailers ────────────────────────┘

Editors: a step takes what it needs from the front of the buffer and returns what the parser may have of it, or None
when it needs more. Whatever is not yet judged stays in the buffer, which is never much longer than the limit.
"""

import re
from collections.abc import Callable
from typing import Final

from ..wire.errors import HeadersTooLarge, InvalidRequest, MethodNotAllowed

_METHODS: Final = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE".split())  # which both parsers know
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]"
_LONGEST_METHOD: Final = 32
_BEGINNING: Final = re.compile(rb"%s{1,%d}(?: |\Z)" % (_TOKEN, _LONGEST_METHOD))
_REQUEST_LINE: Final = re.compile(
    rb"(%s{1,%d}) (?:[Hh][Tt][Tt][Pp][Ss]?://[^/?# ]+)?([!-~]*) HTTP/1\.([01])\r\n" % (_TOKEN, _LONGEST_METHOD)
)
_FIELDS: Final = re.compile(rb"(?:%s++:%s*+\r\n)*+\r\n" % (_TOKEN, _VALUE))
_TELLING: Final = re.compile(
    rb"^(content-length|transfer-encoding|host|expect|upgrade):([^\r\n]*)\r\n", re.IGNORECASE | re.MULTILINE
)
_HOST: Final = re.compile(rb"[\w.~%!$&'()*+;=:\[\]-]*", re.ASCII)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[\t ]*;%s*)?)" % _VALUE)
_TRAILER: Final = re.compile(rb"%s+:%s*" % (_TOKEN, _VALUE))
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


class RequestFraming:
    """The requests of one connection, one after the other.

    `limit` is the size in bytes of the largest head; extensions of chunks and trailers count as part of it. `whole`
    says that all of a request was given out. `expects` says that its sender may wait for our consent before it sends
    the body, and has sent none of it yet.
    """

    __slots__ = ("_buffer", "_left", "_limit", "_room", "_seen", "_step", "expects", "whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self.advance()

    def __repr__(self) -> str:
        return f"<RequestFraming {self._step.__name__.strip('_')}, {len(self._buffer)} bytes held>"

    @property
    def begun(self) -> bool:
        """Whether there is a byte of the request."""
        return self._step is not RequestFraming._head or bool(self._buffer)

    @property
    def held(self) -> int:
        """How many bytes have come beyond what was given out."""
        return len(self._buffer)

    def advance(self) -> None:
        """Go on to the next request."""
        self._step: Callable[[RequestFraming], bytes | None] = RequestFraming._head
        self._seen = 0  # bytes of the buffer in which no head ends
        self._left = 0  # bytes of the body, or of its chunk, that are still to come
        self._room = self._limit
        self.whole = self.expects = False

    def feed(self, data: bytes) -> bytes:
        """What the parser may have of the request, now that `data` has come. What is beyond its end is held.

        Raises InvalidRequest, MethodNotAllowed and HeadersTooLarge, and cannot go on after that.
        """
        if self._step is RequestFraming._sized and len(data) < self._left:  # most of a large body, which is not copied
            self.expects = False
            self._left -= len(data)
            return data
        self._buffer += data
        given = bytearray()
        while (piece := self._step(self)) is not None:
            given += piece
        return bytes(given)

    # the head

    def _head(self) -> bytes | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112, section 2.2
            del buffer[:2]
        last = buffer.find(b"\r\n\r\n", max(0, self._seen - 3))
        size = last + 4 if last >= 0 else len(buffer)
        if size > self._limit:
            raise HeadersTooLarge(f"the head of the request is larger than {self._limit} bytes")
        if last < 0:
            self._doubt()
            return None
        self._room -= size
        return self._judge(self._take(size))

    def _doubt(self) -> None:
        """Refuse at once what will not become a head, rather than wait for its end."""
        buffer = self._buffer
        if buffer and buffer != b"\r" and not _BEGINNING.match(buffer):
            raise _no_request_line()
        if _BARE_LF.search(buffer, self._seen):
            raise InvalidRequest("the request has a line that does not end in CRLF")
        self._seen = len(buffer)

    def _judge(self, head: bytes) -> bytes:
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise _no_request_line()
        method, target, minor = line.groups()
        if method not in _METHODS:
            raise MethodNotAllowed("that method is not known", headers=(("allow", "GET, HEAD, POST"),))
        if not _FIELDS.fullmatch(head, line.end()):
            raise InvalidRequest("the request has a malformed header field")
        if target[:1] != b"/":
            if line.end(1) + 1 == line.start(2) or target[:1] not in (b"", b"?"):
                raise InvalidRequest("the target of the request is no path")
            target = b"/" + target
        if b"#" in target:
            raise InvalidRequest("the target of the request has a fragment")
        fields = head[line.end() :]
        dropped = self._weigh(_TELLING.findall(fields), old=minor == b"0")
        if dropped:
            fields = _TELLING.sub(lambda field: b"" if field[1].lower() in dropped else field[0], fields)
        return b"%s %s HTTP/1.%s\r\n%s" % (method, target, minor, fields)

    def _weigh(self, fields: list[tuple[bytes, bytes]], *, old: bool) -> set[bytes]:
        """Settle how long the body is, by the header fields that tell; the names of those to leave out."""
        told: dict[bytes, bytes] = {}
        for name, value in fields:
            name = name.lower()
            if name in told and name not in (b"expect", b"upgrade"):
                raise InvalidRequest(f"the request has more than one {name.decode()}")
            told[name] = value.strip(b"\t ")
        if not _HOST.fullmatch(told.get(b"host", b"" if old else b"/")):
            raise InvalidRequest("the request has no valid host")
        length = told.get(b"content-length")
        coding = told.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                raise InvalidRequest("the request has both content-length and transfer-encoding")
            if old or coding.lower() != b"chunked":
                raise InvalidRequest("the request has a transfer-encoding other than chunked")
            self._step = RequestFraming._chunk
        elif length is not None and not _LENGTH.fullmatch(length):
            raise InvalidRequest("the request has an invalid content-length")
        else:
            self._left = int(length or 0)
            self._step = RequestFraming._sized if self._left else RequestFraming._end
        self.expects = not old and told.get(b"expect", b"").lower() == b"100-continue"
        return told.keys() & ({b"upgrade", b"expect"} if old else {b"upgrade"})

    # the body

    def _sized(self) -> bytes | None:
        data = self._take(self._left)
        self._left -= len(data)
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
        self._charge(len(chunk[2]))
        self._left = int(chunk[1], 16)
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
            raise InvalidRequest("the body has a chunk that is longer than it says")
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
        """The next line, without its end."""
        end = self._buffer.find(b"\r\n")
        line = bytes(self._buffer[: end if end >= 0 else None])
        if b"\n" in line:
            raise InvalidRequest("the body has a line that does not end in CRLF")
        if end >= 0:
            del self._buffer[: end + 2]
            self.expects = False
            return line
        if len(line) > self._room + 16:
            self._charge(len(line))
        return None

    def _charge(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise HeadersTooLarge(
                f"the head of the request, its chunks and trailers are larger than {self._limit} bytes"
            )


def _no_request_line() -> InvalidRequest:
    return InvalidRequest("that is no request of HTTP/1.1")
