"""The command: its options, and one run as they say."""

import argparse
import asyncio
import gc
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import orjson
import uvloop

from ..options import positive
from ..process import Meter, many_files
from . import ceiling, report
from .arrivals import ARRIVALS
from .asking import BadRun, Requests, Target, Wording
from .exchange import Exchange
from .lines import Lines
from .progress import Progress
from .runner import Plan, Run
from .tally import Slo, Tally

_SECONDS = 10.0  # of a run whose end was not said
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the load generator."""
    parser.add_argument("url", metavar="URL", nargs="?", help="a base such as http://127.0.0.1:8484")
    add = parser.add_argument
    add("--api", choices=("messages", "chat"), default="messages", help="chat is for engines and byte relays")
    add("--model", default="bench", help="the model to ask for (default bench)")
    add("--key", help="API key")
    add("--extra", type=_object, default={}, metavar="JSON", help="merged into every body: '{\"ignore_eos\": true}'")
    add("--concurrency", type=positive, metavar="N", help="closed loop: clients (default 1)")
    add("--ramp", type=float, default=0.0, metavar="S", help="let the clients come over so many seconds (default 0)")
    add("--rate", type=_above_zero, metavar="R", help="open loop: requests/s")
    add("--arrivals", choices=sorted(ARRIVALS), default="poisson", help="of the open loop (default poisson)")
    add("--burst", type=positive, default=10, metavar="N", help="requests that arrive at once, in bursts (default 10)")
    add("--max-open", type=positive, default=4096, metavar="N", help="requests open at once (default 4096)")
    add("--requests", type=positive, metavar="N", help="end after so many")
    add("--duration", type=_above_zero, metavar="S", help=f"end after so long (default {_SECONDS:g} or --requests)")
    add("--drain", type=float, default=5.0, metavar="S", help="wait so long for those open at the end (default 5)")
    add("--timeout", type=_above_zero, default=60.0, metavar="S", help="a request fails after so long (default 60)")
    add("--warmup", type=int, default=0, metavar="N", help="count from when so many have ended (default 0)")
    add("--prompt-tokens", type=positive, default=16, metavar="N", help="about so many in a prompt (default 16)")
    add("--output-tokens", type=positive, default=64, metavar="N", help="max_tokens (default 64)")
    add("--no-stream", action="store_true", help="ask for whole answers")
    add("--seed", type=int, default=0, metavar="N", help="of prompts and arrivals (default 0)")
    for name, what in (("ttft", "first token"), ("itl", "mean inter-token latency"), ("e2e", "end")):
        add(f"--slo-{name}", type=_above_zero, metavar="S", help=f"a good request: {what} within S seconds")
    add("--pid", type=int, action="append", default=[], help="measure this process and its descendants; repeatable")
    add("--json", metavar="FILE", help="write JSON lines there, - is stdout; the summary is the last")
    add("--each", action="store_true", help="a JSON line for each request too")
    add("--ceiling", action="store_true", help="measure this program's own highest rate instead")


def main(options: argparse.Namespace) -> int:
    """Run it. The exit status is 1 when no request succeeded, 2 for bad options, 130 when interrupted."""
    with ExitStack() as stack:
        try:
            plan = _plan(options)
            out = _output(options, stack)
            if options.ceiling:
                return ceiling.show(plan, options.concurrency, out, options.json == "-")
            target = Target.parse(options.url or "", plan.api)
            many_files()
            result, interrupted = uvloop.run(_run(options, plan, target, out))
        except (BadRun, ProcessLookupError) as exc:
            print(f"bench load: {exc}", file=sys.stderr)
            return _MISUSED
        if out is not None:
            report.write(out, result)
        if options.json != "-":
            print(report.table(result))
    if interrupted:
        return _INTERRUPTED
    return 0 if result["ok"] or not result["requests"] else _FAILED


async def _run(options: argparse.Namespace, plan: Plan, target: Target, out: TextIO | None) -> tuple[report.Json, bool]:
    tally = Tally(Slo(options.slo_ttft, options.slo_itl, options.slo_e2e), Meter(options.pid) if options.pid else None)
    progress = Progress(plan)
    lines = Lines(target, Requests(target, _wording(options, plan)), plan.timeout)

    def each(exchange: Exchange) -> None:
        assert out is not None
        report.write(out, report.line(exchange, tally.began))

    run = Run(plan, lines, tally, progress, each if options.each else None)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, run.interrupt)
    gc.freeze()
    try:
        await run.run()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        gc.unfreeze()
        progress.end()
    return report.summary(options.url, plan, tally), run.interrupted


def _plan(options: argparse.Namespace) -> Plan:
    if options.concurrency is not None and options.rate is not None:
        raise BadRun("--concurrency is the closed loop and --rate the open one: give one of them")
    closed = options.rate is None
    return Plan(
        api=options.api,
        stream=not options.no_stream,
        concurrency=(options.concurrency or 1) if closed else None,
        ramp=options.ramp,
        rate=options.rate,
        arrivals=options.arrivals,
        burst=options.burst,
        max_open=options.max_open,
        requests=options.requests,
        duration=options.duration or (None if options.requests else _SECONDS),
        warmup=options.warmup,
        timeout=options.timeout,
        drain=options.drain,
        seed=options.seed,
    )


def _wording(options: argparse.Namespace, plan: Plan) -> Wording:
    lengths = (options.prompt_tokens, options.output_tokens)
    return Wording(plan.api, options.model, options.key, plan.stream, *lengths, options.seed, options.extra)


def _output(options: argparse.Namespace, stack: ExitStack) -> TextIO | None:
    if options.json is None:
        if options.each:
            raise BadRun("--each writes to the file of --json, which is not given")
        return None
    if options.json == "-":
        return sys.stdout
    try:
        return stack.enter_context(Path(options.json).open("w", encoding="utf-8"))
    except OSError as exc:
        raise BadRun(f"{options.json}: {exc.strerror}") from exc


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _object(text: str) -> dict[str, Any]:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value
