"""Request heads, and request bodies that are written in slices."""

import random
import sys

import h11
import pytest

from anthro_asgi.upstream.request import RequestHeaders, UnsentBody, request_head

POOL_HEADERS: RequestHeaders = ((b"host", b"h"), (b"user-agent", b"u"))


def test_a_head_has_the_headers_of_the_pool_then_the_callers_then_the_length() -> None:
    head = request_head("POST", "/v1/x", POOL_HEADERS, [(b"X-Key", b"k"), ("accept", "a/b")], 7)
    assert (
        head
        == b"POST /v1/x HTTP/1.1\r\nhost: h\r\nuser-agent: u\r\nX-Key: k\r\naccept: a/b\r\ncontent-length: 7\r\n\r\n"
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("length", [0, 1, 70_000])
def test_a_head_is_as_h11_writes_it_the_first_time_and_again(method: str, length: int) -> None:
    headers: RequestHeaders = ((b"Content-Type", b"a/b"), ("accept", "text/event-stream"))
    fields = [(b"host", b"h"), (b"user-agent", b"u"), (b"Content-Type", b"a/b"), (b"accept", b"text/event-stream")]
    if length or method == "POST":
        fields.append((b"content-length", b"%d" % length))
    expected = h11.Connection(h11.CLIENT).send(h11.Request(method=method, target="/x", headers=fields))
    for _ in range(2):
        assert request_head(method, "/x", POOL_HEADERS, headers, length) == expected


@pytest.mark.parametrize(("method", "expected"), [("GET", False), ("DELETE", False), ("POST", True), ("PUT", True)])
def test_an_empty_body_has_a_length_only_if_the_method_has_a_body(method: str, expected: bool) -> None:
    assert (b"content-length: 0" in request_head(method, "/", POOL_HEADERS, (), 0)) == expected
    assert b"content-length: 3" in request_head(method, "/", POOL_HEADERS, (), 3)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/", [(b"x", b"sk-secret\r\nevil: 1")]),
        ("GET", "/", [(b"x", b"sk-secret\nevil: 1")]),
        ("GET", "/", [(b"x\r\nevil", b"sk-secret")]),
        ("GET", "/", [(b"x y", b"sk-secret")]),
        ("GET", "/", [("x", "sk-secret\r\n")]),
        ("GET", "/", [("x", "sk-secret é")]),
        ("GET", "/", [(b"x", b"sk-secret\x00")]),
        ("GET", "/sk-secret HTTP/1.1\r\nevil: 1", []),
        ("GET", "/sk-secret x", []),
        ("GET\r\n", "/", []),
        ("HEAD", "/", []),
        ("CONNECT", "h:1", []),
    ],
)
def test_a_head_that_cannot_be_written_is_refused_without_quoting_it(
    method: str, target: str, headers: RequestHeaders
) -> None:
    with pytest.raises(ValueError, match=r"cannot be written|not supported") as caught:
        request_head(method, target, POOL_HEADERS, headers, 0)
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("name", [b"Host", b"content-length", b"Transfer-Encoding", "connection", "Expect", b"upgrade"])
def test_a_caller_cannot_set_headers_that_frame_the_message(name: bytes | str) -> None:
    with pytest.raises(ValueError, match="is reserved: the connection sets it"):
        request_head("POST", "/", POOL_HEADERS, [(name, b"x")], 0)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"abc" * 50_000, [], [b""], [b"a", b"", b"bc"]], ids=lambda body: len(body)
)
def test_the_slices_of_a_body_add_up_to_the_body(body: bytes | list[bytes]) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    unsent = UnsentBody(body)
    out: list[bytes] = []
    while unsent:
        assert len(unsent) == len(whole) - sum(map(len, out))
        out.append(bytes(unsent.take()))
        assert 0 < len(out[-1]) <= 65_536
    assert b"".join(out) == whole
    assert unsent.take() == b""
    assert len(unsent) == 0


def test_pieces_of_any_length_keep_their_order() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        pieces = [rng.randbytes(rng.choice([0, 1, 9, 65_535, 65_536, 65_537, 200_000])) for _ in range(8)]
        unsent = UnsentBody(pieces)
        assert len(unsent) == sum(map(len, pieces))
        out = b""
        while unsent:
            out += unsent.take()
        assert out == b"".join(pieces)


@pytest.mark.parametrize("size", [10, 65_536, 300_000])
def test_a_slice_that_was_taken_is_not_kept_in_memory(size: int) -> None:
    pieces = [bytes(size), bytes(size)]
    counts = [sys.getrefcount(piece) for piece in pieces]
    unsent = UnsentBody(list(pieces))
    while unsent:
        unsent.take()
    assert [sys.getrefcount(piece) for piece in pieces] == counts


def test_clearing_frees_the_rest_of_the_body() -> None:
    piece = bytes(300_000)
    count = sys.getrefcount(piece)
    unsent = UnsentBody([piece, piece])
    unsent.take()
    unsent.clear()
    assert (len(unsent), unsent.take()) == (0, b"")
    assert sys.getrefcount(piece) == count
