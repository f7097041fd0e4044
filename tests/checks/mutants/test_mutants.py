"""The conformance suite passes our own service, and finds each mutant of it."""

import json
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import uvicorn

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.exchange import Client
from anthro_asgi.conformance.run import TOKENS_AT_MOST, chosen, run
from anthro_asgi.simulator.engine import SimulatedEngine
from tests.checks.mutants.mutations import ALL, Mutant, Response

_ANY_MODEL = "an unknown model is not found"  # the simulator answers for every name


class Mutating:
    """An ASGI app whose answers have the fault of `mutant`. Without one they pass unchanged, as they arrive."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.mutant: Mutant | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.mutant is None or scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = await _changed(receive, self.mutant)
        messages: list[Any] = []
        unread = [{"type": "http.request", "body": body}]

        async def receive_changed() -> Any:
            return unread.pop() if unread else await receive()

        async def keep(message: Any) -> None:
            messages.append(message)

        await self.app(_with_length(scope, len(body)), receive_changed, keep)
        await _send(messages, scope["path"], self.mutant, send)


async def _changed(receive: Any, mutant: Mutant) -> bytes:
    """The body of the request as the mutant reads it."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        value = json.loads(body)
        mutant.request(value)
    except (ValueError, AttributeError, TypeError):
        return body
    return json.dumps(value).encode()


def _with_length(scope: Any, length: int) -> Any:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % length)]}


async def _send(messages: list[Any], path: str, mutant: Mutant, send: Any) -> None:
    head = messages[0]
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    response = Response(path, head["status"], headers, b"".join(message.get("body", b"") for message in messages[1:]))
    mutant.response(response)
    length = len(response.body) + 100 * response.cut
    fields = [(name.encode(), value.encode()) for name, value in response.headers.items() if name != "content-length"]
    fields.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": response.status, "headers": fields})
    await send({"type": "http.response.body", "body": response.body, "more_body": response.cut})


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Mutating, Client]]:
    """The service with the simulator, as fast as it is, behind the mutants."""
    app = Mutating(MessagesApp(SimulatedEngine(ttft=0, itl=0)))
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = Thread(target=running.run)
    thread.start()
    while not running.started:
        thread.join(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield app, Client(f"http://127.0.0.1:{port}", None)
    finally:
        running.should_exit = True
        thread.join()


def test_the_suite_passes_the_service(server: tuple[Mutating, Client]) -> None:
    app, client = server
    app.mutant = None
    report = run(chosen("server"), client, "simulated", "ours")
    assert [finding.name for finding in report.findings if finding.outcome == "failed"] == [_ANY_MODEL]
    assert report.tokens <= TOKENS_AT_MOST


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_suite_finds(server: tuple[Mutating, Client], mutant: Mutant) -> None:
    app, client = server
    checks = [check for words in mutant.found_by.split("|") for check in chosen("server") if words in check.name]
    assert checks
    app.mutant = mutant
    report = run(checks, client, "simulated", mutant.name)
    assert [finding.name for finding in report.findings if finding.outcome == "failed"]


def test_there_are_enough_mutants() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL) >= 40
