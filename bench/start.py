"""`python -m bench start`: the real command, from process start to `listening on …`, and its memory when idle.

Times are wall-clock seconds. Memory is the resident set in MiB after the first answer.
"""

import argparse
import statistics
import subprocess
import sys
from http.client import HTTPConnection
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from anthro_asgi.bench.options import positive
from anthro_asgi.bench.processes import resident

from .process import serving

SECONDS: Final = 0.5
MEBIBYTES: Final = 45.0


def measure(runs: int) -> tuple[list[float], list[float]]:
    """Start times and memory of `runs` servers, one after the other."""
    results = [_once() for _ in range(runs)]
    return [seconds for seconds, _ in results], [memory for _, memory in results]


def _once() -> tuple[float, float]:
    began = perf_counter()
    command = [sys.executable, "-m", "anthro_asgi", "serve", "--port", "0"]
    with serving(command, stderr=subprocess.DEVNULL) as (url, pid):
        seconds = perf_counter() - began
        connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        return seconds, resident(pid) / (1024 * 1024)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--runs", type=positive, default=7, help="number of starts (default 7)")


def main(options: argparse.Namespace) -> int:
    """Print medians and maxima."""
    seconds, memory = measure(options.runs)
    for name, values, unit, bar in (
        ("start to listening", seconds, "s", SECONDS),
        ("idle resident set", memory, "MiB", MEBIBYTES),
    ):
        median, worst = statistics.median(values), max(values)
        print(f"{name:<20} {median:.3f} {unit} median, {worst:.3f} {unit} worst  (bar {bar} {unit})")
    return 0
