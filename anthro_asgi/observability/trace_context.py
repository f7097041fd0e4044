"""W3C trace context: which trace a request is part of, taken over from its headers and passed to the engine.

By the W3C Recommendation "Trace Context" of 23 November 2021: the formats of `traceparent` and `tracestate` (sections
3.2 and 3.3) and, for a service that only passes them on, the processing model (section 4). A `traceparent` that is not
valid is as good as none, and then nobody looks at the `tracestate`; a `tracestate` that is not valid is left out.

A Tracer makes a Trace of each request. This one passes on what came; that of `spans` puts a span of its own into it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ..wire.request import MessagesRequest
from .logs import RequestRecord

Fields = tuple[tuple[str, str], ...]
Headers = Iterable[tuple[bytes, bytes]]

# A version above 00 may go on behind a dash. That much of it is passed on as is.
_PARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?P<more>-[!-~]{0,200})?"
)
_KEY: Final = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER: Final = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")
_MEMBERS: Final = 32
_LONGEST: Final = 512  # characters of a tracestate, beyond which members are left out,
_LONG: Final = 128  # and first those that are longer than this


class Trace:
    """The trace of one request. `trace_id` is 32 hex digits, None without a trace; `headers` are for the engine."""

    __slots__ = ("headers", "trace_id")

    def __init__(self, trace_id: str | None = None, headers: Fields = ()) -> None:
        self.trace_id = trace_id
        self.headers = headers

    def request_parsed(self, request: MessagesRequest) -> None:
        """The request has been read: this is what it asks for."""

    def ended(self, record: RequestRecord) -> None:
        """It is over, and this is how it went."""


class Tracer:
    """Passes on what came."""

    def begin(self, record: RequestRecord, headers: Headers) -> Trace:
        """The trace of a request that begins, with these headers (names in lower case)."""
        return parse_trace_headers(headers)

    async def stop(self) -> None:
        """No trace begins after this."""


NO_TRACE: Final = Trace()


def parse_trace_headers(headers: Headers) -> Trace:
    """The trace that these headers (names in lower case) are of."""
    parents = []
    states = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return NO_TRACE
    parent = _text(parents[0])
    found = _PARENT.fullmatch(parent)
    if found is None or (found["version"] == "00" and found["more"]):
        return NO_TRACE
    state = _state(",".join(map(_text, states)).split(",")) if states else ""
    return Trace(found["trace"], (("traceparent", parent), *((("tracestate", state),) if state else ())))


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \t")


def _state(members: Sequence[str]) -> str:
    """The list as it is passed on, empty where it is not valid."""
    members = [member for member in (member.strip(" \t") for member in members) if member]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in found if match is not None}
    if len(members) > _MEMBERS or len(keys) < len(members):
        return ""
    while len(state := ",".join(members)) > _LONGEST:
        members.remove(next((member for member in reversed(members) if len(member) > _LONG), members[-1]))
    return state
