"""A process that was stopped for longer than a deadline reads what has arrived meanwhile before it gives up."""

import json
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.client import HELLO, RawClient
from tests.support.service import AT_ONCE, Service

DEADLINE = 0.7  # seconds
HELLO_BODY = json.dumps(HELLO).encode()
POST = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HELLO_BODY) + HELLO_BODY
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}


class Engine(ThreadingHTTPServer):
    """Answers a request for a completion when `may_answer` is set; then it sets `answered`.

    `dropped` is the number of the request whose connection it closes instead.
    """

    daemon_threads = True

    def __init__(self, dropped: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.dropped = dropped
        self.requests = 0
        self.asked, self.may_answer, self.answered = (threading.Event() for _ in range(3))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.requests += 1
        is_dropped = self.server.requests == self.server.dropped
        self.server.asked.set()
        self.server.may_answer.wait(10)
        if is_dropped:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            self.server.answered.set()
            return
        body = json.dumps(COMPLETION).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.wfile.write(head + body)
        self.server.answered.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


def test_an_answer_that_arrived_while_the_process_was_stopped_is_read(kind: str) -> None:
    with Engine() as engine:
        serving = threading.Thread(target=engine.serve_forever, args=(0.05,))
        serving.start()
        url = f"http://127.0.0.1:{engine.server_port}"
        options = ("--upstream", url, "--upstream-api", "chat", "--dialect", "vllm")
        try:
            with (
                Service(*options, "--first-byte-deadline", f"{DEADLINE}s", kind=kind) as service,
                RawClient(service.url) as client,
            ):
                client.send(POST)
                assert engine.asked.wait(10)
                service.send_signal(signal.SIGSTOP)
                engine.may_answer.set()
                assert engine.answered.wait(10)
                time.sleep(DEADLINE)  # longer than the rest of the deadline
                service.send_signal(signal.SIGCONT)
                assert client.answer().status == 200
        finally:
            engine.shutdown()
            serving.join()


def test_a_stale_connection_is_found_out_although_the_process_was_stopped(kind: str) -> None:
    with Engine(dropped=2) as engine:
        serving = threading.Thread(target=engine.serve_forever, args=(0.05,))
        serving.start()
        url = f"http://127.0.0.1:{engine.server_port}"
        try:
            with (
                Service("--upstream", url, "--upstream-api", "chat", "--dialect", "vllm", kind=kind) as service,
                RawClient(service.url) as client,
            ):
                engine.may_answer.set()
                client.send(POST)
                assert client.answer().status == 200
                for event in (engine.may_answer, engine.asked, engine.answered):
                    event.clear()
                client.send(POST)  # on the connection that the first request has used
                assert engine.asked.wait(10)
                service.send_signal(signal.SIGSTOP)
                engine.may_answer.set()
                assert engine.answered.wait(10)
                time.sleep(1.2)  # longer than the second in which a loss means that the connection was stale
                service.send_signal(signal.SIGCONT)
                assert client.answer().status == 200
                assert engine.requests == 3
        finally:
            engine.shutdown()
            serving.join()


def test_a_request_that_arrived_while_the_process_was_stopped_is_served(kind: str) -> None:
    with (
        Service(*AT_ONCE, "--receive-deadline", f"{DEADLINE}s", kind=kind) as service,
        RawClient(service.url) as client,
    ):
        client.send(POST[:-5])
        time.sleep(DEADLINE / 4)  # the service reads the beginning
        service.send_signal(signal.SIGSTOP)
        client.send(POST[-5:])
        time.sleep(DEADLINE)
        service.send_signal(signal.SIGCONT)
        assert client.answer().status == 200
