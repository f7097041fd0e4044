"""Runs many trials in several processes, and minimises inputs that fail.

A `Target` draws a trial from a `Random` that is seeded with the run's seed and the trial's index, and checks it. It
returns the outcome in a word, which is counted, or raises, which is a failure.
"""

import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from random import Random
from time import monotonic
from typing import Any, Protocol

from anthro_asgi.conformance.grammar import GrammarError

CHUNK = 2000  # trials per task of a process
MOST_FAILURES = 20  # after which a run stops
PATIENCE = 10.0  # seconds for one trial
EFFORT = 15.0  # seconds to minimise an input


class Trial(Protocol):
    """A dataclass whose `data` is the input; the other fields are the settings of the trial."""

    data: bytes


class Target(Protocol):
    """A target of fuzzing."""

    name: str

    def draw(self, rng: Random) -> Any:
        """Draw a trial."""

    def check(self, trial: Any) -> str:
        """Run a trial; returns the outcome in a few words. Raises any exception when a rule does not hold."""


class Breach(AssertionError):
    """A rule does not hold. The message begins with the rule."""


class Stuck(Exception):
    """A trial took too long."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A trial that failed. Failures with the same `kind` are likely the same bug."""

    index: int
    kind: str
    trial: Any
    trace: str


@dataclass(slots=True)
class Tally:
    """The results of trials."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    @property
    def trials(self) -> int:
        return self.outcomes.total() + len(self.failures)

    def add(self, other: "Tally") -> None:
        self.outcomes.update(other.outcomes)
        self.failures += other.failures


@cache
def made(kind: type[Target]) -> Target:
    """The target of this process, which is slow to create."""
    return kind()


def draw(target: Target, seed: int, index: int) -> Any:
    """The trial with this index; the same in every process."""
    return target.draw(Random(f"{target.name} {seed} {index}"))


def run_chunk(kind: type[Target], seed: int, indices: Sequence[int]) -> Tally:
    """Run these trials in this process."""
    tally = Tally()
    target = made(kind)
    with _bounded() as begin:
        for index in indices:
            trial = draw(target, seed, index)
            begin()
            try:
                tally.outcomes[target.check(trial)] += 1
            except Exception as exc:
                tally.failures.append(Failure(index, kind_of(exc), trial, traceback.format_exc()))
                if len(tally.failures) >= MOST_FAILURES:
                    break
    return tally


def run(
    kind: type[Target],
    seed: int,
    count: int,
    *,
    start: int = 0,
    jobs: int = 1,
    told: Callable[[Tally], None] | None = None,
) -> Tally:
    """Run `count` trials from index `start` on. `told` is called with the results so far, from time to time."""
    chunks = [range(at, min(at + CHUNK, start + count)) for at in range(start, start + count, CHUNK)]
    tally = Tally()
    for part in _parts(kind, seed, chunks, jobs):
        tally.add(part)
        if told is not None:
            told(tally)
        if len(tally.failures) >= MOST_FAILURES:
            break
    return tally


def _parts(kind: type[Target], seed: int, chunks: list[range], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from (run_chunk(kind, seed, chunk) for chunk in chunks)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = [pool.submit(run_chunk, kind, seed, chunk) for chunk in chunks]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def kind_of(exc: BaseException) -> str:
    """The broken rule, or the type of the exception and where it was raised."""
    if isinstance(exc, Breach):
        return str(exc).partition("\n")[0]
    if isinstance(exc, GrammarError):
        return f"by the grammar {exc.rule}"
    frames = traceback.extract_tb(exc.__traceback__)
    ours = [frame for frame in frames if "anthro_asgi" in frame.filename] or frames
    return f"{type(exc).__name__} in {ours[-1].name} of {ours[-1].filename.rpartition('/')[2]}"


@contextmanager
def _bounded() -> Iterator[Callable[[], None]]:
    """Yields a function to call at the start of each trial. A trial that takes too long raises Stuck."""

    def ring(*_: object) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, PATIENCE) and None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# minimising


def minimised(target: Target, failure: Failure, effort: float = EFFORT) -> Any:
    """The trial with the shortest data that fails in the same way."""
    until = monotonic() + effort

    def fails(data: bytes) -> bool:
        try:
            target.check(replace(failure.trial, data=data))
        except Exception as exc:
            return kind_of(exc) == failure.kind
        return False

    data = failure.trial.data
    with _bounded() as begin:
        size = max(1, len(data) // 2)
        while size and monotonic() < until:
            smaller = _without(data, size, fails, begin, until)
            if smaller == data:
                size //= 2
            data = smaller
    return replace(failure.trial, data=data)


def _without(data: bytes, size: int, fails: Callable[[bytes], bool], begin: Callable[[], None], until: float) -> bytes:
    """`data` without the stretches of `size` bytes that are not needed for the failure."""
    at = 0
    while at < len(data) and monotonic() < until:
        begin()
        fewer = data[:at] + data[at + size :]
        if fails(fewer):
            data = fewer
        else:
            at += size
    return data


# reporting


def report(target: Target, seed: int, tally: Tally, seconds: float) -> None:
    """Print the results, and each kind of failure once."""
    rate = tally.trials / max(seconds, 1e-9)
    print(f"{target.name}: {tally.trials:,} trials in {seconds:,.0f} s ({rate:,.0f}/s), {len(tally.failures)} failures")
    for outcome, number in tally.outcomes.most_common():
        print(f"  {number:>10,}  {outcome}")
    by_kind: dict[str, list[Failure]] = {}
    for failure in tally.failures:
        by_kind.setdefault(failure.kind, []).append(failure)
    for first, *others in by_kind.values():
        tell(target, seed, first)
        if others:
            print(f"  and {len(others)} more: --only", *(failure.index for failure in others))


def tell(target: Target, seed: int, failure: Failure) -> None:
    """Print one failure: how to repeat it, the smallest input, and the traceback."""
    print(f"\nFAILED: {failure.kind}\n  python -m tests.checks.fuzz {target.name} --seed {seed} --only {failure.index}")
    print(f"  smallest: {minimised(target, failure)!r}")
    print("  " + failure.trace.rstrip().replace("\n", "\n  "))
    sys.stdout.flush()
