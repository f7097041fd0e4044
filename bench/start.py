"""`python -m bench start`: the real command, from process start to `listening on …`, and its memory when idle.

Time is wall-clock, in seconds; memory is the resident set in MiB, read from /proc when the first answer has been given.
"""

import argparse
import statistics
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from typing import Final

from .options import positive

SECONDS: Final = 0.5
MEBIBYTES: Final = 45.0


def measure(runs: int) -> tuple[list[float], list[float]]:
    """Start times and memory of `runs` servers, one after the other."""
    results = [_once() for _ in range(runs)]
    return [seconds for seconds, _ in results], [memory for _, memory in results]


def _once() -> tuple[float, float]:
    began = perf_counter()
    command = [sys.executable, "-m", "anthro_asgi", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            seconds = perf_counter() - began
            _ask(line.rpartition("/")[2].strip())
            return seconds, _resident(server.pid)
        finally:
            server.terminate()


def _ask(address: str) -> None:
    connection = HTTPConnection(address, timeout=10)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmRSS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--runs", type=positive, default=7, help="starts (default 7)")


def main(options: argparse.Namespace) -> int:
    """Print medians and the worst."""
    seconds, memory = measure(options.runs)
    _line("start to listening", seconds, "s", SECONDS)
    _line("idle resident set", memory, "MiB", MEBIBYTES)
    return 0


def _line(name: str, values: list[float], unit: str, bar: float) -> None:
    print(
        f"{name:<20} {statistics.median(values):.3f} {unit} median, {max(values):.3f} {unit} worst  (bar {bar} {unit})"
    )
