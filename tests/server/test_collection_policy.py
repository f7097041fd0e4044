"""When garbage is collected: the decisions alone, with invented times and sizes."""

from anthro_asgi.server.collection_policy import (
    ALL,
    IDLE,
    NOTHING,
    RECENT,
    RECENT_AFTER,
    STREAM_MEMORY,
    Collection,
    CollectionPolicy,
)

MIB = 1 << 20
GROWTH = 100 * MIB
START = 50 * MIB


def policy() -> CollectionPolicy:
    return CollectionPolicy(GROWTH, START)


def worth_a_full_collection() -> CollectionPolicy:
    one = policy()
    for _ in range(8):
        one.collected_recent()
    return one


def test_every_second_collection_of_generation_1_is_followed_by_one_of_the_recent_objects() -> None:
    one = policy()
    decided: list[Collection] = []
    for _ in range(3 * RECENT_AFTER):
        decided.append(one.after_middle())
        if decided[-1] is RECENT:
            one.collected_recent()
    assert decided == [NOTHING, RECENT] * 3


def test_a_collection_of_the_recent_objects_is_asked_for_once_until_it_has_run() -> None:
    one = policy()
    assert [one.after_middle() for _ in range(5)].count(RECENT) == 1


def test_everything_is_collected_after_two_seconds_without_an_open_request() -> None:
    one = worth_a_full_collection()
    assert one.on_tick(10.0, 1, START) is NOTHING
    assert one.on_tick(11.0, 0, START) is NOTHING
    assert one.on_tick(11.0 + IDLE - 0.1, 0, START) is NOTHING
    assert one.on_tick(11.0 + IDLE, 0, START) is ALL


def test_a_request_starts_the_two_seconds_again() -> None:
    one = worth_a_full_collection()
    assert one.on_tick(0.0, 0, START) is NOTHING
    assert one.on_tick(1.5, 1, START) is NOTHING
    assert one.on_tick(3.0, 0, START) is NOTHING
    assert one.on_tick(3.0 + IDLE, 0, START) is ALL


def test_an_idle_service_that_has_frozen_little_is_left_alone() -> None:
    one = policy()
    one.collected_recent()
    assert [one.on_tick(float(second), 0, START) for second in range(60)] == [NOTHING] * 60


def test_an_idle_period_has_one_full_collection() -> None:
    one = worth_a_full_collection()
    decided = []
    for second in range(20):
        decided.append(one.on_tick(float(second), 0, START))
        if decided[-1] is ALL:
            one.collected_all(0, START)
    assert decided.count(ALL) == 1


def test_open_requests_postpone_a_full_collection_until_memory_exceeds_the_bound() -> None:
    one = worth_a_full_collection()
    assert one.on_tick(0.0, 1, START + GROWTH + STREAM_MEMORY) is NOTHING
    assert one.on_tick(9e9, 1, START + GROWTH + STREAM_MEMORY + 1) is ALL


def test_the_memory_of_open_streams_is_no_growth() -> None:
    one = policy()
    assert one.on_tick(0.0, 8000, START + 8000 * STREAM_MEMORY) is NOTHING


def test_memory_that_a_full_collection_could_not_free_is_no_growth_afterwards() -> None:
    one = policy()
    high = START + GROWTH + 10 * STREAM_MEMORY + 1
    assert one.on_tick(0.0, 10, high) is ALL
    one.collected_all(10, high)
    assert one.on_tick(1.0, 10, high) is NOTHING
    assert one.on_tick(2.0, 10, high + GROWTH) is NOTHING
    assert one.on_tick(3.0, 10, high + GROWTH + 1) is ALL


def test_streams_that_use_less_than_allowed_do_not_lower_the_bound_below_the_growth() -> None:
    one = policy()
    one.collected_all(8000, START)
    assert one.on_tick(0.0, 1, GROWTH) is NOTHING


def test_memory_that_is_unknown_is_not_bounded() -> None:
    one = CollectionPolicy(GROWTH, 0)
    assert one.on_tick(0.0, 1, 0) is NOTHING
