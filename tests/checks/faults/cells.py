"""The matrix as data: what goes wrong, when, for which kind of answer, and what is due.

What is due is written in few words: "message" is a whole answer with all its content, "502 api_error" a refusal by
status and type, "event api_error" the end of a stream that had begun, "cut" a connection that ends within an answer,
"closed" one that ends without, and "let go" that the service has noticed that a client left, and freed what it held.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.checks.faults import answers, bodies, frames
from tests.checks.faults import manners as how
from tests.checks.faults.engine import MAX_EVENT
from tests.checks.faults.guest import Guest
from tests.checks.faults.manners import Manner
from tests.checks.faults.speech import PHASES
from tests.checks.faults.visit import Visit

BEFORE, HEAD, TOKEN, TOOL, FINISH = PHASES
DEADLINES: Final = {  # seconds
    "connect-deadline": 1.0,
    "first-byte-deadline": 1.0,
    "silence-deadline": 1.0,
    "total-deadline": 8.0,
    "receive-deadline": 1.0,
    "stall-deadline": 1.0,
    "queue-timeout": 0.5,
}
USUAL: Final = {name: f"{seconds}s" for name, seconds in DEADLINES.items()} | {
    "ping-interval": "10s",
    "max-head": "16K",
    "max-body": str(bodies.MAX_BODY),
    "max-decompressed": str(bodies.MAX_BODY),
    "max-messages": str(bodies.MAX_MESSAGES),
    "max-tools": str(bodies.MAX_TOOLS),
    "max-stop-sequences": str(bodies.MAX_STOPS),
    "max-event": str(MAX_EVENT),
    "max-tool-input": str(MAX_EVENT),
    "max-answer": str(4 * MAX_EVENT),
}
# How the service is set up → the options that differ from the usual. A name of `places.PLACES` is an engine elsewhere.
HOUSES: Final[dict[str, Mapping[str, str]]] = {
    "usual": {},
    "hurried": {"total-deadline": "2s"},
    "pinging": {"ping-interval": "50ms", "first-byte-deadline": "2s"},
    "narrow": {"max-concurrency": "1", "max-queue": "1", "queue-timeout": "3s"},
    "impatient": {"max-concurrency": "1", "max-queue": "1"},
    "per key": {"max-concurrency-per-key": "1"},
    "patient": {"total-deadline": "60s", "max-answer": "1G"},
}
IN_A_PROCESS: Final = ("usual", "hurried")  # those that the command opens, too


Due = str | tuple[str, str]  # for whole answers and streams, where they differ


@dataclass(frozen=True, slots=True)
class Cell:
    """One case. `lines` is how many requests the log tells of; `told` whether clients' own faults are all there is."""

    group: str
    fault: str
    phase: str
    streams: bool
    due: str
    manner: Manner = how.asks
    house: str = "usual"
    lines: int = 1
    within: float = 8.0  # seconds
    model: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.house, self.fault, self.phase, "streamed" if self.streams else "whole")))

    @property
    def engine_model(self) -> str:
        """The name that tells the engine what to do."""
        return self.model or f"{self.fault}/{self.phase or BEFORE}"

    @property
    def is_engines(self) -> bool:
        """Whether the engine is what is bad, so that both of its APIs are to be tried."""
        return self.group != "clients"


def both(group: str, fault: str, phase: str, due: Due, **more: Any) -> Iterator[Cell]:
    """The two cells of one fault."""
    whole, streamed = (due, due) if isinstance(due, str) else due
    yield Cell(group, fault, phase, False, whole, **more)
    yield Cell(group, fault, phase, True, streamed, **more)


# --- engines: phases ---

MESSAGE: Final = "message"
BROKEN: Final = "502 api_error"
LATE: Final = (BROKEN, "event api_error")
SLOW: Final = "504 timeout_error"
SLOW_LATE: Final = (SLOW, "event timeout_error")
AWAY: Final = "529 overloaded_error"
_BREAKS: Final[dict[str, Due]] = {BEFORE: BROKEN, HEAD: BROKEN, TOKEN: LATE, TOOL: LATE, FINISH: MESSAGE}
_IN_BODY: Final[dict[str, Due]] = {phase: due for phase, due in _BREAKS.items() if phase != BEFORE}
_LATE_500: Final = ("500 api_error", "event api_error")
_LATE_529: Final = (AWAY, "event overloaded_error")

