"""A reader of standard error or standard output that does not read, or that is gone, stops nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.client import ask, get
from tests.support.service import AT_ONCE, PATIENCE, until

LINES = 700  # requests: twice as many log lines as a pipe holds


def serve(tmp_path: Path, *options: str, stdout: int, stderr: int) -> tuple[subprocess.Popen[bytes], str]:
    """The service on a Unix socket, with these descriptors as its output."""
    path = tmp_path / "service.sock"
    command = [sys.executable, "-m", "anthro_asgi", "serve", "--uds", str(path), *AT_ONCE, *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    until(path.exists, within=3 * PATIENCE)
    return process, f"unix:{path}"


def end(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_answers_and_ends_though_nobody_reads_its_log(tmp_path: Path, workers: str) -> None:
    reader, writer = os.pipe()
    process, url = serve(tmp_path, "--workers", workers, stdout=writer, stderr=writer)
    try:
        os.close(writer)
        until(lambda: get(url, "/healthz").status == 200)
        for _ in range(LINES):
            assert ask(url, max_tokens=1).status == 200
        began = time.monotonic()
        assert get(url, "/healthz").status == 200
        assert ask(url, stream=True, max_tokens=3).events
        assert end(process) == 0
        assert time.monotonic() - began < PATIENCE
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def test_lost_lines_are_counted_in_the_metrics_and_told_once_the_log_flows_again(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process, url = serve(tmp_path, stdout=subprocess.DEVNULL, stderr=writer)
    try:
        os.close(writer)
        until(lambda: get(url, "/healthz").status == 200)
        name = "m" * 250  # a long model name makes a long line; the queue holds 1 MiB
        while b"log_lines_dropped_total 0.0" in get(url, "/metrics").body:
            for _ in range(200):
                ask(url, model=name, max_tokens=1)
        out = b""
        deadline = time.monotonic() + PATIENCE
        while b'"log_lines_dropped"' not in out:
            assert time.monotonic() < deadline
            out += os.read(reader, 1 << 20)
            ask(url, max_tokens=1)
        assert end(process) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_closed_output_is_no_hindrance(tmp_path: Path, workers: str) -> None:
    path = tmp_path / "service.sock"
    options = " ".join(AT_ONCE)
    command = f"exec {sys.executable} -m anthro_asgi serve --uds {path} --workers {workers} {options} 1>&- 2>&-"
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL)
    try:
        until(path.exists, within=3 * PATIENCE)
        url = f"unix:{path}"
        until(lambda: get(url, "/healthz").status == 200)
        assert ask(url, max_tokens=1).json["type"] == "message"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
