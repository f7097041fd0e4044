"""What can go wrong between this service and an engine. They are theirs, not ours: no `UpstreamError` is a bug here.

    UpstreamError
    ├── ConnectFailed    nobody to talk to: refused, unknown host, no such socket, TLS handshake or certificate
    ├── Timeout          too slow; `phase` says in what
    ├── Broken           the peer broke HTTP or the connection: reset, cut short, not HTTP
    │   ├── Stale        a kept-alive connection was gone before the first byte: the pool asks again, once
    │   └── TooLarge     a head, a body or an event passed its bound
    └── PoolExhausted    every slot was busy for as long as one waits for a connection

A caller's own mistake (CR or LF in a header, a method we do not speak) is a `ValueError` instead.
Messages are for the log: they may name the engine's address, never a header, so never a key.
"""

from typing import Literal

Phase = Literal["connect", "first byte", "silence", "total"]


class UpstreamError(Exception):
    """The root."""


class ConnectFailed(UpstreamError):
    """No connection could be made, or the pool is closed and makes none."""


class Timeout(UpstreamError):
    """The peer let a deadline pass: to accept us, to begin its answer, to go on with it, or to end it."""

    def __init__(self, phase: Phase, peer: str, seconds: float) -> None:
        what = "not over after" if phase == "total" else "nothing for"
        super().__init__(f"{peer}: {phase}: {what} {seconds:g} s")
        self.phase = phase


class Broken(UpstreamError):
    """The peer broke HTTP, or the connection."""


class Stale(Broken):
    """Closed by the peer on a connection that had served before, without a byte of this answer."""


class TooLarge(Broken):
    """The peer said more than one listens to."""


class PoolExhausted(UpstreamError):
    """No slot became free within the connect deadline."""
