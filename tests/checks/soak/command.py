"""The command: the engine and the service as processes, the clients in this one, and a table of what held."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

import uvloop

from anthro_asgi.bench.options import positive
from anthro_asgi.bench.processes import many_files
from bench.process import NotListening, serving

from . import dead_address
from .clients import Crowd, Tally
from .guests import Guests
from .service import Service, command
from .turns import anything_else, streaming
from .watch import Sample, Verdict, at_rest, judge, look, watch

_REST: Final = 2.0  # seconds after which the engine closes an idle connection
_LONGEST: Final = 30.0  # seconds of a stream, in a long run
_GENERATIONS: Final = 6  # of streams, at least: memory settles during the first few
_OTHERS: Final = 6  # clients with other requests, at least; one for every twenty streams
_RAMP: Final = 5.0  # seconds, at most, over which the clients start
_DRAIN: Final = 8.0  # seconds for open streams to end after the load
_EVERY: Final = 30.0  # seconds between lines of progress
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate` is in tokens/s of each stream. `arguments` makes the service's command line from the engine's URL.
    `patience` is the time, in seconds after the last client, for files and memory to be released.
    """

    seconds: float
    streams: int
    seed: int
    rate: float
    arguments: Callable[[str], list[str]]
    patience: float = 20.0
    has_guests: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a run."""

    verdicts: list[Verdict]
    tally: Tally
    service: Service

    @property
    def holds(self) -> bool:
        return all(verdict.holds is not False for verdict in self.verdicts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    add("--seconds", type=float, default=600.0, metavar="S", help="of load (default 600)")
    add("--streams", type=positive, default=1000, metavar="N", help="open at any time (default 1000)")
    add("--seed", type=int, default=0, metavar="N", help="same seed, same requests of each client (default 0)")
    add("--rate", type=float, default=5.0, metavar="R", help="tokens/s of each stream (default 5)")
    add("--workers", type=positive, default=2, metavar="N", help="processes of the service (default 2)")
    add(
        "--native",
        choices=("auto", "on", "loop", "off"),
        default="auto",
        help="whether the service relays in C (default auto)",
    )


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when an invariant does not hold, 2 when a server did not start."""
    given = {"streams": options.streams, "workers": options.workers, "native": options.native}
    arguments = partial(command, **given, run=dead_address.COMMAND)
    plan = Plan(options.seconds, options.streams, options.seed, options.rate, arguments, has_guests=True)
    try:
        result = run(plan, _Progress(plan))
    except NotListening as exc:
        print(f"bench soak: {exc}", file=sys.stderr)
        return 2
    print(table(result))
    return 0 if result.holds else 1


def run(plan: Plan, seen: Callable[[Sample], None] = lambda sample: None) -> Result:
    """One run. Raises NotListening."""
    many_files()
    engine = [sys.executable, "-m", "tests.checks.soak.engine", "--rate", str(plan.rate), "--rest", str(_REST)]
    engine += ["--slow-lists"] * plan.has_guests
    with ExitStack() as stack:
        url, _ = stack.enter_context(serving(engine))
        if plan.has_guests:
            url = stack.enter_context(dead_address.behind_a_dead_address(url))
        service = stack.enter_context(Service(plan.arguments(url), pauses=plan.has_guests))
        return uvloop.run(_run(plan, service, seen))


async def _run(plan: Plan, service: Service, seen: Callable[[Sample], None]) -> Result:
    await asyncio.sleep(_REST + 1)  # until the engine has closed the connection of the service's detection requests
    idle = await look(service, monotonic(), 0)
    crowd = Crowd(service.host, service.port, plan.seed)
    longest = max(3, round(plan.rate * min(_LONGEST, plan.seconds / _GENERATIONS)))
    crowd.add(plan.streams, partial(streaming, longest=longest), min(_RAMP, plan.seconds / 10))
    crowd.add(max(_OTHERS, plan.streams // 20), partial(anything_else, longest=longest), 0.0)
    async with AsyncExitStack() as stack:
        if plan.has_guests:
            await stack.enter_async_context(Guests(service.host, service.port, service.pid))
        samples = await watch(service, crowd.tally, plan.seconds, seen)
    await crowd.close(min(_DRAIN, plan.seconds / 3))
    rest = await at_rest(service, idle.files, plan.patience)
    await asyncio.to_thread(service.stop)
    return Result(judge(samples, idle, rest, crowd.tally, service), crowd.tally, service)


class _Progress:
    """Prints a line on standard error from time to time."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._due = monotonic() + min(_EVERY, plan.seconds / 5)

    def __call__(self, sample: Sample) -> None:
        if monotonic() < self._due:
            return
        self._due = monotonic() + min(_EVERY, self._plan.seconds / 5)
        told = f"{sample.open} requests open, {sample.memory / _MIB:.1f} MiB, {sample.files} files"
        print(f"{sample.at:4.0f} s of {self._plan.seconds:.0f}: {told}", file=sys.stderr, flush=True)


def table(result: Result) -> str:
    """Each invariant, then the wrong answers, if any."""
    words = {True: "ok", False: "BROKEN", None: "-"}
    lines = [f"{verdict.name:<10} {words[verdict.holds]:<7} {verdict.seen}" for verdict in result.verdicts]
    outcomes = sorted(result.tally.outcomes.items())
    lines.append("turns      " + ", ".join(f"{kind} {what} {count:,}" for (kind, what), count in outcomes))
    lines += [f"WRONG {count:>6,}  {how}" for how, count in result.tally.wrong.most_common(20)]
    for turn, answer, how in result.tally.samples[:3]:
        lines.append(f"\n{how}\n  {turn}\n  {answer.status} {answer.body[-600:]!r}")
    lines += [f"LOG  {line[:1000]}" for line in result.service.log.samples]
    return "\n".join(lines)
