"""Spans as a real collector receives them over OTLP: their attributes, their trace, and that they hold no content."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv.attributes import error_attributes, url_attributes

from anthro_asgi import Finish, MessagesApp, Usage
from anthro_asgi.observability import otel
from anthro_asgi.observability.logs import LogEvent
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.wire.errors import BadUpstream
from tests.http.test_message_response import app_of, body
from tests.observability.test_trace_context import ID, PARENT
from tests.support.client import ask
from tests.support.collector import Collector, Span
from tests.support.service import ROOT, Service

SERVER, UNSET, ERROR = 2, 0, 2  # as OTLP numbers them


@pytest.fixture(autouse=True)
def _nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


async def answered(app: MessagesApp, path: str = "/v1/messages", method: str = "POST", **how: Any) -> Response:
    """The answer to one request of an application that has started and stopped."""
    driver = Driver(app)
    async with driver.lifespan():
        return await driver.request(method, path, **how)


def only_span(collector: Collector) -> Span:
    (span,) = collector.spans
    return span


# attributes


async def test_a_span_has_the_attributes_of_request_and_result(collector: Collector) -> None:
    app = app_of(Usage(11, None, 5), "Hello", Usage(output_tokens=7), Finish("end_turn"))
    asked = body(stream=True, max_tokens=50, temperature=0.5, top_p=0.25, top_k=4)
    response = await answered(app, "/messages", body=asked)
    span = only_span(collector)
    assert (span.name, span.kind, span.status) == ("chat m", SERVER, UNSET)
    said = span.attributes
    assert 0 <= said.pop("gen_ai.response.time_to_first_chunk") < 5
    assert 0 <= said.pop("anthro_asgi.queue_wait") < 5
    assert said == {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "url.path": "/messages",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.25,
        "gen_ai.request.top_k": 4,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 16,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
        "anthro_asgi.request_id": response.header("request-id"),
    }


async def test_every_attribute_without_our_prefix_is_in_the_conventions(collector: Collector) -> None:
    asked = body(stream=True, temperature=0.5, top_p=0.5, top_k=1)
    await answered(app_of(Usage(1, 2, 3), "a", BadUpstream("gone")), body=asked)
    known = {
        value
        for module in (gen_ai_attributes, http_attributes, error_attributes, url_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    said = {name for name in only_span(collector).attributes if not name.startswith("anthro_asgi.")}
    assert said <= known
    assert len(said) > 10


async def test_the_first_token_is_an_event_within_the_span(collector: Collector) -> None:
    app = app_of(lambda: asyncio.sleep(0.05), "a", lambda: asyncio.sleep(0.05), "b", Finish("end_turn"))
    await answered(app, body=body())
    span = only_span(collector)
    first = span.events["first token"]
    assert span.began + 45_000_000 < first < span.ended - 45_000_000


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_of_service_or_engine_is_an_error_status(stream: bool, collector: Collector) -> None:
    await answered(app_of("a", BadUpstream("gone")), body=body(stream=stream))
    span = only_span(collector)
    assert span.status == ERROR
    assert span.attributes["error.type"] == "api_error"
    assert span.attributes["http.response.status_code"] == (200 if stream else 502)


async def test_a_client_error_is_recorded_without_an_error_status(collector: Collector) -> None:
    await answered(app_of("a", Finish("end_turn")), body=b"{")
    span = only_span(collector)
    assert (span.name, span.status) == ("POST /v1/messages", UNSET)
    assert span.attributes["error.type"] == "invalid_request_error"
    assert span.attributes["http.response.status_code"] == 400


async def test_a_client_that_disconnects_is_an_event_of_the_span(collector: Collector) -> None:
    driver = Driver(app_of("a", asyncio.Event().wait))
    async with driver.lifespan(), driver.open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        await exchange.chunk()
        exchange.disconnect()
    span = only_span(collector)
    assert span.status == UNSET
    assert set(span.events) == {"first token", "client left"}


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/messages/count_tokens", "count_tokens m"),
        ("GET", "/v1/models", "GET /v1/models"),
        ("GET", "/models/a/b", "GET /v1/models/{id}"),
        ("BREW", "/v1/models", "_OTHER /v1/models"),
    ],
)
async def test_other_routes_have_a_bounded_set_of_span_names(
    method: str, path: str, name: str, collector: Collector
) -> None:
    await answered(app_of("a", Finish("end_turn")), path, method, body=body() if method == "POST" else b"")
    assert only_span(collector).name == name


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/nowhere"])
async def test_probes_and_unknown_paths_have_no_spans(path: str, collector: Collector) -> None:
    await answered(app_of("a", Finish("end_turn")), path, "GET")
    assert collector.spans == []


async def test_no_content_is_in_a_span(collector: Collector) -> None:
    asked = body(
        messages=[{"role": "user", "content": "secret prompt"}],
        system="secret system",
        stop_sequences=["secret stop"],
        metadata={"user_id": "secret user"},
        tools=[{"name": "secret_tool", "input_schema": {"type": "object"}}],
    )
    app = app_of("secret answer", BadUpstream("secret reason"))
    app.replace_keys(["secret-key"])
    response = await answered(app, body=asked, headers=[("x-api-key", "secret-key")])
    assert response.status == 502
    assert collector.bodies
    assert b"secret" not in b"".join(collector.bodies)


# the trace they belong to


def is_sampled(trace: dict[str, str]) -> bool:
    """One of the flags, of which there may be others."""
    return bool(int(trace["traceparent"][-2:], 16) & 1)


def engine_and_its_trace() -> tuple[MessagesApp, list[dict[str, str]]]:
    seen: list[dict[str, str]] = []

    async def engine(request: Any) -> Any:
        seen.append(dict(request.trace_headers))
        yield "a"

    return MessagesApp(engine), seen


async def test_a_span_is_the_child_of_the_clients_span_and_the_parent_of_the_engines(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    app, seen = engine_and_its_trace()
    await answered(app, body=body(), headers=[("traceparent", PARENT), ("tracestate", "a=1,b=2")])
    span = only_span(collector)
    assert (span.trace_id, span.parent_id, span.state) == (ID, PARENT.split("-")[2], "a=1,b=2")
    assert seen == [{"traceparent": f"00-{ID}-{span.span_id}-01", "tracestate": "a=1,b=2"}]
    assert any(f"trace_id={ID}" in line for line in caplog.messages)


async def test_a_request_without_a_trace_starts_one(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    app, seen = engine_and_its_trace()
    await answered(app, body=body(), headers=[("traceparent", PARENT.replace(ID, "0" * 32))])
    span = only_span(collector)
    assert span.parent_id == ""
    assert seen[0].keys() == {"traceparent"}
    assert seen[0]["traceparent"].startswith(f"00-{span.trace_id}-{span.span_id}-")
    assert is_sampled(seen[0])
    assert any(f"trace_id={span.trace_id}" in line for line in caplog.messages)


async def test_an_unsampled_trace_is_not_recorded(collector: Collector) -> None:
    app, seen = engine_and_its_trace()
    await answered(app, body=body(), headers=[("traceparent", PARENT[:-2] + "00")])
    assert collector.spans == []
    assert seen[0]["traceparent"].startswith(f"00-{ID}-")
    assert seen[0]["traceparent"].endswith("-00")


async def test_the_sampler_comes_from_the_environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    app, seen = engine_and_its_trace()
    await answered(app, body=body())
    assert collector.spans == []
    assert not is_sampled(seen[0])


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "anthro-asgi"),
        ({"OTEL_SERVICE_NAME": "gateway"}, "gateway"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge,zone=a"}, "edge"),
    ],
)
async def test_the_service_name_comes_from_the_environment(
    environ: dict[str, str], name: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    await answered(app_of("a", Finish("end_turn")), body=body())
    resource = only_span(collector).resource
    assert resource["service.name"] == name
    assert resource["service.version"]


# configuration


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": " "}, []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
            | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ["otlp_proto_grpc"],
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, ["otlp_proto_http"]),
    ],
)
def test_the_standard_variables_choose_the_exporters(environ: dict[str, str], names: list[str]) -> None:
    assert otel.exporters(environ) == names


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [record.msg.fields() for record in caplog.records if isinstance(record.msg, LogEvent)]


async def test_a_missing_exporter_is_one_log_line_and_the_service_still_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    assert (await answered(app_of("a", Finish("end_turn")), body=body())).status == 200
    (line,) = told(caplog)
    assert line["event"] == "traces_disabled"
    assert "pigeon" in str(line["error"])


WITHOUT = """
import asyncio, sys
sys.modules["opentelemetry.sdk"] = None
from anthro_asgi import MessagesApp
from anthro_asgi.observability.logs import configure
from anthro_asgi.testing.driver import Driver

