"""Requests that are too slow, too large or not HTTP get an error in the API's shape, and the connection closes."""

import json
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from tests.support.client import HELLO, Answer, RawClient
from tests.support.service import AT_ONCE, ENDLESS, KINDS, Service, until

DEADLINE = 0.8  # seconds
LATE = DEADLINE + 2.0
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = json.dumps(HELLO).encode()


def post(body: bytes = BODY, length: int | None = None, *fields: bytes) -> bytes:
    content_length = b"Content-Length: %d" % (len(body) if length is None else length)
    return b"\r\n".join([b"POST /v1/messages HTTP/1.1", b"Host: a", content_length, *fields, b"", body])


CHUNKED = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    options = ("--simulate", "--simulate-ttft", "1s", "--simulate-itl", "1ms", "--max-body", "64KiB")
    with Service(*options, "--max-head", "8KiB", "--receive-deadline", f"{DEADLINE}s", kind=request.param) as service:
        yield service


def assert_refused(service: Service, answer: Answer, status: int, error: str) -> None:
    """The response is an error envelope, and its request id is in the log."""
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.headers["request-id"] == answer.json["request_id"]
    assert answer.headers["content-type"] == "application/json"
    line = service.logged(request_id=answer.headers["request-id"])
    assert (line["status"], line["error"], line["level"]) == (status, error, "info")


def assert_application_was_told(service: Service, since: int) -> None:
    """The application learns at once that the request is over, stops counting it, and logs one line."""
    service.logged(within=1, since=since, path="/v1/messages")
    (line,) = [line for line in service.log[since:] if line.get("path") == "/v1/messages"]
    assert "client_left" not in line
    with RawClient(service.url) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"anthro_asgi_requests_in_flight 1.0\n" in client.answer().body


# --- too slow ---


@pytest.mark.parametrize(
    "begun",
    [b"", b"G", ALIVE[:-2], ALIVE[:-1], post()[:-1], post(b"", 5), CHUNKED, CHUNKED + b"5\r\nhe", CHUNKED + b"0\r\n"],
)
def test_an_incomplete_request_gets_a_408_after_the_receive_deadline(service: Service, begun: bytes) -> None:
    since = len(service.log)
    began = time.monotonic()
    with RawClient(service.url) as client:
        client.send(begun)
        (answer,) = client.rest()
        assert DEADLINE - 0.01 < time.monotonic() - began < LATE
        assert_refused(service, answer, 408, "RequestTimeout")
        if begun.startswith(b"POST"):
            assert_application_was_told(service, since)


def test_single_bytes_do_not_extend_the_receive_deadline(service: Service) -> None:
    began = time.monotonic()
    with RawClient(service.url) as client:
        for byte in ALIVE:
            client.send(bytes([byte]))
            if select.select([client.socket], [], [], DEADLINE / 8)[0]:
                break
        (answer,) = client.rest()
    assert time.monotonic() - began < LATE
    assert_refused(service, answer, 408, "RequestTimeout")


def test_the_next_request_of_a_connection_has_its_own_receive_deadline(service: Service) -> None:
    with RawClient(service.url) as client:
        client.send(ALIVE)
        assert client.answer().status == 200
        client.send(b"\r\n" + ALIVE[:20])
        (answer,) = client.rest()
    assert_refused(service, answer, 408, "RequestTimeout")


def test_a_connection_may_be_idle_between_requests(service: Service) -> None:
    with RawClient(service.url) as client:
        for _ in range(2):
            client.send(ALIVE + b"\r\n")
            assert client.answer().status == 200
            assert not select.select([client.socket], [], [], 2 * DEADLINE)[0]
        client.send(ALIVE)
        assert client.answer().status == 200


def test_a_response_may_take_longer_than_the_receive_deadline(service: Service) -> None:
    with RawClient(service.url) as client:
        client.send(post())
        assert client.answer().status == 200


def test_the_rest_of_a_refused_body_is_awaited_only_until_the_receive_deadline(service: Service) -> None:
    with RawClient(service.url) as client:
        client.send(post(b"{", 1_000_000))
        assert client.answer().status == 413
        assert client.rest() == [], "no second response"


def test_a_refused_client_that_expects_100_continue_must_reconnect(service: Service) -> None:
    """Its next bytes may be the body or another request; nothing tells them apart."""
    with RawClient(service.url) as client:
        client.send(post(b"", len(ALIVE), b"Expect: 100-continue").replace(b"/v1/messages", b"/nowhere"))
        assert client.answer().status == 404
        client.send(ALIVE)
        assert client.rest() == []


