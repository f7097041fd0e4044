"""Requests that come too slowly, too large or as no HTTP: each told so in the API's own words, and hung up on."""

import json
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from tests.checks.security.raw import Answer, RawClient
from tests.server.process import AT_ONCE, KINDS, Process, until
from tests.support.client import HELLO

DEADLINE = 0.8  # seconds
LATE = DEADLINE + 2.0
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = json.dumps(HELLO).encode()


def post(body: bytes = BODY, length: int | None = None, *fields: bytes) -> bytes:
    told = b"Content-Length: %d" % (len(body) if length is None else length)
    return b"\r\n".join([b"POST /v1/messages HTTP/1.1", b"Host: a", told, *fields, b"", body])


CHUNKED = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest) -> Iterator[Process]:
    options = ("--simulate", "--simulate-ttft", "1s", "--simulate-itl", "1ms", "--max-body", "64KiB")
    with Process(request.param, *options, "--max-head", "8KiB", "--receive-deadline", f"{DEADLINE}s") as service:
        yield service


def assert_refused(service: Process, answer: Answer, status: int, error: str) -> None:
    """In the envelope, with a request id that is in the log as well."""
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.headers["request-id"] == answer.json["request_id"]
    assert answer.headers["content-type"] == "application/json"
    line = service.logged(request_id=answer.headers["request-id"])
    assert (line["status"], line["error"], line["level"]) == (status, error, "info")


def assert_heard(service: Process, since: int) -> None:
    """The application heard at once that the request is over, counts it no more, and says so in one line."""
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
def test_a_request_that_is_not_whole_in_time_is_told_so(service: Process, begun: bytes) -> None:
    since = len(service.log)
    began = time.monotonic()
    with RawClient(service.url) as client:
        client.send(begun)
        (answer,) = client.rest()
        assert DEADLINE - 0.01 < time.monotonic() - began < LATE
        assert_refused(service, answer, 408, "RequestTimeout")
        if begun.startswith(b"POST"):
            assert_heard(service, since)


def test_a_byte_now_and_then_does_not_buy_time(service: Process) -> None:
    began = time.monotonic()
    with RawClient(service.url) as client:
        for byte in ALIVE:
            client.send(bytes([byte]))
            if select.select([client._socket], [], [], DEADLINE / 8)[0]:
                break
        (answer,) = client.rest()
    assert time.monotonic() - began < LATE
    assert_refused(service, answer, 408, "RequestTimeout")


def test_the_next_request_of_a_connection_has_its_time_as_well(service: Process) -> None:
    with RawClient(service.url) as client:
        client.send(ALIVE)
        assert client.answer().status == 200
        client.send(b"\r\n" + ALIVE[:20])
        (answer,) = client.rest()
    assert_refused(service, answer, 408, "RequestTimeout")


def test_a_connection_may_rest_between_requests(service: Process) -> None:
    with RawClient(service.url) as client:
        for _ in range(2):
            client.send(ALIVE + b"\r\n")
            assert client.answer().status == 200
            assert not select.select([client._socket], [], [], 2 * DEADLINE)[0]
        client.send(ALIVE)
        assert client.answer().status == 200


def test_an_answer_may_take_longer_than_a_request(service: Process) -> None:
    with RawClient(service.url) as client:
        client.send(post())
        assert client.answer().status == 200


def test_a_body_that_was_refused_and_never_comes_is_not_waited_for(service: Process) -> None:
    with RawClient(service.url) as client:
        client.send(post(b"{", 1_000_000))
        assert client.answer().status == 413
        assert client.rest() == [], "nothing more is said"


def test_who_was_refused_before_it_had_our_consent_must_connect_anew(service: Process) -> None:
    """What it sends next may be the body or another request, and nobody can tell."""
    with RawClient(service.url) as client:
        client.send(post(b"", len(ALIVE), b"Expect: 100-continue").replace(b"/v1/messages", b"/nowhere"))
        assert client.answer().status == 404
        client.send(ALIVE)
        assert client.rest() == []


