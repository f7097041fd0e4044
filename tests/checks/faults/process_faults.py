"""Faults of the service's own processes, of memory, and of time: played against the command, with two workers.

Each row plays its fault and returns what the other clients got meanwhile, in the words of `cells`. `refused` means that
no process of the service listens or runs any more.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

from tests.checks.faults import memory_faults
from tests.server.test_stopped_process import (
    DEADLINE,
    POST,
    test_a_request_that_arrived_while_the_process_was_stopped_is_served,
    test_an_answer_that_arrived_while_the_process_was_stopped_is_read,
)
from tests.support.client import RawClient, ask, connect, post
from tests.support.service import AT_ONCE, Service, is_running, until
from tests.support.upstream import ThreadedUpstream, Wire, json_answer, raw_answer, sse

CLIENTS: Final = 16  # enough that some reach each of two workers
_TWO: Final = (*AT_ONCE, "--workers", "2", "--worker-deadline", "60s")
_PAUSE: Final = 2.5  # seconds for which something is stopped


@dataclass(frozen=True, slots=True)
class ProcessCell:
    """One row. `play` returns the outcome."""

    fault: str
    expected: str
    play: Callable[[], str]

    def __str__(self) -> str:
        return self.fault


def _served(service: Service) -> str:
    """What clients get that connect now."""
    with ExitStack() as owned:
        clients = [owned.enter_context(closing(connect(service.url))) for _ in range(CLIENTS)]
        for client in clients:
            post(client)
        statuses = {client.getresponse().status for client in clients}
    return "message" if statuses == {200} else ", ".join(map(str, sorted(statuses)))


def _stopped_worker() -> str:
    with Service(*_TWO) as service:
        worker = service.children[0]
        os.kill(worker, signal.SIGSTOP)
        outcome = _served(service)
        os.kill(worker, signal.SIGCONT)
        assert worker in service.children
        return outcome


def _blocked_worker() -> str:
    options = ("--engine", "tests.server.engines:BlocksLoop", "--workers", "2", "--worker-deadline", "60s")
    with Service(*options, may_log_errors=True) as service, closing(connect(service.url)) as client:
        post(client, stream=True)
        assert client.getresponse().readline() == b"event: message_start\n"
        with ExitStack() as owned:
            others = [owned.enter_context(closing(connect(service.url))) for _ in range(CLIENTS)]
            for other in others:
                other.request("GET", "/healthz")
            statuses = {other.getresponse().status for other in others}
        for worker in service.children:
            os.kill(worker, signal.SIGKILL)  # it would not end before its deadline
        until(lambda: len(service.children) == 2 and ask_health(service))
        return "message" if statuses == {200} else str(statuses)


def ask_health(service: Service) -> bool:
    with closing(connect(service.url)) as client:
        client.request("GET", "/healthz")
        return client.getresponse().status == 200


def _killed_worker() -> str:
    with Service(*_TWO, may_log_errors=True) as service:
        os.kill(service.children[0], signal.SIGKILL)
        return _served(service)


def _stopped_supervisor() -> str:
    with Service(*_TWO) as service:
        service.send_signal(signal.SIGSTOP)
        outcome = _served(service)
        time.sleep(_PAUSE)
        outcome = outcome if _served(service) == outcome else "changed"
        service.send_signal(signal.SIGCONT)
        return outcome


def _killed_supervisor() -> str:
    with Service(*_TWO) as service:
        workers = service.children
        assert _served(service) == "message"
        service.send_signal(signal.SIGKILL)
        service.ended(expected=-signal.SIGKILL)
        until(lambda: not any(map(is_running, workers)))
        return "refused" if service.refuses_connections else "a worker listens"


def _stopped_service() -> str:
    """Stopped for longer than its deadlines, between two requests."""
    with Service(*AT_ONCE, "--receive-deadline", f"{DEADLINE}s") as service, RawClient(service.url) as client:
        client.send(POST)
        assert client.answer().status == 200
        service.send_signal(signal.SIGSTOP)
        client.send(POST)
        time.sleep(2 * DEADLINE)
        service.send_signal(signal.SIGCONT)
        assert client.answer().status == 200
        assert ask(service.url).status == 200
        return "message"


def _many_generators() -> str:
    """Clients leave while the generators of a threaded engine go on."""
    options = ("--engine", "tests.server.engines:CountsGenerators", "--max-concurrency", "2", "--no-auth")
    with Service(*options) as service:
        for _ in range(CLIENTS // 2):
            with ExitStack() as owned:
                for _ in range(2):
                    client = owned.enter_context(closing(connect(service.url)))
                    post(client, stream=True)
                    assert client.getresponse().readline() == b"event: message_start\n"
        most = ask(service.url, model="most").json["content"][0]["text"]
        return "message" if most == "2" else f"{most} generators ran"


_LIST: Final = json_answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
_PAGE: Final = raw_answer(200, [("content-type", "text/html"), ("content-length", "15")], b"<!doctype html>")
_TEXT: Final = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
_STOP: Final = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def _page_for_list() -> str:
    """The API of the engine is detected. Then a stream breaks off, and a page is in the place of the model list."""
    answers = [sse(_TEXT, _STOP), sse(_TEXT), sse(_TEXT, _STOP)]
    lists = [_LIST, _PAGE]

    async def respond(wire: Wire) -> None:
        if wire.method == "GET":
            await wire.send(lists[0] if len(lists) > 1 or wire.target != "/v1/models" else _PAGE)
            return
        await wire.send(answers.pop(0))
        wire.close()

    with ExitStack() as owned:
        engine = owned.enter_context(ThreadedUpstream(respond))
        options = ("--upstream", f"{engine.url}/v1", "--upstream-api", "auto", "--no-auth")
        service = owned.enter_context(Service(*options))
        statuses = [ask(service.url).status]
        lists.pop(0)
        statuses.append(ask(service.url).status)  # this one breaks off
        statuses.append(ask(service.url).status)
    return "message" if statuses == [200, 502, 200] else str(statuses)


def _stopped_in(test: Callable[[str], None]) -> Callable[[], str]:
    def play() -> str:
        test("fast")
        return "message"

    return play


PROCESS_CELLS: Final = (
    ProcessCell("a worker: stopped", "message", _stopped_worker),
    ProcessCell("a worker: its event loop blocked by an engine", "message", _blocked_worker),
    ProcessCell("a worker: killed", "message", _killed_worker),
    ProcessCell("clients that leave while generators of a threaded engine go on", "message", _many_generators),
    ProcessCell("a page in the place of the engine's model list, after a broken stream", "message", _page_for_list),
    ProcessCell("the supervisor: stopped", "message", _stopped_supervisor),
    ProcessCell("the supervisor: killed", "refused", _killed_supervisor),
    ProcessCell("stopped beyond a deadline, and continued: between requests", "message", _stopped_service),
    ProcessCell(
        "stopped beyond a deadline, and continued: while a request arrives",
        "message",
        _stopped_in(test_a_request_that_arrived_while_the_process_was_stopped_is_served),
    ),
    ProcessCell(
        "stopped beyond a deadline, and continued: while the engine answers",
        "message",
        _stopped_in(test_an_answer_that_arrived_while_the_process_was_stopped_is_read),
    ),
    *(
        ProcessCell(
            f"a body of 2 MiB, within six times its memory: {fault}", expected, memory_faults.within_bounds(shape)
        )
        for fault, shape, expected in (
            ("a schema of small properties", "properties", "message"),
            ("a tool input of small properties", "an input of properties", "message"),
            ("an unknown field of small properties", "an unknown field", "message"),
            ("texts with wide characters", "long texts with an emoji", "message"),
            ("tiny messages", "tiny messages", "413"),
        )
    ),
    ProcessCell("no memory left for a body", "500", memory_faults.exhausted),
)
