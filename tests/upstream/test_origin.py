"""Upstream URLs: how they are parsed, which are refused, and client certificates."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from anthro_asgi.upstream.origin import Origin


@pytest.mark.parametrize(
    ("url", "text", "host", "port", "authority", "chat", "props"),
    [
        ("http://h", "http://h", "h", 80, "h", "/v1/x", "/props"),
        ("http://h/", "http://h", "h", 80, "h", "/v1/x", "/props"),
        ("http://h:80/v1", "http://h", "h", 80, "h", "/v1/x", "/props"),
        ("http://H.example:8000/v1/", "http://h.example:8000", "h.example", 8000, "h.example:8000", "/v1/x", "/props"),
        ("HTTP://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1", "/v1/x", "/props"),
        ("http://h/openai/v1", "http://h", "h", 80, "h", "/openai/v1/x", "/openai/props"),
        ("http://h/openai", "http://h", "h", 80, "h", "/openai/v1/x", "/openai/props"),
        ("http://h/a/b%20c//", "http://h", "h", 80, "h", "/a/b%20c/v1/x", "/a/b%20c/props"),
        ("http://h/v1beta", "http://h", "h", 80, "h", "/v1beta/v1/x", "/v1beta/props"),
        ("http://h/v1beta/openai/", "http://h", "h", 80, "h", "/v1beta/openai/x", "/v1beta/openai/props"),
        ("http://h/api/paas/v4", "http://h", "h", 80, "h", "/api/paas/v4/x", "/api/paas/v4/props"),
        ("https://h", "https://h", "h", 443, "h", "/v1/x", "/props"),
        ("https://h:443/v1", "https://h", "h", 443, "h", "/v1/x", "/props"),
        ("https://h:80", "https://h:80", "h", 80, "h:80", "/v1/x", "/props"),
        ("http://[::1]", "http://[::1]", "::1", 80, "[::1]", "/v1/x", "/props"),
        ("http://[::1]:8000/v1", "http://[::1]:8000", "::1", 8000, "[::1]:8000", "/v1/x", "/props"),
        ("http://[fe80::1%eth0]:8", "http://[fe80::1]:8", "fe80::1%eth0", 8, "[fe80::1]:8", "/v1/x", "/props"),
        ("unix:/run/e.sock", "unix:/run/e.sock", "", 0, "localhost", "/v1/x", "/props"),
        ("unix:/run/e.sock/", "unix:/run/e.sock", "", 0, "localhost", "/v1/x", "/props"),
        ("unix:/run/e.sock/v1", "unix:/run/e.sock", "", 0, "localhost", "/v1/x", "/props"),
        ("unix:///run/e.sock/v1/", "unix:/run/e.sock", "", 0, "localhost", "/v1/x", "/props"),
    ],
)
def test_a_url_is_parsed_into_an_address_and_request_targets(
    url: str, text: str, host: str, port: int, authority: str, chat: str, props: str
) -> None:
    origin = Origin.parse(url)
    assert (str(origin), origin.host, origin.port, origin.authority) == (text, host, port, authority)
    assert origin.target("/x") == chat
    assert origin.target("/props", api=False) == props
    assert (origin.tls is not None) == url.startswith("https")
    assert origin.socket == ("/run/e.sock" if url.startswith("unix") else "")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "scheme"),
        ("h:8000", "scheme"),
        ("127.0.0.1:8000", "scheme"),
        ("ftp://h", "scheme"),
        ("ws://h", "scheme"),
        ("http:///v1", "host is missing"),
        ("http://:80", "host is missing"),
        ("http://sk-secret@h", "user"),
        ("http://u:sk-secret@h/v1", "user"),
        ("http://h/v1?key=sk-secret", "query"),
        ("http://h/v1?", "query"),
        ("http://h/v1#sk-secret", "fragment"),
        ("unix:/s.sock?sk-secret", "query"),
        ("http://h:sk-secret", "port"),
        ("http://h:0", "port"),
        ("http://h:65536", "port"),
        ("http://h:-1", "port"),
        ("http://[::1", "malformed"),
        ("http://[sk-secret]/", "malformed|host"),
        ("http://h h/", "spaces"),
        ("http://h/\r\nx: sk-secret", "spaces"),
        ("http://h\t/", "spaces"),
        ("http://h_é/", "host is invalid"),
        ("http://h$x/", "host is invalid"),
        ("http://h/é", "percent-encoded"),
        ("unix:s.sock", "unix:/absolute"),
        ("unix:", "unix:/absolute"),
        ("unix://h/s.sock", "unix:/absolute"),
    ],
)
def test_an_invalid_url_is_refused_in_one_line_without_secrets(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        Origin.parse(url)
    assert "\n" not in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_tls_verifies_certificates_and_requires_version_1_2() -> None:
    context = Origin.parse("https://h").tls
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_ca_file_that_is_missing_or_contains_no_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CA file .*absent\.pem: No such file"):
        Origin.parse("https://h", ca_file=str(tmp_path / "absent.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ValueError, match=r"CA file .*empty\.pem: .*cert"):
        Origin.parse("https://h", ca_file=str(empty))


def test_a_ca_file_is_not_read_for_plain_http() -> None:
    assert Origin.parse("http://h", ca_file="/nowhere.pem").tls is None


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of valid and invalid certificates and keys."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    mine, other = authority.issue_cert("me.example"), authority.issue_cert("other.example")
    mine.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    mine.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    mine.private_key_pem.write_to_path(str(folder / "key.pem"))
    other.private_key_pem.write_to_path(str(folder / "other.pem"))
    key = load_pem_private_key(mine.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    (folder / "locked.pem").write_bytes(locked)
    (folder / "text.pem").write_text("no PEM")
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    return folder


@pytest.mark.parametrize(("cert", "key"), [("both.pem", None), ("cert.pem", "key.pem")], ids=["one file", "two files"])
def test_the_key_of_a_client_certificate_may_be_in_the_same_file_or_another(
    certificates: Path, cert: str, key: str | None
) -> None:
    key_file = None if key is None else str(certificates / key)
    assert Origin.parse("https://h", cert_file=str(certificates / cert), cert_key_file=key_file).tls is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("absent.pem", "key.pem", r"client certificate \S+absent\.pem: No such file or directory"),
        ("cert.pem", "absent.pem", r"client key \S+absent\.pem: No such file or directory"),
        (".", None, r"client certificate \S+: Is a directory"),
        ("text.pem", "key.pem", r"client certificate \S+text\.pem: the file contains no certificate in PEM format"),
        ("cert.pem", "text.pem", r"client key \S+text\.pem: the file contains no key in PEM format"),
        ("cert.pem", None, r"client key \S+cert\.pem: the file contains no key in PEM format"),
        ("broken.pem", None, r"client certificate \S+broken\.pem: the certificate or its key cannot be read"),
        ("cert.pem", "other.pem", r"client key \S+other\.pem: it does not match the certificate \S+cert\.pem"),
        ("cert.pem", "locked.pem", r"client key \S+locked\.pem: it is encrypted; .*"),
        (None, "key.pem", "client key: the client certificate is missing"),
    ],
)
def test_an_unusable_client_certificate_is_refused_in_one_line(
    certificates: Path, cert: str | None, key: str | None, why: str
) -> None:
    files = [None if name is None else str(certificates / name) for name in (cert, key)]
    with pytest.raises(ValueError, match=rf"\A{why}\Z"):
        Origin.parse("https://h", cert_file=files[0], cert_key_file=files[1])


@pytest.mark.parametrize("url", ["http://h", "unix:/s.sock"])
def test_a_client_certificate_without_https_is_refused(certificates: Path, url: str) -> None:
    with pytest.raises(ValueError, match="client certificate: only an https upstream"):
        Origin.parse(url, cert_file=str(certificates / "both.pem"))


def test_an_origin_cannot_be_changed() -> None:
    origin = Origin.parse("http://h")
    with pytest.raises(AttributeError):
        origin.host = "other"  # type: ignore[misc]
    assert origin == Origin.parse("http://h:80/v1")
