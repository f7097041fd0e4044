"""Secrets: keys, client content, and the engine's address. They are searched for in every byte that the service emits.

Requests, keys and addresses contain the words below, and everything fails in turn.
"""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.checks.security import leaky
from tests.checks.security.engine import RecordingEngine
from tests.support.client import RawClient
from tests.support.service import ROOT, Service
from tests.support.upstream import ScriptedUpstream, Wire, json_answer, raw_answer, sse

CANARY = "sk-canary"  # no text of ours begins like that
CLIENT_KEY = f"{CANARY}-of-the-client-0123456789"
ENGINE_KEY = f"{CANARY}-of-the-engine-0123456789"
PROMPT = f"{CANARY}-of-the-prompt-0123456789"
WRONG_KEY = f"{CANARY}-that-is-wrong"
EVERYWHERE: dict[str, Any] = {
    "max_tokens": 16,
    "system": [{"type": "text", "text": PROMPT}],
    "metadata": {"user_id": PROMPT},
    "stop_sequences": [PROMPT],
    "tools": [{"name": "look", "description": PROMPT, "input_schema": {"type": "object", "title": PROMPT}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {PROMPT: PROMPT}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": PROMPT}]},
    ],
}
LOGS = [("--log-level", "debug", "--log-format", "json"), ("--log-level", "info", "--log-format", "text")]
MODELS = json_answer(200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm"}]})


def request(
    path: str, body: Any = None, *, key: str = CLIENT_KEY, headers: dict[str, str] | None = None, method: str = "POST"
) -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "service", "x-api-key": key, "authorization": f"Bearer {key}", "connection": "close"}
    fields |= {"content-length": str(len(data))} | (headers or {})
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


class ObservedService:
    """A service over a failing upstream, and everything it emits: responses, log, metrics."""

    def __init__(self, *options: str, **environ: str) -> None:
        self.said: list[str] = []
        environ |= {"ANTHRO_ASGI_API_KEYS": CLIENT_KEY, "ANTHRO_ASGI_UPSTREAM_KEY": ENGINE_KEY}
        self.service = Service(*options, environ=environ, may_log_errors=True)

    def ask(self, data: bytes) -> bytes:
        """All bytes that the service sends on one connection."""
        with RawClient(self.service.url) as client:
            client.send(data)
            said = client.everything()
        self.said.append(said.decode("latin-1"))
        return said

    def ask_everything(self, model: str) -> None:
        """Use every route that calls the engine, in every way."""
        for stream in (False, True):
            assert self.ask(request("/v1/messages", {**EVERYWHERE, "model": model, "stream": stream}))
        assert self.ask(request("/v1/messages/count_tokens", {**EVERYWHERE, "model": model}))

    def ask_around(self) -> None:
        for path in (f"/v1/models?limit=5&after_id={PROMPT}", "/v1/models", "/v1/models/x", "/readyz", "/metrics", "/"):
            assert self.ask(request(path, method="GET"))

    def heard(self) -> str:
        """Everything it emitted, after it has ended."""
        return "\n".join([*self.said, *self.service.lines])


def quiet_about(text: str, *words: str) -> None:
    for word in words:
        found = [line[:600] for line in text.splitlines() if word in line]
        assert not found, f"{word} is in {found[:3]}"


# --- a remote engine that quotes everything ---

TELLING = {
    "message": f"{ENGINE_KEY} {PROMPT}",
    "code": ENGINE_KEY,
    "type": PROMPT,
    "param": PROMPT,
}
STREAMED = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
STACK = f'Traceback (most recent call last):\n  File "/app/{PROMPT}.py", line 1, in {ENGINE_KEY}\nValueError: {PROMPT}'
CHUNK = {"choices": [{"index": 0, "delta": {"content": "One. "}}]}


def behaviours(address: str) -> dict[str, bytes]:
    """Model name → the answer of an engine at `address`. It always quotes the key and the address."""
    said = {**TELLING, "message": f"{TELLING['message']} at {address} or {address.partition('//')[2]}"}
    mine = {**said, "message": said["message"].replace(PROMPT, "…")}  # what may reach the client
    bodies = {f"{status}": json_answer(status, {"error": said}) for status in (401, 403, 500, 501, 502, 503, 504, 529)}
    bodies |= {f"{status}": json_answer(status, {"error": mine}) for status in (400, 404, 405, 409, 413, 422, 429)}
    bodies |= {
        f"{status} cut off": json_answer(status, {"error": "x" * (600 - cut) + ENGINE_KEY})
        for status in (400, 429)
        for cut in (8, 20)
    }
    bodies |= {f"{status} plain": json_answer(status, STACK) for status in (500, 503)}
    bodies |= {
        "redirect": raw_answer(302, [("location", f"{address}/{ENGINE_KEY}"), ("content-length", "0")]),
        "page": raw_answer(
            200, [("content-type", "text/html"), ("content-length", "60")], f"<p>{PROMPT}".encode().ljust(60)
        ),
        "no stream": json_answer(200, {"said": said}),
        "no JSON": sse(f"data: {PROMPT} {ENGINE_KEY} {address}\n\n".encode()),
        "no JSON later": sse(CHUNK, f"data: {PROMPT} {ENGINE_KEY} {address}\n\n".encode()),
        "an error": sse({"error": said}),
        "an error later": sse(CHUNK, {"error": said}),
        "a detail": sse({"detail": said["message"]}),
        "an event of error": sse(f"event: error\ndata: {json.dumps({'type': 'error', 'error': said})}\n\n".encode()),
        "no type": sse({"type": PROMPT, "choices": PROMPT}),
        "no end": sse(CHUNK, done=False),
        "no chunks": raw_answer(200, [("transfer-encoding", "chunked")], PROMPT.encode()),
        "no head": f"{PROMPT} {ENGINE_KEY}\r\n\r\n".encode(),
        "no header": f"HTTP/1.1 200 OK\r\n{PROMPT}{ENGINE_KEY}\r\nconnection: close\r\n\r\n".encode(),
        "no length": raw_answer(200, [("content-length", PROMPT)]),
        "a large event": sse(b"data: " + PROMPT.encode() * 4000 + b"\n\n"),
        "a large answer": json_answer(200, {"said": PROMPT * 4000}),
        "a large head": raw_answer(200, [("x-a", PROMPT * 8000)]),
        "a large chunk of nothing": raw_answer(200, STREAMED, b"1;" + PROMPT.encode() * 8000),
        "chunks of nothing": raw_answer(200, STREAMED, b"0;a=b" + b"\r\nx: y" * 60_000),
        "a type": raw_answer(200, [("content-type", PROMPT), ("content-length", "1")], b"x"),
    }
    return bodies


@pytest.mark.clause("7.4")
@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("logs", LOGS, ids=["debug", "info"])
async def test_keys_prompts_and_addresses_in_an_engines_answer_are_never_emitted(
    api: str, logs: tuple[str, ...]
) -> None:
    answers: dict[str, bytes] = {}

    async def answer(wire: Wire) -> None:
        if wire.method == "GET":
            await wire.send(answers.get("list", MODELS))
            return
        said = answers.get(json.loads(wire.body)["model"], b"") if wire.body else MODELS
        await wire.send(said)
        wire.close()

    async with ScriptedUpstream(answer) as upstream:
        answers |= behaviours(upstream.url)
        limits = ("--max-event", "64KiB", "--max-answer", "64KiB")
        observed = ObservedService("--upstream", upstream.url, "--upstream-api", api, *limits, *logs)
        await asyncio.to_thread(_ask_for_all_of, observed, answers)
        assert upstream.requests
        assert any(ENGINE_KEY in str(request.headers) for request in upstream.requests)
    quiet_about(observed.heard(), CLIENT_KEY, ENGINE_KEY, ENGINE_KEY[:20], upstream.url.removeprefix("http://"))
    # the engine's own words may quote the prompt; only a log at level debug contains them
    quiet_about("\n".join(observed.said) if "debug" in logs else observed.heard(), PROMPT)


def _ask_for_all_of(observed: ObservedService, answers: dict[str, bytes]) -> None:
    with observed.service:
        for model in list(answers):
            observed.ask_everything(model)
        for failing in ("401", "400", "500", "page", "no JSON", "no head"):
            answers["list"] = answers[failing]
            observed.ask_around()


async def test_check_shows_the_engines_words_without_the_key() -> None:
    failing = json_answer(500, {"error": {"message": f"out of memory, {ENGINE_KEY}"}})

    async def answer(wire: Wire) -> None:
        await wire.send(MODELS if wire.method == "GET" else failing)

    async with ScriptedUpstream(answer) as upstream:
        command = (sys.executable, "-m", "anthro_asgi", "check", "--upstream", upstream.url)
        environ = {**os.environ, "ANTHRO_ASGI_UPSTREAM_KEY": ENGINE_KEY}
        checking = partial(subprocess.run, command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
        done = await asyncio.to_thread(checking)
    assert "out of memory" in done.stdout
    assert CANARY not in done.stdout + done.stderr


# --- an engine that cannot be reached ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def nowhere(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An upstream that cannot be reached, and the parts of its address that must not be emitted."""
    name = f"{CANARY}.invalid"
    match request.param:
        case "refused":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))  # bound without listening, so that no other process can take the port
                address = f"127.0.0.1:{free.getsockname()[1]}"
                yield f"http://{address}", address
        case "a name":
            yield f"http://{name}", name
        case "a socket":
            path = str(tmp_path / f"{CANARY}.sock")
            yield f"unix:{path}", path
        case "a name that is too long":
            label = f"{CANARY}{'x' * 70}"
            yield f"http://{label}", label


