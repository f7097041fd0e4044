"""The judge of where a request ends: the same whatever pieces it comes in, and in doubt it is no request."""

import random

import pytest

from anthro_asgi.server.request_framing import RequestFraming
from anthro_asgi.wire.errors import ApiError, HeadersTooLarge, InvalidRequest, MethodNotAllowed

LIMIT = 1024
HOST = b"Host: a\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"


def get(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> bytes:
    return b"\r\n".join([line, HOST[:-2], *fields, b"", b""])


def post(body: bytes, *fields: bytes) -> bytes:
    return get(b"POST /a?b=c HTTP/1.1", *fields) + body


CHUNKED = b"Transfer-Encoding: chunked"

# What is sent, and what the parser is given of it; the same where there is no second.
SOUND = {
    "no body": (get(), None),
    "HTTP/1.0 without a host": (b"GET / HTTP/1.0\r\n\r\n", None),
    "every character a target may have": (get(b"GET /" + bytes(set(range(0x21, 0x7F)) - {0x23}) + b" HTTP/1.1"), None),
    "latin-1 in a value": (get(b"GET / HTTP/1.1", b"X-A: \xe9\t b "), None),
    "a length": (post(b"hello", b"content-LENGTH: \t5 "), None),
    "a length of zero": (post(b"", b"Content-Length: 0"), None),
    "chunks": (post(b"5\r\nhello\r\n1\r\n \r\n0\r\n\r\n", CHUNKED), None),
    "sizes in other spellings": (
        post(b'0005;a\r\nhello\r\nA ; b="c"\r\n0123456789\r\n00\r\n\r\n', CHUNKED),
        post(b"5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n", CHUNKED),
    ),
    "trailers": (
        post(b"5\r\nhello\r\n0\r\nX-A: b\r\nContent-Length: 7\r\n\r\n", CHUNKED),
        post(b"5\r\nhello\r\n0\r\n\r\n", CHUNKED),
    ),
    "empty lines before": (b"\r\n\r\n" + get(), get()),
    "a proxy's form": (get(b"GET HTTPS://b:1/c?d HTTP/1.1"), get(b"GET /c?d HTTP/1.1")),
    "a proxy's form without a path": (get(b"OPTIONS http://b HTTP/1.1"), get(b"OPTIONS / HTTP/1.1")),
    "a proxy's form with a query only": (get(b"GET http://b?c HTTP/1.1"), get(b"GET /?c HTTP/1.1")),
    "an offer": (get(b"GET / HTTP/1.1", b"UPGRADE: h2c", b"Upgrade: b", b"X: c"), get(b"GET / HTTP/1.1", b"X: c")),
    "consent asked for": (post(b"hello", b"Content-Length: 5", b"Expect: 100-continue"), None),
    "consent asked for in HTTP/1.0": (get(b"GET / HTTP/1.0", b"Expect: 100-continue"), get(b"GET / HTTP/1.0")),
}

DOUBTFUL = {
    "LF": (b"GET / HTTP/1.1\n", InvalidRequest),
    "LF in the middle": (b"GET / HTTP/1.1\r\nA: b\n", InvalidRequest),
    "no method": (b"\x16\x03\x01\x02", InvalidRequest),
    "a method without an end": (b"A" * 33, InvalidRequest),
    "a method nobody has": (get(b"SMUGGLE / HTTP/1.1"), MethodNotAllowed),
    "a tunnel": (get(b"CONNECT a:1 HTTP/1.1"), MethodNotAllowed),
    "another version": (get(b"GET / HTTP/1.2"), InvalidRequest),
    "no path": (get(b"OPTIONS * HTTP/1.1"), InvalidRequest),
    "a fragment": (get(b"GET /a#b HTTP/1.1"), InvalidRequest),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", InvalidRequest),
    "two hosts": (get(b"GET / HTTP/1.1", b"Host: a"), InvalidRequest),
    "a folded line": (get(b"GET / HTTP/1.1", b"A: b", b" c"), InvalidRequest),
    "length and coding": (post(b"", b"Content-Length: 0", CHUNKED), InvalidRequest),
    "length twice": (post(b"", b"Content-Length: 0", b"content-length: 0"), InvalidRequest),
    "a coding of more than chunks": (post(b"", b"Transfer-Encoding: gzip, chunked"), InvalidRequest),
    "chunks in HTTP/1.0": (get(b"POST / HTTP/1.0", CHUNKED), InvalidRequest),
    "a chunk that lies": (post(b"1\r\nab", CHUNKED), InvalidRequest),
    "a chunk of no size": (post(b";a\r\n", CHUNKED), InvalidRequest),
    "a chunk with LF": (post(b"1;\na\r\n", CHUNKED), InvalidRequest),
    "a trailer that is none": (post(b"0\r\nA b\r\n", CHUNKED), InvalidRequest),
    "a head too large": (get(b"GET / HTTP/1.1", b"A: " + b"b" * LIMIT), HeadersTooLarge),
    "a head too large, without an end": (b"GET / HTTP/1.1\r\nA: " + b"b" * LIMIT, HeadersTooLarge),
    "an extension too large": (post(b"1;" + b"a" * LIMIT + b"\r\n", CHUNKED), HeadersTooLarge),
    "an extension too large, without an end": (post(b"1;" + b"a" * 2 * LIMIT, CHUNKED), HeadersTooLarge),
    "extensions too large together": (post(b"1;aaaaaaaaaaaaaaaaaaaaa\r\nb\r\n" * LIMIT, CHUNKED), HeadersTooLarge),
    "trailers too large together": (post(b"0\r\n" + b"A: bbbbbbbbbbbbbbbb\r\n" * LIMIT, CHUNKED), HeadersTooLarge),
}


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_sound_request_is_given_out_and_nothing_behind_it(name: str, size: int) -> None:
    sent, given = SOUND[name]
    framing = RequestFraming(LIMIT)
    for _ in range(2):
        assert b"".join(map(framing.feed, pieces(sent + NEXT, size))) == (given or sent)
        assert framing.whole
        framing.advance()
        assert framing.feed(b"") == NEXT
        framing.advance()
        assert (framing.begun, framing.held) == (False, 0)


@pytest.mark.parametrize("name", DOUBTFUL)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_what_is_doubtful_is_refused_as_soon_as_it_is_there(name: str, size: int) -> None:
    sent, error = DOUBTFUL[name]
    framing = RequestFraming(LIMIT)
    with pytest.raises(ApiError) as raised:
        list(map(framing.feed, pieces(sent, size)))
    assert type(raised.value) is error


def test_any_requests_in_any_pieces_come_out_as_they_were() -> None:
    drawn = random.Random(5)
    for _ in range(300):
        asked = [SOUND[name] for name in drawn.choices(list(SOUND), k=drawn.randint(1, 6))]
        stream = b"".join(sent for sent, _ in asked)
        cuts = sorted(drawn.randrange(len(stream) + 1) for _ in range(drawn.randint(0, 8)))
        framing = RequestFraming(LIMIT)
        out = []
        given = b""
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            given += framing.feed(stream[begin:end])
            while framing.whole:
                out.append(given)
                framing.advance()
                given = framing.feed(b"")
        assert out == [given or sent for sent, given in asked]


def test_no_more_is_held_of_a_head_than_the_limit_and_one_read() -> None:
    framing = RequestFraming(LIMIT)
    framing.feed(b"GET / HTTP/1.1\r\nA: ")
    while framing.held + 100 <= LIMIT:
        framing.feed(b"b" * 100)
    with pytest.raises(HeadersTooLarge):
        framing.feed(b"b" * 100)


def test_a_large_body_is_not_copied_on_its_way() -> None:
    framing = RequestFraming(LIMIT)
    framing.feed(post(b"", b"Content-Length: 1000"))
    data = b"a" * 900
    assert framing.feed(data) is data
    assert framing.feed(b"b" * 200) == b"b" * 100
    assert (framing.whole, framing.held) == (True, 100)


def test_it_knows_whose_consent_is_still_waited_for() -> None:
    framing = RequestFraming(LIMIT)
    framing.feed(post(b"", b"Content-Length: 5", b"Expect: 100-Continue"))
    assert framing.expects
    framing.feed(b"h")
    assert not framing.expects
    framing = RequestFraming(LIMIT)
    framing.feed(post(b"", CHUNKED, b"Expect: 100-continue"))
    assert framing.expects
    framing.feed(b"5\r\n")
    assert not framing.expects
    framing.feed(b"hello\r\n0\r\n\r\n" + get(b"GET / HTTP/1.1", b"Expect: 100-continue"))
    framing.advance()
    framing.feed(b"")
    assert framing.whole
    assert not framing.expects


def test_it_says_how_far_it_is() -> None:
    framing = RequestFraming(LIMIT)
    assert repr(framing) == "<RequestFraming head, 0 bytes held>"
    framing.feed(post(b"5\r\nhel", CHUNKED))
    assert repr(framing) == "<RequestFraming chunk_data, 0 bytes held>"