# --- too large ---


@pytest.mark.parametrize("name", [b"A", b"Content-Length", b"Transfer-Encoding"])
def test_a_head_over_the_limit_gets_a_431(service: Service, name: bytes) -> None:
    with RawClient(service.url) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + name + b": " + b"b" * 9000)
        (answer,) = client.rest()
    assert_refused(service, answer, 431, "HeadersTooLarge")


def test_the_limit_of_a_head_does_not_count_its_body(service: Service) -> None:
    with RawClient(service.url) as client:
        field = b"X-A: " + b"b" * 7000
        client.send(ALIVE[:-2] + field + b"\r\n\r\n" + post(BODY + b" " * 60_000, None, field))
        assert [client.answer().status for _ in range(2)] == [200, 200]


def test_endless_heads_take_no_memory_and_their_clients_can_read_the_431(service: Service) -> None:
    before = service.resident_bytes
    for _ in range(8):
        with RawClient(service.url) as client:
            client.socket.sendall(b"GET / HTTP/1.1\r\nA: " + b"b" * 8_000_000)  # the service reads and drops the rest
            client.half_close()
            (answer,) = client.rest()
        assert answer.status == 431
    assert service.resident_bytes - before < 8_000_000


# --- not HTTP ---


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\n", b"hello\r\n\r\n"])
def test_bytes_that_are_not_http_get_a_400_at_once(service: Service, sent: bytes) -> None:
    began = time.monotonic()
    with RawClient(service.url) as client:
        client.send(sent)
        answer = client.answer()
    assert time.monotonic() - began < DEADLINE
    assert_refused(service, answer, 400, "InvalidRequest")


def test_a_malformed_chunk_gets_a_400_and_ends_the_request_for_the_application(service: Service) -> None:
    since = len(service.log)
    with RawClient(service.url) as client:
        client.send(CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"5\r\nhello\r\nfive\r\n")
        (answer,) = client.rest()
        assert_refused(service, answer, 400, "InvalidRequest")
        assert_application_was_told(service, since)


def test_a_malformed_chunk_after_the_response_ends_the_connection(service: Service) -> None:
    with RawClient(service.url) as client:
        client.send(CHUNKED.replace(b"/v1/messages", b"/nowhere") + b"5\r\nhello\r\n")
        assert client.answer().status == 404
        client.send(b"five\r\n" + ALIVE)
        assert client.rest() == []


def test_garbage_after_a_request_does_not_corrupt_its_response(service: Service) -> None:
    body = json.dumps({**HELLO, "stream": True}).encode()
    with RawClient(service.url) as client:
        client.send(post(body) + b"nonsense\r\n\r\n")
        stream, refusal = client.rest()
    assert message_from_events(parse_events(stream.body))["stop_reason"] == "end_turn"
    assert_refused(service, refusal, 400, "InvalidRequest")


def test_a_disconnect_is_noticed_although_another_request_is_queued(service: Service) -> None:
    since = len(service.log)
    with RawClient(service.url) as client:
        client.send(post() + ALIVE)
        until(lambda: select.select([client.socket], [], [], 0.1)[0] == [])
    service.logged(within=0.8, since=since, path="/v1/messages", client_left=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disconnect_is_noticed_although_nothing_more_is_read(kind: str) -> None:
    with Service(*ENDLESS, kind=kind) as service:
        with RawClient(service.url) as client:
            client.send(post() + ALIVE * 4000)
        service.logged(within=4, path="/v1/messages", client_left=True)


def test_nothing_of_a_chunked_body_is_parsed_after_its_response(service: Service) -> None:
    with RawClient(service.url) as client:
        client.send(CHUNKED.replace(b"/v1/messages", b"/nowhere") + b"5\r\nhello\r\n")
        assert client.answer().status == 404
        client.send(b"0\r\n\r\n" + ALIVE)
        assert client.rest() == []


def test_requests_queued_behind_a_slow_one_are_held_within_limits(service: Service) -> None:
    with RawClient(service.url) as client:
        client.socket.settimeout(0.5)
        before = service.resident_bytes
        client.socket.sendall(post())
        with pytest.raises(TimeoutError):  # the service has stopped reading
            client.socket.sendall(ALIVE * 1_000_000)
        assert service.resident_bytes - before < 4_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_unix_socket_has_the_receive_deadline_too(kind: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/a.sock"
    options = ("--uds", path, "--receive-deadline", "50ms", *AT_ONCE)
    with Service(*options, kind=kind) as service, RawClient(service.url) as client:
        assert client.everything().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
