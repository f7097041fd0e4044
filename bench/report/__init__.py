"""`python -m bench report`: result files → one HTML page with plots, and Markdown tables for docs/performance.md.

Everything in them is computed from the records; what was not recorded is shown as not measured.
"""

import argparse
import sys
from pathlib import Path

from ..records import RecordError, Records, read
from .tables import markdown, renewed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="result files: JSON lines")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page to FILE; needs matplotlib")
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        help="write the tables to FILE, between its marks if it exists; `-`, the default without --html, prints them",
    )


def main(options: argparse.Namespace) -> int:
    """Write what was asked for. The exit status is 2 when a file cannot be read or written, or a record is invalid."""
    try:
        records = read(options.results)
        if options.html is not None:
            options.html.write_text(_page(records), encoding="utf-8")
        if options.markdown == "-" or options.markdown is options.html is None:
            sys.stdout.write(markdown(records))
        elif options.markdown is not None:
            path = Path(options.markdown)
            path.write_text(renewed(path, markdown(records)), encoding="utf-8")
    except (OSError, RecordError, ValueError) as exc:
        print(f"bench report: {exc}", file=sys.stderr)
        return 2
    return 0


def _page(records: Records) -> str:
    try:
        from .page import page
    except ModuleNotFoundError as exc:
        raise ValueError(f"the page needs {exc.name}: pip install 'anthro-asgi[bench]'") from exc
    return page(records)
