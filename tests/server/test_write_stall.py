"""Clients that do not take their answers, and clients that take them slowly."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.server.process import KINDS, Process, until
from tests.support.client import HELLO

DEADLINE = 0.8  # seconds
ENDLESS = 1_000_000_000
ALL = 250_000  # more than a Unix socket holds, and so little more that writing does not pause for it


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    path = tmp_path_factory.mktemp("stall") / "a.sock"
    options = ("--engine", "tests.server.engines:large", "--stall-deadline", f"{DEADLINE}s")
    with Process(request.param, *options, "--uds", str(path)) as service:
        yield service


@pytest.fixture(scope="module", params=KINDS)
def far(request: pytest.FixtureRequest) -> Iterator[Process]:
    with Process(
        request.param, "--engine", "tests.server.engines:large", "--stall-deadline", f"{DEADLINE}s"
    ) as service:
        yield service


@contextmanager
def asking(service: Process, size: int, *fields: bytes, stream: bool = True) -> Iterator[socket.socket]:
    """A client that has asked for an answer of so many characters, and has little room for it."""
    body = json.dumps({**HELLO, "model": str(size), "max_tokens": ENDLESS, "stream": stream}).encode()
    head = [b"POST /v1/messages HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *fields, b"", body]
    scheme, _, rest = service.url.partition(":")
    with socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET) as client:
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        host, _, port = rest.removeprefix("//").rpartition(":")
        client.connect(rest if scheme == "unix" else (host, int(port)))
        client.sendall(b"\r\n".join(head))
        yield client


def assert_cut_off(service: Process, client: socket.socket) -> None:
    """What was on its way when it was cut off may still be read, and is not the whole answer."""
    taken = b""
    try:
        while data := client.recv(1_000_000):
            taken = taken[-100:] + data[-100:]
    except ConnectionResetError:
        pass
    assert b"message_stop" not in taken


def test_a_client_that_takes_nothing_of_a_stream_is_cut_off_and_leaves_nothing_behind(service: Process) -> None:
    before = service.sockets
    since = len(service.log)
    began = time.monotonic()
    with asking(service, ENDLESS) as client:
        line = service.logged(within=6 * DEADLINE, since=since, path="/v1/messages")
        assert time.monotonic() - began >= DEADLINE
        until(lambda: service.sockets == before, within=1)
        assert_cut_off(service, client)
    assert (line["client_left"], line["level"]) == (True, "info")


def test_it_is_so_over_tcp_with_its_megabytes_of_buffers(far: Process) -> None:
    before = far.sockets
    with asking(far, ENDLESS) as client:
        assert far.logged(within=10, path="/v1/messages")["client_left"]
        until(lambda: far.sockets == before, within=1)
        assert_cut_off(far, client)


def test_a_client_that_takes_a_little_now_and_then_is_left_alone(service: Process) -> None:
    """The kernel takes more only when three quarters of what it holds are gone: at this pace, after 2.5 deadlines."""
    with asking(service, ENDLESS) as client:
        end = time.monotonic() + 4 * DEADLINE
        while time.monotonic() < end:
            assert client.recv(8_000)
            time.sleep(DEADLINE / 8)


def test_a_client_that_comes_back_in_time_gets_all_of_its_answer(service: Process) -> None:
    for stream in (True, False):
        with asking(service, 2_000_000, b"Connection: close", stream=stream) as client:
            for _ in range(3):
                time.sleep(DEADLINE / 2)
                taken = client.recv(500_000)
            while data := client.recv(1_000_000):
                taken = taken[-200:] + data
            assert (b"message_stop" if stream else b'"stop_reason":"end_turn"') in taken


@pytest.mark.parametrize("fields", [(), (b"Connection: close",)], ids=["kept alive", "closing"])
def test_the_end_of_an_answer_that_is_not_taken_is_not_waited_for(service: Process, fields: tuple[bytes, ...]) -> None:
    """The answer is complete here, and its last bytes wait for a client that does not come."""
    before = service.sockets
    since = len(service.log)
    with asking(service, ALL, *fields, stream=False):
        assert service.logged(since=since, path="/v1/messages")["status"] == 200
        assert service.sockets == before + 1
        until(lambda: service.sockets == before, within=6 * DEADLINE)


def test_who_took_all_may_stay(service: Process) -> None:
    with asking(service, ALL, stream=False) as client:
        taken = b""
        while not taken.endswith(b"}"):
            taken += client.recv(1_000_000)
        client.settimeout(2 * DEADLINE)
        with pytest.raises(TimeoutError):
            client.recv(1)
