"""Blocks of prompts: what is known, and what goes first."""

from itertools import repeat
from random import Random

from anthro_asgi.simulator.prefix_cache import PrefixCache

SIZE = 4


def cache(blocks: int) -> PrefixCache:
    return PrefixCache(blocks, SIZE)


def common_to(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    return next((at for at in range(len(one)) if one[at : at + 1] != other[at : at + 1]), len(one))


def test_nothing_is_known_at_first_and_all_but_the_last_block_the_second_time() -> None:
    known = cache(10)
    assert known.take("m", b"aaaabbbbcccc") == 0
    assert known.take("m", b"aaaabbbbcccc") == 8  # the last byte is always computed
    assert known.take("m", b"aaaabbbbccccd") == 12


def test_only_whole_blocks_count() -> None:
    known = cache(10)
    known.take("m", b"aaaabb")
    assert len(known) == 1
    assert known.take("m", b"aaaabbbb") == 4


def test_a_prompt_is_known_as_far_as_it_begins_like_another_and_never_from_the_middle() -> None:
    known = cache(100)
    known.take("m", b"aaaabbbbcccc....")
    assert known.take("m", b"aaaaBBBBcccc....") == 4
    assert known.take("m", b"xxxxbbbbcccc....") == 0


def test_another_model_has_another_cache() -> None:
    known = cache(100)
    known.take("m", b"aaaabbbb....")
    assert known.take("n", b"aaaabbbb....") == 0
    assert known.take("m", b"aaaabbbb....") == 8


def test_the_longest_unused_goes_first_and_of_a_prompt_its_end() -> None:
    known = cache(4)
    known.take("m", b"aaaaAAAA")
    known.take("m", b"bbbbBBBB")
    known.take("m", b"aaaaAAAA")  # used again
    known.take("m", b"cccc")
    assert known.take("m", b"aaaaAAAA.") == 8
    assert known.take("m", b"bbbbBBBB.") == 4  # its second block made room


def test_it_never_holds_more_than_it_may() -> None:
    known = cache(3)
    for number in range(50):
        known.take("m", b"%08d%08d%08d" % (number, number, number))
        assert len(known) <= 3
    assert repr(known) == "<PrefixCache 3/3>"


def test_of_a_prompt_larger_than_itself_it_keeps_the_beginning() -> None:
    known = cache(2)
    known.take("m", b"aaaabbbbccccdddd....")
    assert known.take("m", b"aaaabbbbccccdddd....") == 8


def test_without_room_nothing_is_ever_known() -> None:
    known = cache(0)
    assert [known.take("m", b"aaaabbbb") for _ in range(3)] == [0, 0, 0]
    assert len(known) == 0


def test_with_room_for_all_it_is_as_good_as_comparing_every_prompt_with_every_other() -> None:
    rng = Random(3)
    known, seen = cache(100_000), list[bytes]([b""])
    for _ in range(400):
        prompt = bytes(rng.choices(b"ab", k=rng.randint(1, 40)))
        common = max(map(common_to, repeat(prompt), seen))
        assert known.take("m", prompt) == min(common // SIZE, (len(prompt) - 1) // SIZE) * SIZE
        seen.append(prompt[: len(prompt) // SIZE * SIZE])
