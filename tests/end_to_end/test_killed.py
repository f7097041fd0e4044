"""Processes that are killed (-9) and start again: the engine, and the service.

No test sleeps: each waits for something that the engine, the log or the clients show.
"""

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.conformance.grammar import check_stream, message_from_events
from tests.end_to_end.conftest import Endless
from tests.end_to_end.test_leaving import ENDLESS
from tests.support.client import TIMEOUT, Answer, ask, connect, get, post
from tests.support.llama.model import ANSWER
from tests.support.llama.server import LlamaServer
from tests.support.service import PATIENCE, Service, ServiceFailed, until

EACH = 3  # streaming clients, and as many that wait for a whole answer
LONG: dict[str, Any] = {**ENDLESS, "max_tokens": 7000}
SPOKEN = [{"type": "text", "text": ANSWER}]


def kill(llama: LlamaServer) -> None:
    os.kill(llama.pid, signal.SIGKILL)


class Open:
    """An answer in progress."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self.connection = connect(url)
        self._begun = b""
        post(self.connection, **LONG, stream=stream)

    def begins(self) -> None:
        """Wait for its first text."""
        self._response = self.connection.getresponse()
        while b"content_block_delta" not in self._begun:
            line = self._response.readline()
            assert line, self._begun
            self._begun += line

    def rest(self) -> Answer:
        """The whole response."""
        response = self._response if self._begun else self.connection.getresponse()
        return _answer(response, self._begun)


def _answer(response: HTTPResponse, begun: bytes = b"") -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, begun + response.read())


@contextmanager
def answering(service: Service, llama: LlamaServer) -> Iterator[tuple[list[Open], list[Open]]]:
    """EACH clients with a long stream, and EACH that wait for a long answer."""
    with ExitStack() as stack:
        streams, wholes = ([Open(service.url, stream=stream) for _ in range(EACH)] for stream in (True, False))
        for client in [*streams, *wholes]:
            stack.enter_context(closing(client.connection))
        until(lambda: llama.metrics()["requests_processing"] == 2 * EACH)
        spoken = llama.metrics()["n_decode_total"] + 5
        until(lambda: llama.metrics()["n_decode_total"] > spoken)
        for client in streams:
            client.begins()
        yield streams, wholes


def ask_over(connection: HTTPConnection, **body: Any) -> Answer:
    """The answer on a connection that stays open."""
    post(connection, **body)
    return _answer(connection.getresponse())


def lines(service: Service, **fields: Any) -> int:
    """The number of log lines with these fields."""
    return sum(fields.items() <= line.items() for line in service.log)


# the engine


def test_a_killed_engine_fails_its_running_requests_and_no_others(tmp_path: Path) -> None:
    engine = tmp_path / "engine.sock"
    with Service("--upstream", f"unix:{engine}") as service, closing(connect(service.url)) as resting:
        with LlamaServer(uds=engine, parallel=2 * EACH) as llama:
            assert ask_over(resting).json["content"] == SPOKEN
            with answering(service, llama) as (streams, wholes):
                kill(llama)
                broken = [client.rest() for client in streams], [client.rest() for client in wholes]
        assert_each_failed(service, *broken)
        assert_it_is_away(service, resting)
        with LlamaServer(uds=engine):
            assert ask_over(resting).json["content"] == SPOKEN  # the same connection and the same service
            assert message_from_events(ask(service.url, stream=True).events)["content"] == SPOKEN
            until(lambda: get(service.url, "/readyz").status == 200)
        assert lines(service, event="request", status=200, error_type="api_error") == EACH
        assert lines(service, event="request", status=502, error_type="api_error") == EACH
        assert all("exception" not in line for line in service.log)


def assert_each_failed(service: Service, streamed: list[Answer], whole: list[Answer]) -> None:
    """Each stream ends with an `error` event, each whole answer with a status, and each has a warning in the log."""
    for answer in streamed:
        check_stream(answer.events)
        assert any(event.type == "content_block_delta" for event in answer.events)
        assert (answer.events[-1].type, answer.events[-1].data["error"]["type"]) == ("error", "api_error")
    for answer in whole:
        assert (answer.status, answer.json["error"]["type"]) == (502, "api_error")
    for answer in [*streamed, *whole]:
        line = service.logged(event="request", request_id=answer.headers["request-id"])
        assert (line["level"], line["error_type"]) == ("warning", "api_error")


def assert_it_is_away(service: Service, resting: HTTPConnection) -> None:
    """A request is refused at once, with retry-after."""
    for stream in (True, False):
        answer = ask_over(resting, stream=stream)
        assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")
        assert int(answer.headers["retry-after"]) >= 1
        line = service.logged(event="request", request_id=answer.headers["request-id"])
        assert line["duration"] < 1
    until(lambda: [get(service.url, path).status for path in ("/healthz", "/readyz")] == [200, 503])


class Asker(threading.Thread):
    """Asks again and again, with and without stream, until `done`. While the engine is down, it waits for `back`."""

    def __init__(self, url: str, back: threading.Event) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[str] = []
        self.done = False
        self._url = url
        self._back = back

    def run(self) -> None:
        while not self.done:
            self.outcomes.append(outcome(ask(self._url, stream=len(self.outcomes) % 2 == 0)))
            if self.outcomes[-1] == "away":
                self._back.wait(TIMEOUT)


def outcome(answer: Answer) -> str:
    """answered, broken or away; any other outcome as it is."""
    if answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream"):
        events = answer.events
        check_stream(events)
        if events[-1].type == "error":
            return "broken" if events[-1].data["error"]["type"] == "api_error" else f"{events[-1].data}"
        return "answered" if message_from_events(events)["content"] == SPOKEN else f"{events}"
    if answer.status == 200:
        return "answered" if answer.json["content"] == SPOKEN else f"{answer.json}"
    failure = (answer.status, answer.json["error"]["type"])
    return {(502, "api_error"): "broken", (529, "overloaded_error"): "away"}.get(failure, f"{answer.body!r}")


def test_under_load_only_running_answers_break_and_all_clients_recover_after_the_engine(tmp_path: Path) -> None:
    engine, back = tmp_path / "engine.sock", threading.Event()
    with Service("--upstream", f"unix:{engine}") as service:
        askers = [Asker(service.url, back) for _ in range(2 * EACH)]
        with LlamaServer(uds=engine, parallel=2 * EACH) as llama:
            for asker in askers:
                asker.start()
            until(lambda: all(asker.outcomes.count("answered") >= 3 for asker in askers))
            kill(llama)
            until(lambda: all("away" in asker.outcomes for asker in askers))
        with LlamaServer(uds=engine):
            back.set()
            until(lambda: all(asker.outcomes[-2:] == ["answered"] * 2 for asker in askers))
            for asker in askers:
                asker.done = True
            for asker in askers:
                asker.join(PATIENCE)
        for asker in askers:
            # more than one may break: the kernel still accepts connections for a process that it is removing
            assert re.fullmatch("(answered ){3,}(broken )*(away )+(answered ){2,}", " ".join([*asker.outcomes, ""]))
        assert service.logged(event="request", status=529)


# the service


@pytest.mark.parametrize("socket", ["port", "uds"])
def test_a_killed_service_frees_its_engine_and_can_start_again_on_the_same_address(
    socket: str, endless: Endless, tmp_path: Path
) -> None:
    where = ("--uds", str(tmp_path / "service.sock")) if socket == "uds" else ("--port", "0")
    with dying("--upstream", endless.llama.url, *where) as service, closing(connect(service.url)) as connection:
        post(connection, **LONG, stream=True)
        response = connection.getresponse()
        begun = response.readline()
        service.send_signal(signal.SIGKILL)
        with suppress(HTTPException, OSError):
            begun += response.read()
        assert b"message_stop" not in begun
    endless.llama.until_idle()
    where = where if socket == "uds" else ("--port", service.url.rpartition(":")[2])
    with Service("--upstream", endless.llama.url, *where) as again:
        assert again.url == service.url
        assert ask(again.url).json["content"] == SPOKEN


@contextmanager
def dying(*options: str) -> Iterator[Service]:
    """A service that is killed inside the block."""
    with pytest.raises(ServiceFailed, match="status -9"), Service(*options) as service:
        yield service
