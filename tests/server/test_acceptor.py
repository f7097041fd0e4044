"""Accepting: failed TLS handshakes leak nothing, and running out of file descriptors loses no client."""

import resource
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import trustme

from tests.support.client import get
from tests.support.service import AT_ONCE, Service, until


def reach(service: Service) -> socket.socket:
    host, _, port = service.url.rpartition("//")[2].partition(":")
    return socket.create_connection((host, int(port)), 10)


def test_failed_tls_handshakes_leave_no_socket_open(kind: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    both = str(tmp_path / "both")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Service(*AT_ONCE, "--tls-cert", both, "--tls-key", both, kind=kind) as service:
        before = service.open_sockets
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00"):
            for _ in range(5):
                with reach(service) as client:
                    client.sendall(sent)
        until(lambda: service.open_sockets == before)
        assert get(service.url, "/healthz", trusting).status == 200


def test_a_tls_handshake_must_end_within_the_receive_deadline(kind: str, tmp_path: Path) -> None:
    both = str(tmp_path / "both")
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    options = ("--tls-cert", both, "--tls-key", both, "--receive-deadline", "200ms")
    with Service(*AT_ONCE, *options, kind=kind) as service, reach(service) as client:
        assert client.recv(1) == b""


def test_many_clients_that_begin_tls_at_the_same_moment_are_all_served(kind: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    both = str(tmp_path / "both")
    authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA).private_key_and_cert_chain_pem.write_to_path(both)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Service(*AT_ONCE, "--tls-cert", both, "--tls-key", both, kind=kind) as service, ExitStack() as owned:
        clients = [owned.enter_context(reach(service)) for _ in range(60)]
        sessions = []
        for client in clients:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with suppress(ssl.SSLWantReadError):
                session.do_handshake()
            sessions.append((client, incoming, outgoing, session))
        for client, _, outgoing, _ in sessions:
            client.sendall(outgoing.read())
        for client, incoming, outgoing, session in sessions:
            _finish_handshake(client, incoming, outgoing, session)
            session.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            client.sendall(outgoing.read())
        for client, incoming, _, session in sessions:
            assert _read(client, incoming, session).startswith(b"HTTP/1.1 200")


def _finish_handshake(client: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, session: Any) -> None:
    while True:
        try:
            session.do_handshake()
            return
        except ssl.SSLWantReadError:
            incoming.write(client.recv(65536))


def _read(client: socket.socket, incoming: ssl.MemoryBIO, session: Any) -> bytes:
    while True:
        try:
            return bytes(session.read(65536))
        except ssl.SSLWantReadError:
            incoming.write(client.recv(65536))


def test_without_file_descriptors_clients_wait_until_some_are_free(kind: str) -> None:
    with Service(*AT_ONCE, kind=kind) as service, ExitStack() as owned:
        assert get(service.url, "/healthz").status == 200
        used = max(int(file.name) for file in Path(f"/proc/{service.pid}/fd").iterdir())
        _, hard = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (used + 4, hard))
        clients = [owned.enter_context(reach(service)) for _ in range(8)]
        assert service.logged(level="error")["message"] == "cannot accept a connection: Too many open files"
        clients[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert clients[0].recv(12) == b"HTTP/1.1 200", "accepted clients are served"
        clients[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients[:-1]:
            client.close()
        assert clients[-1].recv(12) == b"HTTP/1.1 200", "waiting clients are served later"
        service.send_signal()
        assert service.ended(excused="cannot accept a connection") == 0
