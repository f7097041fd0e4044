"""`python -m bench.peers.raw_asgi PORT TOKENS`: the least that an ASGI application can do to stream a Messages answer.

Prepared bytes, one `send` per token, and as many event loop iterations as the simulated engine has. It runs in the
environment of the service that it is compared with, on the same uvicorn with the same parser and loop.
"""

import asyncio
import sys
from typing import Any, Final

import uvicorn

from ..oracles import delta, event

_YIELD: Final = 32  # tokens between two event loop iterations
_USAGE: Final = {"input_tokens": 8, "output_tokens": 1}
_WORDS: Final = (" the", " harbor", " naïve", " 漢字", ",", " wanderer", ".")
_STOP: Final[dict[str, Any]] = {"stop_reason": None, "stop_sequence": None}
_MESSAGE: Final[dict[str, Any]] = {"type": "message", "role": "assistant", "model": "simulated", "content": [], **_STOP}
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]

OPENING: Final = event("message_start", message={"id": "msg_" + "a" * 24, **_MESSAGE, "usage": _USAGE}) + event(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
ENDING: Final = (
    event("content_block_stop", index=0)
    + event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_USAGE)
    + event("message_stop")
)


class Raw:
    """The application. `tokens` is the length of every answer."""

    def __init__(self, tokens: int) -> None:
        deltas = [delta("text", word) for word in _WORDS]
        self._frames = [deltas[number % len(deltas)] for number in range(tokens)]
        self._frames[0] = OPENING + self._frames[0]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        for begin in range(0, len(self._frames), _YIELD):
            for frame in self._frames[begin : begin + _YIELD]:
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
