"""Clients that do not read their responses, and clients that read slowly."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.client import HELLO
from tests.support.service import KINDS, Service, until

DEADLINE = 0.8  # seconds
ENDLESS = 1_000_000_000
ALL = 250_000  # a little more than a Unix socket buffers, so that writing does not pause


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("stall") / "a.sock"
    options = ("--engine", "tests.server.engines:large", "--stall-deadline", f"{DEADLINE}s")
    with Service(*options, "--uds", str(path), kind=request.param) as service:
        yield service


@pytest.fixture(scope="module", params=KINDS)
def far(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service(
        "--engine", "tests.server.engines:large", "--stall-deadline", f"{DEADLINE}s", kind=request.param
    ) as service:
        yield service


@contextmanager
def asking(service: Service, size: int, *fields: bytes, stream: bool = True) -> Iterator[socket.socket]:
    """A client with a small receive buffer that has requested a response of `size` characters."""
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


def assert_incomplete(service: Service, client: socket.socket) -> None:
    """Bytes that were sent before the disconnect may still be read, but they are not the complete response."""
    received = b""
    try:
        while data := client.recv(1_000_000):
            received = received[-100:] + data[-100:]
    except ConnectionResetError:
        pass
    assert b"message_stop" not in received


def test_a_client_that_reads_nothing_is_disconnected_and_leaks_nothing(service: Service) -> None:
    before = service.open_sockets
    since = len(service.log)
    began = time.monotonic()
    with asking(service, ENDLESS) as client:
        line = service.logged(within=6 * DEADLINE, since=since, path="/v1/messages")
        assert time.monotonic() - began >= DEADLINE
        until(lambda: service.open_sockets == before, within=20)
        assert_incomplete(service, client)
    assert (line["client_left"], line["level"]) == (True, "info")


def test_a_stalled_client_is_disconnected_over_tcp_despite_large_buffers(far: Service) -> None:
    before = far.open_sockets
    with asking(far, ENDLESS) as client:
        assert far.logged(within=10, path="/v1/messages")["client_left"]
        until(lambda: far.open_sockets == before, within=20)
        assert_incomplete(far, client)


def test_a_client_that_reads_slowly_stays_connected(service: Service) -> None:
    """The kernel accepts more bytes only when its buffer is three quarters empty: here after 2.5 deadlines."""
    with asking(service, ENDLESS) as client:
        end = time.monotonic() + 4 * DEADLINE
        while time.monotonic() < end:
            assert client.recv(8_000)
            time.sleep(DEADLINE / 8)


def test_a_client_that_resumes_in_time_gets_its_complete_response(service: Service) -> None:
    for stream in (True, False):
        with asking(service, 2_000_000, b"Connection: close", stream=stream) as client:
            for _ in range(3):
                time.sleep(DEADLINE / 2)
                received = client.recv(500_000)
            while data := client.recv(1_000_000):
                received = received[-200:] + data
            assert (b"message_stop" if stream else b'"stop_reason":"end_turn"') in received


@pytest.mark.parametrize("fields", [(), (b"Connection: close",)], ids=["kept alive", "closing"])
def test_a_client_that_does_not_read_the_end_of_a_response_is_disconnected(
    service: Service, fields: tuple[bytes, ...]
) -> None:
    """The response is complete for the application; its last bytes wait in our buffers."""
    before = service.open_sockets
    since = len(service.log)
    with asking(service, ALL, *fields, stream=False):
        assert service.logged(since=since, path="/v1/messages")["status"] == 200
        assert service.open_sockets == before + 1
        until(lambda: service.open_sockets == before, within=6 * DEADLINE)


def test_a_client_that_has_read_everything_stays_connected(service: Service) -> None:
    with asking(service, ALL, stream=False) as client:
        received = b""
        while not received.endswith(b"}"):
            received += client.recv(1_000_000)
        client.settimeout(2 * DEADLINE)
        with pytest.raises(TimeoutError):
            client.recv(1)
