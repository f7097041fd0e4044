"""An OpenTelemetry collector: receives spans over OTLP/HTTP on a real socket and keeps them.

with Collector() as collector:
    collector.url, collector.spans
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span:
    """One span, with its attributes and those of its resource as plain values."""

    def __init__(self, resource: Any, span: Any) -> None:
        self.name: str = span.name
        self.kind: int = span.kind
        self.trace_id: str = span.trace_id.hex()
        self.span_id: str = span.span_id.hex()
        self.parent_id: str = span.parent_span_id.hex()
        self.state: str = span.trace_state
        self.status: int = span.status.code
        self.began: int = span.start_time_unix_nano
        self.ended: int = span.end_time_unix_nano
        self.events: dict[str, int] = {event.name: event.time_unix_nano for event in span.events}
        self.attributes = _plain(span.attributes)
        self.resource = _plain(resource.attributes)


class Collector:
    """See the module. With `silent` it accepts requests and never answers."""

    def __init__(self, *, silent: bool = False) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self._silent = silent
        self._leave = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                if collector._silent:
                    collector._leave.wait()
                    return
                assert self.path == "/v1/traces"
                collector._take(collector.bodies[-1])
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._leave.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                self.spans += [Span(resource_spans.resource, span) for span in scope_spans.spans]


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(one) for one in found.values] if kind == "array_value" else found
