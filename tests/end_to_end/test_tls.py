"""TLS and Unix sockets on both sides of the service, and the key of the engine."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
import trustme

from anthro_asgi.conformance.grammar import message_from_events
from tests.end_to_end.conftest import AT_ONCE, KEY
from tests.support.client import HELLO, Answer, ask, ask_both_ways, get
from tests.support.llama.model import ANSWER
from tests.support.llama.server import LlamaServer
from tests.support.service import Service, until
from tests.support.upstream import ScriptedUpstream, Wire, json_answer, sse

MODELS = {"object": "list", "data": [{"id": "scripted", "object": "model"}]}
CHUNKS: tuple[dict[str, Any], ...] = (
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Over TLS"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
)


async def engine(wire: Wire) -> None:
    await wire.send(json_answer(200, MODELS) if wire.method == "GET" else sse(*CHUNKS))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def authority_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def serving(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """The files of a server with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# --- TLS for clients ---


@pytest.fixture(scope="module")
def secured(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(directory / "key")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(directory / "cert", append=True)
    files = ("--tls-cert", str(directory / "cert"), "--tls-key", str(directory / "key"))
    with Service("--simulate", *AT_ONCE, *files) as service:
        yield service


def test_a_client_that_trusts_the_authority_is_served_over_tls(secured: Service, authority: trustme.CA) -> None:
    assert secured.url.startswith("https://")
    context = trusting(authority)
    whole, streamed = ask(secured.url, context=context), ask(secured.url, context=context, stream=True)
    assert whole.status == 200
    assert message_from_events(streamed.events)["content"] == whole.json["content"]


def test_the_sdk_is_served_over_tls(secured: Service, authority: trustme.CA) -> None:
    transport = anthropic.DefaultHttpxClient(verify=trusting(authority))
    with anthropic.Anthropic(base_url=secured.url, api_key=KEY, http_client=transport, max_retries=0) as client:
        asked: Any = HELLO
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream)


def test_a_client_with_another_authority_fails_alone(secured: Service, authority: trustme.CA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        get(secured.url, "/healthz", trusting(trustme.CA()))
    with pytest.raises((ConnectionError, OSError)):
        get(secured.url.replace("https", "http"), "/healthz")
    assert get(secured.url, "/healthz", trusting(authority)).status == 200


# --- TLS to the engine ---


async def test_an_engine_is_reached_over_tls(authority: trustme.CA, authority_file: str) -> None:
    async with ScriptedUpstream(engine, ssl=serving(authority)) as upstream:
        whole, streamed, ready = await asyncio.to_thread(_three_answers, upstream.url, authority_file)
    assert upstream.url.startswith("https://")
    assert whole.json["content"] == [{"type": "text", "text": "Over TLS"}]
    assert message_from_events(streamed.events)["content"] == whole.json["content"]
    assert ready.status == 200


def _three_answers(upstream: str, authority_file: str) -> tuple[Answer, Answer, Answer]:
    with Service("--upstream", upstream, "--upstream-ca", authority_file) as service:
        return ask(service.url), ask(service.url, stream=True), get(service.url, "/readyz")


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [
        ("127.0.0.1", False, "unable to get local issuer certificate; name the CA with --upstream-ca"),
        ("elsewhere.example", True, "certificate verify failed: IP address mismatch"),
    ],
)
async def test_an_engine_with_an_unknown_authority_is_refused_and_the_log_says_why(
    authority: trustme.CA, authority_file: str, name: str, trusted: bool, words: str
) -> None:
    options = ("--upstream-ca", authority_file) if trusted else ()
    async with ScriptedUpstream(engine, ssl=serving(authority, name)) as upstream:
        await asyncio.to_thread(_refused_for, words, upstream.url, options)
    assert not upstream.requests


def _refused_for(words: str, upstream: str, options: tuple[str, ...]) -> None:
    with Service("--upstream", upstream, *options) as service:
        assert get(service.url, "/readyz").status == 503
        for stream in (False, True):
            answer = ask(service.url, stream=stream)
            assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")
            assert "certificate" not in answer.json["error"]["message"]
        assert get(service.url, "/healthz").status == 200
        until(lambda: any(words in line.get("cause", "") for line in service.log if line["level"] == "warning"))


# --- Unix sockets, and the engine's key ---


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """An engine on a Unix socket that requires a key."""
    with LlamaServer(uds=tmp_path_factory.mktemp("engine") / "engine.sock", api_key="sk-engine") as llama:
        yield llama


def test_both_sides_may_be_unix_sockets(locked: LlamaServer, tmp_path: Path) -> None:
    sockets = ("--uds", str(tmp_path / "service.sock"), "--upstream", f"unix:{locked.uds}")
    with Service(*sockets, ANTHRO_ASGI_UPSTREAM_KEY="sk-engine") as service:
        assert service.url == f"unix:{tmp_path}/service.sock"
        assert ask_both_ways(service.url)["content"] == [{"type": "text", "text": ANSWER}]
        assert get(service.url, "/readyz").status == 200


@pytest.mark.clause("7.5")
def test_a_key_that_the_engine_refuses_is_a_500_that_does_not_show_the_key(locked: LlamaServer) -> None:
    with Service("--upstream", f"unix:{locked.uds}", ANTHRO_ASGI_UPSTREAM_KEY="sk-wrong") as service:
        answer = ask(service.url)
        assert (answer.status, answer.json["error"]["type"]) == (500, "api_error")
        assert "sk-wrong" not in answer.body.decode() + str(service.log)
