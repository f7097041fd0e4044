"""`anthro-asgi bench load URL`: sends load to any server of Messages or of chat completions, and measures it."""

import argparse
import asyncio
import signal
import sys
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from ..event_loop import run as run_loop
from ..options import positive
from ..processes import Meter, keep_pauses_short, many_files
from ..records import Load
from . import output
from .exchange import Connections
from .requests import ARRIVALS, BadRun, Requests, Target, Wording
from .runner import Plan, Run
from .tally import Slo, Tally

_SECONDS: Final = 10.0  # of a run without --duration and --requests
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    add("url", metavar="URL", help="a base such as http://127.0.0.1:8484")
    add("--api", choices=("messages", "chat"), default="messages", help="`chat` for engines and byte relays")
    add("--model", default="bench", help="the model to ask for (default bench)")
    add("--key", help="API key")
    add("--extra", type=_object, default={}, metavar="JSON", help="merged into every body: '{\"ignore_eos\": true}'")
    add("--concurrency", type=positive, metavar="N", help="closed loop: number of clients (default 1)")
    add("--ramp", type=float, default=0.0, metavar="S", help="start the clients over S seconds (default 0)")
    add("--rate", type=_above_zero, metavar="R", help="open loop: requests/s")
    add("--arrivals", choices=sorted(ARRIVALS), default="poisson", help="in the open loop (default poisson)")
    add("--burst", type=positive, default=10, metavar="N", help="requests per burst, with bursts (default 10)")
    add("--max-open", type=positive, default=4096, metavar="N", help="most open requests (default 4096)")
    add("--requests", type=positive, metavar="N", help="end after N requests")
    add("--duration", type=_above_zero, metavar="S", help=f"end after S seconds (default {_SECONDS:g} or --requests)")
    add("--drain", type=float, default=5.0, metavar="S", help="wait S seconds for open requests at the end (default 5)")
    add("--timeout", type=_above_zero, default=60.0, metavar="S", help="a request fails after S seconds (default 60)")
    add("--warmup", type=int, default=0, metavar="N", help="start counting when N requests have ended (default 0)")
    add("--prompt-tokens", type=positive, default=16, metavar="N", help="approximate prompt length (default 16)")
    add("--output-tokens", type=positive, default=64, metavar="N", help="max_tokens (default 64)")
    add("--no-stream", action="store_true", help="ask for answers that are not streamed")
    add("--seed", type=int, default=0, metavar="N", help="of prompts and arrivals (default 0)")
    for name, what in (("ttft", "first token"), ("itl", "mean inter-token latency"), ("e2e", "end")):
        add(f"--slo-{name}", type=_above_zero, metavar="S", help=f"a good request: {what} within S seconds")
    add("--pid", type=int, action="append", default=[], help="measure this process and its descendants; repeatable")
    add("--json", metavar="FILE", help="write JSON lines to FILE, `-` is stdout; the summary is the last line")
    add("--each", action="store_true", help="write a JSON line for each request too")


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when no request succeeded, 2 for invalid options, 130 when interrupted."""
    with ExitStack() as stack:
        try:
            plan = _plan(options)
            out = _output(options, stack)
            target = Target.parse(options.url, plan.api)
            many_files()
            load, interrupted = run_loop(_run(options, plan, target, out))
        except (BadRun, ProcessLookupError) as exc:
            print(f"bench load: {exc}", file=sys.stderr)
            return _MISUSED
        output.write(out, load)
        if options.json != "-":
            print(output.table(load))
    if interrupted:
        return _INTERRUPTED
    return 0 if load.ok or not load.requests else _FAILED


async def _run(options: argparse.Namespace, plan: Plan, target: Target, out: TextIO | None) -> tuple[Load, bool]:
    tally = Tally(Slo(options.slo_ttft, options.slo_itl, options.slo_e2e), Meter(options.pid) if options.pid else None)
    progress = output.Progress(plan)
    lengths = (options.prompt_tokens, options.output_tokens)
    wording = Wording(plan.api, options.model, options.key, plan.stream, *lengths, options.seed, options.extra)
    connections = Connections(target, Requests(target, wording), plan.timeout)

    def each(exchange: Any) -> None:
        output.write(out, output.request_line(exchange, tally.began))

    run = Run(plan, connections, tally, progress, each if options.each else None)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, run.interrupt)
    keep_pauses_short()
    try:
        await run.run()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        progress.end()
    return output.summary(options.url, plan, tally), run.interrupted


def _plan(options: argparse.Namespace) -> Plan:
    if options.concurrency is not None and options.rate is not None:
        raise BadRun("--concurrency is for the closed loop and --rate for the open loop: give one of them")
    chosen = {one.name: getattr(options, one.name) for one in fields(Plan) if hasattr(options, one.name)}
    chosen["concurrency"] = (options.concurrency or 1) if options.rate is None else None
    chosen["duration"] = options.duration or (None if options.requests else _SECONDS)
    return Plan(stream=not options.no_stream, **chosen)


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
