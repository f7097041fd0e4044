"""`python -m bench.relay HOST:PORT`: a byte relay that reads nothing it carries, the floor that every proxy is held to.

One Protocol on each side of a client: what one receives, the other writes. Nothing is parsed, joined or delayed, so
what this costs is what two sockets and an event loop cost. Back-pressure is kept, as a proxy without it could only be
faster by filling its memory: who cannot write stops the other side from reading.
"""

import argparse
import asyncio
import signal
from typing import Final, cast

import uvloop

_BACKLOG: Final = 4096


class Side(asyncio.Protocol):
    """One of the two connections; `other` is what its bytes go to."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are that only by their methods

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)  # type: ignore[union-attr]  # nothing is read before both are there

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Front(Side):
    """A client's connection: one read at most is taken from it until its way upstream is open."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._upstream = (host, port)
        self._early = b""
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
            return
        assert self.transport is not None
        self._early = data
        self.transport.pause_reading()  # not before: uvloop starts to read after connection_made, whatever that did

    async def _dial(self) -> None:
        assert self.transport is not None
        back = Side()
        back.other = self
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, *self._upstream)
        except OSError:
            self.transport.close()
            return
        assert back.transport is not None
        self.other = back
        if self.transport.is_closing():
            back.transport.close()
        elif self._early:
            back.transport.write(self._early)
            self.transport.resume_reading()


async def serve(host: str, port: int, listen_on: int) -> None:
    """Relay 127.0.0.1:`listen_on` (0: any free port) to `host`:`port` until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(lambda: Front(host, port), "127.0.0.1", listen_on, backlog=_BACKLOG)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description="A byte relay: the floor of a proxy.")
    parser.add_argument("upstream", metavar="HOST:PORT", help="where every connection goes")
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (default: any that is free)")
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")
    uvloop.run(serve(host, int(port), options.port))


if __name__ == "__main__":
    main()
