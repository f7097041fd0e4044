"""SIGHUP: certificates and keys are read again without a restart; a failed reload logs one line and changes nothing."""

import signal
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.server.tls import Certificate
from tests.support.client import connect, get, post
from tests.support.service import AT_ONCE, Service

SHORT = ("--simulate-ttft", "0", "--simulate-itl", "10ms", "--simulate-output-tokens", "60")


class Files:
    """A certificate and its key in files that a test can replace."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key = directory / "cert", directory / "key"
        self.options = ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def renew(self) -> ssl.SSLContext:
        """Write a new certificate of a new authority, which only the returned context trusts."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_new_connections_get_a_renewed_certificate_and_open_streams_continue(kind: str, files: Files) -> None:
    old = files.renew()
    with Service(*SHORT, *files.options, kind=kind) as service, closing(connect(service.url, old)) as connection:
        post(connection, stream=True)
        response = connection.getresponse()
        begun = response.readline()
        new = files.renew()
        service.send_signal(signal.SIGHUP)
        service.logged(event="reloaded", level="info")
        assert get(service.url, "/healthz", new).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            get(service.url, "/healthz", old)
        assert message_from_events(parse_events(begun + response.read()))["content"]
        post(connection)
        assert connection.getresponse().status == 200


@pytest.mark.parametrize("what", ["no PEM", "another key", "no file"])
def test_an_invalid_certificate_is_refused_and_the_old_one_stays_in_use(files: Files, what: str) -> None:
    old = files.renew()
    with Service(*AT_ONCE, *files.options) as service:
        if what == "no PEM":
            files.cert.write_text("no PEM")
        elif what == "another key":
            key = files.key.read_bytes()
            files.renew()
            files.key.write_bytes(key)
        else:
            files.key.unlink()
        for _ in range(2):
            since = len(service.log)
            service.send_signal(signal.SIGHUP)
            words = service.logged(since=since, level="error")["message"]
            assert words.startswith("reload failed: ")
            assert str(files.key) in words
            assert get(service.url, "/healthz", old).status == 200
        assert len([line for line in service.log if line["level"] == "error"]) == 2
        service.send_signal()
        assert service.ended(excused="reload failed: ") == 0


def test_client_keys_are_reloaded(kind: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-old\n")
    with (
        Service(*SHORT, "--api-key-file", str(keys), kind=kind) as service,
        closing(connect(service.url)) as connection,
    ):

        def status(key: str) -> int:
            with closing(connect(service.url)) as other:
                other.request("GET", "/v1/models", headers={"x-api-key": key})
                return other.getresponse().status

        connection.request("GET", "/v1/models", headers={"x-api-key": "sk-old"})
        assert connection.getresponse().read()
        keys.write_text("sk-new\n")
        assert (status("sk-old"), status("sk-new")) == (200, 401)
        service.send_signal(signal.SIGHUP)
        service.logged(event="reloaded")
        assert (status("sk-old"), status("sk-new")) == (401, 200)
        keys.write_text("sk-\x07\n")
        service.send_signal(signal.SIGHUP)
        assert "sk-" not in service.logged(level="error")["message"]
        assert status("sk-new") == 200
        connection.request("GET", "/v1/models", headers={"x-api-key": "sk-old"})
        assert connection.getresponse().status == 401, "also on an open connection"
        service.send_signal()
        assert service.ended(excused="reload failed: ") == 0


def test_an_engine_that_raises_during_a_reload_does_not_end_the_service(tmp_path: Path) -> None:
    """The engine is the operator's code and may raise any exception."""
    engine = ("--engine", "tests.server.engines:FixedKey", "--workers", "2")
    with Service(*engine) as service:
        service.send_signal(signal.SIGHUP)
        assert service.logged(level="error")["message"] == "reload failed: ZeroDivisionError"
        assert get(service.url, "/healthz").status == 200
        service.send_signal()
        assert service.ended(excused="reload failed: ") == 0


def test_a_reload_without_files_succeeds(kind: str) -> None:
    with Service(*AT_ONCE, kind=kind) as service:
        service.send_signal(signal.SIGHUP)
        service.logged(event="reloaded")
        assert get(service.url, "/healthz").status == 200


def hello_of(version: bytes) -> bytes:
    """The ClientHello of a client whose newest TLS version is `version`."""
    ciphers = b"\xc0\x2b\xc0\x2f\xc0\x09\xc0\x13"
    extensions = (
        b"\x00\x0a\x00\x04\x00\x02\x00\x17"  # P-256
        b"\x00\x0b\x00\x02\x01\x00"  # its points as they are
        b"\x00\x0d\x00\x06\x00\x04\x04\x03\x08\x04"  # signatures by ECDSA and RSA with SHA-256
    )
    body = version + bytes(32) + b"\x00" + len(ciphers).to_bytes(2) + ciphers + b"\x01\x00"
    body += len(extensions).to_bytes(2) + extensions
    hello = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(hello).to_bytes(2) + hello


def test_tls_1_2_is_the_oldest_version(files: Files) -> None:
    files.renew()
    assert Certificate(str(files.cert), str(files.key)).context.minimum_version == ssl.TLSVersion.TLSv1_2
    with Service(*AT_ONCE, *files.options) as service:
        host, _, port = service.url.removeprefix("https://").partition(":")
        for version, answer in ((b"\x03\x01", b""), (b"\x03\x02", b""), (b"\x03\x03", b"\x16\x03\x03")):
            with socket.create_connection((host, int(port)), 10) as client:
                client.sendall(hello_of(version))
                assert client.recv(3) == answer
