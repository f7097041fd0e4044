"""Acceptance tests for every server and framework."""

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anthropic
import pytest

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from tests.embedding.servers import SERVERS, Running, running
from tests.support.client import HELLO, TIMEOUT

NOTICED = 1.0  # seconds within which a disconnect is noticed


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def served(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param) as it:
        yield it


def connect(served: Running) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", served.port, timeout=TIMEOUT)


def ask(
    served: Running, connection: http.client.HTTPConnection, model: str, path: str = "/v1/messages", **body: Any
) -> http.client.HTTPResponse:
    data = json.dumps({**HELLO, "model": model, **body})
    connection.request("POST", served.server.prefix + path, data, {"content-type": "application/json"})
    return connection.getresponse()


def answer(served: Running, model: str, **body: Any) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(connect(served)) as connection:
        response = ask(served, connection, model, **body)
        return response, response.read()


def test_the_answer_is_the_same_with_and_without_stream(served: Running) -> None:
    response, body = answer(served, "rich")
    whole = json.loads(body)
    assert response.status == 200
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use"]
    assert whole["content"][2]["input"] == {"at": "sky"}
    response, body = answer(served, "rich", stream=True)
    assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert (response.getheader("request-id") or "").startswith("req_")
    events = parse_events(body)
    check_stream(events)
    streamed = message_from_events(events)
    assert streamed["content"] == whole["content"]
    assert (streamed["stop_reason"], streamed["usage"]) == (whole["stop_reason"], whole["usage"])


def test_a_token_is_sent_as_soon_as_it_is_generated(served: Running) -> None:
    name = "gated:prompt"
    with closing(connect(served)) as connection:
        response = ask(served, connection, name, stream=True)
        begun = read_until(response, b'"before"')
        assert b"after" not in begun
        served.open(name)
        events = parse_events(begun + response.read())
    check_stream(events)
    assert message_from_events(events)["content"] == [{"type": "text", "text": "beforeafter"}]


def test_a_long_silence_before_the_first_token_is_filled_with_pings(served: Running) -> None:
    name = "silent:long"
    with closing(connect(served)) as connection:
        response = ask(served, connection, name, stream=True)
        begun = read_until(response, b"event: ping")
        served.open(name)
        events = parse_events(begun + response.read())
    check_stream(events)
    assert events[-1].type == "message_stop"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_token_keeps_its_status_and_headers(served: Running, stream: bool) -> None:
    response, body = answer(served, "refusing", stream=stream)
    assert (response.status, response.getheader("retry-after")) == (429, "7")
    assert json.loads(body)["error"] == {"type": "rate_limit_error", "message": "slower, please"}


def test_an_error_in_the_stream_is_its_last_event(served: Running) -> None:
    _, body = answer(served, "breaking", stream=True)
    events = parse_events(body)
    check_stream(events)
    assert events[-1].data["error"]["type"] == "rate_limit_error"


def test_errors_of_every_kind_have_the_envelope(served: Running) -> None:
    prefix = served.server.prefix
    for method, path, data, status in (
        ("POST", "/v1/messages", b"{", 400),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/messages", None, 405),
        ("POST", "/v1/messages", json.dumps({**HELLO, "max_tokens": -1}).encode(), 400),
    ):
        with closing(connect(served)) as connection:
            connection.request(method, prefix + path, data)
            response = connection.getresponse()
            error = json.loads(response.read())
        assert (response.status, error["type"]) == (status, "error"), path
        assert error["request_id"] == response.getheader("request-id")


def test_lists_counts_probes_and_compressed_bodies(served: Running) -> None:
    with closing(connect(served)) as connection:
        counted = ask(served, connection, "rich", "/v1/messages/count_tokens").read()
        assert json.loads(counted)["input_tokens"] > 0
        for path in ("/v1/models", "/v1/models/served", "/healthz", "/readyz"):
            connection.request("GET", served.server.prefix + path)
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (200, True), path
        data = gzip.compress(json.dumps({**HELLO, "model": "rich"}).encode())
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        connection.request("POST", served.server.prefix + "/v1/messages", data, headers)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["stop_reason"]) == (200, "tool_use")


def test_the_sdk_works(served: Running) -> None:
    with (
        anthropic.Anthropic(base_url=served.url, api_key="unused", max_retries=0) as client,
        client.messages.stream(model="rich", max_tokens=100, messages=[{"role": "user", "content": "Hello"}]) as stream,
    ):
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"


def test_many_concurrent_streams_are_all_complete(served: Running) -> None:
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(answer(served, "rich", stream=True)[1])) for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies) == 24
    for body in bodies:
        events = parse_events(body)
        check_stream(events)
        assert events[-1].type == "message_stop"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_closes_the_engines_generator(served: Running, stream: bool) -> None:
    name = f"gated:leaving-{stream}"
    with closing(connect(served)) as connection:
        data = json.dumps({**HELLO, "model": name, "stream": stream})
        connection.request("POST", served.server.prefix + "/v1/messages", data)
        served.until(lambda state: state["yielded"].get(name))
        assert name not in served.state()["closed"]
    served.until(lambda state: name in state["closed"], within=NOTICED)


def test_an_engine_that_never_suspends_does_not_block_other_requests(served: Running) -> None:
    name = "greedy:one"
    with closing(connect(served)) as connection:
        response = ask(served, connection, name, stream=True)
        read_until(response, b"content_block_delta")
        assert answer(served, "rich")[0].status == 200
    served.until(lambda state: name in state["closed"])


def test_the_lifespan_starts_and_stops_the_engine(served: Running) -> None:
    assert served.state()["started"] == int(served.server.lifespan)


def test_routes_beside_a_mounted_service_still_work(served: Running) -> None:
    with closing(connect(served)) as connection:
        connection.request("GET", "/beside")
        response = connection.getresponse()
        body = response.read()
    if served.server.prefix:
        assert (response.status, body) == (200, b"beside")
    else:
        assert response.status == 404


def read_until(response: http.client.HTTPResponse, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = response.read1(65536)
        assert piece, data
        data += piece
    return data
