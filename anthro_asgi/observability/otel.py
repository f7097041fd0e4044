"""OpenTelemetry spans (extra `otel`): one for each request on `/v1/…`, when the standard environment variables ask.

    OTEL_TRACES_EXPORTER=otlp|console|…      or an endpoint: OTEL_EXPORTER_OTLP_ENDPOINT, …_TRACES_ENDPOINT
    OTEL_SDK_DISABLED, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…, …      as the SDK has them

A SERVER span by the conventions for generative AI and for HTTP; it has names, numbers and reasons, and never content.
It begins with the request, so that its id can go to the engine, and is filled when that is over: no token costs more.

The exporter's thread must not be there when workers are forked, so all of this is made when the application starts.
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
from .trace_context import Fields, Headers, Trace, Tracer, parse_trace_headers
from .version import version

_GROUP: Final = "opentelemetry_traces_exporter"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc", "http/json": "otlp_json_http"}
_PATIENCE: Final = 5.0  # seconds for what is still to be exported at the end
_OPERATIONS: Final = {"/v1/messages": "chat", "/v1/messages/count_tokens": "count_tokens"}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
_LONGEST: Final = 100  # characters of a model in the name of a span


def tracer_for(environ: Mapping[str, str], route: Callable[[str], str]) -> Tracer:
    """The tracer that the environment asks for. `route` names a path. What is missing is told in one log line."""
    names = exporters(environ)
    if not names:
        return Tracer()
    try:
        return SpanTracer([_load(name) for name in names], route)
    except ImportError as exc:
        log_event(
            "no_traces", logging.ERROR, exporter=",".join(names), error=str(exc), remedy="install anthro-asgi[otel]"
        )
    except Exception as exc:  # an exporter that makes nothing of its settings
        log_event("no_traces", logging.ERROR, exporter=",".join(names), error=f"{type(exc).__name__}: {exc}")
    return Tracer()


def exporters(environ: Mapping[str, str]) -> list[str]:
    """The names of the entry points of those that are asked for."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not asked and any(environ.get(name) for name in _ENDPOINTS):
        asked = "otlp"
    protocol = next((environ[name].strip() for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    names = [name.strip() for name in asked.split(",")]
    return [_OTLP.get(protocol, protocol) if name == "otlp" else name for name in names if name not in ("", "none")]


def _load(name: str) -> Any:
    """Raises ImportError when no such exporter is installed."""
    from importlib.metadata import entry_points

    for found in entry_points(group=_GROUP, name=name):
        return found.load()
    raise ImportError(f"no exporter {name!r} is installed")


class SpanTracer(Tracer):
    """Makes a span of each request, as part of the trace that it came with. Raises ImportError without the SDK."""

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
        self._tracer = self._provider.get_tracer("anthro_asgi", version())

    def begin(self, record: RequestRecord, headers: Headers) -> Trace:
        came = parse_trace_headers(headers)
        route = self._route(record.path)
        if not route.startswith("/v1/"):
            return came
        attributes = {
            "http.request.method": record.method if record.method in _METHODS else "_OTHER",
            "http.route": route,
            "url.path": clean(record.path),
            "gen_ai.provider.name": "anthropic",  # whose API it is; no name is set for those who imitate it
            "anthro_asgi.request_id": record.request_id,
        }
        if route in _OPERATIONS:
            attributes["gen_ai.operation.name"] = _OPERATIONS[route]
        span = self._tracer.start_span(
            f"{attributes['http.request.method']} {route}",
            self._propagator.extract(dict(came.headers)),
            self._api.SpanKind.SERVER,
            attributes,
        )
        return SpanTrace(span, self._sent_on(span), _OPERATIONS.get(route), self._api)

    def _sent_on(self, span: Any) -> Fields:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._api.set_span_in_context(span))
        return tuple(carrier.items())

    async def stop(self) -> None:
        """Export what is left, for some seconds at the most: a collector that is away must not keep us."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, daemon=True, name="last spans").start()
        try:
            async with asyncio.timeout(_PATIENCE):
                await done.wait()
        except TimeoutError:
            log_event("traces_left", logging.WARNING, seconds=_PATIENCE)


def _resource() -> Any:
    """What the environment says of this process; its name is ours unless that gives another."""
    from opentelemetry.sdk.resources import Resource

    known = Resource.create({"service.version": version(), "process.pid": os.getpid()})
    if str(known.attributes.get("service.name", "")).startswith("unknown_service"):
        known = known.merge(Resource({"service.name": "anthro-asgi"}))
    return known


class SpanTrace(Trace):
    """A request's span. `headers` name it as the parent of what the engine does."""

    __slots__ = ("_api", "_operation", "_read_at", "_span")

    def __init__(self, span: Any, headers: Fields, operation: str | None, api: Any) -> None:
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
        given = None if record.input_tokens is None else record.input_tokens + (record.cached_tokens or 0)
        self._set(
            {
                "http.response.status_code": record.status,
                "gen_ai.response.finish_reasons": (record.stop_reason,) if record.stop_reason else None,
                "gen_ai.response.time_to_first_chunk": record.ttft,
                "gen_ai.usage.input_tokens": given,  # cached ones too, by the conventions
                "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
                "gen_ai.usage.output_tokens": record.output_tokens,
                "anthro_asgi.queue_wait": record.queued,
                "error.type": record.error_type,
            }
        )
        if record.error_type is not None and not 400 <= (record.status or 0) < 500:  # those are the client's
            self._span.set_status(self._api.StatusCode.ERROR)
        self._span.end()

    def _set(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})
