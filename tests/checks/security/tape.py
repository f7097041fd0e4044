"""An engine that keeps every byte it is sent, in a thread of its own.

with Tape() as tape:
    tape.url, tape.requests
"""

import json
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.upstream import json_answer, sse

CHUNKS = (
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
)
EVENTS = tuple(
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    for event in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )
)
MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}


class Tape:
    """`requests` are (head, body) as they came; what is no request ends up as a head without a body.

    Chat completions and Messages are answered, unless `answer` is set: then that is what a POST gets.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.accepted = 0
        self.answer: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # which wakes whoever waits for it
            sock.close()
        for thread in self._threads:
            thread.join()

    @property
    def posts(self) -> list[tuple[bytes, bytes]]:
        """The requests that are not a look at what the engine is and has."""
        return [request for request in self.requests if not request[0].startswith(b"GET ")]

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._sockets.append(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock.makefile("rb") as stream:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        if head:
                            self.requests.append((head, b""))
                        return
                    head += line
                sizes = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                self.requests.append((head, stream.read(sum(sizes))))
                sock.sendall(self._answer_to(head))

    def _answer_to(self, head: bytes) -> bytes:
        if head.startswith(b"POST "):
            if self.answer is not None:
                return self.answer
            if head.startswith(b"POST /v1/chat/"):
                return sse(*CHUNKS)
            return sse(*EVENTS, done=False) if head.startswith(b"POST /v1/messages ") else json_answer(404, {})
        return json_answer(200, MODELS) if head.startswith(b"GET /v1/models ") else json_answer(404, {})
