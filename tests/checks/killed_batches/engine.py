"""An engine as a process: a chat-completions server that repeats each prompt, and writes down when it began.

python -m tests.checks.killed_batches.engine PORT LOG
"""

import asyncio
import json
import os
import sys
import time

_DELAY = 0.03  # seconds that an answer takes


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


class Engine:
    def __init__(self, log: int) -> None:
        self._log = log

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                writer.write(await self._answer(body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, body: bytes) -> bytes:
        if not body:
            content, kind = b'{"object":"list","data":[{"id":"m","object":"model"}]}', b"application/json"
        else:
            prompt = json.loads(body)["messages"][-1]["content"]
            os.write(self._log, b"%b %f\n" % (prompt.encode(), time.time()))
            await asyncio.sleep(_DELAY)
            content = _chunk({"content": f"you said {prompt}"}) + _chunk({}, "stop") + b"data: [DONE]\n\n"
            kind = b"text/event-stream"
        return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(content), content)


async def main(port: int, path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    server = await asyncio.start_server(Engine(log).serve, "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
