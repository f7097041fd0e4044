"""`anthro-asgi health` as a container runs it: as a process that checks a real server."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from anthro_asgi.cli import health
from anthro_asgi.cli.main import main
from anthro_asgi.settings.options import PREFIX
from tests.support.service import PATIENCE, ROOT, Service

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def ask(*options: str, **environ: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    command = [sys.executable, "-W", "error", "-m", "anthro_asgi", "health", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=CLEAN | environ, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout, done.stderr


def port_of(service: Service) -> str:
    return service.url.rpartition(":")[2]


def free_port() -> int:
    """A port of the loopback address on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::"])
def test_a_running_server_is_found_by_the_options_it_was_started_with(host: str) -> None:
    with Service("--host", host, "--no-auth") as service:
        found = ask("--host", host, "--port", port_of(service))
    assert found == (0, '{"status":"ok"}\n', "")


def test_the_address_may_come_from_the_environment() -> None:
    with Service() as service:
        assert ask(ANTHRO_ASGI_PORT=port_of(service))[0] == 0


def test_a_server_on_a_unix_socket_is_checked(tmp_path: Path) -> None:
    where = ("--uds", str(tmp_path / "socket"))
    with Service(*where):
        assert ask(*where) == (0, '{"status":"ok"}\n', "")


def test_a_server_with_tls_stays_healthy_when_its_certificate_file_is_renewed(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    options = ("--tls-cert", str(cert), "--tls-key", str(key))

    def issue(name: str) -> None:
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(cert)

    issue("first.example")
    with Service(*options) as service:
        issue("second.example")
        assert ask("--port", port_of(service), *options) == (0, '{"status":"ok"}\n', "")
        _, _, error = ask("--port", port_of(service))
        assert error == (
            f"no response from http://127.0.0.1:{port_of(service)}/healthz: the server closed the connection; "
            "if the server has a certificate, give --tls-cert and --tls-key here too\n"
        )


def test_a_server_without_a_certificate_is_named_when_it_is_asked_over_tls(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("x.example")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with Service() as service:
        status, out, error = ask("--port", port_of(service), *files)
    assert (status, out) == (1, "")
    assert error.startswith(f"no response from https://127.0.0.1:{port_of(service)}/healthz: no TLS: ")
    assert error.endswith("; if the server has no certificate, leave out --tls-cert and --tls-key\n")


def test_a_server_without_its_engine_is_alive_but_not_ready() -> None:
    with Service("--upstream", f"http://127.0.0.1:{free_port()}/v1") as service:
        assert ask("--port", port_of(service))[0] == 0
        status, out, error = ask("--port", port_of(service), "--ready")
    assert (status, error) == (1, f"{service.url}/readyz answers with status 503\n")
    assert "the engine does not answer" in out


def test_a_ready_server_passes_the_readiness_check() -> None:
    with Service("--simulate") as service:
        assert ask("--port", port_of(service), "--ready") == (0, '{"status":"ready"}\n', "")


def test_without_a_server_the_check_prints_one_line_and_exits_with_1(tmp_path: Path) -> None:
    port, path = str(free_port()), str(tmp_path / "none")
    refused = f"no response from http://127.0.0.1:{port}/healthz: Connection refused\n"
    assert ask("--port", port) == (1, "", refused)
    assert ask("--port", port, "--ready", "--host", "::1")[2].startswith(
        f"no response from http://[::1]:{port}/readyz: "
    )
    assert ask("--uds", path) == (1, "", f"no response from unix:{path}:/healthz: No such file or directory\n")


def test_a_host_name_without_an_address_is_named() -> None:
    status, _, error = ask("--host", "no.such.host.invalid")
    assert status == 1
    assert error.startswith("no response from http://no.such.host.invalid:8484/healthz: the host name has no address: ")


def test_a_wrong_option_exits_with_2() -> None:
    status, _, error = ask("--upstream", "http://127.0.0.1:1")
    assert status == 2
    assert "health: unknown option '--upstream'" in error


def test_the_check_imports_neither_a_server_nor_an_event_loop() -> None:
    code = (
        "import sys; from anthro_asgi.cli.main import main\n"
        f"status = main(['health', '--port', '{free_port()}'])\n"
        "assert status == 1, status\n"
        "print(*sorted(name for name in sys.modules if name.startswith('anthro_asgi.')))\n"
        "print({'asyncio', 'orjson', 'uvicorn', 'uvloop'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=CLEAN, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    modules, others = done.stdout.splitlines()
    assert {name.split(".")[1] for name in modules.split()} == {"cli", "settings", "wire"}
    assert others == "set()"


def test_the_check_imports_few_modules_of_the_standard_library() -> None:
    """Each module costs CPU time in every container, every few seconds."""
    code = (
        "import argparse, gc, locale, os, signal, socket, sys, typing\n"
        "before = set(sys.modules)\n"
        "from anthro_asgi.cli.main import main\n"
        f"assert main(['health', '--port', '{free_port()}']) == 1\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('anthro_asgi')))\n"
    )
    environ = CLEAN | {"ANTHRO_ASGI_UPSTREAM": "http://127.0.0.1:1", "ANTHRO_ASGI_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.split() == []


# --- servers that do not respond properly ---


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that treats each connection with `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # which wakes `accept`, as closing does not
            thread.join()


def silent(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def dripping(client: socket.socket) -> None:
    try:
        while True:
            client.sendall(b"H")
            time.sleep(0.01)
    except OSError:
        return


def babbling(client: socket.socket) -> None:
    client.sendall(b"220 mail.example ESMTP\r\n")
    client.shutdown(socket.SHUT_WR)
    silent(client)


def hanging_up(client: socket.socket) -> None:
    client.recv(4096)


def alerting(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # a fatal alert of TLS


def another_service(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK")


def resetting(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_server_that_never_completes_its_response_times_out(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "_TIMEOUT", 0.2)
    began = time.monotonic()
    with answering(answer) as port:
        assert main(["health", "--port", str(port)]) == 1
    assert time.monotonic() - began < PATIENCE / 4
    words = "timed out after 0.2 s"
    assert capsys.readouterr().err == f"no response from http://127.0.0.1:{port}/healthz: {words}\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (babbling, "no response from {}: the server does not speak HTTP"),
        (hanging_up, "no response from {}: the server closed the connection; if the server has a certificate, give"),
        (alerting, "no response from {}: the server uses TLS; give --tls-cert and --tls-key to this command, too"),
        (resetting, "no response from {}: Connection reset by peer; if the server has a certificate, give"),
        (another_service, "{} answers with status 200, but it is another service"),
    ],
)
def test_a_server_that_is_not_ours_is_unhealthy(
    answer: Callable[[socket.socket], None], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(answer) as port:
        assert main(["health", "--port", str(port)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(words.format(f"http://127.0.0.1:{port}/healthz"))
