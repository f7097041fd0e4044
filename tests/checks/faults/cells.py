"""The matrix as data: what goes wrong, when, for which kind of answer, and the expected outcome.

An outcome is a short text:

    message          a complete answer with the expected content
    502 api_error    an error with this status and type
    event api_error  an error event of this type, after a stream had begun
    cut              the connection ends inside an answer
    closed           the connection ends without an answer
    released         the service noticed that the client left, and released the connection and the engine's slot
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.checks.faults import client_faults as behaviours
from tests.checks.faults import request_bodies, request_framing, response_faults
from tests.checks.faults.client import Client
from tests.checks.faults.client_faults import Behaviour
from tests.checks.faults.healthy_response import PHASES
from tests.checks.faults.session import ClientSession
from tests.checks.faults.stream_faults import MAX_EVENT

BEFORE, HEAD, TOKEN, TOOL, FINISH = PHASES
DEADLINES: Final = {  # seconds; a busy machine delays the event loop of the engines by more than one
    "connect-deadline": 2.0,
    "first-byte-deadline": 2.0,
    "silence-deadline": 2.0,
    "total-deadline": 8.0,
    "receive-deadline": 2.0,
    "stall-deadline": 1.5,
    "queue-timeout": 0.5,
}
USUAL: Final = {name: f"{seconds}s" for name, seconds in DEADLINES.items()} | {
    "ping-interval": "10s",
    "max-head": "16K",
    "max-body": str(request_bodies.MAX_BODY),
    "max-decompressed": str(request_bodies.MAX_BODY),
    "max-messages": str(request_bodies.MAX_MESSAGES),
    "max-tools": str(request_bodies.MAX_TOOLS),
    "max-stop-sequences": str(request_bodies.MAX_STOPS),
    "max-event": str(MAX_EVENT),
    "max-tool-input": str(MAX_EVENT),
    "max-answer": str(4 * MAX_EVENT),
}
# Name of a set-up of the service → the options that differ from USUAL. A name in PLACES is a set-up with an engine that
# cannot be reached.
SETUPS: Final[dict[str, Mapping[str, str]]] = {
    "usual": {},
    "hurried": {"total-deadline": "4s"},
    "pinging": {"ping-interval": "50ms", "first-byte-deadline": "3s"},
    "narrow": {"max-concurrency": "1", "max-queue": "1", "queue-timeout": "3s"},
    "impatient": {"max-concurrency": "1", "max-queue": "1"},
    "per key": {"max-concurrency-per-key": "1"},
    "patient": {"total-deadline": "120s", "max-answer": "1G", "stall-deadline": "0.8s"},
}
ALSO_AS_A_PROCESS: Final = ("usual", "hurried")  # set-ups that are also played against the command


Expected = str | tuple[str, str]  # the outcome, or one for whole answers and one for streams


@dataclass(frozen=True, slots=True)
class Cell:
    """One case. `lines` is the number of requests that the log must contain."""

    group: str
    fault: str
    phase: str
    streams: bool
    expected: str
    behaviour: Behaviour = behaviours.asks
    setup: str = "usual"
    lines: int = 1
    within: float = 8.0  # seconds; `matrix` allows several times as many, because of other processes of the machine
    model: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.setup, self.fault, self.phase, "streamed" if self.streams else "whole")))

    @property
    def engine_model(self) -> str:
        """The model name, which selects the fault of the engine."""
        return self.model or f"{self.fault}/{self.phase or BEFORE}"

    @property
    def tries_both_apis(self) -> bool:
        """Whether the engine is at fault. Then both APIs of engines are tried."""
        return self.group != "clients"


def both(group: str, fault: str, phase: str, expected: Expected, **more: Any) -> Iterator[Cell]:
    """The two cells of one fault: a whole answer and a stream."""
    whole, streamed = (expected, expected) if isinstance(expected, str) else expected
    yield Cell(group, fault, phase, False, whole, **more)
    yield Cell(group, fault, phase, True, streamed, **more)


# --- engines: phases ---

MESSAGE: Final = "message"
BROKEN: Final = "502 api_error"
LATE: Final = (BROKEN, "event api_error")
SLOW: Final = "504 timeout_error"
SLOW_LATE: Final = (SLOW, "event timeout_error")
AWAY: Final = "529 overloaded_error"
_BREAKS: Final[dict[str, Expected]] = {BEFORE: BROKEN, HEAD: BROKEN, TOKEN: LATE, TOOL: LATE, FINISH: MESSAGE}
_IN_BODY: Final[dict[str, Expected]] = {phase: expected for phase, expected in _BREAKS.items() if phase != BEFORE}
_LATE_500: Final = ("500 api_error", "event api_error")
_LATE_529: Final = (AWAY, "event overloaded_error")

PHASED: Final[dict[str, Mapping[str, Expected]]] = {
    "reset": _BREAKS,
    "closed": _BREAKS,
    "half-closed": _BREAKS,
    "stall": {BEFORE: SLOW, HEAD: SLOW, TOKEN: SLOW_LATE, TOOL: SLOW_LATE, FINISH: MESSAGE},
    "slow drip": dict.fromkeys(PHASES, MESSAGE),
    "truncated chunk": _IN_BODY,
    "bad chunk size": _IN_BODY,
    "content-length too short": _IN_BODY,
    "content-length too long": _IN_BODY,
    "giant line": _IN_BODY,
    "broken JSON": _IN_BODY,
    "JSON that is not a chunk": _IN_BODY,
    "invalid UTF-8": _IN_BODY,
    "error 500 as an event": {HEAD: "500 api_error", TOKEN: _LATE_500, TOOL: _LATE_500, FINISH: MESSAGE},
    "error 503 as an event": {HEAD: AWAY, TOKEN: _LATE_529, TOOL: _LATE_529, FINISH: MESSAGE},
    "endless": {TOKEN: (BROKEN, "event timeout_error"), TOOL: (BROKEN, "event timeout_error"), FINISH: MESSAGE},
    "endless heartbeats": {HEAD: SLOW, TOKEN: SLOW_LATE, TOOL: SLOW_LATE, FINISH: MESSAGE},
}


def _phased() -> Iterator[Cell]:
    for fault, phases in PHASED.items():
        for phase, expected in phases.items():
            yield from both(
                "phases", fault, phase, expected, setup="hurried" if fault.startswith("endless") else "usual"
            )


# --- engines: whole answers ---

_STATUSES: Final[dict[int, str]] = {
    **dict.fromkeys(response_faults.REJECTED, "400 invalid_request_error"),
    **dict.fromkeys(response_faults.FAILED, "500 api_error"),
    **dict.fromkeys((*response_faults.REDIRECTED, *response_faults.BODILESS, 201, 206), BROKEN),
    **dict.fromkeys((401, 403), "500 api_error"),
    402: "402 billing_error",
    405: BROKEN,  # the engine does not serve the route; so does a 404 without a reason
    404: "404 not_found_error",
    408: SLOW,
    413: "413 request_too_large",
    429: "429 rate_limit_error",
    **dict.fromkeys((502, 503, 529), AWAY),
    504: SLOW,
}
_OTHERWISE: Final = {
    **dict.fromkeys(response_faults.FORGIVEN, MESSAGE),
    **{f"status {code}": expected for code, expected in _STATUSES.items()},
    **{f"error body: {end}": AWAY for end in ("closed", "stalled", "endless")},
    "an error as JSON, with 200": "500 api_error",
    "a whole JSON answer": MESSAGE,
    "HTTP/1.0, ended by its close": MESSAGE,
    "trailers": MESSAGE,
    "closed while idle": MESSAGE,
    "two answers to one request": MESSAGE,
    "endless trailers": MESSAGE,
    "slow 1xx without an end": SLOW,
}
_SURPLUS: Final = "bytes a few milliseconds after its answer"
_BEHIND: Final = "an error before each answer but its first"
_REFUSED_VALUE: Final = "a value that it refuses"
_BEHAVIOURS: Final[dict[str, Behaviour]] = {
    _SURPLUS: behaviours.asks_until_dropped,
    _BEHIND: behaviours.asks_thrice,
    _REFUSED_VALUE: behaviours.asks_with_value,
}
_PINGED: Final = ("reset", "stall", "status 400", "status 429", "status 503", "HTML")


def _answered() -> Iterator[Cell]:
    for fault in (fault for fault in response_faults.ANSWERS if fault not in _BEHAVIOURS):
        setup = "hurried" if fault == "slow 1xx without an end" else "usual"
        yield from both("answers", fault, "", _OTHERWISE.get(fault, BROKEN), setup=setup)
    behind = f"{MESSAGE}, then 500 api_error, then {MESSAGE}"
    for fault, expected, lines in ((_SURPLUS, MESSAGE, 1), (_BEHIND, behind, 3)):
        yield from both("answers", fault, "", expected, behaviour=_BEHAVIOURS[fault], lines=lines)
    for fault in _PINGED:
        expected = {"reset": BROKEN, "stall": SLOW, "HTML": BROKEN}.get(fault) or _OTHERWISE[fault]
        late = (expected, f"event {expected.partition(' ')[2]}")
        yield from both("answers", fault, "after a ping", late, setup="pinging", model=f"later: {fault}/{BEFORE}")


# --- engines: places ---


PLACES: Final = (
    *("refused", "no such name", "no such socket", "connections are not accepted", "no TLS", "TLS that stalls"),
    *("an unknown authority", "a certificate for another host", "an expired certificate", "TLS 1.1"),
)


def _placed() -> Iterator[Cell]:
    for fault, expected in (("healthy", MESSAGE), ("reset", LATE), ("closed", LATE), ("stall", SLOW_LATE)):
        yield from both("answers", "over TLS", fault, expected, setup="valid TLS", model=f"{fault}/{TOKEN}")
    for place in PLACES:
        yield from both("places", place, "", AWAY, setup=place)
    for target, expected in (("/readyz", "503"), ("/v1/models", AWAY), ("/healthz", "200")):
        yield Cell(
            "places", "refused", f"asked {target}", False, expected, partial(behaviours.gets, target), setup="refused"
        )


# --- clients ---


def _client(
    fault: str, phase: str, expected: str, behaviour: Behaviour, model: str = "healthy", **more: Any
) -> Iterator[Cell]:
    model = model if "/" in model else f"{model}/{HEAD}"
    yield from both("clients", fault, phase, expected, behaviour=behaviour, model=model, **more)


_LEAVING: Final[
    tuple[tuple[str, Callable[[behaviours.Leave, ClientSession], Awaitable[str]], str, dict[str, Any]], ...]
] = (
    ("connected", behaviours.leaves_connected, "healthy", {"lines": 0}),
    ("mid-head", behaviours.leaves_mid_head, "healthy", {"lines": 0}),
    ("mid-body", behaviours.leaves_mid_body, "healthy", {}),
    ("queued", behaviours.leaves_queued, "healthy", {"setup": "narrow", "lines": 2}),
    ("before the engine's head", behaviours.leaves_waiting, f"stall/{BEFORE}", {}),
    ("before the first token", behaviours.leaves_waiting, f"stall/{HEAD}", {}),
)
_LEAVING_A_STREAM: Final = (
    ("mid-stream", behaviours.leaves_mid_stream),
    ("mid-stream, with another request pipelined", behaviours.leaves_with_another_behind),
)


def _leaving() -> Iterator[Cell]:
    for fault, leave in (("leaves", Client.close), ("resets", Client.reset), ("half-closes", Client.half_close)):
        for phase, behaviour, model, more in _LEAVING:
            yield from _client(fault, phase, "released", partial(behaviour, leave), model, **more)
        for phase, behaviour in _LEAVING_A_STREAM:
            yield Cell("clients", fault, phase, True, "released", partial(behaviour, leave), model=f"endless/{TOKEN}")


def _slow() -> Iterator[Cell]:
    torrent: dict[str, Any] = {"model": f"torrent/{TOKEN}", "setup": "patient", "within": 10.0}
    yield from _client("reads nothing", "", "cut", behaviours.reads_nothing, **torrent)
    yield from _client("reads slowly, for long", "", MESSAGE, behaviours.reads_slowly, **torrent)
    for phase, at_once in (("its head", 20), ("its body", -80)):
        slowly = partial(behaviours.sends_slowly, at_once, 20, 0.2)
        yield from _client("sends too slowly", phase, "408 invalid_request_error", slowly)
        in_time = partial(behaviours.sends_slowly, at_once, 5, 0.01)
        yield from _client("sends slowly, in time", phase, MESSAGE, in_time)
    yield Cell("clients", "sends nothing", "", False, "408 invalid_request_error", behaviours.says_nothing)


def _framed() -> Iterator[Cell]:
    bad = "400 invalid_request_error"
    yield from _client("pipelines three requests", "", MESSAGE, behaviours.pipelines, lines=3)
    yield from _client("pipelines garbage", "", f"{MESSAGE}, then {bad}", behaviours.pipelines_garbage, lines=2)
    yield from _client("expects 100-continue", "", MESSAGE, partial(behaviours.expects, None))
    yield from _client(
        "expects 100-continue", "too much", "413 request_too_large", partial(behaviours.expects, 1 << 30)
    )
    yield from _client("content-length", "too long", "408 invalid_request_error", behaviours.sends_too_little)
    yield from _client("content-length", "too short", f"{bad}, then {bad}", behaviours.sends_too_much, lines=2)
    for fault, make in request_framing.REFUSED.items():
        yield from _client(fault, "", bad, partial(behaviours.says, make))
    for fault, make in request_framing.TOO_LARGE.items():
        yield from _client(fault, "", "413 request_too_large", partial(behaviours.says, make))
    for fault, make in request_framing.HEADS_TOO_LARGE.items():
        yield from _client(fault, "", "431 invalid_request_error", partial(behaviours.says, make))
    for fault, make in request_framing.TAKEN.items():
        yield from _client(fault, "", MESSAGE, partial(behaviours.says, make))
    yield from _client("an invalid chunk size", "", bad, partial(behaviours.says, request_framing.bad_chunk))
    yield from _client("an invalid chunk size", "later", bad, behaviours.breaks_off_in_chunks)


def _said() -> Iterator[Cell]:
    for kind, expected in ((request_bodies.REFUSED, "400 invalid_request_error"), (request_bodies.TAKEN, MESSAGE)):
        for fault, make in kind.items():
            yield from _client(f"JSON: {fault}", "", expected, partial(behaviours.says_body, make))
    for kind, expected in (
        (request_bodies.BOMBS, "413 request_too_large"),
        (request_bodies.NOT_ENCODED, "400 invalid_request_error"),
        (request_bodies.UNKNOWN_CODING, "415 invalid_request_error"),
        (request_bodies.DECODED, MESSAGE),
    ):
        for fault, make in kind.items():
            yield from _client(f"coding: {fault}", "", expected, partial(behaviours.says, make))


def _admitted() -> Iterator[Cell]:
    for fault, key in (("no key", None), ("a wrong key", "sk-canary-wrong"), ("an empty key", "")):
        yield from _client(fault, "", "401 authentication_error", partial(behaviours.asks_with, key))
    two = f"{MESSAGE}, then {MESSAGE}"
    refused: dict[str, Any] = {"model": f"{_REFUSED_VALUE}/{BEFORE}", "lines": 2}
    yield from _client(
        "a value that the engine refuses, then another client", "", two, _BEHAVIOURS[_REFUSED_VALUE], **refused
    )
    yield from _client("too many in the queue", "", AWAY, behaviours.meets_a_full_queue, setup="narrow", lines=3)
    yield from _client("too long in the queue", "", AWAY, behaviours.asks_beside_another, setup="impatient", lines=2)
    yield from _client("too many for one key", "", AWAY, behaviours.asks_beside_another, setup="per key", lines=2)


CELLS: Final = tuple(
    cell for part in (_phased, _answered, _placed, _leaving, _slow, _framed, _said, _admitted) for cell in part()
)
