"""An engine that records the requests it gets, and answers chat completions and Messages."""

import json
from urllib.parse import urlsplit

from tests.support.upstream import Request, ThreadedUpstream, Wire, json_answer, sse

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


class RecordingEngine(ThreadedUpstream):
    """`answer`, if set, is the answer to every POST."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.answer: bytes | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return urlsplit(self.url).netloc

    @property
    def posts(self) -> list[Request]:
        """The requests that do not ask what the engine is or has."""
        return [request for request in self.requests if request.method != "GET"]

    async def _answer(self, wire: Wire) -> None:
        await wire.send(self._answer_to(wire.method, wire.target))

    def _answer_to(self, method: str, target: str) -> bytes:
        if method == "POST" and self.answer is not None:
            return self.answer
        match method, target:
            case "POST", "/v1/chat/completions":
                return sse(*CHUNKS)
            case "POST", "/v1/messages":
                return sse(*EVENTS, done=False)
            case "GET", "/v1/models":
                return json_answer(200, MODELS)
        return json_answer(404, {})
