"""`anthro-asgi bench load URL`: sends load to any server of Messages or of chat completions, and measures it."""

import argparse
import asyncio
import signal
import sys
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from ...settings.values import distribution, integer
from ...simulator.distributions import Distribution
from ..event_loop import run as run_loop
from ..options import (
    Condition,
    above_zero,
    file,
    has_content,
    key,
    name,
    not_negative,
    positive,
    several,
    time,
    time_above_zero,
    unusable,
    unused_option,
)
from ..processes import Meter, cpu_ns, keep_pauses_short, many_files
from ..records import Load
from . import output
from .exchange import Connections
from .runner import Plan, Run
from .tally import LIMITS, Slo, Tally
from .target import ARRIVALS, BadRun, Target, Unreachable, reason
from .workload import Content, Workload, read_dataset

_SECONDS: Final = 10.0  # of a run without --duration and --requests
_REACHABLE: Final = 1.0  # seconds to wait for a server that does not listen yet
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130
_STATUS: Final = (
    "Exit status: 0 if requests succeeded in each run, 1 if the server cannot be reached or no request of a run "
    "succeeded, 2 for invalid options, 130 after an interrupt."
)


_NO_KEY: Final = "hint: the server wants an API key (--key), or refuses the one that it got"
_NOT_FOUND: Final = {
    "messages": "hint: the server has no Messages API (then use --api chat), or no such model (then use --model)",
    "chat": "hint: the server has no chat completions (then leave out --api chat), or no such model (then use --model)",
}


