"""A failed answer can be explained: from its log lines, its metrics, its bytes, and in a debugger.

Each test runs the whole application over a scripted upstream, or over an engine with a bug.
"""

import logging
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import orjson
import pytest

import anthro_asgi
from anthro_asgi import EngineFailed, InternalError, MessagesApp, MessagesRequest
from anthro_asgi.conformance.grammar import parse_events
from anthro_asgi.engines.shared.upstream_errors import EngineReport
from anthro_asgi.http.http_request import HttpRequest
from anthro_asgi.observability.logs import JsonFormatter, RequestRecord, TextFormatter
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.errors import Broken, Timeout
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.upstream.pool import Deadlines
from anthro_asgi.wire.errors import ApiError, BadUpstream, UpstreamTimeout
from tests.support.chat_requests import request
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer
from tests.support.upstream_engines import SPEECHES, Speech, both_engines, over, said, stream

SENTENCE: Final = "out of memory while reading 'my secret diary'"
BODY: Final = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
PACKAGE: Final = Path(anthro_asgi.__file__).parent
METRIC: Final = "anthro_asgi_upstream_errors_total"


def begun(speech: Speech, *events: bytes) -> bytes:
    return stream(speech.begin(), speech.text("a"), *events)


def error_chunk(speech: Speech) -> Answer:
    if speech is SPEECHES["chat"]:
        event: dict[str, Any] = {"error": {"message": SENTENCE, "code": 500}}
    else:
        event = {"type": "error", "error": {"type": "api_error", "message": SENTENCE}}
    return begun(speech, b"data: " + orjson.dumps(event) + b"\n\n")


def bad_body(speech: Speech) -> Answer:
    return begun(speech, b"data: {" + SENTENCE.encode() + b"\n\n")


def severed(speech: Speech) -> Answer:
    async def answer(wire: Wire) -> None:
        await wire.send(begun(speech).removesuffix(b"0\r\n\r\n"))
        wire.close()

    return answer


def cut(speech: Speech) -> Answer:
    return begun(speech)


def silent(speech: Speech) -> Answer:
    async def answer(wire: Wire) -> None:
        await wire.send(begun(speech).removesuffix(b"0\r\n\r\n"))
        await wire.gone()

    return answer


@dataclass(frozen=True)
class Explained:
    """What one failure has to be in each place. `cause` is the class of the `__cause__`, None without one."""

    error: type[ApiError]
    reason: str
    kind: str
    error_type: str
    message: str
    cause: type[BaseException] | None


FAILURES: Final = {
    error_chunk: Explained(
        EngineFailed, "stream_error", "stream_error", "api_error", "the engine failed", EngineReport
    ),
    bad_body: Explained(
        BadUpstream,
        "invalid_response",
        "invalid_response",
        "api_error",
        "the engine sent .* that is not JSON",
        orjson.JSONDecodeError,
    ),
    severed: Explained(BadUpstream, "broken", "broken", "api_error", "the connection to the engine broke", Broken),
    cut: Explained(
        BadUpstream,
        "ended_early",
        "ended_early",
        "api_error",
        "the engine ended its response before the answer was complete",
        None,
    ),
    silent: Explained(
        UpstreamTimeout, "timeout_silence", "timeout_silence", "timeout_error", "the engine took too long", Timeout
    ),
}
each_failure = pytest.mark.parametrize(("fails", "due"), FAILURES.items(), ids=[answer.__name__ for answer in FAILURES])


@dataclass
class Outcome:
    """One answer: its bytes, its request record, all log records, and the failures that were counted."""

    request_id: str
    body: bytes
    record: RequestRecord
    logged: list[logging.LogRecord]
    counted: dict[str, float]
    bugs: float

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """The values of the log events with this name."""
        args = [record.args for record in self.logged if str(record.msg).partition(" ")[0] == name]
        return [values for values in args if isinstance(values, Mapping)]