PHASED: Final[dict[str, Mapping[str, Due]]] = {
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
    "JSON that is no chunk": _IN_BODY,
    "invalid UTF-8": _IN_BODY,
    "error 500 as an event": {HEAD: "500 api_error", TOKEN: _LATE_500, TOOL: _LATE_500, FINISH: MESSAGE},
    "error 503 as an event": {HEAD: AWAY, TOKEN: _LATE_529, TOOL: _LATE_529, FINISH: MESSAGE},
    "endless": {TOKEN: (BROKEN, "event timeout_error"), TOOL: (BROKEN, "event timeout_error"), FINISH: MESSAGE},
    "endless heartbeats": {HEAD: SLOW, TOKEN: SLOW_LATE, TOOL: SLOW_LATE, FINISH: MESSAGE},
}


def _phased() -> Iterator[Cell]:
    for fault, phases in PHASED.items():
        for phase, due in phases.items():
            yield from both("phases", fault, phase, due, house="hurried" if fault.startswith("endless") else "usual")


# --- engines: whole answers ---

_STATUSES: Final[dict[int, str]] = {
    **dict.fromkeys(answers.REJECTED, "400 invalid_request_error"),
    **dict.fromkeys(answers.FAILED, "500 api_error"),
    **dict.fromkeys((*answers.REDIRECTED, *answers.BODILESS, 201, 206), BROKEN),
    **dict.fromkeys((401, 403), "500 api_error"),
    404: "404 not_found_error",
    408: SLOW,
    413: "413 request_too_large",
    429: "429 rate_limit_error",
    **dict.fromkeys((502, 503, 529), AWAY),
    504: SLOW,
}
_OTHERWISE: Final = {
    **dict.fromkeys(answers.FORGIVEN, MESSAGE),
    **{f"status {code}": due for code, due in _STATUSES.items()},
    **{f"error body: {end}": AWAY for end in ("closed", "stalled", "endless")},
    "an error as JSON, with 200": "500 api_error",
    "a whole JSON answer": MESSAGE,
    "HTTP/1.0, ended by its close": MESSAGE,
    "trailers": MESSAGE,
    "closed while it rested": MESSAGE,
    "two answers to one request": MESSAGE,
    "endless trailers": MESSAGE,
    "slow 1xx without an end": SLOW,
}
_PINGED: Final = ("reset", "stall", "status 400", "status 429", "status 503", "HTML")


def _answered() -> Iterator[Cell]:
    for fault in answers.ANSWERS:
        house = "hurried" if fault == "slow 1xx without an end" else "usual"
        yield from both("answers", fault, "", _OTHERWISE.get(fault, BROKEN), house=house)
    for fault in _PINGED:
        due = {"reset": BROKEN, "stall": SLOW, "HTML": BROKEN}.get(fault) or _OTHERWISE[fault]
        late = (due, f"event {due.partition(' ')[2]}")
        yield from both("answers", fault, "after a ping", late, house="pinging", model=f"later: {fault}/{BEFORE}")


# --- engines: places ---


PLACES: Final = (
    *("refused", "no such name", "no such socket", "nobody accepts", "no TLS", "TLS that stalls"),
    *("an unknown authority", "another's certificate", "an expired certificate", "TLS 1.1"),
)


def _placed() -> Iterator[Cell]:
    for fault, due in (("healthy", MESSAGE), ("reset", LATE), ("closed", LATE), ("stall", SLOW_LATE)):
        yield from both("answers", "over TLS", fault, due, house="TLS as it should be", model=f"{fault}/{TOKEN}")
    for place in PLACES:
        yield from both("places", place, "", AWAY, house=place)
    for target, due in (("/readyz", "503"), ("/v1/models", AWAY), ("/healthz", "200")):
        yield Cell("places", "refused", f"asked {target}", False, due, partial(how.gets, target), house="refused")


# --- clients ---


def _client(fault: str, phase: str, due: str, manner: Manner, model: str = "healthy", **more: Any) -> Iterator[Cell]:
    model = model if "/" in model else f"{model}/{HEAD}"
    yield from both("clients", fault, phase, due, manner=manner, model=model, **more)


_LEAVING: Final[tuple[tuple[str, Callable[[how.Leave, Visit], Awaitable[str]], str, dict[str, Any]], ...]] = (
    ("connected", how.leaves_connected, "healthy", {"lines": 0}),
    ("mid-head", how.leaves_mid_head, "healthy", {"lines": 0}),
    ("mid-body", how.leaves_mid_body, "healthy", {}),
    ("queued", how.leaves_queued, "healthy", {"house": "narrow", "lines": 2}),
    ("before the engine's head", how.leaves_waiting, f"stall/{BEFORE}", {}),
    ("before the first token", how.leaves_waiting, f"stall/{HEAD}", {}),
)
_LEAVING_A_STREAM: Final = (
    ("mid-stream", how.leaves_mid_stream),
    ("mid-stream, another behind", how.leaves_with_another_behind),
)