CONDITIONS: Final = (
    Condition(("ramp",), "with --rate: only clients of --concurrency start one after the other", lambda o: not o.rate),
    Condition(("arrivals", "max-open"), "without --rate", lambda o: bool(o.rate)),
    Condition(("burst",), "without --rate and --arrivals bursts", lambda o: bool(o.rate) and o.arrivals == "bursts"),
    Condition(("prefixes",), "without --prefix-tokens", lambda o: bool(o.prefix_tokens)),
    Condition(("prefix-tokens",), "with --dataset", lambda o: o.dataset is None),
    Condition(
        ("prompt-tokens",), "with --dataset, unless --turns is more than 1", lambda o: o.dataset is None or o.turns > 1
    ),
    Condition(("thinking",), "with --api chat", lambda o: o.api != "chat"),
    Condition(("label", "append", "each"), "without --json FILE", lambda o: o.json is not None),
)
"""The options that have an effect only with others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.usage = "%(prog)s [OPTIONS] URL"
    parser.epilog = f"S is a number of seconds, or a time such as 500ms or 2m. {_STATUS}"
    parser.add_argument("url", metavar="URL", help="a base such as http://127.0.0.1:8484, or unix:/path")
    add = parser.add_argument_group("server").add_argument
    add("--api", choices=("messages", "chat"), default="messages", help="messages (default), or chat completions")
    add("--model", type=name, default="bench", help="the model to ask for (default bench, which many engines refuse)")
    add("--key", type=key, help="API key")
    add("--label", type=name, metavar="NAME", help="the server's name in the report (default: its URL)")
    add("--allow-remote", action="store_true", help="allow a server that is not on this machine")
    add(
        "--pid", type=positive, action="append", default=[], help="measure this process and its descendants; repeatable"
    )
    add = parser.add_argument_group("load").add_argument
    add("--concurrency", type=several(positive), metavar="N,…", help="closed loop: number of clients (default 1)")
    add(
        "--rate", type=several(above_zero), metavar="R,…", help="open loop: requests/s; several values are several runs"
    )
    add("--ramp", type=time, default=0.0, metavar="S", help="start the clients over S seconds (default 0)")
    add(
        "--arrivals",
        choices=sorted(ARRIVALS),
        default="poisson",
        help="when requests start, with --rate (default poisson)",
    )
    add("--burst", type=positive, default=10, metavar="N", help="requests per burst, with bursts (default 10)")
    add("--max-open", type=positive, default=4096, metavar="N", help="open requests; more are not sent (default 4096)")
    add("--requests", type=positive, metavar="N", help="end a run after N requests, or earlier at --duration")
    add(
        "--duration",
        type=time_above_zero,
        metavar="S",
        help=f"end a run after S seconds ({_SECONDS:g} without --requests)",
    )
    add(
        "--warmup",
        type=not_negative,
        default=0,
        metavar="N",
        help="a number of requests, not a time: start counting when N requests have ended (default 0)",
    )
    add(
        "--drain",
        type=time,
        default=5.0,
        metavar="S",
        help="wait S seconds for open requests at the end (default 5)",
    )
    add(
        "--timeout",
        type=time_above_zero,
        default=60.0,
        metavar="S",
        help="a request fails after S seconds (default 60)",
    )
    add = parser.add_argument_group("requests").add_argument
    add("--prompt-tokens", type=_length, default=16, metavar="N", help=_length_help("approximate length", 16))
    add("--output-tokens", type=_length, default=64, metavar="N", help=_length_help("max_tokens", 64))
    add("--prefix-tokens", type=positive, default=0, metavar="N", help="begin with a system prompt of N tokens")
    add("--prefixes", type=positive, default=1, metavar="K", help="number of different system prompts (default 1)")
    add("--turns", type=positive, default=1, metavar="N", help="turns of a conversation; --rate counts conversations")
    add("--tools", type=positive, default=0, metavar="N", help="offer N tools")
    add("--thinking", type=positive, default=0, metavar="N", help="ask for N thinking tokens more (with messages)")
    add("--dataset", type=file, metavar="FILE", help="JSON lines: bodies with messages, or objects with a prompt")
    add("--extra", type=_object, default={}, metavar="JSON", help="merged into every body: '{\"ignore_eos\": true}'")
    add("--no-stream", action="store_true", help="ask for answers that are not streamed")
    add("--seed", type=int, default=0, metavar="N", help="seed of prompts, lengths and arrival times (default 0)")
    add = parser.add_argument_group("results").add_argument
    for short, what in LIMITS:
        add(f"--slo-{short}", type=time_above_zero, metavar="S", help=f"a good request: {what} at most S seconds")
    add(
        "--json",
        type=name,
        metavar="FILE",
        help="write JSON lines to FILE, `-` is stdout: a summary at the end of each run. FILE must be new or empty",
    )
    add("--append", action="store_true", help="add the results to those that the file of --json has")
    add("--each", action="store_true", help="write a JSON line for each request too")


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when no request succeeded, 2 for invalid options, 130 when interrupted."""
    loads: list[Load] = []
    with ExitStack() as stack:
        try:
            plans, target = _plans(options), Target.parse(options.url, options.api, remote=options.allow_remote)
            content = _content(options)
            for pid in options.pid:
                cpu_ns(pid)
            out = _output(options, stack)
            many_files()
            for number, plan in enumerate(plans):
                load, interrupted = run_loop(_run(options, plan, Workload(target, content, number), target, out))
                loads.append(load)
                output.write(out, load)
                if options.json != "-":
                    print(output.table(load), end="\n\n" if len(plans) > 1 else "\n", flush=True)
                    if (hint := _hint(load, options.api)) is not None:
                        print(hint, file=sys.stderr)
                if interrupted:
                    return _INTERRUPTED
        except (BadRun, ProcessLookupError, Unreachable) as exc:
            print(f"anthro-asgi bench load: {exc}", file=sys.stderr)
            return _FAILED if isinstance(exc, Unreachable) else _MISUSED
    if len(loads) > 1 and options.json != "-":
        print(output.sweep_table(loads))
    return 0 if all(load.ok or not load.requests for load in loads) else _FAILED


def _hint(load: Load, api: str) -> str | None:
    """What to change when no request succeeded, if the status of all answers says it."""
    if load.ok:
        return None
    errors = set(load.errors)
    if errors == {"http 404"}:
        return _NOT_FOUND[api]
    return _NO_KEY if errors and errors <= {"http 401", "http 403"} else None


