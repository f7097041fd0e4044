"""TLS on every server, and HTTP/2 on those that have it."""

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from tests.embedding.servers import SERVERS, Command, Running, Server, running
from tests.support.client import HELLO

BY_NAME = {server.name: server for server in SERVERS}
UVICORN = ("--ssl-certfile", "{chain}", "--ssl-keyfile", "{key}")
# options for certificate and key, and whether the server then speaks HTTP/2
TLS: dict[str, tuple[tuple[str, ...], bool]] = {
    "uvicorn, h11": (UVICORN, False),
    "uvicorn, httptools": (UVICORN, False),
    "uvicorn, zttp": ((*UVICORN, "--http2"), True),
    "hypercorn": (("--certfile", "{chain}", "--keyfile", "{key}"), True),
    "granian": (("--ssl-certificate", "{chain}", "--ssl-keyfile", "{pkcs8}"), True),
    "daphne": (
        ("-e", "ssl:{port}:privateKey={key}:certKey={chain}:interface=127.0.0.1"),
        True,
    ),  # by Twisted, with h2 and priority
}


def _with_tls(server: Server, files: dict[str, Path]) -> Server:
    options, _ = TLS[server.name]

    def command(port: int) -> list[str]:
        plain = server.command(port)
        if server.name == "daphne":  # `-p` would add a port without TLS
            plain = [word for word in plain if word not in ("-p", str(port), "-b", "127.0.0.1")]
        return [*plain, *(option.format(port=port, **files) for option in options)]

    tls: Command = command
    return replace(server, command=tls)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=TLS)
def served(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    certificate = authority.issue_cert("127.0.0.1")
    folder = tmp_path_factory.mktemp("tls")
    files = {name: folder / f"{name}.pem" for name in ("chain", "key", "pkcs8")}
    files["chain"].write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    files["key"].write_bytes(certificate.private_key_pem.bytes())
    convert = ("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", str(files["key"]), "-out", str(files["pkcs8"]))
    subprocess.run(convert, check=True, capture_output=True)
    with running(_with_tls(BY_NAME[request.param], files)) as it:
        yield it


@pytest.mark.parametrize("http2", [False, True])
def test_a_stream_over_tls(served: Running, authority: trustme.CA, http2: bool) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    body: dict[str, Any] = {**HELLO, "model": "rich", "stream": True}
    with httpx.Client(verify=context, http1=not http2, http2=http2, timeout=20) as client:
        url = f"https://127.0.0.1:{served.port}/v1/messages"
        if http2 and not TLS[served.server.name][1]:
            with pytest.raises(httpx.TransportError):  # no common protocol
                client.post(url, json=body)
            return
        response = client.post(url, json=body)
        assert (response.status_code, response.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
        events = parse_events(response.content)
        check_stream(events)
        assert message_from_events(events)["stop_reason"] == "tool_use"
        refused = client.post(url, json={**body, "max_tokens": -1})
        assert (refused.status_code, refused.json()["type"]) == (400, "error")
