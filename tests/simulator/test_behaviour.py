"""What a profile makes of the engine: how long things take, who waits, what is cached, drawn, replayed, and fails."""

import asyncio
from collections import Counter
from contextlib import aclosing
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

import pytest

from anthro_asgi.simulator import FAILURE_KINDS, Distribution, Profile, SimulatedEngine, read_trace
from anthro_asgi.wire.deltas import Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.errors import ApiError, EngineFailed, Overloaded, SimulatedDisconnect
from anthro_asgi.wire.request import MessagesRequest, ThinkingConfig, ToolChoice
from tests.simulator.asking import (
    SEARCH,
    WEATHER,
    FakeClock,
    SharedClock,
    arguments,
    ask,
    deltas,
    hours,
    text,
    tokens,
    usage,
)
from tests.support.clock import fake_clock

LONG = "word " * 400


def engine(**profile: Any) -> SimulatedEngine:
    """One that takes no time, but for what is said."""
    return SimulatedEngine(**{"ttft": 0, "itl": 0, "clock": FakeClock(), **profile})


async def outcome(simulated: SimulatedEngine, request: MessagesRequest) -> str:
    """What became of a request."""
    try:
        some = [batch async for batch in simulated.stream(request)]
    except (ApiError, SimulatedDisconnect) as exc:
        return type(exc).__name__
    return "ok" if some else "nothing"


async def gather(simulated: SimulatedEngine, into: list[Delta]) -> None:
    async for batch in simulated.stream(ask()):
        into += batch if isinstance(batch, list) else [batch]


# how long it takes


async def test_the_first_token_takes_longer_by_each_token_of_the_prompt() -> None:
    clock = FakeClock()
    simulated = engine(clock=clock, ttft=1, ttft_per_token=0.5, output_tokens=1)
    for words in ("Hello", LONG):
        counted = await simulated.count_tokens(ask(words))
        assert await hours(simulated, ask(words), clock) == [1 + 0.5 * counted]


@fake_clock
async def test_each_further_answer_makes_all_longer() -> None:
    clock = SharedClock()
    simulated = engine(clock=clock, ttft=1, itl=0.5, load_factor=0.25, output_tokens=5)
    alone = await hours(simulated, ask("0"), clock)
    assert alone == pytest.approx([1, 1.5, 2, 2.5, 3])
    together = await asyncio.gather(*(hours(simulated, ask(str(number)), clock) for number in range(3)))
    # the first came when nobody else was there, and then shares with two; the third shares from the beginning
    assert [times[0] for times in together] == pytest.approx([1.0, 1.25, 1.5])
    gaps = [after - before for times in together for before, after in pairwise(times)]
    assert max(gaps) == pytest.approx(0.75)
    assert min(gaps) >= 0.5 - 1e-6
    assert await hours(simulated, ask("0"), clock) == pytest.approx(alone)


@pytest.mark.parametrize("shape", ["uniform", "normal", "log-normal", "gamma"])
async def test_tokens_are_spread_in_time_as_the_profile_says(shape: Any) -> None:
    clock = FakeClock()
    first, second = (0.01, 0.03) if shape == "uniform" else (0.02, 0.005)
    times = await hours(
        engine(clock=clock, itl=(shape, first, second), output_tokens=3000), ask(max_tokens=3000), clock
    )
    gaps = [after - before for before, after in pairwise(times)]
    assert fmean(gaps) == pytest.approx(0.02, rel=0.03)
    assert len(set(gaps)) > 2000


async def test_the_same_requests_have_the_same_hours_in_every_run_whatever_others_ask_meanwhile() -> None:
    async def run(between: bool) -> list[list[float]]:
        clock = FakeClock()
        simulated = engine(clock=clock, ttft=("gamma", 1, 1), itl=("log-normal", 0.5, 0.5), seed=3)
        times = []
        for number in range(3):
            if between:
                await hours(simulated, ask(f"other {number}"), clock)
            clock.now = 0.0
            times.append(await hours(simulated, ask("mine"), clock))
        return times

    times = await run(between=False)
    assert await run(between=True) == times
    assert times[0] != times[1] != times[2], "the same question again has other luck"
    assert len({len(one) for one in times}) == 1, "but the same answer"


# who waits


@fake_clock
async def test_more_than_may_run_wait_for_their_turn_in_order() -> None:
    clock = SharedClock()
    simulated = engine(clock=clock, ttft=1, itl=1, output_tokens=3, max_running=2)
    began = await asyncio.gather(*(hours(simulated, ask(str(number)), clock) for number in range(5)))
    assert [times[0] for times in began] == pytest.approx([1, 1, 4, 4, 7])


