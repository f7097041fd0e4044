"""When a client disconnects, the service closes the engine's connection, and the engine stops generating.

The requests would take the engine many seconds, so it is idle within one second only if it was stopped. The tests
check the engine's own state, the time until the service has closed the engine's connection (its log line is written
then), and that the next client does not wait.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.end_to_end.conftest import Endless
from tests.support.client import ask, connect, post
from tests.support.llama.model import ANSWER

BOUND = 1.0  # seconds; as measured, 1 to 5 ms


def lists(depth: int) -> dict[str, Any]:
    return {"type": "array", "minItems": 100, "items": lists(depth - 1)} if depth else {"type": "string"}


# A million strings: the grammar forbids an end, so the engine fills its context window.
SCHEMA = {"type": "object", "properties": {"lists": lists(3)}, "required": ["lists"]}
ENDLESS: dict[str, Any] = {
    "max_tokens": 30_000,
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}


def busy(endless: Endless, gauge: str = "requests_processing") -> None:
    """Wait until the engine works on one request. It answers between two tokens, so polling needs no pause."""
    deadline = time.monotonic() + 10
    while endless.llama.metrics()[gauge] != 1:
        assert time.monotonic() < deadline, endless.llama.metrics()


@contextmanager
def generating(endless: Endless, **body: Any) -> Iterator[HTTPConnection]:
    """A client whose request the engine is working on."""
    endless.llama.until_idle(BOUND)
    with closing(connect(endless.service.url)) as connection:
        post(connection, **ENDLESS | body)
        busy(endless)
        yield connection


def leave(endless: Endless, connection: HTTPConnection) -> None:
    """Close the connection. Within the bound the service must have released it, and the engine must be idle."""
    seen = len(endless.service.log)
    left = time.monotonic()
    connection.close()
    endless.service.logged(within=BOUND, since=seen, client_left=True)
    let_go = time.monotonic()
    endless.llama.until_idle(BOUND)
    idle = time.monotonic()
    assert let_go - left <= BOUND
    assert idle - left <= BOUND


def test_the_engine_stops_when_a_client_leaves_mid_stream(endless: Endless) -> None:
    with generating(endless, stream=True) as connection:
        response = connection.getresponse()
        for _ in range(100):
            assert response.readline()
        leave(endless, connection)


def test_the_engine_stops_when_a_client_that_has_read_nothing_leaves(endless: Endless) -> None:
    with generating(endless, stream=True) as connection:
        leave(endless, connection)


def test_the_engine_stops_when_a_client_that_waits_for_a_whole_answer_leaves(endless: Endless) -> None:
    with generating(endless) as connection:
        leave(endless, connection)


@pytest.mark.parametrize("stream", [False, True])
def test_a_queued_client_that_leaves_is_never_sent_to_the_engine(endless: Endless, stream: bool) -> None:
    with generating(endless, stream=True) as first:
        with closing(connect(endless.service.url)) as second:
            post(second, stream=stream)
            busy(endless, "requests_deferred")
            seen = len(endless.service.log)
            second.close()
            line = endless.service.logged(within=BOUND, since=seen, client_left=True)
        assert "ttft" not in line
        leave(endless, first)  # and the engine is idle: it did not begin the second


def test_the_engine_is_free_for_the_next_client(endless: Endless) -> None:
    with generating(endless, stream=True) as connection:
        connection.getresponse().readline()
        connection.close()
        begun = time.monotonic()
        assert ask(endless.service.url).json["content"] == [{"type": "text", "text": ANSWER}]
        assert time.monotonic() - begun <= BOUND


def test_a_client_that_leaves_is_not_logged_as_a_failure(endless: Endless) -> None:
    with generating(endless, stream=True) as connection:
        connection.getresponse().readline()
        seen = len(endless.service.log)
        connection.close()
        line = endless.service.logged(since=seen, client_left=True)
    assert line["level"] == "info"
    assert "error" not in line
