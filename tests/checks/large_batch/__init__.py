"""The memory of a service while a large batch arrives, runs, and is read.

    python -m tests.checks.large_batch [--megabytes N] [--requests N]    by default 250 MB with 100,000 requests
    python -m tests.checks.large_batch --short                           8 MB with 800 requests

The body is sent in pieces, as it would arrive over a network, and the results are read in pieces. So neither this
process nor the service holds the batch. Measured is the peak of the service's memory (`VmHWM`), in each phase, beyond
its memory before the first.
"""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tests.support.service import AT_ONCE, Service

MB: Final = 1_000_000
MOST: Final = 24 * MB
"""More memory than before, at most, however large the batch is."""
_ROUTE: Final = "/v1/messages/batches"
_PIECE: Final = 64 * 1024
_PATIENCE: Final = 1800.0  # seconds until the batch has ended
_JSON: Final = {"content-type": "application/json"}


class Result(NamedTuple):
    """What a batch took. Bytes and seconds."""

    sent: int
    read: int
    lines: int
    peaks: dict[str, int]
    seconds: dict[str, float]
    too_large: tuple[int, str]  # the status and the type of the error of a body that is too large

    def problems(self, requests: int, most: int = MOST) -> list[str]:
        """What is not as it must be, with at most so much more memory; empty if all is well."""
        found = [
            f"{phase}: {peak / MB:.1f} MB of memory, more than {most / MB:.1f} MB"
            for phase, peak in self.peaks.items()
            if peak > most
        ]
        if self.lines != requests:
            found.append(f"{self.lines} results of {requests} requests")
        if self.too_large != (413, "request_too_large"):
            found.append(f"a body that is too large gets {self.too_large}")
        return found

    def __str__(self) -> str:
        phases = "; ".join(
            f"{phase} {self.seconds[phase]:.1f} s, +{peak / MB:.1f} MB" for phase, peak in self.peaks.items()
        )
        return f"{self.sent / MB:.1f} MB sent, {self.lines} results of {self.read / MB:.1f} MB read; {phases}"


def measure(folder: Path, size: int, requests: int) -> Result:
    """Send a batch of about `size` bytes with so many requests to a service, and read its results."""
    options = ["--simulate", *AT_ONCE, "--simulate-output-tokens", "200", "--batch-store", str(folder / "batches.db")]
    with Service(
        *options, "--batch-concurrency", "32", "--receive-deadline", "30m", "--log-level", "warning"
    ) as service:
        _run_batch(service, size // 20, max(1, requests // 20))  # loads all code
        before = _memory(service, "VmRSS")
        sent, read, lines, peaks, seconds = _run_batch(service, size, requests)
        over = {phase: peak - before for phase, peak in peaks.items()}
        return Result(sent, read, lines, over, seconds, _send_too_large(service))


def _run_batch(service: Service, size: int, requests: int) -> tuple[int, int, int, dict[str, int], dict[str, float]]:
    peaks: dict[str, int] = {}
    seconds: dict[str, float] = {}
    connection = _connect(service)

    began = _begin(service)
    sent = _Counted(_body(size, requests))
    connection.request("POST", _ROUTE, iter(sent), {**_JSON, "transfer-encoding": "chunked"}, encode_chunked=True)
    batch = _json(connection)
    peaks["upload"], seconds["upload"] = _memory(service, "VmHWM"), time.monotonic() - began

    began = _begin(service)
    while batch["processing_status"] != "ended":
        assert time.monotonic() - began < _PATIENCE, "the batch has not ended"
        time.sleep(0.2)
        connection.request("GET", f"{_ROUTE}/{batch['id']}")
        batch = _json(connection)
    assert batch["request_counts"]["succeeded"] == requests, batch
    peaks["run"], seconds["run"] = _memory(service, "VmHWM"), time.monotonic() - began

    began = _begin(service)
    connection.request("GET", f"{_ROUTE}/{batch['id']}/results")
    response = connection.getresponse()
    read = lines = 0
    while piece := response.read(_PIECE):
        read += len(piece)
        lines += piece.count(b"\n")
    peaks["results"], seconds["results"] = _memory(service, "VmHWM"), time.monotonic() - began
    connection.close()
    return sent.bytes, read, lines, peaks, seconds


class _Counted:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.bytes += len(piece)
            yield piece


def _body(size: int, requests: int) -> Iterator[bytes]:
    """The body of a batch in pieces of about `_PIECE` bytes."""
    text = "word " * max(1, (size // requests - 130) // 5)
    params = json.dumps({"model": "m", "max_tokens": 400, "messages": [{"role": "user", "content": text}]})
    piece = b'{"requests":['
    for number in range(requests):
        piece += b'%b{"custom_id":"r%d","params":%b}' % (b"," if number else b"", number, params.encode())
        if len(piece) >= _PIECE:
            yield piece
            piece = b""
    yield piece + b"]}"


def _send_too_large(service: Service) -> tuple[int, str]:
    """The answer to a batch that says it has 257 MB. Its body is not sent."""
    connection = _connect(service)
    connection.putrequest("POST", _ROUTE)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(257 << 20))
    connection.endheaders()
    response = connection.getresponse()
    error: dict[str, Any] = json.loads(response.read())
    connection.close()
    return response.status, error["error"]["type"]


def _connect(service: Service) -> http.client.HTTPConnection:
    address = urlsplit(service.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)


def _json(connection: http.client.HTTPConnection) -> dict[str, Any]:
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    value: dict[str, Any] = json.loads(content)
    return value


def _begin(service: Service) -> float:
    """Set the peak back to the present size, and return the time."""
    with open(f"/proc/{service.pid}/clear_refs", "w") as file:
        file.write("5")
    return time.monotonic()


def _memory(service: Service, name: str) -> int:
    """`VmRSS` or `VmHWM` of the service in bytes."""
    with open(f"/proc/{service.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
