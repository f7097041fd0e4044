"""Both parsers of responses read the same bodies and refuse the same ones, however the bytes are cut."""

import random
from itertools import pairwise
from typing import NamedTuple

import pytest

from anthro_asgi.upstream.errors import Broken
from anthro_asgi.upstream.http_parsers import PARSERS, ResponseHeaders

RESPONSES = 4000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
STARTS = (
    CHUNKED,
    CHUNKED,
    CHUNKED,
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
)
SIZES = (b"5", b"5", b"05", b"0005", b"5 ", b" 5", b"5\t", b"+5", b"-5", b"0x5", b"g", b"", b"f" * 16, b"1" + b"0" * 17)
EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b' ; a = "b;c"', b";", b";a\x00", b";a\xe9", b" a", b";" + b"a" * 40)
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"")
DATA = (b"hello", b"hello", b"hello", b"hell", b"hello!", b"a\r\nbc", b"0\r\n\r\n", b"\x00" * 5)
LASTS = (b"0", b"0", b"0", b"00", b"0;a", b"0 ", b"")
TRAILERS = (b"", b"", b"", b"A: b\r\n", b"A : b\r\n", b" A: b\r\n", b"A\r\n", b"Content-Length: 3\r\n", b"A: \x00\r\n")


class Outcome(NamedTuple):
    """What a parser made of a response. `reusable` is None if it has not ended."""

    status: int
    headers: ResponseHeaders
    body: bytes
    reusable: bool | None


def outcome(parser: str, pieces: list[bytes]) -> Outcome | None:
    """None for a response that is refused."""
    heads: list[tuple[int, ResponseHeaders]] = []
    body: list[bytes] = []
    ends: list[bool] = []

    def on_head(status: int, headers: ResponseHeaders) -> None:
        heads.append((status, [(name, value.lower()) for name, value in headers]))

    reader = PARSERS[parser](on_head, body.append, ends.append)
    try:
        for piece in pieces:
            if not ends:
                reader.feed(piece)
    except Broken:
        return None
    status, headers = heads[0] if heads else (0, [])
    return Outcome(status, headers, b"".join(body), ends[0] if ends else None)


def random_chunk(drawn: random.Random, wild: int) -> bytes:
    size, extension = drawn.choice(SIZES[:wild]), drawn.choice(EXTENSIONS[:wild])
    ends = ENDS[: 7 if wild < 5 else len(ENDS)]
    return size + extension + drawn.choice(ends) + drawn.choice(DATA[: wild + 2]) + drawn.choice(ends)


def random_response(drawn: random.Random) -> bytes:
    wild = drawn.choice([2, 2, 5, len(SIZES)])
    start = drawn.choice(STARTS)
    if start is not CHUNKED and drawn.random() < 0.7:
        return start + drawn.choice([b"", b"hello", b"hello!!", b"hello!!HTTP/1.1 200 OK\r\n\r\n", b"hello!!\r\n"])
    chunks = [random_chunk(drawn, wild) for _ in range(drawn.randint(0, 4))]
    trailers = drawn.choice(TRAILERS[: wild + 1])
    return start + b"".join(chunks) + drawn.choice(LASTS[: wild + 1]) + b"\r\n" + trailers + b"\r\n"


def mutated(drawn: random.Random, response: bytes) -> bytes:
    """The response with one byte of its body removed, doubled or replaced."""
    at = drawn.randrange(response.index(b"\r\n\r\n") + 4, len(response) + 1)
    byte = drawn.choice(
        [b"", response[at : at + 1] * 2, bytes([drawn.randrange(256)]), drawn.choice([b"\r", b"\n", b" "])]
    )
    return response[:at] + byte + response[at + 1 :]


def cut(drawn: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted({0, len(data), *(drawn.randrange(len(data)) for _ in range(drawn.choice([0, 1, 3, 20])))})
    return [data[begin:end] for begin, end in pairwise(cuts)]


def test_both_parsers_read_and_refuse_the_same_bodies() -> None:
    drawn = random.Random(19)
    read = refused = 0
    for _ in range(RESPONSES):
        response = random_response(drawn)
        pieces = cut(drawn, mutated(drawn, response) if drawn.random() < 0.5 else response)
        first, second = (outcome(parser, pieces) for parser in PARSERS)
        assert first == second, pieces
        read += first is not None and first.reusable is not None
        refused += first is None
    assert read > RESPONSES / 20
    assert refused > RESPONSES / 20


@pytest.mark.parametrize("parser", PARSERS)
def test_a_body_is_read_the_same_byte_by_byte(parser: str) -> None:
    drawn = random.Random(20)
    for _ in range(RESPONSES // 10):
        response = random_response(drawn)
        whole = outcome(parser, [response])
        bytewise = outcome(parser, [response[at : at + 1] for at in range(len(response))])
        if whole is not None and bytewise is not None:
            assert bytewise.body == whole.body
            assert (bytewise.reusable is None) is (whole.reusable is None)
        else:
            assert whole == bytewise, response
