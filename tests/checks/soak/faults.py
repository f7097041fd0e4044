"""The faults of the engine, and the error that a client of the service receives for each.

A prompt names the fault of its own answer, `soak NAME AFTER`: the engine needs no random numbers, and the client knows
what to expect. `AFTER` is the number of tokens before the fault; a fault in place of the response head has none.
"""

import re
from dataclasses import dataclass
from typing import Final

_ASKED: Final = re.compile(rb"soak ([a-z-]+) (\d+)")
_API: Final = "api_error"


@dataclass(frozen=True, slots=True)
class Fault:
    """`status` and `type` are those of the client's error; without `type` the client still receives its answer.

    `early` faults come in place of the response head. `sure` is false where the tokens before the fault may be lost: a
    reset discards what was not read.
    """

    name: str
    type: str = ""
    status: int = 200
    early: bool = False
    sure: bool = True


NONE: Final = Fault("none")
FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("bad-request", "invalid_request_error", 400, early=True),
        Fault("too-many", "rate_limit_error", 429, early=True),
        Fault("failure", _API, 500, early=True),
        Fault("away", "overloaded_error", 529, early=True),
        Fault("refuse", _API, 502, early=True),
        Fault("hang-up", _API, 502, early=True),
        Fault("no-http", _API, 502, early=True),
        Fault("html", _API, 502, early=True),
        Fault("mute", "timeout_error", 504, early=True),
        Fault("reset", _API, 502, sure=False),
        Fault("cut", _API, 502),
        Fault("stall", "timeout_error", 504),
        Fault("bad-chunk", _API, 502),
        Fault("no-json", _API, 502),
        Fault("told", "overloaded_error", 529),
        Fault("unfinished", _API, 502),
        Fault("no-end"),
        Fault("extra"),
    )
}
"""`bad-request` to `away` are statuses. `refuse` is a reset and `hang-up` a close, both before an answer; `mute` never
answers; `stall` goes silent; `told` is an error in the stream; `unfinished` ends without a finish. With `no-end` the
stream does not end behind its finish, and with `extra` something stands behind its end: neither concerns a client.
"""


def asking(fault: Fault, after: int) -> str:
    """The prompt that asks for the fault."""
    return f"soak {fault.name} {after}"


def asked(body: bytes) -> tuple[Fault, int]:
    """The fault and the number of tokens that a request asks for; NONE and 0 without one."""
    found = _ASKED.search(body)
    if found is None:
        return NONE, 0
    return FAULTS.get(found[1].decode(), NONE), int(found[2])
