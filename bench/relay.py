"""`python -m bench.relay ENGINE`: a byte relay that parses nothing: the floor of every proxy.

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

    def __init__(self, engine: str) -> None:
        super().__init__()
        self._engine = engine
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
        loop = asyncio.get_running_loop()
        try:
            if self._engine.startswith("/"):
                await loop.create_unix_connection(lambda: back, self._engine)
            else:
                host, _, port = self._engine.rpartition(":")
                await loop.create_connection(lambda: back, host, int(port))
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
    parser.add_argument("engine", help="where every connection goes: HOST:PORT, or the path of a Unix socket")
    parser.add_argument("--listen", default="127.0.0.1:0", help="the same, for clients (default 127.0.0.1:0)")
    options = parser.parse_args()
    path = options.listen if options.listen.startswith("/") else None
    port = 0 if path else int(options.listen.rpartition(":")[2])
    uvloop.run(listen(lambda: Front(options.engine), port=port, path=path))


if __name__ == "__main__":
    main()
