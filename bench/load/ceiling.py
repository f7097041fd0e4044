"""`python -m bench load --ceiling`: how many tokens per second the load generator itself can receive.

It runs against a scripted engine with many tokens per write, which is the best case, and with one token per write, the
worst case, where the kernel takes nearly all of the time. Where the engine is slower than the generator, the rate is
the engine's; so the rate of a whole core, computed from CPU per token, is shown too.
"""

import sys
from dataclasses import replace
from typing import Any, Final, TextIO

import uvloop

from ..process import serving
from .exchange import Connections
from .output import Progress, write
from .requests import Requests, Target, Wording
from .runner import Plan, Run
from .tally import Slo, Tally

_TOGETHER: Final = (64, 1)
_CONCURRENCY: Final = 64
_SECONDS: Final = 3.0
_TOKENS: Final = 64 * 64


def show(plan: Plan, concurrency: int | None, out: TextIO | None, quiet: bool) -> int:
    """Measure and print; returns the exit status. Raises NotListening."""
    heads = f"{'tokens a write':>14} {'tokens/s':>12} {'CPU µs/token':>13} {'tokens/s of a core':>19}"
    lines = [heads]
    for together in _TOGETHER:
        result = _measure(replace(plan, concurrency=concurrency or _CONCURRENCY), together)
        write(out, result)
        numbers = f"{result['tokens_per_s']:>12,.0f} {result['cpu_us_per_token']:>13.3f}"
        lines.append(f"{together:>14} {numbers} {result['tokens_per_s_of_a_core']:>19,.0f}")
    if not quiet:
        print("\n".join(lines))
    return 0


def _measure(plan: Plan, together: int) -> dict[str, Any]:
    command = (sys.executable, "-m", "bench.scripted", "--together", str(together))
    plan = replace(
        plan, api="chat", rate=None, requests=None, duration=min(plan.duration or _SECONDS, _SECONDS), drain=0.0
    )
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
    wording = Wording(plan.api, "scripted", None, True, 16, _TOKENS, plan.seed, {})
    await Run(plan, Connections(target, Requests(target, wording), plan.timeout), tally, Progress(plan)).run()