async def _run(
    options: argparse.Namespace, plan: Plan, workload: Workload, target: Target, out: TextIO | None
) -> tuple[Load, bool]:
    tally = Tally(Slo(options.slo_ttft, options.slo_itl, options.slo_e2e), Meter(options.pid) if options.pid else None)
    connections = Connections(target, plan.timeout)
    try:
        await connections.reach(_REACHABLE)
    except OSError as exc:
        raise Unreachable(f"cannot connect to {target.address}: {reason(exc)}") from exc
    progress = output.Progress(plan)

    def each(exchange: Any) -> None:
        output.write(out, output.request_line(exchange, tally.began))

    run = Run(plan, connections, workload, tally, progress, each if options.each else None)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, run.interrupt)
    keep_pauses_short()
    try:
        await run.run()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        progress.end()
    return output.summary(options.url, plan, tally, label=options.label, workload=_described(options)), run.interrupted


def _plans(options: argparse.Namespace) -> list[Plan]:
    """One for each value of --concurrency or --rate."""
    if options.concurrency is not None and options.rate is not None:
        raise BadRun("--concurrency is for the closed loop and --rate for the open loop: give one of them")
    unused = unused_option(options, CONDITIONS, add_arguments)
    if unused is not None:
        raise BadRun(unused)
    chosen = {one.name: getattr(options, one.name) for one in fields(Plan) if hasattr(options, one.name)}
    chosen |= {"concurrency": None, "rate": None, "stream": not options.no_stream}
    chosen["duration"] = options.duration or (None if options.requests else _SECONDS)
    plan = Plan(**chosen)
    if options.rate is not None:
        return [replace(plan, rate=rate) for rate in options.rate]
    return [replace(plan, concurrency=clients) for clients in options.concurrency or [1]]


def _content(options: argparse.Namespace) -> Content:
    return Content(
        options.api,
        options.model,
        options.key,
        not options.no_stream,
        Distribution.of(options.prompt_tokens),
        Distribution.of(options.output_tokens),
        options.seed,
        options.extra,
        options.prefix_tokens,
        options.prefixes,
        options.turns,
        options.tools,
        options.thinking,
        read_dataset(options.dataset) if options.dataset else (),
    )


def _described(options: argparse.Namespace) -> str:
    """The requests in words, for the report."""
    lengths = [Distribution.of(length) for length in (options.prompt_tokens, options.output_tokens)]
    prompt = f"prompts from {options.dataset.name}" if options.dataset else f"prompts of {lengths[0]} tokens"
    parts = [
        prompt,
        f"{options.prefixes} system prompts of {options.prefix_tokens} tokens" if options.prefix_tokens else "",
        f"{options.turns} turns" if options.turns > 1 else "",
        f"{options.tools} tools" if options.tools else "",
        f"thinking up to {options.thinking} tokens" if options.thinking else "",
        f"answers up to {lengths[1]} tokens",
    ]
    return ", ".join(part for part in parts if part)


def _output(options: argparse.Namespace, stack: ExitStack) -> TextIO | None:
    if options.json is None:
        return None
    if options.json == "-":
        return sys.stdout
    path = Path(options.json)
    try:
        if not options.append and has_content(path):
            raise BadRun(f"{path} has results already: name another file, or add to it with --append")
        return stack.enter_context(path.open("a", encoding="utf-8"))
    except OSError as exc:
        raise BadRun(f"cannot write {unusable(options.json, exc)}") from exc


def _length(text: str) -> tuple[Any, float, float]:
    try:
        shape, first, second = _LENGTHS.parse(text)
    except ValueError as exc:
        wrong = f"{text!r:.80} {exc}; write a number, or a distribution such as 'normal(500, 100)'"
        raise argparse.ArgumentTypeError(wrong) from exc
    return shape, float(first), float(second)


def _length_help(what: str, default: int) -> str:
    return f"{what}: a number (default {default}), or a distribution such as 'normal(500, 100)'"


_LENGTHS: Final = distribution(integer("1", "1000000"))


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("is not a JSON object")
    return value
