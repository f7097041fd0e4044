"""Rolling restarts under load: a new service replaces the old one repeatedly, and no client sees an error."""

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from tests.support.client import connect, post
from tests.support.service import Service, until

ROUNDS = 3
CLIENTS = 4  # of each kind
SPEED = ("--simulate-ttft", "1ms", "--simulate-itl", "2ms", "--simulate-output-tokens", "20", "--log-level", "warning")


class Clients:
    """Threads that request one stream after another. `answers` counts complete ones; `failures` lists the others."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(way,)) for way in (_reconnecting, _keeping) * CLIENTS]
        self.answers = 0
        self.failures: list[str] = []

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        for thread in self._threads:
            thread.join()

    def _run(self, way: Callable[[str, Callable[[], bool], Callable[[], None]], None]) -> None:
        while not self._leaving.is_set():
            try:
                way(self._url, self._leaving.is_set, self._count)
            except (OSError, http.client.HTTPException, AssertionError) as exc:
                self.failures.append(f"{way.__name__}: {exc!r}")

    def wait_for_answers(self) -> None:
        """Wait for 20 more answers, or a failure."""
        before = self.answers
        until(lambda: self.answers > before + 20 or self.failures)

    def _count(self) -> None:
        self.answers += 1


def _stream(connection: http.client.HTTPConnection) -> bool:
    """Request a stream; returns whether the connection may be used again."""
    post(connection, stream=True)
    response = connection.getresponse()
    assert response.status == 200
    message = message_from_events(parse_events(response.read()))
    assert message["stop_reason"] in ("end_turn", "max_tokens")
    return not response.will_close


def _reconnecting(url: str, leaving: Callable[[], bool], count: Callable[[], None]) -> None:
    """Each request on a new connection."""
    while not leaving():
        with closing(connect(url)) as connection:
            _stream(connection)
            count()


def _keeping(url: str, leaving: Callable[[], bool], count: Callable[[], None]) -> None:
    """All requests on one connection, for as long as the service keeps it open."""
    with closing(connect(url)) as connection:
        again = True
        while again and not leaving():
            again = _stream(connection)
            count()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("kind", "where", "more"),
    [
        ("fast", "port", ()),
        ("plain", "port", ()),
        ("fast", "path", ()),
        ("plain", "path", ()),
        ("fast", "port", ("--workers", "2")),
        ("fast", "path", ("--workers", "2")),
        ("fast", "port", ("--drain-delay", "150ms")),
    ],
)
def test_a_rolling_restart_loses_no_stream(kind: str, where: str, more: tuple[str, ...], tmp_path: Path) -> None:
    place = ("--port", str(free_port())) if where == "port" else ("--uds", str(tmp_path / "a.sock"))
    options = (*place, "--reuse-port", *SPEED, *more)
    with ExitStack() as owned:
        serving = owned.enter_context(Service(*options, kind=kind))
        with Clients(serving.url) as clients:
            for _ in range(ROUNDS):
                coming = owned.enter_context(Service(*options, kind=kind))
                clients.wait_for_answers()
                serving.send_signal()
                assert serving.ended() == 0
                serving = coming
            clients.wait_for_answers()
        assert clients.failures == []
