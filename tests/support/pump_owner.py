"""An owner that notes what its pump calls, and the bytes of a simple template, for the tests of both pumps."""

import asyncio

from anthro_asgi import _native
from anthro_asgi._native import NewPump, Pump
from tests.support.pumped import framed

BEFORE, AFTER = b'data: {"delta":{"content":', b"}}\n\n"
COUNTED = b'},"usage":'
NUMBERLESS = b'{"prompt_tokens":0,"completion_tokens":0}}\n\n'
OPENING, CLOSING = b"event: e\ndata: {", b"}\n\n"
LARGE = 1 << 20


class Owner:
    """Notes what the pump calls. `new_pump` makes it, by default a native one; its template is that of `event`."""

    def __init__(
        self,
        new_pump: NewPump | None = _native.new_pump,
        *,
        backlog: int = 0,
        closing: bool = False,
        fd: int = -1,
    ) -> None:
        self.now = 100.0
        self.written: list[bytes] = []
        self.back: list[bytes] = []
        self.calls: list[object] = []
        self.backlog = backlog
        self.happened = asyncio.Event()  # something was handed back, or the transport has ended
        assert new_pump is not None
        self.pump: Pump = new_pump(
            self, lambda: self.now, self.written.append, lambda: self.backlog, lambda: closing, fd
        )
        self.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)

    def hand_back(self, data: bytes) -> None:
        self.back.append(data)
        self.happened.set()

    def sync(self) -> None:
        self.calls.append(self.pump.take())

    def slow_down(self) -> None:
        self.calls.append("slow_down")

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append(error)
        self.happened.set()

    def eof_received(self) -> None:
        self.calls.append("eof")
        self.happened.set()

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


def event(literal: bytes) -> bytes:
    """An engine's event with a text that is written as this literal."""
    return BEFORE + literal + AFTER


def converted(*literals: bytes) -> bytes:
    """The client's HTTP chunk for texts that are written as these literals."""
    return framed(b"".join(OPENING + literal + CLOSING for literal in literals))
