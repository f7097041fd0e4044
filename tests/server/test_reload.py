"""SIGHUP: what files hold now is taken without a stop, or refused in one line and everything left as it is."""

import signal
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.server.tls import Certificate
from tests.server.process import AT_ONCE, Process
from tests.support.client import connect, get, post

SHORT = ("--simulate-ttft", "0", "--simulate-itl", "10ms", "--simulate-output-tokens", "60")


class Files:
    """A certificate and its key in files that are written anew."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key = directory / "cert", directory / "key"
        self.options = ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def renew(self) -> ssl.SSLContext:
        """From an authority that only this context trusts."""
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


def test_a_renewed_certificate_is_shown_to_who_connects_and_open_streams_go_on(kind: str, files: Files) -> None:
    old = files.renew()
    with Process(kind, *SHORT, *files.options) as service, closing(connect(service.url, old)) as connection:
        post(connection, stream=True)
        response = connection.getresponse()
        begun = response.readline()
        new = files.renew()
        service.interrupt(signal.SIGHUP)
        service.logged(event="reloaded", level="info")
        assert get(service.url, "/healthz", new).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            get(service.url, "/healthz", old)
        assert message_from_events(parse_events(begun + response.read()))["content"]
        post(connection)
        assert connection.getresponse().status == 200


@pytest.mark.parametrize("what", ["no PEM", "another key", "no file"])
def test_a_certificate_that_does_not_hold_is_refused_and_the_old_one_shown(files: Files, what: str) -> None:
    old = files.renew()
    with Process("fast", *AT_ONCE, *files.options) as service:
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
            service.interrupt(signal.SIGHUP)
            words = service.logged(since=since, level="error")["message"]
            assert words.startswith("not reloaded: ")
            assert str(files.key) in words
            assert get(service.url, "/healthz", old).status == 200
        assert len([line for line in service.log if line["level"] == "error"]) == 2
        service.interrupt()
        assert service.ended(excused="not reloaded: ") == 0


def test_keys_of_clients_are_taken_anew(kind: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-old\n")
    with Process(kind, *SHORT, "--api-key-file", str(keys)) as service, closing(connect(service.url)) as connection:

        def status(key: str) -> int:
            with closing(connect(service.url)) as other:
                other.request("GET", "/v1/models", headers={"x-api-key": key})
                return other.getresponse().status

        connection.request("GET", "/v1/models", headers={"x-api-key": "sk-old"})
        assert connection.getresponse().read()
        keys.write_text("sk-new\n")
        assert (status("sk-old"), status("sk-new")) == (200, 401)
        service.interrupt(signal.SIGHUP)
        service.logged(event="reloaded")
        assert (status("sk-old"), status("sk-new")) == (401, 200)
        keys.write_text("sk-\x07\n")
        service.interrupt(signal.SIGHUP)
        assert "sk-" not in service.logged(level="error")["message"]
        assert status("sk-new") == 200
        connection.request("GET", "/v1/models", headers={"x-api-key": "sk-old"})
        assert connection.getresponse().status == 401, "the connection is older than the key"
        service.interrupt()
        assert service.ended(excused="not reloaded: ") == 0


def test_whatever_keeps_it_from_new_keys_does_not_end_it(tmp_path: Path) -> None:
    """The engine is its operator's own, and fails as it likes."""
    engine = ("--engine", "tests.server.engines:Stubborn", "--workers", "2")
    with Process("fast", *engine) as service:
        service.interrupt(signal.SIGHUP)
        assert service.logged(level="error")["message"] == "not reloaded: ZeroDivisionError"
        assert get(service.url, "/healthz").status == 200
        service.interrupt()
        assert service.ended(excused="not reloaded: ") == 0


def test_without_files_there_is_nothing_to_take_and_nothing_breaks(kind: str) -> None:
    with Process(kind, *AT_ONCE) as service:
        service.interrupt(signal.SIGHUP)
        service.logged(event="reloaded")
        assert get(service.url, "/healthz").status == 200


def hello_of(version: bytes) -> bytes:
    """The first words of a client that knows no more than that version of TLS."""
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


def test_tls_1_2_is_the_oldest_that_is_spoken(files: Files) -> None:
    files.renew()
    assert Certificate(str(files.cert), str(files.key)).context.minimum_version == ssl.TLSVersion.TLSv1_2
    with Process("fast", *AT_ONCE, *files.options) as service:
        host, _, port = service.url.removeprefix("https://").partition(":")
        for version, answer in ((b"\x03\x01", b""), (b"\x03\x02", b""), (b"\x03\x03", b"\x16\x03\x03")):
            with socket.create_connection((host, int(port)), 10) as client:
                client.sendall(hello_of(version))
                assert client.recv(3) == answer