@fake_clock
async def test_a_queue_that_is_full_is_overloaded() -> None:
    simulated = engine(clock=SharedClock(), itl=1, output_tokens=3, max_running=1, max_waiting=1)
    outcomes = await asyncio.gather(*(outcome(simulated, ask(str(number))) for number in range(4)))
    assert outcomes == ["ok", "ok", "Overloaded", "Overloaded"]
    assert await outcome(simulated, ask("0")) == "ok"


@fake_clock
async def test_who_leaves_the_queue_or_its_answer_makes_room() -> None:
    clock = SharedClock()
    simulated = engine(clock=clock, ttft=1, itl=1, output_tokens=9, max_running=1)
    tasks = [asyncio.ensure_future(hours(simulated, ask(str(number)), clock)) for number in range(3)]
    await asyncio.sleep(2.5)
    tasks[1].cancel()  # waits
    tasks[0].cancel()  # runs
    await asyncio.wait(tasks)
    assert simulated.streaming == 0
    assert tasks[2].result()[0] == pytest.approx(3.5)


# what is cached


async def test_a_prompt_that_was_seen_is_read_from_the_cache_and_sooner() -> None:
    clock = FakeClock()
    simulated = engine(clock=clock, ttft_per_token=0.01, cache_tokens=10_000, output_tokens=1)
    size = await simulated.count_tokens(ask(LONG))
    first = await usage(simulated, ask(LONG))
    again = await usage(simulated, ask(LONG))
    assert first == Usage(input_tokens=size, cache_read_input_tokens=0)
    assert again.cache_read_input_tokens == (size - 1) // 16 * 16
    assert again.input_tokens == size - (size - 1) // 16 * 16
    clock.now = 0.0
    assert await hours(simulated, ask(LONG), clock) == pytest.approx([0.01 * again.input_tokens])


async def test_each_turn_of_a_conversation_finds_the_ones_before() -> None:
    simulated = engine(cache_tokens=100_000, cache_block=8)
    turns: list[dict[str, Any]] = []
    before = 0
    for number in range(5):
        turns.append({"role": "user", "content": f"{number} {LONG}"})
        counted = await usage(simulated, ask(system=["Be brief."], tools=[SEARCH], messages=list(turns)))
        assert counted.input_tokens is not None
        assert counted.cache_read_input_tokens is not None
        assert before - 8 <= counted.cache_read_input_tokens <= before
        before = counted.input_tokens + counted.cache_read_input_tokens
        turns.append({"role": "assistant", "content": "Yes."})


async def test_what_comes_first_in_the_prompt_decides_and_ids_do_not() -> None:
    simulated = engine(cache_tokens=100_000)

    def call(identity: str) -> MessagesRequest:
        block = {"type": "tool_use", "id": identity, "name": "search", "input": {"q": LONG}}
        return ask(messages=[{"role": "assistant", "content": [block]}, {"role": "user", "content": "?"}])

    await usage(simulated, call("toolu_1"))
    assert ((await usage(simulated, call("toolu_2"))).cache_read_input_tokens or 0) > 400
    assert (await usage(simulated, ask(LONG, system=["other"]))).cache_read_input_tokens == 0


async def test_a_cache_that_is_too_small_forgets_and_none_is_not_told_of() -> None:
    simulated = engine(cache_tokens=600)
    counts = [await usage(simulated, ask(f"{number % 2} {LONG}")) for number in range(4)]
    found = [count.cache_read_input_tokens or 0 for count in counts]
    assert found[:2] == [0, 0]
    assert 0 < found[2] == found[3] < 600 - 400, "what there was no room for beside the other"
    assert (await usage(engine(), ask(LONG))).cache_read_input_tokens is None


# what is said


async def test_lengths_are_spread_and_never_longer_than_asked_for() -> None:
    lengths = []
    for number in range(300):
        some = await deltas(ask(str(number), max_tokens=400), output_tokens=("gamma", 100, 100))
        lengths.append(len(tokens(some)))
        assert some[-1] == Finish("end_turn" if lengths[-1] < 400 else some[-1].stop_reason)  # type: ignore[union-attr]
    assert fmean(lengths) == pytest.approx(100, rel=0.12)
    assert max(lengths) <= 400
    assert min(lengths) >= 1


