"""When the scripted engine's streams write, on a clock that the test advances."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from bench.scripted import pace


class Clock:
    """Stands in for the time and the alarm: `ring` goes to the moment that the alarm was set to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 12_345
        self.at: int | None = None
        self.call: Callable[[], None]
        monkeypatch.setattr(pace, "monotonic_ns", lambda: self.now)
        monkeypatch.setattr(pace, "Alarm", self._alarm)

    def _alarm(self, ring: Callable[[], None]) -> "Clock":
        self.call = ring
        return self

    def set(self, at: int) -> None:
        self.at = at

    def ring(self, late: int = 0) -> None:
        assert self.at is not None
        self.now, self.at = max(self.now, self.at) + late, None
        self.call()


class Steps:
    """A stream that notes when it was stepped."""

    def __init__(self, clock: Clock, tokens: int = 10**6) -> None:
        self.at: list[int] = []
        self.held = self.done = self.queued = False
        self.phase = 0
        self._clock = clock
        self._tokens = tokens

    def step(self) -> None:
        self.at.append(self._clock.now)
        self.done = len(self.at) >= self._tokens


INTERVAL = 20_000_000  # of 50 tokens a second, in nanoseconds


def test_a_paced_stream_keeps_its_grid_after_late_wake_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    paced, stream = pace.Paced(50, lockstep=False), Steps(clock)
    paced.begin(stream)
    assert stream.at == [12_345]  # at once
    clock.ring()
    grid = clock.now
    for number in range(1, 100):
        clock.ring(late=number * 1000)
        assert stream.at[-1] == grid + number * INTERVAL + number * 1000
    clock.now = grid + 200 * INTERVAL
    clock.call()  # overslept: what was due is made up for
    assert len(stream.at) == 2 + 200


def test_the_grids_of_many_streams_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    paced, streams = pace.Paced(50, lockstep=False), [Steps(clock) for _ in range(64)]
    for stream in streams:
        paced.begin(stream)
    for _ in range(64):
        clock.ring()
    moments = sorted(stream.at[-1] for stream in streams)
    assert all(len(stream.at) == 2 for stream in streams)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert max(gaps) < 3 * INTERVAL / 64
    assert min(gaps) > INTERVAL / 64 / 3


def test_in_lockstep_all_streams_write_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    paced, streams = pace.Paced(50, lockstep=True), [Steps(clock, tokens=3) for _ in range(8)]
    for stream in streams:
        paced.begin(stream)
        clock.now += 1000
    assert not any(stream.at for stream in streams)
    for _ in range(3):
        clock.ring()
    assert {tuple(stream.at) for stream in streams} == {(INTERVAL, 2 * INTERVAL, 3 * INTERVAL)}
    assert clock.at is None  # nothing left to wake up for


def test_a_held_stream_continues_at_its_next_moment_and_skips_missed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    paced, stream = pace.Paced(50, lockstep=False), Steps(clock)
    paced.begin(stream)
    clock.ring()
    grid = clock.now
    stream.held = True
    clock.ring()
    assert clock.at is None
    clock.now = grid + 10 * INTERVAL + 5
    stream.held = False
    paced.resume(stream)
    paced.resume(stream)
    clock.ring()
    assert stream.at[2:] == [grid + 11 * INTERVAL]
