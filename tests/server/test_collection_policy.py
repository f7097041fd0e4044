"""When a full garbage collection runs: the decisions alone, with invented times and sizes."""

from anthro_asgi.server.collection_policy import GROWN, IDLE, STREAM_MEMORY, WORTHWHILE, CollectionPolicy

MIB = 1 << 20
GROWTH = 100 * MIB
START = 50 * MIB


def policy(young_collections: int = 0) -> CollectionPolicy:
    one = CollectionPolicy(GROWTH, START)
    for _ in range(young_collections):
        one.young_collected()
    return one


def test_everything_is_collected_after_two_seconds_without_an_open_request() -> None:
    one = policy(WORTHWHILE)
    assert not one.collects_now(10.0, 1, START)
    assert not one.collects_now(11.0, 0, START)
    assert not one.collects_now(11.0 + IDLE - 0.1, 0, START)
    assert one.collects_now(11.0 + IDLE, 0, START)


def test_a_request_starts_the_two_seconds_again() -> None:
    one = policy(WORTHWHILE)
    assert not one.collects_now(0.0, 0, START)
    assert not one.collects_now(1.5, 1, START)
    assert not one.collects_now(3.0, 0, START)
    assert one.collects_now(3.0 + IDLE, 0, START)


def test_an_idle_service_in_which_few_objects_have_survived_is_left_alone() -> None:
    one = policy(WORTHWHILE - 1)
    assert not any(one.collects_now(float(second), 0, START) for second in range(60))
    one.young_collected()
    assert one.collects_now(60.0, 0, START)


def test_an_idle_service_whose_memory_has_grown_collects_once() -> None:
    one = policy()
    assert not one.collects_now(0.0, 0, START + GROWN + 1)
    assert one.collects_now(IDLE, 0, START + GROWN + 1)
    one.collected(0, START + GROWN)
    assert not any(one.collects_now(float(second), 0, START + 2 * GROWN) for second in range(3, 60))


def test_memory_that_was_given_back_when_idle_and_grows_again_is_growth() -> None:
    one = policy()
    assert not one.collects_now(0.0, 0, START - 10 * GROWN)
    assert not one.collects_now(1.0, 1, START - 8 * GROWN)
    assert not one.collects_now(2.0, 0, START - 8 * GROWN)
    assert one.collects_now(2.0 + IDLE, 0, START - 8 * GROWN)


def test_an_idle_period_has_one_full_collection() -> None:
    one = policy(WORTHWHILE)
    times = 0
    for second in range(20):
        if one.collects_now(float(second), 0, START):
            one.collected(0, START)
            times += 1
    assert times == 1


def test_open_requests_postpone_a_full_collection_until_memory_exceeds_the_bound() -> None:
    one = policy(1_000_000)
    assert not one.collects_now(0.0, 1, START + GROWTH + STREAM_MEMORY)
    assert one.collects_now(1.0, 1, START + GROWTH + STREAM_MEMORY + 1)


def test_the_memory_that_ended_streams_have_not_given_back_yet_is_no_growth() -> None:
    one = policy()
    grown = START + GROWTH + 8000 * STREAM_MEMORY
    assert not one.collects_now(0.0, 8000, grown)
    assert not one.collects_now(1.0, 288, grown), "a collection would stop the streams that still run"
    assert one.collects_now(1.0, 288, grown + 1)
    one.collected(288, START + 288 * STREAM_MEMORY)
    assert one.collects_now(2.0, 288, grown), "the streams of before are over"


def test_after_an_idle_time_only_the_streams_that_are_open_explain_memory() -> None:
    one = policy()
    assert not one.collects_now(0.0, 8000, START)
    assert not one.collects_now(1.0, 0, START)
    assert not one.collects_now(1.0 + IDLE, 0, START)
    assert one.collects_now(10.0, 1, START + GROWTH + STREAM_MEMORY + 1)


def test_the_memory_of_open_streams_is_no_growth() -> None:
    assert not policy().collects_now(0.0, 8000, START + 8000 * STREAM_MEMORY)


def test_memory_that_a_full_collection_could_not_free_is_no_growth_afterwards() -> None:
    one = policy()
    high = START + GROWTH + 10 * STREAM_MEMORY + 1
    assert one.collects_now(0.0, 10, high)
    one.collected(10, high)
    assert not one.collects_now(1.0, 10, high)
    assert not one.collects_now(2.0, 10, high + GROWTH)
    assert one.collects_now(3.0, 10, high + GROWTH + 1)


def test_streams_that_use_less_than_allowed_do_not_lower_the_bound_below_the_growth() -> None:
    one = policy()
    one.collected(8000, START)
    assert not one.collects_now(0.0, 1, GROWTH)


def test_memory_that_is_unknown_is_not_bounded() -> None:
    assert not CollectionPolicy(GROWTH, 0).collects_now(0.0, 1, 0)