async def test_echo_says_the_last_user_message_again() -> None:
    words = "  Grüße an\nalle, die\tweit   entfernt sind 🙂!  "
    some = await deltas(ask(words, max_tokens=1000), text="echo", output_tokens=3)
    assert text(some) == words
    assert len(tokens(some)) > 5
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "second"},
        {"role": "user", "content": [{"type": "tool_result", "content": "third"}, {"type": "text", "text": "fourth"}]},
    ]
    assert text(await deltas(ask(messages=turns), text="echo")) == "third\nfourth"
    assert text(await deltas(ask(""), text="echo")) == "…"
    assert (await deltas(ask(words, max_tokens=2), text="echo"))[-1] == Finish("max_tokens")


async def test_a_part_of_the_answers_thinks_though_nobody_asked() -> None:
    some = [await deltas(ask(str(number)), thinking_rate=0.3, thinking_tokens=5) for number in range(300)]
    thoughts = [[delta for delta in one if isinstance(delta, Thinking)] for one in some]
    assert 60 < sum(map(bool, thoughts)) < 120
    assert {len(thought) for thought in thoughts} == {0, 5}
    forbidden = ask(thinking=ThinkingConfig("disabled"))
    assert not any(isinstance(delta, Thinking) for delta in await deltas(forbidden, thinking_rate=1))


async def test_a_part_of_the_answers_calls_a_tool_where_it_need_not() -> None:
    def request(number: int, **more: Any) -> MessagesRequest:
        return ask(str(number), tools=[SEARCH, WEATHER], **more)

    some = [await deltas(request(number), tool_rate=0.25) for number in range(300)]
    called = Counter(delta.name for one in some for delta in one if isinstance(delta, ToolStart))
    assert 50 < sum(called.values()) < 105
    assert set(called) == {"search", "get_weather"}
    assert all(text(one) for one in some)
    for seed in range(8):
        named = await deltas(ask("Please search.", tools=[WEATHER, SEARCH]), tool_rate=1, seed=seed)
        assert [delta.name for delta in named if isinstance(delta, ToolStart)] == ["search"]
    none = await deltas(request(0, tool_choice=ToolChoice("none")), tool_rate=1)
    assert none[-1] == Finish("end_turn")
    assert (await deltas(ask(), tool_rate=1))[-1] == Finish("end_turn")


# what is replayed

TRACE = read_trace(
    [
        b'{"deltas": [[0.5, "thinking", "Hm"], [0.75, "text", "Hello"], [1.75, "text", " you"], [1.75, "text", "!"]]}',
        b'{"deltas": [[0.25, "call", "search"], [0.5, "json", "{}"]]}',
    ]
)


async def test_a_recorded_answer_comes_with_its_own_timing() -> None:
    clock = FakeClock()
    simulated = engine(clock=clock, trace=TRACE, ttft=9, itl=9, ttft_per_token=9, load_factor=9)
    assert await hours(simulated, ask(), clock) == [0.5, 0.75, 1.75, 1.75]


async def test_recorded_answers_are_given_in_turn_and_cut_where_the_client_wants_no_more() -> None:
    simulated = engine(trace=TRACE)

    async def answer(**more: Any) -> list[Delta]:
        arrived = [batch async for batch in simulated.stream(ask(**more))]
        return [delta for batch in arrived for delta in (batch if isinstance(batch, list) else [batch])]

    first, second, third = [await answer(), await answer(), await answer(max_tokens=2)]
    assert tokens(first) == [Thinking("Hm"), "Hello", " you", "!"]
    assert first[-1] == Finish("end_turn")
    assert [type(delta) for delta in tokens(second)] == [ToolStart, ToolJson]
    assert (arguments(second), second[-1]) == ("{}", Finish("tool_use"))
    assert tokens(third) == [Thinking("Hm"), "Hello"]
    assert third[-1] == Finish("max_tokens")


# what fails


@pytest.mark.parametrize(("kind", "name"), [("429", "RateLimited"), ("529", "Overloaded"), ("500", "EngineFailed")])
async def test_a_refusal_comes_before_anything_else(kind: str, name: str) -> None:
    simulated = engine(fail=[(kind, 1)], itl=1)
    assert await outcome(simulated, ask()) == name
    assert simulated.streaming == 0


