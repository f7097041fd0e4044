"""W3C trace context: the trace that a request belongs to, read from its headers and passed to the engine.

This follows the W3C Recommendation "Trace Context" of 23 November 2021: the formats of `traceparent` and `tracestate`
(sections 3.2 and 3.3), and the processing model for a service that only forwards them (section 4). An invalid
`traceparent` is ignored together with the `tracestate`; an invalid `tracestate` alone is omitted.

A Tracer returns a Trace for each request. The Tracer here forwards the headers; SpanTracer in `otel` adds a span.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ..wire.request import MessagesRequest
from .logs import RequestRecord

TraceHeaders = tuple[tuple[str, str], ...]
RequestHeaders = Iterable[tuple[bytes, bytes]]

# A version above 00 may have more fields after a dash. Up to 200 characters of them are forwarded.
_PARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?P<more>-[!-~]{0,200})?"
)
_KEY: Final = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER: Final = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
_MEMBERS: Final = 32
_LONGEST: Final = 512  # characters of a tracestate; members are removed from a longer one,
_LONG: Final = 128  # first those that have more characters than this


class Trace:
    """The trace of one request. `trace_id` is 32 hex digits, or None without a trace; `headers` go to the engine."""

    __slots__ = ("headers", "trace_id")

    def __init__(self, trace_id: str | None = None, headers: TraceHeaders = ()) -> None:
        self.trace_id = trace_id
        self.headers = headers

    def request_parsed(self, request: MessagesRequest) -> None:
        """Called when the request has been read and is valid."""

    def ended(self, record: RequestRecord) -> None:
        """Called once, at the end of the request, with its result."""


class Tracer:
    """Forwards the trace headers of each request, and records nothing."""

    def begin(self, record: RequestRecord, headers: RequestHeaders) -> Trace:
        """The trace of a request with these headers (names in lower case)."""
        return parse_trace_headers(headers)

    async def stop(self) -> None:
        """Called when the application stops, after its last request."""


NO_TRACE: Final = Trace()


def parse_trace_headers(headers: RequestHeaders) -> Trace:
    """The trace that these headers (names in lower case) name; NO_TRACE when they name none."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return NO_TRACE
    parent = _text(parents[0])
    found = _PARENT.fullmatch(parent)
    if found is None or (found["version"] == "00" and found["more"]):
        return NO_TRACE
    states = [value for name, value in headers if name == b"tracestate"]
    state = _state(",".join(map(_text, states)).split(",")) if states else ""
    return Trace(found["trace"], (("traceparent", parent), *((("tracestate", state),) if state else ())))


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \t")


def _state(members: Sequence[str]) -> str:
    """The tracestate to forward, empty when it is invalid."""
    members = [member for member in (member.strip(" \t") for member in members) if member]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in found if match is not None}
    if len(members) > _MEMBERS or len(keys) < len(members):
        return ""
    while len(state := ",".join(members)) > _LONGEST:
        members.remove(next((member for member in reversed(members) if len(member) > _LONG), members[-1]))
    return state
