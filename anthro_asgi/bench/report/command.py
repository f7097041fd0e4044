"""`anthro-asgi bench report FILE…`: result files of `bench load` → one HTML page that needs nothing but itself."""

import argparse
import sys
from pathlib import Path

from ..load.tally import LIMITS, Slo
from ..options import file, time_above_zero, unusable
from .page import page
from .results import read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.usage = "%(prog)s [OPTIONS] FILE…"
    parser.epilog = "S is a number of seconds, or a time such as 500ms or 2m."
    add = parser.add_argument
    add("results", nargs="+", type=file, metavar="FILE", help="what `bench load --json FILE` wrote")
    add(
        "--html",
        type=file,
        default=Path("report.html"),
        metavar="FILE",
        help="the page; it is replaced if it exists (default report.html)",
    )
    add("--title", default="Load test", help="the page's title (default: Load test)")
    for name, what in LIMITS:
        text = f"a good request: {what} at most S seconds; needs the files of `bench load --each`"
        add(f"--slo-{name}", type=time_above_zero, metavar="S", help=text)


def main(options: argparse.Namespace) -> int:
    """Write the page. The exit status is 2 when a file cannot be read or written, or is not a result."""
    try:
        servers = read(options.results, Slo(options.slo_ttft, options.slo_itl, options.slo_e2e))
        shown = page(servers, options.title)
    except ValueError as exc:
        return _refuse(str(exc))
    try:
        options.html.write_text(shown, encoding="utf-8")
    except OSError as exc:
        return _refuse(f"cannot write {unusable(options.html, exc)}")
    runs = sum(len(server.runs) for server in servers)
    print(f"{options.html}: {runs} run{'s' * (runs != 1)}")
    return 0


def _refuse(reason: str) -> int:
    print(f"anthro-asgi bench report: {reason}", file=sys.stderr)
    return 2