@pytest.mark.parametrize("itl", [0, 0.5])
@pytest.mark.parametrize(("kind", "error"), [("error", EngineFailed), ("cut", SimulatedDisconnect)])
async def test_an_answer_that_breaks_off_has_begun_and_has_not_ended(
    kind: str, error: type[Exception], itl: float
) -> None:
    whole = tokens(await deltas(ask()))
    simulated = engine(fail=[(kind, 1)], itl=itl)
    lengths = set()
    for _ in range(20):
        some: list[Delta] = []
        with pytest.raises(error):
            await gather(simulated, some)
        assert tokens(some) == whole[: len(tokens(some))]
        assert not isinstance(some[-1], Finish)
        lengths.add(len(tokens(some)))
    assert 1 <= min(lengths) < max(lengths) < len(whole)


@pytest.mark.parametrize("itl", [0, 0.5])
async def test_an_answer_that_stalls_is_silent_once_and_loses_nothing(itl: float) -> None:
    clock = FakeClock()
    simulated = engine(clock=clock, fail=[("stall", 1)], stall=100, itl=itl)
    times = await hours(simulated, ask(), clock)
    gaps = [after - before for before, after in pairwise(times)]
    assert sorted(gaps) == pytest.approx([itl] * (len(gaps) - 1) + [100 + itl])
    stalled = await deltas(ask(), fail=[("stall", 1)], stall=100, itl=itl)
    assert stalled == await deltas(ask())
    short = ask(max_tokens=1)
    assert (await deltas(short, fail=[("stall", 1)], itl=itl))[-1] == Finish("max_tokens")


async def test_who_fails_and_how_is_the_same_in_every_run_and_in_any_order() -> None:
    async def run(order: list[int]) -> dict[int, list[str]]:
        simulated = engine(fail=[(kind, 0.1) for kind in FAILURE_KINDS], stall=0, seed=11)
        found: dict[int, list[str]] = {}
        for number in order:
            found.setdefault(number, []).append(await outcome(simulated, ask(f"question {number}")))
        return found

    order = [number for number in range(150) for _ in range(2)]
    found = await run(order)
    Random(1).shuffle(order)
    assert await run(order) == found
    kinds = Counter(outcome for outcomes in found.values() for outcome in outcomes)
    assert set(kinds) == {"ok", "RateLimited", "Overloaded", "EngineFailed", "SimulatedDisconnect"}
    assert any(first != second for first, second in found.values()), "who asks again is not bound to fail again"


async def test_another_seed_has_other_failures() -> None:
    outcomes = set()
    for seed in range(5):
        simulated = engine(fail=[("429", 0.5)], seed=seed)
        outcomes.add(tuple([await outcome(simulated, ask(str(number))) for number in range(20)]))
    assert len(outcomes) == 5


async def test_who_is_late_says_no_more_than_was_to_be_said_before_the_failure() -> None:
    on_time: list[Delta] = []
    with pytest.raises(EngineFailed):
        await gather(engine(fail=[("error", 1)], itl=1), on_time)
    late: list[Delta] = []
    with pytest.raises(EngineFailed):
        await gather(engine(fail=[("error", 1)], itl=1, clock=FakeClock(delays=(0.0, 1e6))), late)
    assert tokens(late) == tokens(on_time)


# the profile, and what an open stream holds


async def test_an_open_stream_keeps_nothing_of_its_prompt() -> None:
    simulated = engine(itl=1)
    async with aclosing(simulated.stream(ask(LONG))) as stream:
        await anext(stream)
        held = stream.ag_frame.f_locals  # type: ignore[attr-defined]
        assert {"request", "lot"}.isdisjoint(held)
        assert not any(isinstance(value, str | bytes) and len(value) > 100 for value in held.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"load_factor": -1},
        {"max_running": 0},
        {"max_waiting": -1},
        {"cache_tokens": -1},
        {"cache_block": 0},
        {"thinking_rate": 1.5},
        {"tool_rate": -0.1},
        {"text": "poetry"},
        {"thinking_tokens": 0},
        {"stall": float("nan")},
        {"fail": [("bored", 1)]},
    ],
)
def test_a_profile_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|one of"):
        Profile().but(**wrong)


def test_a_profile_is_changed_by_making_another() -> None:
    plain = Profile()
    other = plain.but(itl=("gamma", 1.0, 0.5), fail=[("cut", 0.1)])
    assert (plain.itl, other.itl) == (Distribution("constant", 0.005), Distribution("gamma", 1.0, 0.5))
    assert (bool(plain.fail), bool(other.fail)) == (False, True)


async def test_the_error_of_a_full_queue_is_one_to_come_again_after() -> None:
    with pytest.raises(Overloaded) as caught:
        await deltas(ask(), fail=[("529", 1)])
    assert dict(caught.value.headers)["retry-after"] == "1"
