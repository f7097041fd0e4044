"""`anthro-asgi conformance URL`: judge any server of the Messages API.

Exit status: 0 if the server keeps every rule of weight `must`, 1 if it breaks one, 2 if the run could not be made.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import orjson

from .check import Check
from .exchange import Client, NoResponse
from .report import failures_in_markdown, json_document, line, page, table
from .run import TOKENS_AT_MOST, Report, chosen, first_model, report_of, run
from .scripted_engine import MODEL, ScriptedEngine

_DESCRIPTION = """\
Judge a server of the Anthropic Messages API.

Profile `server`: any server. The prompts are short, and all answers together have at most {tokens} tokens.
Profile `gateway`: a gateway in front of a chat-completions engine. The suite is the engine: give its address to the
gateway, for example  --engine-listen 127.0.0.1:9000  and in the gateway  http://127.0.0.1:9000/v1 .
"""


_CONDITIONS: Final[tuple[tuple[str, str, Callable[[argparse.Namespace], object]], ...]] = (
    ("engine_listen", "without --profile gateway", lambda options: options.profile == "gateway"),
    ("compare", "without --html or --markdown", lambda options: options.html or options.markdown),
    ("model", "without a server", lambda options: options.url),
    ("key", "without a server", lambda options: options.url),
    ("name", "without a server", lambda options: options.url),
    ("json", "without a server", lambda options: options.url),
)
"""Options that have an effect only with others: the attribute, words that follow "has no effect", and the condition."""


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The command line, read by a parser of this class."""
    made = kind(
        "anthro-asgi conformance",
        description=_DESCRIPTION.format(tokens=TOKENS_AT_MOST),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("url", nargs="?", help="the server, for example http://127.0.0.1:8080")
    made.add_argument("--model", help="the model to ask for (default: the first that the server lists)")
    made.add_argument("--key", help="the API key, sent as x-api-key")
    made.add_argument("--profile", choices=("server", "gateway"), default="server", help="see above (default: server)")
    made.add_argument("--engine-listen", metavar="HOST:PORT", help="where the scripted engine of `gateway` listens")
    made.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="only checks whose area or name has this word; repeatable: all words",
    )
    made.add_argument("--name", help="how reports call the server (default: its URL)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--html", type=Path, metavar="FILE", help="write the report as an HTML page")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the failures as Markdown")
    made.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="JSON reports to show beside this one in --html and --markdown",
    )
    made.add_argument("--list", action="store_true", help="list the checks, and send nothing")
    return made


def main(arguments: Sequence[str], kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> int:
    """Run the command line, read by a parser of this class. Returns the exit status."""
    options = parser(kind).parse_args(arguments)
    checks = chosen(options.profile, options.only)
    if options.list:
        for one in checks:
            print(f"{one.weight:6}  {one.area}: {one.name}  ({one.authority})")
        return 0
    if options.url and not checks:
        print(f"anthro-asgi: error: --only: no check has all of the words {', '.join(options.only)}", file=sys.stderr)
        return 2
    if not options.url and not options.compare:
        print("anthro-asgi: error: name a server, or reports with --compare", file=sys.stderr)
        return 2
    for attribute, otherwise, is_met in _CONDITIONS:
        if getattr(options, attribute) and not is_met(options):
            option = attribute.replace("_", "-")
            print(f"anthro-asgi: error: --{option} has no effect {otherwise}", file=sys.stderr)
            return 2
    try:
        for file in (options.json, options.html, options.markdown):
            if file is not None:
                file.touch()  # a run takes minutes: find out before it that a report cannot be written
        reports = [report_of(orjson.loads(file.read_bytes())) for file in options.compare]
        report = _judged(options, checks) if options.url else None
    except OSError as exc:
        print(f"anthro-asgi: error: {exc.filename or 'connection'}: {exc.strerror or exc}", file=sys.stderr)
        return 2
    except (NoResponse, ValueError, KeyError, TypeError) as exc:
        print(f"anthro-asgi: error: {exc}", file=sys.stderr)
        return 2
    reports += [report] if report is not None else []
    _write(options.html, lambda: page(reports).encode())
    _write(options.markdown, lambda: "\n".join(map(failures_in_markdown, reports)).encode())
    if report is None:
        return 0
    _write(options.json, lambda: json_document(report))
    print("\n" + table(report))
    return 1 if report.broken_musts else 0


def _judged(options: argparse.Namespace, checks: Sequence[Check]) -> Report:
    client = Client(options.url, options.key)
    with ExitStack() as stack:
        engine = None
        if options.profile == "gateway":
            engine = stack.enter_context(ScriptedEngine(*_address(options.engine_listen or "127.0.0.1:9000")))
            print(f"The scripted engine listens on {engine.url} and has the model {MODEL}.")
        else:
            print(f"{len(checks)} checks. All answers together have at most {TOKENS_AT_MOST} tokens.")
        client.reach()
        model = options.model or (MODEL if engine is not None else first_model(client))
        return run(
            checks, client, model, options.name or options.url, engine, lambda finding: print(line(finding), flush=True)
        )


def _address(text: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--engine-listen: {text!r} is not HOST:PORT")
    return host, int(port)


def _write(file: Path | None, content: Callable[[], bytes]) -> None:
    if file is not None:
        file.write_bytes(content())
