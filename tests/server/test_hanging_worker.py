"""A worker that hangs is noticed and replaced, and it does not keep the service from ending."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import SimpleNamespace

import pytest

from anthro_asgi.server import supervisor
from tests.support.client import ask, connect, post
from tests.support.service import AT_ONCE, Service, until

TWO = ("--workers", "2")
HUNG = "has not responded for 1 s"


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def assert_replaced(service: Service, before: list[int]) -> None:
    line = service.wait_for_lines(lambda lines: next((line for line in lines if HUNG in line), None))
    (pid,) = [pid for pid in before if f"(pid {pid})" in str(line)]
    until(lambda: pid not in service.children)  # the supervisor knows its exit, which is not that of a stop
    until(lambda: len(service.children) == 2)


def test_a_supervisor_whose_workers_cannot_be_killed_ends_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[float, int]] = []
    monkeypatch.setattr(supervisor, "exit_within", lambda seconds, status, *_: ended.append((seconds, status)))
    process = SimpleNamespace(owns_process=True, longest_stop=30.0, longest_forced_stop=9.0)
    two = supervisor.WorkerSupervisor(process, [[], []], print, on_start=print, on_exit=print)  # type: ignore[arg-type]  # what `_stop` needs of it
    two._stop(signal.SIGTERM)
    two._stop(signal.SIGINT)
    assert ended == [(34.0, 1), (13.0, 1)]


def test_a_worker_whose_event_loop_is_blocked_is_replaced(kind: str) -> None:
    options = ("--engine", "tests.server.engines:BlocksLoop", *TWO, "--worker-deadline", "1s")
    with Service(*options, kind=kind, may_log_errors=True) as service:
        before = service.children
        with closing(connect(service.url)) as client:
            post(client, stream=True)
            assert client.getresponse().readline() == b"event: message_start\n"
            assert_replaced(service, before)
        assert service.stop() == 0


def test_a_stopped_worker_is_replaced_and_its_clients_are_served(owned: ExitStack) -> None:
    with Service(*AT_ONCE, *TWO, "--worker-deadline", "1s", may_log_errors=True) as service:
        before = service.children
        os.kill(before[0], signal.SIGSTOP)
        clients = [owned.enter_context(closing(connect(service.url))) for _ in range(16)]
        for client in clients:
            post(client)
        assert [client.getresponse().status for client in clients] == [200] * 16
        assert_replaced(service, before)
        assert ask(service.url).status == 200
        assert service.stop() == 0


def test_the_other_worker_accepts_what_reaches_a_stopped_one_before_it_is_killed(owned: ExitStack) -> None:
    with Service(*AT_ONCE, *TWO, "--worker-deadline", "60s") as service:
        stopped = service.children[0]
        os.kill(stopped, signal.SIGSTOP)
        for _ in range(2):  # those that were queued before it was noticed, and those after that
            clients = [owned.enter_context(closing(connect(service.url))) for _ in range(16)]
            for client in clients:
                post(client)
            assert [client.getresponse().status for client in clients] == [200] * 16
        assert stopped in service.children
        os.kill(stopped, signal.SIGCONT)
        until(lambda: _answers(service, stopped))
        assert service.stop() == 0


def _answers(service: Service, pid: int) -> bool:
    """Whether the worker accepts connections again, as far as its use of CPU shows."""
    before = _cpu(pid)
    for _ in range(16):
        assert ask(service.url).status == 200
    return _cpu(pid) > before


def _cpu(pid: int) -> int:
    """Clock ticks of CPU that the process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_stopped_worker_does_not_keep_the_service_from_ending() -> None:
    with Service(*AT_ONCE, *TWO, "--drain-timeout", "10ms", may_log_errors=True) as service:
        os.kill(service.children[0], signal.SIGSTOP)
        began = time.monotonic()
        service.send_signal()
        assert service.ended(expected=9) == 9
        assert time.monotonic() - began < 18
        assert any("did not end in time; killing it" in line.get("message", "") for line in service.log)
