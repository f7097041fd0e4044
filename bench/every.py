"""`python -m bench all`: all measurements, one after the other, then the report."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from anthro_asgi.bench.options import positive

from .peers.envs import cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--html", type=Path, metavar="FILE", help="the page (default: report.html in the cache)")
    parser.add_argument("--install", action="store_true", help="install the peers that are absent")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="rounds of `peers` (default 3)")


def main(options: argparse.Namespace) -> int:
    """Each command runs as its own process. The exit status is that of the first one that failed."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    results = [str(folder / name) for name in ("results.jsonl", "pauses.jsonl", "hold.jsonl", "micro.jsonl")]
    page = options.html or folder / "report.html"
    steps = (
        ["peers", "--rounds", str(options.rounds), "--out", results[0], *(["--install"] if options.install else [])],
        ["pauses", "--out", results[1]],
        ["hold", "--out", results[2]],
        ["micro", "--json", results[3]],
        ["report", *results, "--html", str(page)],
    )
    statuses = []
    for step in steps:
        print(f"\n=== python -m bench {shlex.join(step)}", flush=True)
        statuses.append(subprocess.run([sys.executable, "-m", "bench", *step], check=False).returncode)
    print(f"\nthe page: {page}")
    return next((status for status in statuses if status), 0)
