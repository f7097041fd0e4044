"""The SSE parser compared with a slow, obvious one, and streams that engines were seen to send."""

import random
import time

import pytest

from anthro_asgi.upstream.sse import EventTooLarge, SSEParser
from bench.oracles import payloads as oracle


def parsed(pieces: list[bytes], **options: int) -> list[bytes]:
    parser = SSEParser(**options)
    return [payload for piece in pieces for payload in parser.feed(piece)] + parser.end()


def cut(stream: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(12)))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


# fmt: off
PIECES = [
    b"data: y\ndata: z\n\n", b"\n\n\n\n",
    b"data: ", b"data:", b"data", b"dat", b": ping", b"event: x", b"id: 1", b"retry: 5", b"\xef\xbb\xbf", b" ", b":",
    b"\n", b"\n", b"\n\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\r\r\n", b'{"a":1}', b"[DONE]", b"x", b"\x00",
    "\u2028é🙂".encode(), b"data: y\n\n", b"data: y\n\n", b'data: {"b":2}\n\ndata: z\n\n', b"data: \n\n",
]
# fmt: on


@pytest.mark.parametrize("seed", range(8))
def test_a_random_stream_cut_anywhere_gives_the_payloads_of_the_slow_parser(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(400):
        stream = b"".join(rng.choices(PIECES, k=rng.randrange(14)))
        expected = oracle(stream)
        assert parsed([stream]) == expected, stream
        assert parsed([stream[i : i + 1] for i in range(len(stream))]) == expected, stream
        pieces = cut(stream, rng)
        assert parsed(pieces) == expected, pieces
        assert parsed([b"\n", stream]) == oracle(b"\n" + stream), stream  # now the short path applies


@pytest.mark.parametrize("seed", range(4))
def test_the_size_limit_of_an_event_does_not_depend_on_the_cuts(seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(400):
        stream = b"".join(rng.choices(PIECES, k=rng.randrange(14)))
        limit = rng.randrange(1, 30)
        expected: list[bytes] | None
        try:
            expected = oracle(b"\n" + stream, max_event=limit)
        except EventTooLarge:
            expected, refused = None, refused + 1
        stream = b"\n" + stream
        for pieces in ([stream[:1], stream[1:]], [stream[i : i + 1] for i in range(len(stream))], cut(stream, rng)):
            try:
                assert parsed(pieces, max_event=limit) == expected, (pieces, limit)
            except EventTooLarge:
                assert expected is None, (pieces, limit)
    assert refused > 20


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"", []),
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b'data:{"a":1}\n\n', [b'{"a":1}']),
        (b"data:  two\n\n", [b" two"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\rb\n\n", [b"a\rb"]),
        ("data: a\u2028b\u0085c\n\n".encode(), ["a\u2028b\u0085c".encode()]),
        (b"event: ping\n\n: comment\n\nid: 7\nretry: 1\n\n", []),
        (b"event: x\nid: 1\ndata: a\n\n", [b"a"]),
        (b": OPENROUTER PROCESSING\n\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data\n\ndata:\n\ndata: \n\n", []),
        (b"data:\ndata:\n\n", [b"\n"]),
        (b"DATA: a\n\ndatax: b\n\n data: c\n\n", []),
        (b"data: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a", [b"a"]),
        (b"data: a\r", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data: a\n\ndata: [DONE]\n", [b"a", b"[DONE]"]),
    ],
)
def test_a_stream_yields_its_payloads(stream: bytes, payloads: list[bytes]) -> None:
    assert oracle(stream) == payloads
    assert parsed([stream]) == payloads
    assert parsed([stream[i : i + 1] for i in range(len(stream))]) == payloads


def test_an_event_is_returned_as_soon_as_its_blank_line_arrives() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [b"a"]
    assert parser.feed(b"data: b\n\ndata: c\n\ndata: d") == [b"b", b"c"]
    assert parser.feed(b"\n\n") == [b"d"]
    assert parser.end() == []


def test_a_crlf_split_over_two_reads_ends_one_line() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\ndata: b\r") == []
    assert parser.feed(b"\n\r") == []
    assert parser.feed(b"\n") == [b"a\nb"]


def test_a_bom_may_arrive_in_three_reads() -> None:
    assert parsed([b"\xef", b"\xbb", b"\xbf", b"data: a\n\n"]) == [b"a"]


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_an_event_over_the_limit_is_refused_before_it_is_complete(size: int) -> None:
    parser = SSEParser(max_event=1000)
    assert parser.feed(b"data: ok\n\n") == [b"ok"]
    room = 1004 // size * size  # a BOM and a CR would not count
    for _ in range(0, room, size):
        assert parser.feed(b"x" * size) == []
    with pytest.raises(EventTooLarge, match="1000"):
        parser.feed(b"x" * size)


def test_the_limit_applies_to_one_event_and_not_to_a_read_or_a_stream() -> None:
    parser = SSEParser(max_event=100)
    many = b"data: 0123456789\n\n" * 50
    assert len(parser.feed(many)) == len(parser.feed(many)) == 50
    assert len(parser.feed(b"data: x\n" * 14 + b"\n")) == 1
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: x\n" * 15)


def test_the_limit_counts_comments() -> None:
    with pytest.raises(EventTooLarge):
        SSEParser(max_event=100).feed(b": " + b"x" * 200)


@pytest.mark.slow
def test_the_cost_of_a_byte_does_not_grow_with_the_size_of_its_event() -> None:
    def seconds(total: int) -> float:
        parser = SSEParser()
        begin = time.process_time()
        for _ in range(total):
            parser.feed(b"x")
        return time.process_time() - begin

    small = min(seconds(20_000) for _ in range(3))
    assert seconds(400_000) < small * 20 * 8  # a quadratic parser would need 20 times as long for each byte
