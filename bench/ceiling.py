"""`python -m bench ceiling`: how many tokens per second the load generator itself can receive.

It runs against a scripted engine with many tokens per write, which is the best case, and with one token per write, the
worst case, where the kernel takes nearly all of the time. Where the engine is slower than the generator, the rate is
the engine's; so the rate of a whole core, computed from CPU per token, is shown too.
"""

import argparse
import sys
from typing import Final

from anthro_asgi.bench.event_loop import run as run_loop
from anthro_asgi.bench.load.exchange import Connections
from anthro_asgi.bench.load.output import Progress
from anthro_asgi.bench.load.runner import Plan, Run
from anthro_asgi.bench.load.tally import Slo, Tally
from anthro_asgi.bench.load.target import Target
from anthro_asgi.bench.load.workload import Content, Workload
from anthro_asgi.bench.options import positive
from anthro_asgi.simulator.distributions import Distribution

from .process import serving

_TOGETHER: Final = (64, 1)
_TOKENS: Final = 64 * 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--concurrency", type=positive, default=64, metavar="N", help="clients (default 64)")
    parser.add_argument("--duration", type=float, default=3.0, metavar="S", help="seconds of each run (default 3)")


def main(options: argparse.Namespace) -> int:
    """Measure and print. Raises NotListening."""
    print(f"{'tokens a write':>14} {'tokens/s':>12} {'CPU µs/token':>13} {'tokens/s of a core':>19}")
    for together in _TOGETHER:
        tally = _measure(options, together)
        cost = tally.client_cpu / max(tally.chunks, 1)
        print(f"{together:>14} {tally.chunks / tally.seconds:>12,.0f} {cost * 1e6:>13.3f} {1 / cost:>19,.0f}")
    return 0


def _measure(options: argparse.Namespace, together: int) -> Tally:
    plan = Plan(
        api="chat",
        stream=True,
        concurrency=options.concurrency,
        ramp=0.0,
        rate=None,
        arrivals="poisson",
        burst=1,
        max_open=options.concurrency,
        requests=None,
        duration=options.duration,
        warmup=0,
        timeout=60.0,
        drain=0.0,
        seed=0,
    )
    tally = Tally(Slo(), None)
    with serving((sys.executable, "-m", "bench.scripted", "--together", str(together))) as (url, _):
        run_loop(_run(url, plan, tally))
    return tally


async def _run(url: str, plan: Plan, tally: Tally) -> None:
    target = Target.parse(url, plan.api)
    content = Content(plan.api, "scripted", None, True, Distribution.of(16), Distribution.of(_TOKENS))
    await Run(plan, Connections(target, plan.timeout), Workload(target, content), tally, Progress(plan)).run()
