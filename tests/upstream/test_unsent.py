"""What of a request's body is still to be written: all of it, in order, in slices; and then nothing is kept."""

import random
import sys

import pytest

from anthro_asgi.upstream.unsent import Unsent


@pytest.mark.parametrize(
    "body", [b"", b"x", b"abc" * 50_000, [], [b""], [b"a", b"", b"bc"]], ids=lambda body: len(body)
)
def test_a_body_comes_out_as_it_went_in(body: bytes | list[bytes]) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    unsent = Unsent(body)
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
        unsent = Unsent(pieces)
        assert len(unsent) == sum(map(len, pieces))
        out = b""
        while unsent:
            out += unsent.take()
        assert out == b"".join(pieces)


@pytest.mark.parametrize("size", [10, 65_536, 300_000])
def test_what_was_handed_out_is_not_kept(size: int) -> None:
    pieces = [bytes(size), bytes(size)]
    counts = [sys.getrefcount(piece) for piece in pieces]
    unsent = Unsent(list(pieces))
    while unsent:
        unsent.take()
    assert [sys.getrefcount(piece) for piece in pieces] == counts


def test_what_will_not_be_written_is_let_go_of() -> None:
    piece = bytes(300_000)
    count = sys.getrefcount(piece)
    unsent = Unsent([piece, piece])
    unsent.take()
    unsent.clear()
    assert (len(unsent), unsent.take()) == (0, b"")
    assert sys.getrefcount(piece) == count
