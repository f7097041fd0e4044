"""What can go wrong between this service and an engine. An `UpstreamError` is a fault of the engine or the network.

    UpstreamError
    ├── ConnectFailed    no connection: refused, unknown host, missing socket, failed TLS handshake, pool closed
    ├── Timeout          the peer missed a deadline; `phase` names the deadline
    ├── Broken           the peer violated HTTP or the connection ended early: reset, cut short, not HTTP
    │   ├── Stale        a reused connection was closed before the first response byte; the request is sent again once
    │   └── TooLarge     a response head, body or event is larger than its limit
    └── PoolExhausted    no slot became free within the connect deadline

A mistake of the caller (CR or LF in a header, an unsupported method) raises `ValueError` instead.
Messages are for the log. They may contain the engine's address, never a header value, and so never an API key.
"""

from typing import Literal

Phase = Literal["connect", "first byte", "silence", "total"]


class UpstreamError(Exception):
    """The base class."""


class ConnectFailed(UpstreamError):
    """The connection could not be opened, or the pool is closed."""


class Timeout(UpstreamError):
    """The peer missed the deadline of `phase`, which is `seconds` long."""

    def __init__(self, phase: Phase, peer: str, seconds: float) -> None:
        what = "not complete after" if phase == "total" else "no data for"
        super().__init__(f"{peer}: {phase}: {what} {seconds:g} s")
        self.phase = phase


class Broken(UpstreamError):
    """The peer violated HTTP, or the connection ended before the response did."""


class Stale(Broken):
    """The peer closed a reused connection before it sent a byte of this response."""


class TooLarge(Broken):
    """A part of the response is larger than its limit."""


class PoolExhausted(UpstreamError):
    """No slot became free within the connect deadline."""
