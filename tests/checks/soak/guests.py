"""Hostile guests: what goes on beside the clients of the soak, and must not change what these get.

tiny chunks      a client that sends bodies in chunks of one byte, one after the other
stopped worker   a worker is stopped for some seconds, again and again
slow log reader  the reader of the service's log pauses (see `service`)
slow model list  the engine takes seconds for every other model list (see `engine`)
dead address     the name of the engine has an address first at which nothing answers (see `dead_address`)
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

_HEAD: Final = b"POST /v1/messages HTTP/1.1\r\nhost: soak\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNKS: Final = b"1\r\na\r\n" * 50_000
_EVERY: Final = 5.0  # seconds between two stops of a worker
_STOPPED: Final = 2.5  # seconds; longer than it takes the other worker to notice
_PATIENCE: Final = 10.0  # seconds for the end of a request with tiny chunks


class Guests:
    """All guests of the service at `host` and `port`, whose first process is `pid`. Use it as a context manager."""

    def __init__(self, host: str, port: int, pid: int) -> None:
        self._host = host
        self._port = port
        self._pid = pid
        self._tasks: list[asyncio.Task[None]] = []
        self.stops = 0  # of a worker
        self.refused = 0  # requests in tiny chunks

    async def __aenter__(self) -> "Guests":
        self._tasks = [asyncio.create_task(self._send_tiny_chunks()), asyncio.create_task(self._stop_workers())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        done, _pending = await asyncio.wait(self._tasks)
        for task in done:
            if not task.cancelled():
                task.result()  # raises the error of a guest

    async def _send_tiny_chunks(self) -> None:
        while True:
            with suppress(OSError, TimeoutError):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writer.write(_HEAD + _CHUNKS)
                    async with asyncio.timeout(_PATIENCE):
                        head = await reader.readline()
                    self.refused += head.startswith(b"HTTP/1.1 4")
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    async def _stop_workers(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            workers = _children(self._pid)
            if len(workers) < 2:
                continue
            worker = workers[self.stops % len(workers)]
            os.kill(worker, signal.SIGSTOP)
            self.stops += 1
            try:
                await asyncio.sleep(_STOPPED)
            finally:
                os.kill(worker, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
