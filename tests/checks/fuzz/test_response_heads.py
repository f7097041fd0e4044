"""Both parsers of responses accept and refuse the same heads, and read the same from those that they accept."""

import random

import pytest

from anthro_asgi.upstream.errors import Broken
from anthro_asgi.upstream.http_parsers import PARSERS, ResponseHeaders

Outcome = tuple[int, ResponseHeaders] | None
HEADS = 4000
LINES = (
    b"Content-Length: 5",
    b"content-length: 5",
    b"Content-Length: 6",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Connection: close",
    b"Connection: keep-alive",
    b"X-A: b",
    b"X-A : b",
    b" X-A: b",
    b"\tfolded",
    b"X-A:",
    b"X-A: \x00",
    b"X-A: \xe9",
    b"X-A: b\rc",
    b": b",
    b"no colon",
    b"Content-Type: text/event-stream",
)
STARTS = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 ",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 429 Too Many",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1  200 OK",
    b"http/1.1 200 OK",
    b"HTTP/1.1 204 No Content",
)
ENDS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\r\n")


def outcome(parser: str, head: bytes) -> Outcome:
    """The status and the headers, or None for a head that is refused or not complete."""
    heads: list[tuple[int, ResponseHeaders]] = []

    def on_head(status: int, headers: ResponseHeaders) -> None:
        heads.append((status, [(name, value.lower()) for name, value in headers]))  # h11 lowers a transfer-encoding

    try:
        PARSERS[parser](on_head, lambda _: None, lambda _: None).feed(head)
    except Broken:
        return None
    return heads[0] if heads else None


def random_head(drawn: random.Random) -> bytes:
    lines = [
        drawn.choice(STARTS[: drawn.choice([2, 5, len(STARTS)])]),
        *drawn.choices(LINES, k=drawn.randint(0, 4)),
        b"",
    ]
    return b"".join(line + drawn.choice(ENDS[: drawn.choice([12, 12, 15])]) for line in lines)


def test_both_parsers_accept_and_refuse_the_same_heads() -> None:
    drawn = random.Random(13)
    accepted = 0
    for _ in range(HEADS):
        head = random_head(drawn)
        first, second = (outcome(parser, head) for parser in PARSERS)
        assert first == second, head
        accepted += first is not None
    assert HEADS / 20 < accepted < HEADS


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"X-A: b\r\n folded\r\n",
        b"X-A: b\n",
    ],
)
def test_a_head_with_two_readings_is_refused(parser: str, fields: bytes) -> None:
    assert outcome(parser, b"HTTP/1.1 200 OK\r\nX-B: c\r\n\r\n") == (200, [(b"x-b", b"c")])
    assert outcome(parser, b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n") is None
