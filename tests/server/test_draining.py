"""Shutdown: the drain delay, requests that have arrived, and responses that exceed the drain timeout."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from tests.support.client import HELLO, RawClient, ask, get
from tests.support.service import AT_ONCE, ENDLESS, Service, until

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
GRACE = 1.0  # seconds in which a client without `connection: close` may send its next request
SHORT = ("--simulate-ttft", "0", "--simulate-itl", "10ms", "--simulate-output-tokens", "40")


def streamed(**body: object) -> bytes:
    content = json.dumps({**HELLO, "stream": True, **body}).encode()
    return b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)


# --- the drain delay ---


def test_during_the_drain_delay_it_serves_but_is_not_ready_and_closes_each_connection(kind: str) -> None:
    with Service(*AT_ONCE, "--drain-delay", "600ms", kind=kind) as service:
        assert get(service.url, "/readyz").status == 200
        begun = time.monotonic()
        service.send_signal()
        until(lambda: get(service.url, "/readyz").status == 503)
        whole, stream = ask(service.url), ask(service.url, stream=True)
        assert (whole.status, whole.headers["connection"]) == (200, "close")
        assert (stream.status, stream.headers["connection"]) == (200, "close")
        assert message_from_events(stream.events)["stop_reason"] == "end_turn"
        assert time.monotonic() - begun < 0.6, "otherwise the test proves nothing"
        until(lambda: service.refuses_connections)
        assert time.monotonic() - begun >= 0.6
        assert service.ended() == 0


def test_a_stream_may_begin_during_the_drain_delay_and_end_after_it(kind: str) -> None:
    with Service(*SHORT, "--drain-delay", "200ms", kind=kind) as service:
        service.send_signal()
        until(lambda: get(service.url, "/readyz").status == 503)
        assert message_from_events(ask(service.url, stream=True).events)["stop_reason"] in ("end_turn", "max_tokens")
        assert service.refuses_connections
        assert service.ended() == 0


def test_a_second_interrupt_skips_the_drain_delay(kind: str) -> None:
    with Service(*AT_ONCE, "--drain-delay", "1h", kind=kind) as service:
        service.send_signal(signal.SIGINT)
        until(lambda: get(service.url, "/readyz").status == 503)
        service.send_signal(signal.SIGINT)
        assert service.ended(expected=130) == 130


# --- requests that have arrived ---


def test_connections_in_the_accept_queue_are_served(kind: str) -> None:
    with Service(*AT_ONCE, kind=kind) as service:
        service.send_signal(signal.SIGSTOP)
        clients = [RawClient(service.url) for _ in range(50)]
        for client in clients:
            client.send(ALIVE)
        service.send_signal(signal.SIGTERM)
        service.send_signal(signal.SIGCONT)
        for client in clients:
            with client:
                (answer,) = client.rest()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert service.ended() == 0


def test_a_client_that_has_just_connected_may_send_a_request(kind: str) -> None:
    with Service(*AT_ONCE, kind=kind) as service, RawClient(service.url) as client, RawClient(service.url) as silent:
        begun = time.monotonic()
        service.send_signal()
        until(lambda: service.refuses_connections)
        client.send(ALIVE)
        (answer,) = client.rest()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert silent.rest() == [], "a client without a request gets no response"
        assert service.ended() == 0
        assert time.monotonic() - begun < GRACE + 1


def test_a_client_without_connection_close_may_send_one_more_request(kind: str) -> None:
    with Service(*SHORT, kind=kind) as service, RawClient(service.url) as client:
        client.send(streamed())
        until(lambda: service.open_sockets)
        client._unread += client._receive()
        service.send_signal()
        until(lambda: service.refuses_connections)
        first = client.answer()
        assert "connection" not in first.headers
        client.send(streamed())
        (second,) = client.rest()
        assert second.headers["connection"] == "close"
        for answer in (first, second):
            assert message_from_events(parse_events(answer.body))["content"]
        assert service.ended() == 0


def test_an_idle_connection_is_closed_at_once(kind: str) -> None:
    with Service(*AT_ONCE, kind=kind) as service, RawClient(service.url) as client:
        client.send(ALIVE)
        client.answer()
        time.sleep(GRACE)
        begun = time.monotonic()
        service.send_signal()
        assert client.rest() == []
        assert time.monotonic() - begun < GRACE / 2
        assert service.ended() == 0


def test_a_request_that_has_arrived_in_part_is_awaited(kind: str) -> None:
    request = streamed()
    with Service(*AT_ONCE, kind=kind) as service, RawClient(service.url) as early, RawClient(service.url) as late:
        early.send(request[:20])
        late.send(request[:-1])
        time.sleep(GRACE)
        service.send_signal()
        until(lambda: service.refuses_connections)
        for client, rest in ((early, request[20:]), (late, request[-1:])):
            client.send(rest)
            (answer,) = client.rest()
            assert message_from_events(parse_events(answer.body))["stop_reason"] == "end_turn"
        assert service.ended() == 0


def test_pipelined_requests_are_answered_until_one_closes_the_connection(kind: str) -> None:
    with Service(*SHORT, kind=kind) as service, RawClient(service.url) as client:
        client.send(streamed() + ALIVE + ALIVE)
        client._unread += client._receive()
        service.send_signal()
        until(lambda: service.refuses_connections)
        stream, alive = client.rest()
        assert message_from_events(parse_events(stream.body))["content"]
        assert (alive.status, alive.headers["connection"]) == (200, "close")
        assert service.ended() == 0


# --- the drain timeout ---

CUT = ("--drain-timeout", "200ms")


def test_a_non_streaming_response_that_exceeds_the_drain_timeout_becomes_a_529(kind: str) -> None:
    with Service(*ENDLESS, *CUT, kind=kind) as service, RawClient(service.url) as client:
        client.send(streamed(stream=False, max_tokens=100_000))
        until(lambda: b"in_flight 2.0\n" in get(service.url, "/metrics").body)
        service.send_signal()
        (answer,) = client.rest()
        assert (answer.status, answer.headers["connection"]) == (529, "close")
        assert answer.json["error"] == {"type": "overloaded_error", "message": "the service is stopping"}
        assert service.ended() == 0
        assert service.logged(path="/v1/messages")["status"] == 529


def test_a_stream_that_has_not_begun_becomes_a_529(kind: str) -> None:
    with Service("--simulate-ttft", "1m", *CUT, kind=kind) as service, RawClient(service.url) as client:
        client.send(streamed())
        until(lambda: b"in_flight 2.0\n" in get(service.url, "/metrics").body)
        service.send_signal()
        (answer,) = client.rest()
        assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")
        assert service.ended() == 0


def test_each_stream_that_exceeds_the_drain_timeout_gets_an_error_event(kind: str) -> None:
    with Service(*ENDLESS, *CUT, kind=kind) as service:
        clients = [RawClient(service.url) for _ in range(40)]
        for client in clients:
            client.send(streamed(max_tokens=100_000))
        for client in clients:
            client._unread += client._receive()
        service.send_signal()
        for client in clients:
            with client:
                (stream,) = client.rest()
                events = parse_events(stream.body)
                check_stream(events)
                assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "overloaded_error")
        assert service.ended() == 0
        warnings = [line["message"] for line in service.log if line.get("logger", "").endswith("server.process")]
        assert warnings[-1] == "drain timeout of 0.2 s exceeded: ending 40 open responses with an error"


def test_a_client_that_reads_nothing_does_not_delay_the_shutdown(kind: str, tmp_path: Path) -> None:
    engine = ("--engine", "tests.server.engines:large", "--uds", f"{tmp_path}/a.sock")
    with (
        Service(*engine, *CUT, kind=kind) as service,
        RawClient(service.url) as stalled,
        RawClient(service.url) as half,
    ):
        stalled.send(streamed(model="1000000000", max_tokens=1_000_000_000))
        half.send(ALIVE[:10])
        stalled._unread += stalled._receive()
        begun = time.monotonic()
        service.send_signal()
        assert half.rest() == []
        assert service.ended() == 0
        assert time.monotonic() - begun < 6


def test_an_incomplete_request_is_awaited_only_until_the_drain_timeout(kind: str) -> None:
    with Service(*AT_ONCE, *CUT, kind=kind) as service, RawClient(service.url) as half:
        half.send(ALIVE[:10])
        time.sleep(GRACE)
        begun = time.monotonic()
        service.send_signal()
        assert half.rest() == []
        assert service.ended() == 0
        assert time.monotonic() - begun < 1.5


def test_every_client_that_connects_to_a_unix_socket_gets_a_response(kind: str, tmp_path: Path) -> None:
    """The file is removed before the socket is closed, so the accept queue is empty by then."""
    outcomes: list[bytes] = []

    def connect_and_ask() -> None:
        while True:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                try:
                    client.connect(f"{tmp_path}/a.sock")
                except (FileNotFoundError, ConnectionRefusedError):
                    return
                client.sendall(ALIVE)
                outcomes.append(client.recv(12))

    with Service(*AT_ONCE, "--uds", f"{tmp_path}/a.sock", kind=kind) as service:
        threads = [threading.Thread(target=connect_and_ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(outcomes) > 50)
        service.send_signal()
        for thread in threads:
            thread.join()
        assert service.ended() == 0
        assert set(outcomes) == {b"HTTP/1.1 200"}
        assert not list(tmp_path.iterdir())
