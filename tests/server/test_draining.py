"""The end of a service: balancers have time to notice, what has come is answered, what takes too long is told so."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from tests.checks.security.raw import RawClient
from tests.server.process import AT_ONCE, ENDLESS, Process, until
from tests.support.client import HELLO, ask, get

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
GRACE = 1.0  # seconds in which a client that was not told may send its next request
SHORT = ("--simulate-ttft", "0", "--simulate-itl", "10ms", "--simulate-output-tokens", "40")


def streamed(**body: object) -> bytes:
    content = json.dumps({**HELLO, "stream": True, **body}).encode()
    return b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)


# --- while balancers learn of it ---


def test_for_the_drain_delay_it_serves_on_but_is_not_ready_and_ends_each_connection(kind: str) -> None:
    with Process(kind, *AT_ONCE, "--drain-delay", "600ms") as service:
        assert get(service.url, "/readyz").status == 200
        begun = time.monotonic()
        service.interrupt()
        until(lambda: get(service.url, "/readyz").status == 503)
        whole, stream = ask(service.url), ask(service.url, stream=True)
        assert (whole.status, whole.headers["connection"]) == (200, "close")
        assert (stream.status, stream.headers["connection"]) == (200, "close")
        assert message_from_events(stream.events)["stop_reason"] == "end_turn"
        assert time.monotonic() - begun < 0.6, "or else this says nothing"
        until(lambda: service.refuses)
        assert time.monotonic() - begun >= 0.6
        assert service.ended() == 0


def test_a_stream_may_begin_in_the_delay_and_end_after_it(kind: str) -> None:
    with Process(kind, *SHORT, "--drain-delay", "200ms") as service:
        service.interrupt()
        until(lambda: get(service.url, "/readyz").status == 503)
        assert message_from_events(ask(service.url, stream=True).events)["stop_reason"] in ("end_turn", "max_tokens")
        assert service.refuses
        assert service.ended() == 0


def test_a_second_interrupt_does_not_wait_for_the_delay(kind: str) -> None:
    with Process(kind, *AT_ONCE, "--drain-delay", "1h") as service:
        service.interrupt(signal.SIGINT)
        until(lambda: get(service.url, "/readyz").status == 503)
        service.interrupt(signal.SIGINT)
        assert service.ended(expected=130) == 130


# --- what has come is answered ---


def test_those_that_wait_to_be_accepted_are_served(kind: str) -> None:
    with Process(kind, *AT_ONCE) as service:
        service.interrupt(signal.SIGSTOP)
        clients = [RawClient(service.url) for _ in range(50)]
        for client in clients:
            client.send(ALIVE)
        service.interrupt(signal.SIGTERM)
        service.interrupt(signal.SIGCONT)
        for client in clients:
            with client:
                (answer,) = client.rest()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert service.ended() == 0


def test_who_has_just_connected_may_still_ask(kind: str) -> None:
    with Process(kind, *AT_ONCE) as service, RawClient(service.url) as client, RawClient(service.url) as silent:
        begun = time.monotonic()
        service.interrupt()
        until(lambda: service.refuses)
        client.send(ALIVE)
        (answer,) = client.rest()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert silent.rest() == [], "who says nothing is told nothing"
        assert service.ended() == 0
        assert time.monotonic() - begun < GRACE + 1


def test_who_was_just_answered_and_not_told_may_ask_once_more(kind: str) -> None:
    with Process(kind, *SHORT) as service, RawClient(service.url) as client:
        client.send(streamed())
        until(lambda: service.sockets)
        client._unread += client._receive()
        service.interrupt()
        until(lambda: service.refuses)
        first = client.answer()
        assert "connection" not in first.headers
        client.send(streamed())
        (second,) = client.rest()
        assert second.headers["connection"] == "close"
        for answer in (first, second):
            assert message_from_events(parse_events(answer.body))["content"]
        assert service.ended() == 0


def test_who_has_been_idle_is_hung_up_on_at_once(kind: str) -> None:
    with Process(kind, *AT_ONCE) as service, RawClient(service.url) as client:
        client.send(ALIVE)
        client.answer()
        time.sleep(GRACE)
        begun = time.monotonic()
        service.interrupt()
        assert client.rest() == []
        assert time.monotonic() - begun < GRACE / 2
        assert service.ended() == 0


def test_a_request_that_is_on_its_way_is_waited_for(kind: str) -> None:
    asked = streamed()
    with Process(kind, *AT_ONCE) as service, RawClient(service.url) as early, RawClient(service.url) as late:
        early.send(asked[:20])
        late.send(asked[:-1])
        time.sleep(GRACE)
        service.interrupt()
        until(lambda: service.refuses)
        for client, rest in ((early, asked[20:]), (late, asked[-1:])):
            client.send(rest)
            (answer,) = client.rest()
            assert message_from_events(parse_events(answer.body))["stop_reason"] == "end_turn"
        assert service.ended() == 0


def test_requests_behind_one_another_are_answered_or_known_not_to_be(kind: str) -> None:
    with Process(kind, *SHORT) as service, RawClient(service.url) as client:
        client.send(streamed() + ALIVE + ALIVE)
        client._unread += client._receive()
        service.interrupt()
        until(lambda: service.refuses)
        stream, alive = client.rest()
        assert message_from_events(parse_events(stream.body))["content"]
        assert (alive.status, alive.headers["connection"]) == (200, "close")
        assert service.ended() == 0


# --- when it takes too long ---

CUT = ("--drain-timeout", "200ms")


def test_a_whole_answer_that_takes_too_long_becomes_an_error(kind: str) -> None:
    with Process(kind, *ENDLESS, *CUT) as service, RawClient(service.url) as client:
        client.send(streamed(stream=False, max_tokens=100_000))
        until(lambda: b"in_flight 2.0\n" in get(service.url, "/metrics").body)
        service.interrupt()
        (answer,) = client.rest()
        assert (answer.status, answer.headers["connection"]) == (529, "close")
        assert answer.json["error"] == {"type": "overloaded_error", "message": "the service is stopping"}
        assert service.ended() == 0
        assert service.logged(path="/v1/messages")["status"] == 529


def test_a_stream_that_has_not_begun_becomes_an_error_with_its_status(kind: str) -> None:
    with Process(kind, "--simulate-ttft", "1m", *CUT) as service, RawClient(service.url) as client:
        client.send(streamed())
        until(lambda: b"in_flight 2.0\n" in get(service.url, "/metrics").body)
        service.interrupt()
        (answer,) = client.rest()
        assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")
        assert service.ended() == 0


def test_many_streams_that_take_too_long_each_get_their_error(kind: str) -> None:
    with Process(kind, *ENDLESS, *CUT) as service:
        clients = [RawClient(service.url) for _ in range(40)]
        for client in clients:
            client.send(streamed(max_tokens=100_000))
        for client in clients:
            client._unread += client._receive()
        service.interrupt()
        for client in clients:
            with client:
                (stream,) = client.rest()
                events = parse_events(stream.body)
                check_stream(events)
                assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "overloaded_error")
        assert service.ended() == 0
        warnings = [line["message"] for line in service.log if line.get("logger", "").endswith("serving.server")]
        assert warnings[-1] == "timeout graceful shutdown exceeded: 40 open answers end with an error"


def test_a_client_that_takes_nothing_does_not_hold_up_the_end(kind: str, tmp_path: Path) -> None:
    engine = ("--engine", "tests.server.engines:large", "--uds", f"{tmp_path}/a.sock")
    with Process(kind, *engine, *CUT) as service, RawClient(service.url) as stalled, RawClient(service.url) as half:
        stalled.send(streamed(model="1000000000", max_tokens=1_000_000_000))
        half.send(ALIVE[:10])
        stalled._unread += stalled._receive()
        begun = time.monotonic()
        service.interrupt()
        assert half.rest() == []
        assert service.ended() == 0
        assert time.monotonic() - begun < 6


def test_a_request_that_never_comes_is_not_waited_for_any_longer(kind: str) -> None:
    with Process(kind, *AT_ONCE, *CUT) as service, RawClient(service.url) as half:
        half.send(ALIVE[:10])
        time.sleep(GRACE)
        begun = time.monotonic()
        service.interrupt()
        assert half.rest() == []
        assert service.ended() == 0
        assert time.monotonic() - begun < 1.5


def test_who_gets_in_at_a_unix_socket_is_answered_however_late(kind: str, tmp_path: Path) -> None:
    """Its file is gone before it is closed, so nobody is at the door by then."""
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

    with Process(kind, *AT_ONCE, "--uds", f"{tmp_path}/a.sock") as service:
        threads = [threading.Thread(target=connect_and_ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(outcomes) > 50)
        service.interrupt()
        for thread in threads:
            thread.join()
        assert service.ended() == 0
        assert set(outcomes) == {b"HTTP/1.1 200"}
        assert not list(tmp_path.iterdir())
