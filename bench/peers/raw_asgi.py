"""`python raw_asgi.py PORT TOKENS`: the least an ASGI application can do to stream a Messages answer, on uvicorn.

Ready-made bytes, one `send` a token, and a turn for the other tasks as often as the simulated engine gives one. It runs
in the environment of the service it is compared with, on the same uvicorn with the same parser and loop, and therefore
imports nothing of the bench.
"""

import asyncio
import json
import sys
from typing import Any

import uvicorn

_TURN = 32  # tokens between two turns for the other tasks
_USAGE = {"input_tokens": 8, "output_tokens": 1}
_WORDS = (" the", " harbor", " naïve", " 漢字", ",", " wanderer", ".")
_MESSAGE = {"id": "msg_" + "a" * 24, "type": "message", "role": "assistant", "model": "simulated", "content": []}
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def delta(text: str) -> bytes:
    """One token."""
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


OPENING = event("message_start", message={**_MESSAGE, "stop_reason": None, "stop_sequence": None, "usage": _USAGE})
OPENING += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
_DELTAS = [delta(word) for word in _WORDS]
ENDING = event("content_block_stop", index=0)
ENDING += event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_USAGE)
ENDING += event("message_stop")


class Raw:
    """The application. `tokens` is how many an answer has."""

    def __init__(self, tokens: int) -> None:
        self._frames = [_DELTAS[number % len(_DELTAS)] for number in range(tokens)]
        self._frames[0] = OPENING + self._frames[0]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        for turn in range(0, len(self._frames), _TURN):
            for frame in self._frames[turn : turn + _TURN]:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": ENDING})


if __name__ == "__main__":
    uvicorn.run(
        Raw(int(sys.argv[2])),
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=2048,
    )
