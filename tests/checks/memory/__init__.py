"""The memory that one request takes in a real service process, for bodies of hostile shapes.

    python -m tests.checks.memory [--only WORDS] [MIB …]    every shape at these sizes, by default 0.5, 3, 12.5 and 32
    python -m tests.checks.memory --short                   some shapes of each kind, in half a minute

The service relays to an engine in this process that reads a request, keeps none of it, and answers with one word. So
the request is read, parsed, converted, encoded, sent and dropped. The peak is `VmHWM` of the service, the rest `VmRSS`.
A service has answered a smaller request of the same shape before, so that all code is loaded.
"""

import http.client
import http.server
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson

from tests.support.service import Service

MIB: Final = 1 << 20
PER_BYTE: Final = 6.0  # peak of extra memory, in bytes per byte of an accepted body
KEPT_PER_BYTE: Final = 1.5  # extra memory after a minute
KEPT: Final = 4 * MIB  # what may be kept of any body: Python gives memory back in arenas of 1 MiB
REFUSED: Final = 8 * MIB  # extra memory of a refused body, beyond `PER_BYTE`
SETTLE: Final = 60.0  # seconds
_WARM: Final = 300_000  # bytes
ONE_ARENA: Final = {"MALLOC_ARENA_MAX": "1"}
"""For `address_space`: glibc reserves address space for each thread, which it uses when no other is left."""
_NO_LIMIT: Final = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

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


def _input(value: Callable[[int], bytes]) -> Callable[[int], bytes]:
    head = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":['
    call, tail = b'{"type":"tool_use","id":"t","name":"f","input":', b"}]}]}"
    return lambda size: head + call + value(size - len(head) - len(call) - len(tail)) + tail


def _text(unit: bytes) -> bytes:
    return b'{"role":"user","content":"' + unit + b'"}'


def _result(content: Callable[[int], bytes]) -> Callable[[int], bytes]:
    head = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":['
    head += b'{"type":"tool_use","id":"t","name":"f","input":{}}]},{"role":"user","content":['
    result, tail = b'{"type":"tool_result","tool_use_id":"t","content":[', b"]}]}]}"
    return lambda size: head + result + content(size - len(head) - len(result) - len(tail)) + tail


