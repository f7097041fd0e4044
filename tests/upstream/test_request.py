import random
import sys

import pytest

from anthro_asgi.upstream.request import RequestHeaders, UnsentBody, request_head

OURS: RequestHeaders = ((b"host", b"h"), (b"user-agent", b"u"))


def test_a_head_is_the_pools_fields_then_the_callers_then_the_length() -> None:
    head = request_head("POST", "/v1/x", OURS, [(b"X-Key", b"k"), ("accept", "a/b")], 7)
    assert (
        head
        == b"POST /v1/x HTTP/1.1\r\nhost: h\r\nuser-agent: u\r\nX-Key: k\r\naccept: a/b\r\ncontent-length: 7\r\n\r\n"
    )


@pytest.mark.parametrize(("method", "said"), [("GET", False), ("DELETE", False), ("POST", True), ("PUT", True)])
def test_an_empty_body_has_a_length_only_where_the_method_has_a_body(method: str, said: bool) -> None:
    assert (b"content-length: 0" in request_head(method, "/", OURS, (), 0)) == said
    assert b"content-length: 3" in request_head(method, "/", OURS, (), 3)


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
def test_what_cannot_be_written_is_the_callers_mistake_and_is_not_quoted(
    method: str, target: str, headers: RequestHeaders
) -> None:
    with pytest.raises(ValueError, match=r"cannot be written|not spoken") as caught:
        request_head(method, target, OURS, headers, 0)
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("name", [b"Host", b"content-length", b"Transfer-Encoding", "connection", "Expect", b"upgrade"])
def test_fields_that_frame_the_message_are_not_the_callers(name: bytes | str) -> None:
    with pytest.raises(ValueError, match="the connection writes it itself"):
        request_head("POST", "/", OURS, [(name, b"x")], 0)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"abc" * 50_000, [], [b""], [b"a", b"", b"bc"]], ids=lambda body: len(body)
)
def test_a_body_comes_out_as_it_went_in(body: bytes | list[bytes]) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    unsent = UnsentBody(body)
    out = []
    while unsent:
        assert len(unsent) == len(whole) - sum(map(len, out))
        out.append(bytes(unsent.take()))
        assert 0 < len(out[-1]) <= 65_536
    assert b"".join(out) == whole
    assert unsent.take() == b""
    assert len(unsent) == 0


def test_pieces_of_any_length_come_out_in_their_order() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        pieces = [chance.randbytes(chance.choice([0, 1, 9, 65_535, 65_536, 65_537, 200_000])) for _ in range(8)]
        unsent = UnsentBody(pieces)
        assert len(unsent) == sum(map(len, pieces))
        out = b""
        while unsent:
            out += unsent.take()
        assert out == b"".join(pieces)


@pytest.mark.parametrize("size", [10, 65_536, 300_000])
def test_what_was_handed_out_is_not_kept(size: int) -> None:
    pieces = [bytes(size), bytes(size)]
    counts = [sys.getrefcount(piece) for piece in pieces]
    unsent = UnsentBody(list(pieces))
    while unsent:
        unsent.take()
    assert [sys.getrefcount(piece) for piece in pieces] == counts


def test_what_will_not_be_written_is_let_go_of() -> None:
    piece = bytes(300_000)
    count = sys.getrefcount(piece)
    unsent = UnsentBody([piece, piece])
    unsent.take()
    unsent.clear()
    assert (len(unsent), unsent.take()) == (0, b"")
    assert sys.getrefcount(piece) == count
