"""`python -m bench load --ceiling`: how many tokens a second this program itself can take.

It runs against a server that sends bytes made beforehand, in a process of its own. Many tokens a read are the best
case; one token a read is the worst, where nearly all of the time is the kernel's. Where the server is the slower of the
two, the rate is the server's; so what a whole core could do, by the CPU that a token cost, is said beside it.
"""

import sys
from dataclasses import replace
from typing import Final, TextIO

import uvloop

from ..process import serving
from . import report
from .asking import Requests, Target, Wording
from .lines import Lines
from .progress import Progress
from .runner import Plan, Run
from .tally import Slo, Tally

_TOGETHER: Final = (64, 1)
_CONCURRENCY: Final = 64
_SECONDS: Final = 3.0
_TOKENS: Final = 64 * 64


def show(plan: Plan, concurrency: int | None, out: TextIO | None, quiet: bool) -> int:
    """Measure, and say it; returns the exit status."""
    if not quiet:
        print(f"{'tokens a write':>14} {'tokens/s':>12} {'CPU µs/token':>13} {'tokens/s of a core':>19}")
    for together in _TOGETHER:
        result = measure(replace(plan, concurrency=concurrency or _CONCURRENCY), together)
        if out is not None:
            report.write(out, result)
        if not quiet:
            print(
                f"{together:>14} {result['tokens_per_s']:>12,.0f} {result['cpu_us_per_token']:>13.3f} "
                f"{result['tokens_per_s_of_a_core']:>19,.0f}"
            )
    return 0


def measure(plan: Plan, together: int) -> report.Json:
    """One run against a server that writes so many tokens at once. Raises NotListening."""
    command = (sys.executable, "-m", "bench.load.canned", "--together", str(together))
    plan = replace(plan, rate=None, requests=None, duration=min(plan.duration or _SECONDS, _SECONDS), drain=0.0)
    tally = Tally(Slo(), None)
    with serving(command) as (url, _):
        uvloop.run(_run(url, plan, tally))
    cost = tally.client_cpu / max(tally.tokens, 1)
    return {
        "kind": "ceiling",
        "api": plan.api,
        "tokens_a_write": together,
        "concurrency": plan.concurrency,
        "tokens": tally.tokens,
        "tokens_per_s": tally.tokens / tally.seconds,
        "cpu_us_per_token": cost * 1e6,
        "tokens_per_s_of_a_core": 1 / cost,
    }


async def _run(url: str, plan: Plan, tally: Tally) -> None:
    target = Target.parse(url, plan.api)
    wording = Wording(plan.api, "canned", None, True, 16, _TOKENS, plan.seed, {})
    await Run(plan, Lines(target, Requests(target, wording), plan.timeout), tally, Progress(plan)).run()
