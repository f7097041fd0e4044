"""The memory that one request takes in a real service process, for bodies of hostile shapes.

    python -m tests.checks.memory [MIB …]     every shape at these sizes, by default 0.5, 2, 8 and 31

The service relays to an engine in this process that reads a request, keeps none of it, and answers with one word. So
the request is read, parsed, converted, encoded, sent and dropped. The peak is `VmHWM` of the service, the rest `VmRSS`.
"""

import http.client
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tests.support.service import Service

MIB: Final = 1 << 20
PER_BYTE: Final = 6.0  # peak of extra memory, in bytes per byte of the body, beyond
FLOOR: Final = 64 * MIB  # … what the values of any body may take
KEPT_PER_BYTE: Final = 1.5  # extra memory after a minute, beyond
KEPT_FLOOR: Final = 32 * MIB  # … what allocators keep
SETTLE: Final = 60.0  # seconds

_HEAD: Final = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"Hi"}],'
_ANSWER: Final = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


def _tool(schema: Callable[[int], bytes]) -> Callable[[int], bytes]:
    head, tail = _HEAD + b'"tools":[{"name":"f","input_schema":', b"}]}"
    return lambda size: head + schema(size - len(head) - len(tail)) + tail


def _array(element: bytes) -> Callable[[int], bytes]:
    return lambda size: b'{"enum":[' + (element + b",") * ((size - 12) // (len(element) + 1)) + element + b"]}"


def _members(value: bytes) -> Callable[[int], bytes]:
    def members(size: int) -> bytes:
        count = size // (len(value) + 11)
        return b"{" + b",".join(b'"p%06d":%b' % (number, value) for number in range(count)) + b"}"

    return members


def _messages(message: bytes) -> Callable[[int], bytes]:
    head, tail = b'{"model":"m","max_tokens":1,"messages":[', b"]}"
    return lambda size: head + (message + b",") * ((size - len(head)) // (len(message) + 1) - 1) + message + tail


SHAPES: Final[dict[str, Callable[[int], bytes]]] = {
    "properties": _tool(_members(b"0")),
    "properties that are objects": _tool(_members(b'{"type":"string"}')),
    "an array of numbers": _tool(_array(b"0")),
    "an array of fractions": _tool(_array(b"0.1")),
    "empty arrays": _tool(_array(b"[]")),
    "tiny objects": _tool(_array(b'{"a":0}')),
    "tiny strings": _tool(_array(b'"ab"')),
    "deep values": _tool(_array(b"[" * 90 + b"]" * 90)),
    "deep objects": _tool(_array(b'{"a":' * 90 + b"0" + b"}" * 90)),
    "one long string": _tool(lambda size: b'{"description":"' + b"x" * (size - 18) + b'"}'),
    "one long key": _tool(lambda size: b'{"' + b"x" * (size - 6) + b'":0}'),
    "escapes": _tool(lambda size: b'{"description":"' + rb"\n\u0001" * ((size - 18) // 8) + b'"}'),
    "wide characters": _tool(lambda size: b'{"description":"' + "\N{GRINNING FACE}a".encode() * (size // 5) + b'"}'),
    "an unknown field": lambda size: _HEAD + b'"junk":' + _members(b"0")(size - len(_HEAD) - 8) + b"}",
    "an output schema": lambda size: (
        _HEAD + b'"output_config":{"format":{"type":"json_schema","schema":' + _members(b"0")(size - 150) + b"}}}"
    ),
    "small messages": _messages(b'{"role":"user","content":"Hello"}'),
    "tool calls": _messages(
        b'{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":0,"b":[1,2,3]}}]}'
    ),
    "long messages": _messages(b'{"role":"user","content":"' + b"Hello world. " * 1000 + b'"}'),
}


class Result(NamedTuple):
    """What one request took: sizes in bytes. `kept` is measured once it is low enough, or after `SETTLE` seconds."""

    body: int
    status: int
    peak: int
    kept: int

    def is_within_bounds(self) -> bool:
        """Whether the request was answered or refused within the bounds."""
        return (
            self.status in (200, 400, 413)
            and self.peak <= FLOOR + PER_BYTE * self.body
            and self.kept <= KEPT_FLOOR + KEPT_PER_BYTE * self.body
        )

    def __str__(self) -> str:
        return (
            f"{self.body / MIB:6.1f} MiB  {self.status}"
            f"  peak {self.peak / MIB:6.1f} MiB = {self.peak / self.body:5.1f} x"
            f"  kept {self.kept / MIB:6.1f} MiB = {self.kept / self.body:5.1f} x"
        )


class _Engine(http.server.BaseHTTPRequestHandler):
    """Reads a request, keeps nothing of it, and answers with one word."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._respond(b'{"object":"list","data":[{"id":"m","object":"model"}]}', "application/json")

    def do_POST(self) -> None:
        left = int(self.headers["content-length"])
        while left:
            left -= len(self.rfile.read(min(left, 65536)))
        self._respond(_ANSWER, "text/event-stream")

    def _respond(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def running_service() -> Iterator[Service]:
    """The service in front of the engine, after one small request."""
    engine = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Engine)
    thread = threading.Thread(target=engine.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{engine.server_address[1]}"
        options = ("--upstream", url, "--upstream-api", "chat", "--dialect", "openai", "--no-auth")
        with Service(*options) as service:
            _post(service, _HEAD[:-1] + b"}")
            yield service
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()


def measure(service: Service, body: bytes) -> Result:
    """Send the body and measure the memory that the service takes for it."""
    before = _memory(service, "VmRSS")
    with open(f"/proc/{service.pid}/clear_refs", "w") as file:
        file.write("5")  # sets VmHWM back to VmRSS
    status = _post(service, body)
    peak = _memory(service, "VmHWM") - before
    until = time.monotonic() + SETTLE
    while (kept := _memory(service, "VmRSS") - before) > KEPT_FLOOR + KEPT_PER_BYTE * len(body):
        if time.monotonic() > until:
            break
        threading.Event().wait(0.5)
    return Result(len(body), status, peak, kept)


def _post(service: Service, body: bytes) -> int:
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    try:
        connection.request("POST", "/v1/messages", body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _memory(service: Service, name: str) -> int:
    """`VmRSS` or `VmHWM` of the service in bytes."""
    with open(f"/proc/{service.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
