"""The log: its format, its levels, and values from outside that cannot forge a line."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.http import messages_app
from anthro_asgi.observability.log_writer import LogWriterHandler
from anthro_asgi.observability.logs import (
    JsonFormatter,
    RequestRecord,
    configure,
    log_event,
    log_failure,
    log_request,
)
from anthro_asgi.testing.driver import Driver

NASTY = 'a\nlevel=error "b" \r\x1b[31m\u2028\u0085\udc80\\'


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("anthro_asgi")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def record_of_a_request(**values: Any) -> RequestRecord:
    record = RequestRecord("POST", "/v1/messages", "req_1")
    for name, value in values.items():
        setattr(record, name, value)
    return record


def logged(style: Any, record: RequestRecord, level: Any = "info") -> str:
    stream = io.StringIO()
    configure(level, style, stream)
    log_request(record)
    return stream.getvalue()


def test_a_json_line_has_the_known_values_and_nothing_else() -> None:
    record = record_of_a_request(
        status=200,
        model="m",
        stream=True,
        stop_reason="end_turn",
        queued=0.5,
        ttft=0.1234567891,
        duration=1.5,
        input_tokens=3,
        output_tokens=0,
        cached_tokens=7,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    line = orjson.loads(logged("json", record))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "request",
        "method": "POST",
        "path": "/v1/messages",
        "request_id": "req_1",
        "status": 200,
        "model": "m",
        "stream": True,
        "stop_reason": "end_turn",
        "queued": 0.5,
        "ttft": 0.123457,
        "duration": 1.5,
        "input_tokens": 3,
        "output_tokens": 0,
        "cached_tokens": 7,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


def test_a_text_line_is_key_value_pairs() -> None:
    line = logged("text", record_of_a_request(status=200, model="my model", stream=False, client_left=True))
    assert line.split(" ", 1)[1] == (
        "INFO    event=request method=POST path=/v1/messages request_id=req_1 "
        'status=200 model="my model" stream=false client_left=true\n'
    )


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("field", ["path", "model", "error"])
def test_values_from_outside_cannot_forge_a_line_or_control_a_terminal(style: str, field: str) -> None:
    line = logged(style, record_of_a_request(**{field: NASTY}))
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if style == "json":
        assert orjson.loads(line)[field].startswith("a\\u000alevel=error")
    else:
        assert " level=error" not in line
        assert f'{field}="a\\\\u000alevel=error' in line


def test_a_value_from_outside_is_bounded() -> None:
    assert len(logged("json", record_of_a_request(model="x" * 100_000))) < 700


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({"status": 200}, "info"),
        ({"status": 400, "error_type": "invalid_request_error", "error": "messages: …"}, "info"),
        ({"status": 429, "error_type": "rate_limit_error"}, "info"),
        ({"status": 200, "client_left": True}, "info"),
        ({"status": 529, "error_type": "overloaded_error"}, "warning"),
        ({"status": 200, "error_type": "api_error"}, "warning"),
        ({"error_type": "api_error"}, "warning"),
    ],
)
def test_a_server_error_is_a_warning_and_a_client_error_is_not(values: Any, level: str) -> None:
    assert orjson.loads(logged("json", record_of_a_request(**values)))["level"] == level
    assert bool(logged("json", record_of_a_request(**values), "warning")) == (level == "warning")
    assert not logged("json", record_of_a_request(**values), "error")


def test_a_level_that_is_off_costs_no_formatting(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []

    def fields(_: RequestRecord) -> dict[str, Any]:
        touched.append("fields")
        return {}

    monkeypatch.setattr(RequestRecord, "fields", fields)
    assert not logged("json", record_of_a_request(status=200), "warning")
    assert not touched
    logged("json", record_of_a_request(status=200), "info")
    assert touched == ["fields"]


def test_an_embedding_application_gets_the_record_itself_and_a_text(caplog: pytest.LogCaptureFixture) -> None:
    record = record_of_a_request(status=200)
    with caplog.at_level(logging.INFO, "anthro_asgi"):
        log_request(record)
    assert caplog.records[0].msg is record
    assert caplog.messages == ["method=POST path=/v1/messages request_id=req_1 status=200"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_messages_of_other_loggers_have_the_same_format(style: Any) -> None:
    stream = io.StringIO()
    configure("info", style, stream)
    logging.getLogger("anthro_asgi.upstream").info("lost %s", "a\nb\udc80")
    line = stream.getvalue()
    assert line.count("\n") == 1
    if style == "json":
        assert orjson.loads(line)["message"] == "lost a\\u000ab\\udc80"
        assert orjson.loads(line)["logger"] == "anthro_asgi.upstream"
    else:
        assert 'event=log logger=anthro_asgi.upstream message="lost a\\\\u000ab\\\\udc80"\n' in line


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_exception_is_logged_by_type_and_place_without_its_message(style: Any) -> None:
    stream = io.StringIO()
    configure("info", style, stream)
    try:
        raise KeyError("a prompt \udc80")
    except KeyError:
        logging.getLogger("anthro_asgi").exception("bug")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "KeyError at " in text
    assert "test_logs.py:" in text
    assert "a prompt" not in text


def test_errors_of_the_event_loop_are_logged_without_callback_arguments() -> None:
    stream = io.StringIO()
    configure("info", "text", stream)
    loop = asyncio.new_event_loop()

    def add_one(prompt: Any) -> object:
        return prompt + 1

    loop.call_soon(add_one, "a prompt")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert 'message="Exception in callback ' in text
    assert "TypeError at " in text
    assert "a prompt" not in text


def test_uvicorn_is_logged_from_warning_on_and_fully_at_debug() -> None:
    stream = io.StringIO()
    below = logging.getLogger("uvicorn.error")
    configure("info", "text", stream)
    below.info("started")
    assert not stream.getvalue()
    below.warning("odd")
    assert "message=odd" in stream.getvalue()
    configure("debug", "text", stream)
    below.info("started")
    assert "message=started" in stream.getvalue()
    configure("error", "text", stream)
    below.warning("strange")
    assert "strange" not in stream.getvalue()


def test_an_unexpected_exception_is_logged_by_type_and_place_without_its_message() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise KeyError("what a client said")
    except KeyError as exc:
        log_failure("req_1", exc)
    line = orjson.loads(stream.getvalue())
    assert line["level"] == "error"
    assert line["message"].startswith("req_1: KeyError at ")
    assert "test_logs.py" in line["message"]
    assert "what a client said" not in stream.getvalue()


# the service's life


@pytest.mark.parametrize("style", ["json", "text"])
def test_an_event_of_the_service_is_one_line_with_its_name_and_values(style: Any) -> None:
    stream = io.StringIO()
    configure("info", style, stream)
    log_event("started", version="1.2", worker=3, spare=None, ready=True, after=0.12345678, engine=NASTY)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    if style == "json":
        values = orjson.loads(line)
        assert values.pop("time").endswith("Z")
        assert values.pop("engine").startswith("a\\u000alevel=error")
        assert values == {
            "level": "info",
            "event": "started",
            "version": "1.2",
            "worker": 3,
            "ready": True,
            "after": 0.123457,
        }
    else:
        assert " INFO    event=started version=1.2 worker=3 ready=true after=0.123457 engine=" in line
        assert " level=error" not in line


def test_an_event_has_a_level() -> None:
    stream = io.StringIO()
    configure("error", "json", stream)
    log_event("draining")
    assert not stream.getvalue()
    log_event("reload_failed", logging.ERROR, error="no such file")
    assert orjson.loads(stream.getvalue())["error"] == "no such file"


async def test_a_change_of_readiness_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moody:
        up = False

        async def stream(self, request: Any) -> Any:
            yield "a"

        async def ready(self) -> bool:
            return self.up

    caplog.set_level("INFO", logger="anthro_asgi")
    engine = Moody()
    app = MessagesApp(engine)
    monkeypatch.setattr(messages_app, "_READINESS_AGE", 0.0)
    for engine.up in (False, False, True, True, False):
        response = await Driver(app).request("GET", "/readyz")
        assert response.status == (200 if engine.up else 503)
    app.draining = True
    assert (await Driver(app).request("GET", "/readyz")).json() == {"status": "draining"}
    assert [line for line in caplog.messages if line.startswith("event=")] == [
        'event=not_ready reason="the engine does not answer"',
        "event=ready",
        'event=not_ready reason="the engine does not answer"',
        "event=not_ready reason=draining",
    ]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_successful_probe_is_logged_at_debug_only(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="anthro_asgi"):
        for status in (200, 503):
            log_request(RequestRecord("GET", path, "req_1", status=status))
        log_request(RequestRecord("GET", "/v1/models", "req_1", status=200))
    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO", "INFO"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_number_of_any_size_and_a_text_that_is_no_unicode_are_logged(style: Any) -> None:
    out = io.StringIO()
    configure("info", style, out)
    log_event("counted", tokens=10**30, below=-(10**30), text="a\ud800b")
    try:
        raise ValueError("a\ud800b")
    except ValueError as exc:
        log_failure("req_1", exc, debug=True)
    assert "1000000000000000000000000000000" in out.getvalue()
    assert "Traceback" in out.getvalue()
    if style == "json":
        assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == ["info", "error"]


def test_a_line_that_cannot_be_formatted_becomes_a_line_that_says_so() -> None:
    lines: list[bytes] = []
    handler = LogWriterHandler(SimpleNamespace(write_line=lines.append))  # type: ignore[arg-type]  # what it needs of it
    handler.setFormatter(JsonFormatter())
    handler.emit(logging.LogRecord("other", logging.INFO, "", 0, "%d files", ("three",), None))
    (line,) = map(json.loads, lines)
    assert (line["level"], line["message"]) == ("error", "a log line could not be formatted: TypeError")