# --- too large ---


@pytest.mark.parametrize("name", [b"A", b"Content-Length", b"Transfer-Encoding"])
def test_a_head_over_the_limit_is_told_so(service: Process, name: bytes) -> None:
    with RawClient(service.url) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + name + b": " + b"b" * 9000)
        (answer,) = client.rest()
    assert_refused(service, answer, 431, "HeadersTooLarge")


def test_a_head_within_the_limit_is_served_however_large_its_body(service: Process) -> None:
    with RawClient(service.url) as client:
        field = b"X-A: " + b"b" * 7000
        client.send(ALIVE[:-2] + field + b"\r\n\r\n" + post(BODY + b" " * 60_000, None, field))
        assert [client.answer().status for _ in range(2)] == [200, 200]


def test_endless_heads_take_no_memory_and_their_senders_can_read_what_they_are_told(service: Process) -> None:
    before = service.resident
    for _ in range(8):
        with RawClient(service.url) as client:
            client._socket.sendall(b"GET / HTTP/1.1\r\nA: " + b"b" * 8_000_000)  # and nobody stops it half-way
            client.no_more()
            (answer,) = client.rest()
        assert answer.status == 431
    assert service.resident - before < 8_000_000


# --- no HTTP ---


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\n", b"hello\r\n\r\n"])
def test_what_is_no_http_is_told_so_at_once(service: Process, said: bytes) -> None:
    began = time.monotonic()
    with RawClient(service.url) as client:
        client.send(said)
        answer = client.answer()
    assert time.monotonic() - began < DEADLINE
    assert_refused(service, answer, 400, "InvalidRequest")


def test_a_body_that_goes_wrong_on_its_way_is_told_so_and_the_application_as_well(service: Process) -> None:
    since = len(service.log)
    with RawClient(service.url) as client:
        client.send(CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"5\r\nhello\r\nfive\r\n")
        (answer,) = client.rest()
        assert_refused(service, answer, 400, "InvalidRequest")
        assert_heard(service, since)


def test_a_body_that_goes_wrong_after_its_answer_ends_the_connection(service: Process) -> None:
    with RawClient(service.url) as client:
        client.send(CHUNKED.replace(b"/v1/messages", b"/nowhere") + b"5\r\nhello\r\n")
        assert client.answer().status == 404
        client.send(b"five\r\n" + ALIVE)
        assert client.rest() == []


def test_nonsense_behind_a_request_is_not_said_into_its_answer(service: Process) -> None:
    asked = json.dumps({**HELLO, "stream": True}).encode()
    with RawClient(service.url) as client:
        client.send(post(asked) + b"nonsense\r\n\r\n")
        stream, refusal = client.rest()
    assert message_from_events(parse_events(stream.body))["stop_reason"] == "end_turn"
    assert_refused(service, refusal, 400, "InvalidRequest")


def test_who_leaves_is_noticed_though_another_request_waits_behind(service: Process) -> None:
    since = len(service.log)
    with RawClient(service.url) as client:
        client.send(post() + ALIVE)
        until(lambda: select.select([client._socket], [], [], 0.1)[0] == [])
    service.logged(within=0.8, since=since, path="/v1/messages", client_left=True)


def test_requests_behind_one_that_takes_long_are_held_within_bounds(service: Process) -> None:
    with RawClient(service.url) as client:
        client._socket.settimeout(0.5)
        before = service.resident
        client._socket.sendall(post())
        with pytest.raises(TimeoutError):  # it is not read any more
            client._socket.sendall(ALIVE * 1_000_000)
        assert service.resident - before < 4_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_so_at_a_unix_socket_too(kind: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/a.sock"
    options = ("--uds", path, "--receive-deadline", "50ms", *AT_ONCE)
    with Process(kind, *options) as service, RawClient(service.url) as client:
        assert client.everything().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
