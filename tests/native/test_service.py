"""The whole service with the native path: real processes, uvicorn's transports, TLS on both sides."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from anthro_asgi import _native
from anthro_asgi._native import _pump
from tests.engines.openai.test_fast_path import STREAMS
from tests.native.test_relay import HEAD, finish, token
from tests.replay import Case
from tests.replay.asking import messages_request
from tests.replay.golden import masked
from tests.replay.serving import NOT_FOUND, as_bytes
from tests.support.client import ask
from tests.support.service import Service
from tests.support.upstream import ThreadedUpstream, Wire, fragmented

pytestmark = pytest.mark.slow
CASES = {case.file: case for case in STREAMS}


async def replay(wire: Wire) -> None:
    """The recording that the request's model names, cut at each event and in the middle of some."""
    if wire.target != "/v1/chat/completions":
        await wire.send(NOT_FOUND)
        return
    case = CASES[json.loads(wire.body)["model"]]
    answer = as_bytes(case)
    cuts = [at for at in range(len(answer)) if answer[at - 2 : at] == b"\r\n"] + list(range(1000, len(answer), 1777))
    await fragmented(answer, sorted(set(cuts)))(wire)
    if case.end != "complete" or case.framing == "close":
        wire.close()


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, ...]]:
    """With the thread, with pumps in the event loop, and without both."""
    with ThreadedUpstream(replay) as upstream, ExitStack() as stack:
        options = ("--upstream", f"{upstream.url}/v1", "--upstream-api", "chat", "--dialect", "vllm")
        yield tuple(stack.enter_context(Service(*options, "--native", mode)) for mode in ("on", "loop", "off"))


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_the_service_sends_the_same_bytes_with_and_without_the_native_path(
    case: Case, services: tuple[Service, ...]
) -> None:
    request = {**messages_request(case), "model": case.file, "stream": True}
    threaded, native, pure = (ask(service.url, **request) for service in services)
    assert (native.status, _after_start(native.body)) == (pure.status, _after_start(pure.body))
    assert (threaded.status, _after_start(threaded.body)) == (pure.status, _after_start(pure.body))


def _after_start(body: bytes) -> bytes:
    """All but `message_start`, whose count of the prompt depends on what the kernel delivered with the first token."""
    return masked(body).partition(b"\n\n")[2]


def test_the_log_says_whether_the_native_path_is_used(services: tuple[Service, ...]) -> None:
    assert [service.logged(event="started")["native"] for service in services] == ["yes", "loop", "no"]


async def steady(wire: Wire) -> None:
    await wire.send(HEAD)
    for number in range(300):
        await wire.send(token(f" {number}"))
    await wire.send(finish())


@pytest.mark.parametrize("native", ["on", "loop"])
@pytest.mark.parametrize("client", ["plain", "tls"])
def test_tls_on_either_side(client: str, native: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")) if client == "tls" else ()
    with ThreadedUpstream(steady, ssl=server) as upstream:
        options = ("--upstream", f"{upstream.url}/v1", "--upstream-ca", str(tmp_path / "ca.pem"))
        with Service(*options, "--upstream-api", "chat", "--dialect", "vllm", "--native", native, *tls) as service:
            answer = ask(service.url, context=trusting, stream=True)
    text = "".join(event.data["delta"]["text"] for event in answer.events if event.type == "content_block_delta")
    assert text == "".join(f" {number}" for number in range(300))


def test_an_extension_module_of_another_version_is_not_used(tmp_path: Path) -> None:
    """As after `git pull` in a checkout, until the package is installed again."""
    names = ["Pump", "Thread"]
    for older in ("", "INTERFACE = 0\n"):
        package = tmp_path / f"older{len(older)}"
        package.mkdir()
        (package / "_pump.py").write_text(older + "".join(f"def {name}(): ...\n" for name in names))
        (package / "__init__.py").write_text(Path(_native.__file__).read_text())
        code = f"import {package.name} as native; print(native.new_pump, native.new_thread, native.missing())"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "None None an extension module of this version: install the package again\n"
    assert _pump.INTERFACE == _native.INTERFACE
