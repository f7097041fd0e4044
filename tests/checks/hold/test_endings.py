"""However a large request ends without an answer, its values are freed in short steps."""

import json
import socket
from collections.abc import Callable

import pytest

from anthro_asgi.engines.base import BaseEngine
from anthro_asgi.engines.member import EngineRules
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.routed import RoutedEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import Overloaded
from tests.checks.hold import BAR
from tests.checks.hold.application import MIB, Application, Case, Leave, scale
from tests.checks.memory import SHAPES
from tests.support.upstream import framed

pytestmark = pytest.mark.alone

SIZE = 12 * MIB
FOLDED = "folded messages"  # which become one message of the chat request
CALLS = "tool calls"


def failure(status: int, words: str = "the engine has failed") -> bytes:
    body = json.dumps({"error": {"message": words, "type": "failure"}}).encode()
    return framed(status, [("content-type", "application/json")], [body], "length")


ENDINGS: dict[str, tuple[Case, int]] = {
    "a bad request": (Case(answer=failure(400)), 400),
    "a limit": (Case(answer=failure(429)), 429),
    "an error": (Case(answer=failure(500)), 500),
    "an error without words": (Case(answer=failure(500, "")), 500),
    "an overload": (Case(answer=failure(503)), 529),
    "a lost connection": (Case(answer=b""), 502),
    "a refused field": (Case(answer=failure(400, "stream_options: extra fields not permitted")), 400),
    "a refused role": (
        Case(answer=failure(400, "Unexpected role 'user' after role 'tool'")),
        400,
    ),
    "a client that leaves the engine": (Case(leave=Leave.ASKED), 0),
    "a client that leaves the queue": (Case(leave=Leave.QUEUED), 0),
    "a server that stops": (Case(leave=Leave.STOPPED), 529),
}
WAIT = ["never sent"]
ENDINGS_IN_PROCESS: dict[str, tuple[Case, int]] = {
    "an ApiError": (Case(deltas=[Overloaded("no room")]), 529),
    "an exception": (Case(deltas=[ValueError("a bug")]), 500),
    "a client that leaves the engine": (Case(deltas=WAIT, leave=Leave.ASKED), 0),
    "a client that leaves the queue": (Case(deltas=WAIT, leave=Leave.QUEUED), 0),
    "a server that stops": (Case(deltas=WAIT, leave=Leave.STOPPED), 529),
}


@pytest.fixture(scope="module")
def bodies() -> dict[str, bytes]:
    return {shape: SHAPES[shape](SIZE) for shape in (FOLDED, CALLS)}


@pytest.mark.parametrize(
    ("shape", "ending"),
    [*((FOLDED, ending) for ending in ENDINGS), (CALLS, "an error"), (CALLS, "a client that leaves the engine")],
)
def test_a_large_request_without_an_answer_is_freed_in_steps(bodies: dict[str, bytes], shape: str, ending: str) -> None:
    case, status = ENDINGS[ending]
    assert_is_freed_in_steps(case, bodies[shape], status)


@pytest.mark.parametrize("ending", ENDINGS_IN_PROCESS)
def test_a_large_request_that_an_engine_in_this_process_does_not_answer_is_freed_in_steps(
    bodies: dict[str, bytes], ending: str
) -> None:
    case, status = ENDINGS_IN_PROCESS[ending]
    assert_is_freed_in_steps(case, bodies[CALLS], status)


def relay(origin: Origin) -> BaseEngine:
    return MessagesEngine(origin)


def routed(origin: Origin) -> BaseEngine:
    """An engine that cannot be reached, and one that answers instead."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    missing = OpenAIEngine(Origin.parse(f"http://127.0.0.1:{port}/v1"), dialect="vllm", name="missing")
    return RoutedEngine(
        {
            "missing": (missing, EngineRules(models=["m"], fallback=(None, "here"))),
            "here": (OpenAIEngine(origin, dialect="vllm", name="here"), EngineRules()),
        }
    )


ELSEWHERE: dict[str, tuple[Callable[[Origin], BaseEngine], Case, int]] = {
    "a relay and an overload": (relay, Case(answer=failure(503)), 529),
    "a relay and a client that leaves": (relay, Case(leave=Leave.ASKED), 0),
    "a fallback that answers": (routed, Case(), 200),
    "a fallback that fails": (routed, Case(answer=failure(503)), 529),
    "a fallback and a client that leaves": (routed, Case(leave=Leave.ASKED), 0),
}


@pytest.mark.parametrize("ending", ELSEWHERE)
def test_a_large_request_to_another_kind_of_engine_is_freed_in_steps(bodies: dict[str, bytes], ending: str) -> None:
    engine_at, case, status = ELSEWHERE[ending]
    assert_is_freed_in_steps(case, bodies[FOLDED], status, engine_at)


def assert_is_freed_in_steps(case: Case, body: bytes, status: int, *engine_at: Callable[[Origin], BaseEngine]) -> None:
    """What is freed in one step takes more than twice the bar."""
    case.request = body
    with Application(*engine_at) as application:
        application.hold(Case(answer=case.answer))
        held = application.hold(case)
        for _ in range(4):
            if held.seconds > 2 * BAR * scale():  # noise only adds to it
                held = min(held, application.hold(case))
    assert held.status == status
    assert held.seconds <= 2 * BAR * scale()
