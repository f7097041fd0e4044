"""Both response parsers on the same bytes, cut anywhere: they must report the same."""

import random

import pytest

from anthro_asgi.upstream.errors import Broken
from anthro_asgi.upstream.http_parsers import (
    MAX_HEAD,
    PARSERS,
    H11Parser,
    Parser,
    ParserFactory,
    ResponseHeaders,
    default_parser,
)

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


Report = tuple[int, ResponseHeaders, bytes, bool | str | None]


class Recorder:
    """Records what a parser reports: status, headers, body, and how the response ended."""

    def __init__(self, factory: ParserFactory) -> None:
        self.status = 0
        self.headers: ResponseHeaders = []
        self.body: list[bytes] = []
        self.end: bool | str | None = None
        self.parser: Parser = factory(self.on_head, self.on_body, self.on_end)

    def on_head(self, status: int, headers: ResponseHeaders) -> None:
        assert self.status == 0
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        assert self.status
        assert self.end is None
        assert type(data) is bytes
        assert data
        self.body.append(data)

    def on_end(self, reusable: bool) -> None:
        assert self.end is None
        self.end = reusable

    def report(self) -> Report:
        return self.status, self.headers, b"".join(self.body), self.end


def report_of(factory: ParserFactory, pieces: list[bytes], *, eof: bool = False) -> Report:
    recorder = Recorder(factory)
    try:
        for piece in pieces:
            if piece and recorder.end is None:
                recorder.parser.feed(piece)
        if eof and recorder.end is None:
            recorder.parser.eof()
    except Broken:
        recorder.end = "broken"
    return recorder.report()


def cuts_of(stream: bytes) -> list[list[bytes]]:
    rng = random.Random(len(stream))
    result = [[stream], [stream[i : i + 1] for i in range(len(stream))]]
    for _ in range(10):
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 6)))
        result.append([stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)])
    return result


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

GOOD = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "chunked": (
        CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        200,
        b"hello",
        True,
    ),
    "Chunked": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        200,
        b"hello",
        True,
    ),
    "no chunk": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\nT: a\r\n\r\n", 200, b"x", True),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "Close, x": (b"HTTP/1.1 200 OK\r\nConnection: x , Close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b"", True),
    "100": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "103": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx",
        404,
        b"x",
        True,
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
}


@both
@pytest.mark.parametrize("name", GOOD)
def test_a_valid_response_is_read_the_same_however_it_is_cut(parser: ParserFactory, name: str) -> None:
    stream, status, body, reusable = GOOD[name]
    for pieces in cuts_of(stream):
        seen = report_of(parser, pieces)
        assert (seen[0], *seen[2:]) == (status, body, reusable), pieces


