"""TLS on both sides, in real processes: versions, ciphers and certificates."""

import asyncio
import datetime
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.checks.security.engine import CHUNKS, MODELS
from tests.end_to_end.conftest import AT_ONCE
from tests.support.client import Answer, ask, get
from tests.support.service import PARSERS, Service
from tests.support.upstream import ScriptedUpstream, Wire, json_answer, sse

YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


class Authority:
    """A CA, its file, and files of certificates that it issues."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def files(self, issued: trustme.LeafCert, name: str) -> tuple[str, str]:
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return str(cert), str(key)

    def server(self, issued: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (issued or self.ca.issue_cert("127.0.0.1")).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def engine(wire: Wire) -> None:
    await wire.send(json_answer(200, MODELS) if wire.method == "GET" else sse(*CHUNKS))


def asked_over(*options: str) -> Answer:
    with Service("--upstream-api", "chat", *options) as service:
        return ask(service.url)


# --- clients ---


@pytest.fixture(scope="module", params=PARSERS)
def secured(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Service]:
    cert, key = authority.files(authority.ca.issue_cert("127.0.0.1"), "service")
    with Service("--simulate", *AT_ONCE, "--tls-cert", cert, "--tls-key", key, kind=request.param) as service:
        yield service


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A context for this version only, with all ciphers, so that the other side has to refuse."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
        context.minimum_version = version
    return context


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_may_speak_tls_1_2_and_1_3(secured: Service, authority: Authority, version: ssl.TLSVersion) -> None:
    assert get(secured.url, "/healthz", only(trusting(authority), version)).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_a_client_with_an_older_tls_version_is_refused(
    secured: Service, authority: Authority, version: ssl.TLSVersion
) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(secured.url, "/healthz", only(trusting(authority), version))
    assert get(secured.url, "/healthz", trusting(authority)).status == 200


@pytest.mark.parametrize("ciphers", ["aNULL", "eNULL", "kRSA", "SHA1:!ECDHE:!DHE"])
def test_a_client_with_weak_ciphers_only_is_refused(secured: Service, authority: Authority, ciphers: str) -> None:
    context = only(trusting(authority), ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(secured.url, "/healthz", context)


# --- the engine ---


def expired(authority: Authority) -> trustme.LeafCert:
    return authority.ca.issue_cert("127.0.0.1", not_after=YESTERDAY)


@pytest.mark.parametrize("who", ["nobody trusts", "is another", "is another by name", "has expired", "signed itself"])
async def test_an_engine_without_a_valid_certificate_gets_neither_key_nor_prompt(
    authority: Authority, who: str
) -> None:
    issued = {
        "is another": lambda: authority.ca.issue_cert("127.0.0.2"),
        "is another by name": lambda: authority.ca.issue_cert("elsewhere.example"),
        "has expired": lambda: expired(authority),
        "signed itself": lambda: trustme.CA().issue_cert("127.0.0.1"),
    }.get(who, lambda: authority.ca.issue_cert("127.0.0.1"))()
    trust = () if who == "nobody trusts" else ("--upstream-ca", authority.file)
    async with ScriptedUpstream(engine, ssl=authority.server(issued)) as upstream:
        answer = await asyncio.to_thread(asked_over, "--upstream", upstream.url, *trust)
        assert not upstream.requests
    assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")


async def test_an_engine_with_a_valid_certificate_is_used(authority: Authority) -> None:
    async with ScriptedUpstream(engine, ssl=authority.server()) as upstream:
        answer = await asyncio.to_thread(asked_over, "--upstream", upstream.url, "--upstream-ca", authority.file)
    assert answer.status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_an_engine_with_tls_older_than_1_2_is_refused(authority: Authority, version: ssl.TLSVersion) -> None:
    async with ScriptedUpstream(engine, ssl=only(authority.server(), version)) as upstream:
        answer = await asyncio.to_thread(asked_over, "--upstream", upstream.url, "--upstream-ca", authority.file)
        assert not upstream.requests
    assert answer.status == 529


# --- an engine that requests a client certificate ---


def asking(authority: Authority) -> ssl.SSLContext:
    context = authority.server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    return context


async def test_an_engine_that_requests_a_certificate_gets_the_configured_one(authority: Authority) -> None:
    cert, key = authority.files(authority.ca.issue_cert("sidecar.example"), "sidecar")
    ours = ("--upstream-ca", authority.file, "--upstream-cert", cert, "--upstream-cert-key", key)
    async with ScriptedUpstream(engine, ssl=asking(authority)) as upstream:
        answer = await asyncio.to_thread(asked_over, "--upstream", upstream.url, *ours)
        assert answer.status == 200
        shown = upstream.requests[-1].wire._transport.get_extra_info("peercert")
    assert ("DNS", "sidecar.example") in shown["subjectAltName"]


@pytest.mark.parametrize("who", ["nobody", "a stranger"])
async def test_an_engine_that_requests_a_certificate_refuses_any_other(authority: Authority, who: str) -> None:
    ours: tuple[str, ...] = ("--upstream-ca", authority.file)
    if who == "a stranger":
        cert, key = authority.files(trustme.CA().issue_cert("sidecar.example"), "stranger")
        ours += ("--upstream-cert", cert, "--upstream-cert-key", key)
    async with ScriptedUpstream(engine, ssl=asking(authority)) as upstream:
        answer = await asyncio.to_thread(asked_over, "--upstream", upstream.url, *ours)
        assert not upstream.requests
    assert answer.status in (502, 529)  # in TLS 1.3 the refusal comes after the handshake
