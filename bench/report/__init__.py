"""`python -m bench report`: result files → one HTML page with plots, and a Markdown table for the README.

Everything on them is computed from the records; what was not recorded is said to be not measured.
"""

import argparse
import sys
from pathlib import Path

from .fields import RecordError
from .markdown import markdown, renewed
from .page import page
from .records import Records, read

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `main`."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="result files: JSON lines")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page there")
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        help="write the tables there, between their marks if the file exists; `-`, the default without --html, prints",
    )


def main(options: argparse.Namespace) -> int:
    """Write what was asked for. The exit status is 2 when a file cannot be read, understood or written."""
    try:
        records = read(options.results)
        if options.html is not None:
            options.html.write_text(page(records), encoding="utf-8")
        _write_markdown(records, options.markdown, printed=options.html is None)
    except (OSError, RecordError, ValueError) as exc:
        print(f"bench report: {exc}", file=sys.stderr)
        return 2
    return 0


def _write_markdown(records: Records, target: str | None, *, printed: bool) -> None:
    if target == "-" or (target is None and printed):
        sys.stdout.write(markdown(records))
    elif target is not None:
        path = Path(target)
        path.write_text(renewed(path, markdown(records)), encoding="utf-8")
