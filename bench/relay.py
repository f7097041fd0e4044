"""`python -m bench.relay HOST:PORT`: a byte relay that parses nothing: the floor of every proxy.

What one side of a client's connection receives, the other side writes. Nothing is parsed, joined or delayed, so its
cost is that of two sockets and an event loop. It has back-pressure: a proxy without it is faster only by filling its
memory. When one side cannot write, the other side is not read.
"""

import argparse
import asyncio
from typing import cast

import uvloop

from .process import listen


class Side(asyncio.Protocol):
    """One of the two connections; its bytes go to `other`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports only have the same methods

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)  # type: ignore[union-attr]  # nothing is read before both sides exist

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
    """A client's connection. At most one read is taken from it until the upstream connection is open."""

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
        self.transport.pause_reading()  # not in connection_made: uvloop starts to read after that returns

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description="A byte relay: the floor of a proxy.")
    parser.add_argument("upstream", metavar="HOST:PORT", help="the address to which every connection goes")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default 0: any free port)")
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")
    uvloop.run(listen(lambda: Front(host, int(port)), port=options.port))


if __name__ == "__main__":
    main()