@both
def test_a_body_without_a_length_ends_with_the_connection(parser: ParserFactory) -> None:
    for pieces in cuts_of(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello"):
        assert report_of(parser, pieces) == (200, [(b"server", b"x")], b"hello", None)
        assert report_of(parser, pieces, eof=True) == (200, [(b"server", b"x")], b"hello", False)


@both
def test_header_names_are_lower_case_and_values_are_stripped(parser: ParserFactory) -> None:
    stream = b"HTTP/1.1 200 OK\r\nRetry-After:  5 \t\r\nX-A:\r\nX-A: b c\r\ncontent-length: 0\r\n\r\n"
    expected = [(b"retry-after", b"5"), (b"x-a", b""), (b"x-a", b"b c"), (b"content-length", b"0")]
    for pieces in cuts_of(stream):
        assert report_of(parser, pieces)[1] == expected


@both
@pytest.mark.parametrize("name", [name for name in GOOD if GOOD[name][3]])
def test_bytes_after_the_end_make_the_connection_unusable(parser: ParserFactory, name: str) -> None:
    stream, status, body, _ = GOOD[name]
    for surplus in (b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"\x00"):
        seen = report_of(parser, [stream + surplus])
        assert (seen[0], *seen[2:]) == (status, body, False)


@both
def test_bytes_after_a_closing_response_do_not_change_it(parser: ParserFactory) -> None:
    stream = GOOD["close"][0] + b"surplus"
    assert report_of(parser, [stream])[2:] == (b"ok", False)


@both
def test_a_stray_crlf_after_the_end_is_accepted(parser: ParserFactory) -> None:
    assert report_of(parser, [GOOD["length"][0] + b"\r\n"])[2:] == (b"hello", True)


@both
@pytest.mark.parametrize("name", GOOD)
def test_a_response_cut_short_anywhere_is_broken(parser: ParserFactory, name: str) -> None:
    stream = GOOD[name][0]
    for size in range(1, len(stream)):
        assert report_of(parser, [stream[:size]], eof=True)[3] == "broken", stream[:size]


@both
def test_an_eof_before_the_first_byte_is_broken(parser: ParserFactory) -> None:
    assert report_of(parser, [], eof=True)[3] == "broken"


BAD = {
    "garbage": b"garbage",
    "html": b"<html><body>Bad Gateway",
    "nul": b"\x00",
    "tls alert": b"\x15\x03\x01\x00\x02\x02F",
    "ssh": b"SSH-2.0-x\r\n",
    "status": b"HTTP/1.1 abc OK\r\n\r\n",
    "low status": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "space in name": b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
    "lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "minus": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "both": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, turned": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
}


@both
@pytest.mark.parametrize("name", BAD)
def test_an_invalid_response_is_broken_without_waiting_for_more_bytes(parser: ParserFactory, name: str) -> None:
    for pieces in cuts_of(BAD[name]):
        assert report_of(parser, pieces)[3] == "broken", pieces


@pytest.mark.slow
@both
@pytest.mark.parametrize("piece", [1 << 20, 1000, 61])
def test_an_endless_head_is_broken_at_64_kib(parser: ParserFactory, piece: int) -> None:
    recorder = Recorder(parser)
    line = b"x-filler: " + b"y" * 40 + b"\r\n"
    flood = OK + line * (2 * MAX_HEAD // len(line))
    pieces = [flood[begin : begin + piece] for begin in range(0, len(flood), piece)]
    allowed = MAX_HEAD // piece  # pieces within the limit
    for data in pieces[:allowed]:
        recorder.parser.feed(data)
    with pytest.raises(Broken):
        recorder.parser.feed(pieces[allowed])


@both
def test_a_complete_head_over_64_kib_is_broken(parser: ParserFactory) -> None:
    line = b"x-filler: " + b"y" * 1000 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + line * 70 + b"\r\n"
    assert report_of(parser, [head])[3] == "broken"
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + line * 60 + b"\r\n"
    assert report_of(parser, [head])[3] is True


@both
def test_endless_informational_responses_are_broken(parser: ParserFactory) -> None:
    assert report_of(parser, [b"HTTP/1.1 100 Continue\r\n\r\n" * 4] * 1000)[3] == "broken"


@pytest.mark.parametrize("seed", range(4))
def test_both_parsers_report_the_same_for_mangled_bodies(seed: int) -> None:
    """Random bytes of the body and its framing are changed; the head stays valid."""
    rng = random.Random(seed)
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n"
    for _ in range(300):
        mangled = bytearray(body)
        mangled[rng.randrange(len(mangled))] = rng.choice(b"0123456789zg- x")
        reports = [report_of(parser, [head + bytes(mangled)], eof=True) for parser in PARSERS.values()]
        ends = {report[3] for report in reports}
        assert len(ends) == 1, (mangled, reports)
        if ends != {"broken"}:
            assert len({report[2] for report in reports}) == 1, (mangled, reports)


def test_httptools_is_the_default_if_it_is_installed() -> None:
    assert default_parser() is PARSERS.get("httptools", H11Parser)
    assert PARSERS["h11"] is H11Parser