configure("info", "json")

async def engine(request):
    print(request.trace_headers)
    yield "Hello"

async def main():
    driver = Driver(MessagesApp(engine))
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}'
    async with driver.lifespan():
        await driver.request("POST", "/v1/messages", body=body, headers=[("traceparent", sys.argv[1])])

asyncio.run(main())
"""


@pytest.mark.slow
def test_without_the_extra_one_log_line_names_it_and_the_trace_is_forwarded() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, PARENT],
        env={"OTEL_TRACES_EXPORTER": "console", "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{(('traceparent', PARENT),)}\n"
    lines = [orjson.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["traces_disabled", "request"]
    assert "anthro-asgi[otel]" in lines[0]["remedy"]


# the process


@contextmanager
def serving(collector: Collector, *options: str) -> Iterator[Service]:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with Service("--simulate", "--simulate-ttft", "0", "--simulate-itl", "0", *options, environ=environ) as service:
        yield service


@pytest.mark.slow
def test_each_worker_exports_its_spans_including_the_last_ones_at_its_stop() -> None:
    with Collector() as collector:
        with serving(collector, "--workers", "2") as service:
            for _ in range(40):
                assert ask(service.url).status == 200
        assert len(collector.spans) == 40
        assert len({span.resource["process.pid"] for span in collector.spans}) == 2
        assert len({span.span_id for span in collector.spans}) == 40


@pytest.mark.slow
def test_an_unresponsive_collector_delays_neither_requests_nor_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otel, "_PATIENCE", 0.2)

    async def run() -> None:
        response = await answered(app_of("a", Finish("end_turn")), body=body())
        assert response.status == 200

    with Collector(silent=True) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds, after which the exporter gives up for itself
        asyncio.run(asyncio.wait_for(run(), 3))
        (last,) = (thread for thread in threading.enumerate() if thread.name == "last spans")
        last.join(10)
        assert not last.is_alive()
    assert [line["event"] for line in told(caplog)] == ["spans_lost"]


@pytest.mark.slow
def test_the_console_exporter_prints_spans() -> None:
    script = WITHOUT.replace('sys.modules["opentelemetry.sdk"] = None', "")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, PARENT],
        env={"OTEL_TRACES_EXPORTER": "console", "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    span = orjson.loads(done.stdout.partition("\n")[2])
    assert span["name"] == "chat m"
    assert span["context"]["trace_id"] == f"0x{ID}"