def _leaving() -> Iterator[Cell]:
    for fault, leave in (("leaves", Guest.close), ("resets", Guest.reset), ("half-closes", Guest.half_close)):
        for phase, manner, model, more in _LEAVING:
            yield from _client(fault, phase, "let go", partial(manner, leave), model, **more)
        for phase, manner in _LEAVING_A_STREAM:
            yield Cell("clients", fault, phase, True, "let go", partial(manner, leave), model=f"endless/{TOKEN}")


def _slow() -> Iterator[Cell]:
    torrent: dict[str, Any] = {"model": f"torrent/{TOKEN}", "house": "patient", "within": 10.0}
    yield from _client("reads nothing", "", "cut", how.reads_nothing, **torrent)
    yield from _client("reads slowly, for long", "", MESSAGE, how.reads_slowly, **torrent)
    for phase, at_once in (("its head", 20), ("its body", -80)):
        slowly = partial(how.sends_slowly, at_once, 0.2)
        yield from _client("sends too slowly", phase, "408 invalid_request_error", slowly)
        yield from _client("sends slowly, in time", phase, MESSAGE, partial(how.sends_slowly, at_once, 0.01))
    yield Cell("clients", "says nothing", "", False, "408 invalid_request_error", how.says_nothing)


def _framed() -> Iterator[Cell]:
    bad = "400 invalid_request_error"
    yield from _client("pipelines three requests", "", MESSAGE, how.pipelines, lines=3)
    yield from _client("pipelines garbage", "", f"{MESSAGE}, then {bad}", how.pipelines_garbage, lines=2)
    yield from _client("expects 100-continue", "", MESSAGE, partial(how.expects, None))
    yield from _client("expects 100-continue", "too much", "413 request_too_large", partial(how.expects, 1 << 30))
    yield from _client("content-length", "too long", "408 invalid_request_error", how.sends_less_than_told)
    yield from _client("content-length", "too short", f"{bad}, then {bad}", how.sends_more_than_told, lines=2)
    for fault, make in frames.REFUSED.items():
        yield from _client(fault, "", bad, partial(how.says, make))
    for fault, make in frames.TOO_LARGE.items():
        yield from _client(fault, "", "413 request_too_large", partial(how.says, make))
    for fault, make in frames.HEADS_TOO_LARGE.items():
        yield from _client(fault, "", "431 invalid_request_error", partial(how.says, make))
    for fault, make in frames.TAKEN.items():
        yield from _client(fault, "", MESSAGE, partial(how.says, make))
    yield from _client("a chunk that is none", "", bad, partial(how.says, frames.bad_chunk))
    yield from _client("a chunk that is none", "later", bad, how.breaks_off_in_chunks)


def _said() -> Iterator[Cell]:
    for kind, due in ((bodies.REFUSED, "400 invalid_request_error"), (bodies.TAKEN, MESSAGE)):
        for fault, make in kind.items():
            yield from _client(f"JSON: {fault}", "", due, partial(how.says_body, make))
    for kind, due in (
        (bodies.BOMBS, "413 request_too_large"),
        (bodies.NOT_ENCODED, "400 invalid_request_error"),
        (bodies.UNKNOWN_CODING, "415 invalid_request_error"),
        (bodies.DECODED, MESSAGE),
    ):
        for fault, make in kind.items():
            yield from _client(f"coding: {fault}", "", due, partial(how.says, make))


def _admitted() -> Iterator[Cell]:
    for fault, key in (("no key", None), ("a wrong key", "sk-canary-wrong"), ("an empty key", "")):
        yield from _client(fault, "", "401 authentication_error", partial(how.asks_with, key))
    yield from _client("too many in the queue", "", AWAY, how.finds_the_queue_full, house="narrow", lines=3)
    yield from _client("too long in the queue", "", AWAY, how.asks_beside_another, house="impatient", lines=2)
    yield from _client("too many for one key", "", AWAY, how.asks_beside_another, house="per key", lines=2)


CELLS: Final = tuple(
    cell for part in (_phased, _answered, _placed, _leaving, _slow, _framed, _said, _admitted) for cell in part()
)
