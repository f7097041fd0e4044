"""OpenTelemetry spans (extra `otel`): one for each request on `/v1/…`, if the standard environment variables say so.

    OTEL_TRACES_EXPORTER=otlp|console|…      or an endpoint: OTEL_EXPORTER_OTLP_ENDPOINT, …_TRACES_ENDPOINT
    OTEL_SDK_DISABLED, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…, …      as the SDK defines them

Each is a SERVER span with the attributes of the semantic conventions for generative AI and HTTP: names, numbers and
reasons, never content. It starts with the request, so that its id can go to the engine, and gets its attributes at the
end of the request: a token costs nothing more.

The exporter has a thread, which must not exist when workers are forked. So all of this is made when the application
starts.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from ..wire.request import MessagesRequest
from .logs import RequestRecord, clean, log_event
from .trace_context import RequestHeaders, Trace, TraceHeaders, Tracer, parse_trace_headers
from .version import VERSION

_GROUP: Final = "opentelemetry_traces_exporter"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc", "http/json": "otlp_json_http"}
_PATIENCE: Final = 5.0  # seconds for the last export when the application stops
_OPERATIONS: Final = {"/v1/messages": "chat", "/v1/messages/count_tokens": "count_tokens"}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
_LONGEST: Final = 100  # characters of a model name in the name of a span


def tracer_for(environ: Mapping[str, str], route: Callable[[str], str]) -> Tracer:
    """The tracer that `environ` configures. `route` maps a path to its route. A failure is one line in the log."""
    names = exporters(environ)
    if not names:
        return Tracer()
    try:
        return SpanTracer([_load(name) for name in names], route)
    except ImportError as exc:
        remedy = "install anthro-asgi[otel]"
        log_event("traces_disabled", logging.ERROR, exporter=",".join(names), error=str(exc), remedy=remedy)
    except Exception as exc:  # an exporter rejects its settings
        log_event("traces_disabled", logging.ERROR, exporter=",".join(names), error=f"{type(exc).__name__}: {exc}")
    return Tracer()


def exporters(environ: Mapping[str, str]) -> list[str]:
    """The entry point names of the configured exporters."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    configured = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not configured and any(environ.get(name) for name in _ENDPOINTS):
        configured = "otlp"
    protocol = next((environ[name].strip() for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    names = [name.strip() for name in configured.split(",")]
    return [_OTLP.get(protocol, protocol) if name == "otlp" else name for name in names if name not in ("", "none")]


def _load(name: str) -> Any:
    """Raises ImportError when no such exporter is installed."""
    from importlib.metadata import entry_points

    for found in entry_points(group=_GROUP, name=name):
        return found.load()
    raise ImportError(f"the exporter {name!r} is not installed")


class SpanTracer(Tracer):
    """Records a span for each request, in the trace that its headers name. Raises ImportError without the SDK."""

    def __init__(self, exporters: Iterable[Any], route: Callable[[str], str]) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as exc:
            raise ImportError("the OpenTelemetry SDK is not installed") from exc
        self._api = trace
        self._route = route
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter()))
        self._tracer = self._provider.get_tracer("anthro_asgi", VERSION)

    def begin(self, record: RequestRecord, headers: RequestHeaders) -> Trace:
        incoming = parse_trace_headers(headers)
        route = self._route(record.path)
        if not route.startswith("/v1/"):
            return incoming
        attributes = {
            "http.request.method": record.method if record.method in _METHODS else "_OTHER",
            "http.route": route,
            "url.path": clean(record.path),
            "gen_ai.provider.name": "anthropic",  # the conventions have no name for a service that implements this API
            "anthro_asgi.request_id": record.request_id,
        }
        if route in _OPERATIONS:
            attributes["gen_ai.operation.name"] = _OPERATIONS[route]
        span = self._tracer.start_span(
            f"{attributes['http.request.method']} {route}",
            self._propagator.extract(dict(incoming.headers)),
            self._api.SpanKind.SERVER,
            attributes,
        )
        return SpanTrace(span, self._outgoing(span), _OPERATIONS.get(route), self._api)

    def _outgoing(self, span: Any) -> TraceHeaders:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._api.set_span_in_context(span))
        return tuple(carrier.items())

    async def stop(self) -> None:
        """Export the last spans, for at most _PATIENCE seconds: an unreachable collector must not delay the stop."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(done.set)

        try:
            threading.Thread(target=shut_down, daemon=True, name="last spans").start()
            async with asyncio.timeout(_PATIENCE):
                await done.wait()
        except (TimeoutError, RuntimeError):  # RuntimeError: the system has no thread left
            log_event("spans_lost", logging.WARNING, seconds=_PATIENCE)


def _resource() -> Any:
    """The resource attributes from the environment. The default service name is `anthro-asgi`."""
    from opentelemetry.sdk.resources import Resource

    known = Resource.create({"service.version": VERSION, "process.pid": os.getpid()})
    if str(known.attributes.get("service.name", "")).startswith("unknown_service"):
        known = known.merge(Resource({"service.name": "anthro-asgi"}))
    return known


class SpanTrace(Trace):
    """The span of one request. `headers` name it as the parent of the engine's spans."""

    __slots__ = ("_api", "_operation", "_read_at", "_span")

    def __init__(self, span: Any, headers: TraceHeaders, operation: str | None, api: Any) -> None:
        super().__init__(f"{span.get_span_context().trace_id:032x}", headers)
        self._span = span
        self._operation = operation
        self._api = api
        self._read_at = 0  # in Unix nanoseconds

    def request_parsed(self, request: MessagesRequest) -> None:
        self._read_at = time.time_ns()
        model = clean(request.model)
        self._span.update_name(f"{self._operation} {model[:_LONGEST]}")
        self._set(
            {
                "gen_ai.request.model": model,
                "gen_ai.request.max_tokens": request.max_tokens,
                "gen_ai.request.temperature": request.temperature,
                "gen_ai.request.top_p": request.top_p,
                "gen_ai.request.top_k": request.top_k,
                "gen_ai.request.stream": request.stream,
            }
        )

    def ended(self, record: RequestRecord) -> None:
        if record.ttft is not None:
            self._span.add_event("first token", timestamp=self._read_at + int(record.ttft * 1e9))
        if record.client_left:
            self._span.add_event("client left")
        input_tokens = None if record.input_tokens is None else record.input_tokens + (record.cached_tokens or 0)
        self._set(
            {
                "http.response.status_code": record.status,
                "gen_ai.response.finish_reasons": (record.stop_reason,) if record.stop_reason else None,
                "gen_ai.response.time_to_first_chunk": record.ttft,
                "gen_ai.usage.input_tokens": input_tokens,  # by the conventions, including cached tokens
                "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
                "gen_ai.usage.output_tokens": record.output_tokens,
                "anthro_asgi.queue_wait": record.queued,
                "error.type": record.error_type,
            }
        )
        if record.error_type is not None and not 400 <= (record.status or 0) < 500:  # 4xx is the client's error
            self._span.set_status(self._api.StatusCode.ERROR)
        self._span.end()

    def _set(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})
