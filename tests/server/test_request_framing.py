"""Request framing: the result does not depend on how the bytes are cut, and ambiguous requests are refused."""

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

# The bytes received, and the bytes for the parser, or None if they are the same.
VALID = {
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
    "an absolute target": (get(b"GET HTTPS://b:1/c?d HTTP/1.1"), get(b"GET /c?d HTTP/1.1")),
    "an absolute target without a path": (get(b"OPTIONS http://b HTTP/1.1"), get(b"OPTIONS / HTTP/1.1")),
    "an absolute target with only a query": (get(b"GET http://b?c HTTP/1.1"), get(b"GET /?c HTTP/1.1")),
    "an upgrade": (get(b"GET / HTTP/1.1", b"UPGRADE: h2c", b"Upgrade: b", b"X: c"), get(b"GET / HTTP/1.1", b"X: c")),
    "expect": (post(b"hello", b"Content-Length: 5", b"Expect: 100-continue"), None),
    "expect in HTTP/1.0": (get(b"GET / HTTP/1.0", b"Expect: 100-continue"), get(b"GET / HTTP/1.0")),
}

AMBIGUOUS = {
    "LF": (b"GET / HTTP/1.1\n", InvalidRequest),
    "LF in the middle": (b"GET / HTTP/1.1\r\nA: b\n", InvalidRequest),
    "no method": (b"\x16\x03\x01\x02", InvalidRequest),
    "a method without an end": (b"A" * 33, InvalidRequest),
    "an unknown method": (get(b"SMUGGLE / HTTP/1.1"), MethodNotAllowed),
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
    "a chunk longer than its size": (post(b"1\r\nab", CHUNKED), InvalidRequest),
    "a chunk without a size": (post(b";a\r\n", CHUNKED), InvalidRequest),
    "a chunk with LF": (post(b"1;\na\r\n", CHUNKED), InvalidRequest),
    "a malformed trailer": (post(b"0\r\nA b\r\n", CHUNKED), InvalidRequest),
    "a head too large": (get(b"GET / HTTP/1.1", b"A: " + b"b" * LIMIT), HeadersTooLarge),
    "a head too large, without an end": (b"GET / HTTP/1.1\r\nA: " + b"b" * LIMIT, HeadersTooLarge),
    "an extension too large": (post(b"1;" + b"a" * LIMIT + b"\r\n", CHUNKED), HeadersTooLarge),
    "an extension too large, without an end": (post(b"1;" + b"a" * 2 * LIMIT, CHUNKED), HeadersTooLarge),
    "extensions too large together": (post(b"1;aaaaaaaaaaaaaaaaaaaaa\r\nb\r\n" * LIMIT, CHUNKED), HeadersTooLarge),
    "chunks of one byte": (post(b"1\r\na\r\n" * LIMIT, CHUNKED), HeadersTooLarge),
    "empty lines without an end": (b"\r\n" * LIMIT, HeadersTooLarge),
    "trailers too large together": (post(b"0\r\n" + b"A: bbbbbbbbbbbbbbbb\r\n" * LIMIT, CHUNKED), HeadersTooLarge),
}


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def feed_all(framing: RequestFraming, data: list[bytes]) -> None:
    for piece in data:
        framing.feed(piece)
        while framing.unfinished:
            framing.feed(b"")


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_valid_request_is_returned_without_the_bytes_after_it(name: str, size: int) -> None:
    sent, given = VALID[name]
    framing = RequestFraming(LIMIT)
    for _ in range(2):
        assert b"".join(map(framing.feed, pieces(sent + NEXT, size))) == (given or sent)
        assert framing.whole
        framing.advance()
        assert framing.feed(b"") == NEXT
        framing.advance()
        assert (framing.begun, framing.held) == (False, 0)


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_an_ambiguous_request_is_refused_as_soon_as_it_arrives(name: str, size: int) -> None:
    sent, error = AMBIGUOUS[name]
    framing = RequestFraming(LIMIT)
    with pytest.raises(ApiError) as raised:
        feed_all(framing, pieces(sent, size))
    assert type(raised.value) is error


def test_random_requests_in_random_pieces_are_returned_one_by_one() -> None:
    drawn = random.Random(5)
    for _ in range(300):
        requests = [VALID[name] for name in drawn.choices(list(VALID), k=drawn.randint(1, 6))]
        stream = b"".join(sent for sent, _ in requests)
        cuts = sorted(drawn.randrange(len(stream) + 1) for _ in range(drawn.randint(0, 8)))
        framing = RequestFraming(LIMIT)
        out = []
        given = b""
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if end < len(stream) and drawn.random() < 0.3:
                framing.hold(stream[begin:end])
                continue
            given += framing.feed(stream[begin:end])
            while framing.whole:
                out.append(given)
                framing.advance()
                given = framing.feed(b"")
        assert out == [given or sent for sent, given in requests]


@pytest.mark.parametrize("last", [b"", b"cd"])
def test_held_bytes_of_a_body_come_before_later_ones(last: bytes) -> None:
    framing = RequestFraming(LIMIT)
    head = post(b"", b"Content-Length: 9", b"Expect: 100-continue")
    assert framing.feed(head) == head
    framing.hold(b"ab")
    assert framing.feed(last) == b"ab" + last
    assert not framing.expects
    assert framing.remainder == 7 - len(last)
    assert framing.held == 0


def test_no_more_of_a_head_is_held_than_the_limit_and_one_read() -> None:
    framing = RequestFraming(LIMIT)
    framing.feed(b"GET / HTTP/1.1\r\nA: ")
    while framing.held + 100 <= LIMIT:
        framing.feed(b"b" * 100)
    with pytest.raises(HeadersTooLarge):
        framing.feed(b"b" * 100)


def test_a_head_may_have_256_fields_and_a_target_of_8192_bytes() -> None:
    fields = [b"A: b"] * 255
    allowed = get(b"GET /" + b"a" * 8191 + b" HTTP/1.1", *fields)
    assert RequestFraming(65536).feed(allowed) == allowed
    for refused in (get(b"GET / HTTP/1.1", *fields, b"A: b"), get(b"GET /" + b"a" * 8192 + b" HTTP/1.1")):
        with pytest.raises(HeadersTooLarge):
            RequestFraming(65536).feed(refused)


def test_one_call_takes_a_bounded_number_of_chunks_and_the_next_calls_take_the_rest() -> None:
    framing = RequestFraming(65536)
    chunks = b"5\r\nhello\r\n" * 1000
    sent = post(chunks + b"0\r\n\r\n", CHUNKED)
    given = [framing.feed(sent)]
    while framing.unfinished:
        given.append(framing.feed(b""))
    assert b"".join(given) == sent
    assert framing.whole
    assert max(len(piece) for piece in given) < len(sent) / 10


def test_a_large_body_is_not_copied() -> None:
    framing = RequestFraming(LIMIT)
    framing.feed(post(b"", b"Content-Length: 1000"))
    data = b"a" * 900
    assert framing.feed(data) is data
    assert framing.feed(b"b" * 200) == b"b" * 100
    assert (framing.whole, framing.held) == (True, 100)


def test_expects_is_true_until_the_first_byte_of_the_body() -> None:
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


def test_the_repr_shows_the_step_and_the_bytes_held() -> None:
    framing = RequestFraming(LIMIT)
    assert repr(framing) == "<RequestFraming head, 0 bytes held>"
    framing.feed(post(b"5\r\nhel", CHUNKED))
    assert repr(framing) == "<RequestFraming chunk_data, 0 bytes held>"