def _blocks(block: bytes) -> Callable[[int], bytes]:
    return lambda size: b",".join([block] * max(1, size // (len(block) + 1)))


_TOOLS: Final = 1000
_TEXT_BLOCK: Final = b'{"type":"text","text":"' + b"Hello world. " * 12 + b'"}'
_FOLDED_BLOCK: Final = b'{"type":"connector_text","connector_text":"' + b"Hello world. " * 8 + b'"}'
_STRING_INPUT: Final = b'{"type":"tool_use","id":"t%06d","name":"f","input":"{\\"a\\":[' + b"[]," * 500 + b'0]}"}'
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
    "fields of metadata": lambda size: _HEAD + b'"metadata":{"user_id":"u","x":' + _members(b"0")(size - 200) + b"}}",
    "fields of the body": lambda size: _HEAD + _members(b"0")(size - len(_HEAD))[1:],
    "an input of properties": _input(_members(b"0")),
    "an input of empty arrays": _input(_array(b"[]")),
    "an input of deep values": _input(_array(b'{"a":' * 90 + b"0" + b"}" * 90)),
    "an input of text": _input(lambda size: b'{"t":"' + "\N{GRINNING FACE}abc def".encode() * (size // 11) + b'"}'),
    "an input that is JSON in a string": _input(
        lambda size: b'"{' + b'\\"a\\":[[],[]],' * ((size - 12) // 15) + b'\\"b\\":0}"'
    ),
    "inputs that are JSON in a string": lambda size: _messages(
        b'{"role":"assistant","content":[' + b",".join(_STRING_INPUT % number for number in range(size // 1600)) + b"]}"
    )(0),
    "tiny messages": _messages(_text(b"Hello")),
    "small messages": _messages(_text(b"Hello world. " * 12)),
    "small texts with an emoji": _messages(_text(b"Hello world. " * 15 + "\N{GRINNING FACE}".encode())),
    "long texts with an emoji": _messages(_text(b"Hello world. " * 5000 + "\N{GRINNING FACE}".encode())),
    "one text with an emoji": lambda size: _messages(_text(b"x" * (size - 200) + "\N{GRINNING FACE}".encode()))(100),
    "two texts with an emoji": lambda size: _messages(
        b'{"role":"user","content":[%b,%b]}'
        % ((b'{"type":"text","text":"' + b"x" * (size // 2 - 200) + "\N{GRINNING FACE}".encode() + b'"}',) * 2)
    )(100),
    "small blocks": lambda size: _messages(
        b'{"role":"user","content":[' + b",".join([b'{"type":"text","text":"Hello"}'] * (size // 32)) + b"]}"
    )(100),
    "blocks of a message": lambda size: _messages(b'{"role":"user","content":[' + _blocks(_TEXT_BLOCK)(size) + b"]}")(
        0
    ),
    "blocks of an answer": lambda size: _messages(
        b'{"role":"assistant","content":[' + _blocks(_TEXT_BLOCK)(size) + b"]}"
    )(0),
    "blocks of a tool result": _result(_blocks(_TEXT_BLOCK)),
    "blocks of a document": lambda size: _messages(
        b'{"role":"user","content":[{"type":"document","source":{"type":"content","content":['
        + _blocks(_TEXT_BLOCK)(size)
        + b"]}}]}"
    )(0),
    "blocks of the system prompt": lambda size: _HEAD + b'"system":[' + _blocks(_TEXT_BLOCK)(size) + b"]}",
    "folded blocks": lambda size: _messages(b'{"role":"assistant","content":[' + _blocks(_FOLDED_BLOCK)(size) + b"]}")(
        0
    ),
    "tools": lambda size: (
        _HEAD
        + b'"tools":['
        + b",".join(
            b'{"name":"f%d","description":"%b","input_schema":{"type":"object","properties":{"a":{"type":"string"}}}}'
            % (number, b"x" * (size // _TOOLS - 85))
            for number in range(_TOOLS)
        )
        + b"]}"
    ),
    "tools that can be searched": lambda size: (
        _HEAD
        + b'"tools":[{"type":"tool_search_tool_bm25_20251119","name":"tool_search_tool_bm25"},'
        + b",".join(
            b'{"name":"f%d","defer_loading":true,"description":"%b","input_schema":{"type":"object"}}'
            % (number, b"placeholder " * (size // _TOOLS // 12 - 6))
            for number in range(_TOOLS)
        )
        + b"]}"
    ),
    "tiny tool calls": _messages(
        b'{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":0,"b":[1,2,3]}}]}'
    ),
    "tool calls": _messages(
        b'{"role":"assistant","content":[{"type":"tool_use","id":"toolu_0123456789abcdef","name":"read","input":'
        b'{"path":"/a/path/of/some/length.py","limit":100}}]},{"role":"user","content":[{"type":"tool_result",'
        b'"tool_use_id":"toolu_0123456789abcdef","content":"' + b"A line of the file.\\n" * 40 + b'"}]}'
    ),
    "folded messages": _messages(
        b'{"role":"assistant","content":[{"type":"connector_text","connector_text":"' + b"Hello world. " * 30 + b'"}]}'
    ),
    "images": _messages(
        b'{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"'
        + b"aGVsbG8g" * 4000
        + b'"}}]}'
    ),
    "one image": lambda size: _messages(
        b'{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"'
        + b"aGVsbG8g" * ((size - 300) // 8)
        + b'"}}]}'
    )(100),
    "long messages": _messages(_text(b"Hello world. " * 1000)),
    "a large integer and text": lambda size: (
        _messages(_text(b"x" * 3000))(size - 40)[:-1] + b',"seed":18446744073709551617}'
    ),
    "invalid at its end": lambda size: _tool(_array(b"[]"))(size)[:-1],
}


SHORT: Final = (
    "properties",
    "an input of deep values",
    "one text with an emoji",
    "one image",
    "small messages",
    "invalid at its end",
)
"""Of each kind, those that take most."""


class Result(NamedTuple):
    """What one request took: sizes in bytes. `kept` is measured once it is low enough, or after `SETTLE` seconds."""

    body: int
    status: int
    peak: int
    kept: int

    def is_within_bounds(self) -> bool:
        """Whether the request was answered or refused within the bounds."""
        return self.is_peak_within_bounds() and self.is_returned()

    def is_peak_within_bounds(self) -> bool:
        """Whether the request was answered or refused, and took no more memory than it may."""
        return self.status in (200, 400, 413) and self.peak <= self._beyond + PER_BYTE * self.body

    def is_returned(self) -> bool:
        """Whether its memory has been given back."""
        return self.kept <= max(KEPT, self._beyond + KEPT_PER_BYTE * self.body)

    @property
    def _beyond(self) -> int:
        return 0 if self.status == 200 else REFUSED

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
def running_service(shape: str, *options: str, may_log_errors: bool = False, **variables: str) -> Iterator[Service]:
    """The service in front of the engine, after some requests of the shape."""
    engine = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Engine)
    thread = threading.Thread(target=engine.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{engine.server_address[1]}"
        dialect = () if "--upstream-api" in options else ("--upstream-api", "chat", "--dialect", "openai")
        options = ("--upstream", url, "--no-auth", "--max-body", "48MiB", *dialect, *options)
        with Service(*options, may_log_errors=may_log_errors, environ=variables) as service:
            for _ in range(3):
                post(service, SHAPES[shape](_WARM))
            yield service
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()


def measure(service: Service, body: bytes, settle: float = SETTLE) -> Result:
    """Send the body and measure the memory that the service takes for it. `settle` is in seconds."""
    before = _memory(service, "VmRSS")
    with open(f"/proc/{service.pid}/clear_refs", "w") as file:
        file.write("5")  # sets VmHWM back to VmRSS
    status, _ = post(service, body)
    peak = _memory(service, "VmHWM") - before
    until = time.monotonic() + settle
    while True:
        result = Result(len(body), status, peak, _memory(service, "VmRSS") - before)
        if result.is_returned() or time.monotonic() >= until:
            return result
        threading.Event().wait(0.5)


def post(service: Service, body: bytes) -> tuple[int, Any]:
    """The status and the JSON of the answer. (0, None) if the service closed the connection while the body was sent."""
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=300)
    try:
        connection.request("POST", "/v1/messages", body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    except (BrokenPipeError, ConnectionResetError):
        return 0, None
    finally:
        connection.close()


@contextmanager
def address_space(service: Service, more: int) -> Iterator[None]:
    """Within the block the service may map `more` bytes than it has now."""
    resource.prlimit(service.pid, resource.RLIMIT_AS, (_memory(service, "VmSize") + more, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_AS, _NO_LIMIT)


def _memory(service: Service, name: str) -> int:
    """`VmRSS`, `VmHWM` or `VmSize` of the service in bytes."""
    with open(f"/proc/{service.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