def counts(app: MessagesApp) -> tuple[dict[str, float], float]:
    """The upstream errors by kind, and the bugs."""
    lines = app.metrics.exposition()[0].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    kinds = {name.split('"')[1]: float(value) for name, value in values.items() if name.startswith(METRIC + "{")}
    bugs = float(values["anthro_asgi_internal_errors_total"])
    return {kind: value for kind, value in kinds.items() if value}, bugs


async def asked(app: MessagesApp, caplog: pytest.LogCaptureFixture, **changes: Any) -> Outcome:
    caplog.clear()
    body = orjson.dumps({**BODY, **changes})
    response = await Driver(app).request("POST", "/v1/messages", body=body)
    (record,) = (line.msg for line in caplog.records if isinstance(line.msg, RequestRecord))
    request_id = response.header("request-id")
    assert request_id is not None
    assert record.request_id == request_id
    kinds, bugs = counts(app)
    return Outcome(request_id, response.body, record, list(caplog.records), kinds, bugs)


@asynccontextmanager
async def served(speech: Speech, answer: Answer) -> AsyncIterator[MessagesApp]:
    async with over(speech, answer, deadlines=Deadlines(silence=0.3)) as (_, engine):
        yield MessagesApp(engine)


@both_engines
@each_failure
async def test_each_failure_is_distinct_in_the_log_the_metric_and_the_bytes(
    fails: Any, due: Explained, speech: Speech, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(speech, fails(speech)) as app:
        outcome = await asked(app, caplog)
    record = outcome.record
    assert (record.status, record.error, record.reason) == (200, due.error.__name__, due.reason)
    assert (record.error_type, outcome.counted, outcome.bugs) == (due.error_type, {due.kind: 1.0}, 0.0)
    (line,) = outcome.events("upstream_error")
    assert (line["request_id"], line["operation"]) == (outcome.request_id, "messages")
    assert (line["status"], line["reason"]) == (200, due.reason)
    error = parse_events(outcome.body)[-1].data
    assert error["request_id"] == outcome.request_id
    assert error["error"]["type"] == due.error_type
    assert re.fullmatch(due.message, error["error"]["message"])


@both_engines
@each_failure
async def test_a_debugger_finds_what_happened_as_the_cause(fails: Any, due: Explained, speech: Speech) -> None:
    async with over(speech, fails(speech), deadlines=Deadlines(silence=0.3)) as (_, engine):
        with pytest.raises(due.error) as caught:
            await said(engine)
    assert type(caught.value) is due.error
    assert not isinstance(caught.value, InternalError)
    if due.cause is None:
        assert caught.value.__cause__ is None
    else:
        assert isinstance(caught.value.__cause__, due.cause)


def test_no_two_failures_look_alike() -> None:
    assert len({due.reason for due in FAILURES.values()}) == len(FAILURES)
    assert len({due.kind for due in FAILURES.values()}) == len(FAILURES)


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "whole"])
async def test_a_bug_of_ours_is_an_internal_error_and_no_failure_of_the_upstream(
    streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def engine(request: MessagesRequest) -> AsyncIterator[str]:
        yield "a"
        raise LookupError(SENTENCE)

    outcome = await asked(MessagesApp(engine), caplog, stream=streams)
    record = outcome.record
    assert (record.error, record.reason, record.error_type) == ("InternalError", "LookupError", "api_error")
    assert (outcome.counted, outcome.bugs, outcome.events("upstream_error")) == ({}, 1.0, [])
    assert b"internal error" in outcome.body
    assert SENTENCE.encode() not in outcome.body
    assert SENTENCE not in caplog.text


def test_a_debugger_finds_the_bug_as_the_cause_of_the_internal_error() -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    bug = LookupError("x")
    error = HttpRequest(scope, None, None, "req_1").record_error(bug)  # type: ignore[arg-type]  # nothing is received or sent
    assert isinstance(error, InternalError)
    assert error.__cause__ is bug


# a response with an error status

STATUSES: Final = {
    400: ("InvalidRequest", "rejected", "status_4xx"),
    401: ("EngineFailed", "key_rejected", "status_4xx"),
    404: ("NotFound", "not_found", "status_4xx"),
    429: ("RateLimited", "rate_limited", "status_4xx"),
    500: ("EngineFailed", "failed", "status_5xx"),
    503: ("Overloaded", "unavailable", "status_5xx"),
    504: ("UpstreamTimeout", "timeout", "status_5xx"),
}


@both_engines
@pytest.mark.parametrize(("status", "due"), STATUSES.items(), ids=map(str, STATUSES))
async def test_an_error_status_is_logged_with_the_request_the_status_and_a_reason(
    speech: Speech, status: int, due: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    error, reason, kind = due
    async with served(speech, json_answer(status, {"error": {"message": SENTENCE}})) as app:
        outcome = await asked(app, caplog)
    assert (outcome.record.error, outcome.record.reason, outcome.counted) == (error, reason, {kind: 1.0})
    (line,) = outcome.events("upstream_error")
    assert (line["request_id"], line["status"], line["reason"]) == (outcome.request_id, status, reason)


@both_engines
async def test_a_failed_count_is_logged_and_counted(speech: Speech, caplog: pytest.LogCaptureFixture) -> None:
    options = {"dialect": "vllm"} if speech is SPEECHES["chat"] else {}
    async with over(speech, json_answer(503, {}), **options) as (_, engine):
        app = MessagesApp(engine)
        body = orjson.dumps({key: BODY[key] for key in ("model", "messages")})
        response = await Driver(app).request("POST", "/v1/messages/count_tokens", body=body)
        (line,) = (record.args for record in caplog.records if str(record.msg).startswith("upstream_error "))
        assert isinstance(line, Mapping)
        assert (line["request_id"], line["operation"]) == (response.header("request-id"), "count_tokens")
        assert (line["status"], line["reason"], counts(app)[0]) == (503, "unavailable", {"status_5xx": 1.0})


@both_engines
async def test_a_failed_model_list_is_logged_and_counted_once(speech: Speech, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedUpstream(json_answer(500, {})) as upstream:
        engine = speech.engine(Origin.parse(upstream.url))
        app = MessagesApp(engine)
        assert (await Driver(app).request("GET", "/v1/models")).status == 500
        (line,) = (record.args for record in caplog.records if str(record.msg).startswith("upstream_error "))
        assert isinstance(line, Mapping)
        assert (line["operation"], line["status"], line["reason"]) == ("models", 500, "failed")
        assert counts(app)[0] == {"status_5xx": 1.0}
        await engine.stop()


# the way of a 503

WAY: Final = (
    "upstream/connection.py",  # the bytes arrive
    "upstream/http_parsers.py",  # status, headers, body
    "upstream/exchange.py",  # the response
    "engines/openai/engine.py",  # `stream`, which receives it
    "engines/shared/remote.py",  # `raise_for_status`, which reads the body; later `_fail`
    "engines/shared/upstream_errors.py",  # what it becomes
    "wire/json_codec.py",
    "wire/errors.py",
    "observability/metrics.py",  # upstream_errors_total
    "observability/logs.py",  # upstream_error; later the line of the request
    "http/answer.py",  # the error passes through
    "http/message_response.py",
    "http/messages_app.py",
    "http/base_app.py",  # the error boundary
    "http/http_request.py",  # the client's bytes
)
"""The files of docs/explanation/architecture.md, in the order in which a 503 of the upstream passes them."""
RELEASES: Final = {
    "engines/openai/fast_path.py",  # repairs
    "http/admission.py",
    "http/slots.py",
    "http/body_memory.py",
    "http/disconnect.py",
    "http/ping.py",
    "http/prompt_tokens.py",
    "observability/trace_context.py",
    "upstream/keepalive.py",
    "upstream/pool.py",
    "upstream/request.py",
}
"""The files that release what the request held, as after every response."""


async def test_a_503_passes_at_most_fifteen_files() -> None:
    passed: dict[str, None] = {}
    before = sys.getprofile()

    def note_file(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        arrived = path.name == "connection.py" and frame.f_code.co_name == "data_received"
        is_service = path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "testing")
        if event == "call" and is_service and (passed or arrived):
            passed[path.relative_to(PACKAGE).as_posix()] = None

    async with served(SPEECHES["chat"], json_answer(503, {"error": {"message": SENTENCE}})) as app:
        driver = Driver(app)
        body = orjson.dumps(BODY)
        await driver.request("POST", "/v1/messages", body=body)  # imports what is imported late
        sys.setprofile(note_file)
        try:
            response = await driver.request("POST", "/v1/messages", body=body)
        finally:
            sys.setprofile(before)
    assert response.status == 529
    assert len(WAY) <= 15
    assert set(passed) - RELEASES == set(WAY)


# the engine's own words


def lines(outcome: Outcome) -> str:
    """Everything that was logged, in each way in which it can be printed."""
    formatters = (JsonFormatter(), TextFormatter(), logging.Formatter())
    return "\n".join(formatter.format(record) for record in outcome.logged for formatter in formatters)


WORDY: Final = {
    "an error chunk": error_chunk,
    "a bad body": bad_body,
    "status 500": lambda speech: json_answer(500, {"error": {"message": SENTENCE}}),
    "status 400": lambda speech: json_answer(400, {"error": {"message": SENTENCE}}),
}


@both_engines
@pytest.mark.parametrize("fails", WORDY.values(), ids=WORDY)
async def test_no_log_line_at_the_default_level_contains_the_engines_sentence(
    speech: Speech, fails: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anthro_asgi")
    async with served(speech, fails(speech)) as app:
        outcome = await asked(app, caplog)
    assert "upstream_error" in lines(outcome)
    assert "diary" not in lines(outcome)


@both_engines
@pytest.mark.parametrize("fails", [WORDY[name] for name in ("an error chunk", "status 500", "status 400")])
async def test_the_log_at_level_debug_contains_the_engines_sentence(
    speech: Speech, fails: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "anthro_asgi")
    async with served(speech, fails(speech)) as app:
        outcome = await asked(app, caplog)
    (line,) = outcome.events("upstream_error_message")
    assert line == {"request_id": outcome.request_id, "engine_message": SENTENCE}


@both_engines
async def test_an_engine_cannot_forge_a_log_line(speech: Speech, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "anthro_asgi")
    answer = json_answer(500, {"error": {"message": "one\ntwo \x1b[31m"}})
    async with served(speech, answer) as app:
        outcome = await asked(app, caplog)
    (line,) = outcome.events("upstream_error_message")
    assert line["engine_message"] == "one two  [31m"


def test_an_event_of_an_engine_is_printed_as_every_other_event(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("anthro_asgi.engines.x").warning("name a=%(a)s b=%(b)s", {"a": "x y", "b": None})
    (record,) = caplog.records
    assert orjson.loads(JsonFormatter().format(record)) | {"time": ""} == {
        "time": "",
        "level": "warning",
        "event": "name",
        "a": "x y",
    }
    assert TextFormatter().format(record).endswith(' WARNING event=name a="x y"')
    logging.getLogger("another").warning("name a=%(a)s", {"a": 1})
    assert orjson.loads(JsonFormatter().format(caplog.records[1]))["message"] == "name a=1"


async def test_a_request_made_in_the_same_process_needs_no_id(caplog: pytest.LogCaptureFixture) -> None:
    async with over(SPEECHES["chat"], json_answer(500, {})) as (_, engine):
        with pytest.raises(EngineFailed):
            await said(engine, request())
    (record,) = caplog.records
    assert isinstance(record.args, Mapping)
    assert (record.args["request_id"], record.args["status"]) == (None, 500)