@pytest.mark.parametrize("nowhere", ["refused", "a name", "a socket", "a name that is too long"], indirect=True)
def test_the_address_of_an_unreachable_engine_is_never_emitted(nowhere: tuple[str, str]) -> None:
    url, address = nowhere
    observed = ObservedService("--upstream", url, *LOGS[0])
    with observed.service:
        observed.ask_everything("m")
        observed.ask_around()
    assert "overloaded_error" in observed.heard()
    assert '"reason":"connect"' in observed.heard()
    quiet_about(observed.heard(), CANARY, address, url)


async def test_the_address_of_an_engine_with_a_wrong_certificate_is_never_emitted(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def ask_around(observed: ObservedService) -> None:
        with observed.service:
            observed.ask_everything("m")
            observed.ask_around()

    async with ScriptedUpstream(MODELS, ssl=context) as upstream:
        observed = ObservedService("--upstream", upstream.url, *LOGS[1])
        await asyncio.to_thread(ask_around, observed)
    assert "certificate verify failed" in observed.heard()
    quiet_about(
        observed.heard(),
        CANARY,
        upstream.url.removeprefix("https://"),
        "127.0.0.1:" + upstream.url.rpartition(":")[2],
    )


async def test_the_address_of_an_engine_that_is_too_slow_is_never_emitted() -> None:
    async def silence(wire: Wire) -> None:
        await wire.gone()

    deadlines = ("--first-byte-deadline", "100ms", "--silence-deadline", "100ms", "--upstream-api", "chat")

    def ask_around(observed: ObservedService) -> None:
        with observed.service:
            observed.ask_everything("m")

    async with ScriptedUpstream(silence) as upstream:
        observed = ObservedService("--upstream", upstream.url, *deadlines, *LOGS[0])
        await asyncio.to_thread(ask_around, observed)
    assert '"reason":"timeout_first_byte"' in observed.heard()
    quiet_about(observed.heard(), CANARY, upstream.url.removeprefix("http://"))


# --- an engine in this process ---


@pytest.mark.parametrize("logs", LOGS, ids=["debug", "info"])
def test_an_engines_exception_is_logged_by_type_and_place_only(logs: tuple[str, ...]) -> None:
    observed = ObservedService("--engine", "tests.checks.security.leaky:engine", *logs)
    with observed.service:
        for model in (*leaky.BEFORE, *leaky.AFTER, *leaky.ENDING):
            observed.ask_everything(model)
        observed.ask_around()
        assert b"200 OK" in observed.ask(request("/healthz", method="GET"))
    assert "ValueError at " in observed.heard()  # the operator learns the type and the place
    quiet_about(observed.heard(), CANARY)


def test_a_span_contains_no_more_than_a_log_line() -> None:
    with RecordingEngine() as collector:
        collector.answer = raw_answer(200, [("content-type", "application/x-protobuf"), ("content-length", "0")])
        options = ("--engine", "tests.checks.security.leaky:engine", "--receive-deadline", "200ms")
        observed = ObservedService(*options, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        with observed.service:
            for model in (*leaky.BEFORE, *leaky.AFTER, *leaky.ENDING):
                observed.ask_everything(model)
            for data in wrong():
                observed.ask(data)
        exported = b"".join(request.head + request.body for request in collector.posts)
    assert b"gen_ai.request.model" in exported
    assert CANARY.encode() not in exported


# --- invalid requests ---


def wrong() -> list[bytes]:
    deep = b'{"a":' * 2000 + b"1" + b"}" * 2000
    hello = {**EVERYWHERE, "model": "m"}
    fields: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": [PROMPT]}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": PROMPT}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": PROMPT}}]}]},
        {"messages": PROMPT, "system": {"text": PROMPT}},
        {"tools": [{"name": PROMPT, "input_schema": PROMPT}]},
        {"stop_sequences": PROMPT},
        {"max_tokens": PROMPT},
    ]
    bodies = [json.dumps({**hello, **field}).encode() for field in fields]
    bodies += [
        PROMPT.encode(),
        json.dumps(hello).encode()[:-9],
        b"\xff" + PROMPT.encode(),
        deep,
        b"[" + PROMPT.encode(),
    ]
    said = [request("/v1/messages", body) for body in bodies]
    said += [request("/v1/messages", hello, headers={"content-encoding": coding}) for coding in ("gzip", "deflate")]
    said += [request(path, hello, key=WRONG_KEY) for path in ("/v1/messages", "/v1/messages/count_tokens")]
    said += [request("/v1/models", key=WRONG_KEY, method="GET")]
    said += [f"GET / HTTP/1.1\r\nhost: {PROMPT}\r\nbroken {CLIENT_KEY}\r\n\r\n".encode()]
    said += [request("/v1/messages", hello)[:-40], request("/v1/messages", hello)[:200]]  # cut off
    return said


@pytest.mark.parametrize("logs", LOGS, ids=["debug", "info"])
def test_a_validation_error_does_not_quote_content(logs: tuple[str, ...]) -> None:
    observed = ObservedService("--simulate", "--receive-deadline", "200ms", *logs)
    with observed.service:
        for data in wrong():
            observed.ask(data)
    assert observed.said
    quiet_about("\n".join(observed.service.lines), CANARY)
    quiet_about("\n".join(observed.said), CLIENT_KEY, WRONG_KEY)
