"""What is counted, and `GET /metrics`, which tells it as Prometheus text (extra `metrics`).

    Metrics ── counts on ──► SharedCounters, a slot for each worker ── added up ──► exposition

To count is to add to a place that a table knows, with the extra or without it. What a client sends makes no label.
"""

import asyncio
import platform
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from operator import sub
from typing import Final, NamedTuple

from ..wire.repairs import REPAIRS
from .logs import RequestRecord
from .outcomes import LABELS, OTHER, Outcomes
from .prometheus import Constant, exposition
from .shared_counters import CounterLayout, MetricType, SharedCounters
from .version import version

_PREFIX: Final = "anthro_asgi_"
_FRESH: Final = 1.0  # seconds, within which the other workers see what is sampled here
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_GAPS: Final = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_CONNECTIONS: Final = ("idle", "leased", "connecting", "draining", "waiting")
_TOKENS: Final = ("input", "output", "cached")

# What is noted: its metric, what that says, the label and its values.
_NOTED: Final = {
    "upstream_error": (
        "upstream_errors_total",
        "What went wrong at the upstream",
        "kind",
        (
            *("connect", "timeout_connect", "timeout_first_byte", "timeout_silence", "timeout_total"),
            *("broken", "too_large", "exhausted", "status_4xx", "status_5xx", "nonsense", OTHER),
        ),
    ),
    "repair": ("repairs_total", "Mends made to what the upstream sent", "kind", (*REPAIRS, OTHER)),
    "refused": (
        "admission_refusals_total",
        "Requests sent away since too many others were there",
        "reason",
        ("queue_full", "queue_timeout", "key", OTHER),
    ),
}


class Sample(NamedTuple):
    """What is looked at, not counted. `connections` to the upstream by state."""

    waiting: int
    running: int
    draining: bool
    connections: Mapping[str, int]


class Metrics:
    """One app's numbers; `paths` are the app's own.

    The app sets `sample`. It is called for each exposition, and once a second between `start` and `stop` where other
    workers may be the ones that are asked. Before workers are forked `share` the numbers among them; in each of them
    `take` its part, and where one has died note it as `lost`.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self.sample: Callable[[], Sample] | None = None
        self.outcomes = Outcomes(paths)
        self._timer: asyncio.TimerHandle | None = None
        self._began = time.time()
        self._layout = CounterLayout(_PREFIX)
        self._add_gauges(self._layout)
        self._add_counters(self._layout)
        self._add_histograms(self._layout)
        self.families = tuple(self._layout.families)
        self.share_among(1)
        self.count_as(0)

    # what there is

    def _add_gauges(self, layout: CounterLayout) -> None:
        self._up = layout.add("gauge", "worker_up", "Whether the worker runs", by_worker=True).place
        self._in_flight = layout.add("gauge", "requests_in_flight", "Requests being answered, on any route").place
        self._running = layout.add("gauge", "answers_running", "Requests for a message that have their turn").place
        self._waiting = layout.add("gauge", "queue_depth", "Requests for a message that wait for their turn").place
        self._draining = layout.add("gauge", "workers_draining", "Workers that only finish what is open").place
        text = "Connections to the upstream; waiting: requests that there is none for yet"
        self._connections = _labelled(layout, "gauge", "upstream_connections", text, "state", _CONNECTIONS)

    def _add_counters(self, layout: CounterLayout) -> None:
        self._starts = layout.add("counter", "worker_starts_total", "Starts of the worker", by_worker=True).place
        text = "Requests; status none: never answered; stop_reason error: a stream that failed"
        every = self.outcomes.every()
        self._requests = layout.add("counter", "requests_total", text, LABELS, every, sparse=True).places
        self._left = layout.add("counter", "clients_left_total", "Requests whose client left before the end").place
        text = "Tokens as the engine counts them; input is without cached"
        self._tokens = _labelled(layout, "counter", "tokens_total", text, "kind", _TOKENS)
        self._pings = layout.add("counter", "pings_total", "Pings sent on silent streams").place
        self._noted = {
            what: _labelled(layout, "counter", name, text, label, kinds)
            for what, (name, text, label, kinds) in _NOTED.items()
        }

    def _add_histograms(self, layout: CounterLayout) -> None:
        text = "Of whole requests"
        routes = [(route,) for route in self.outcomes.routes]
        self._duration = layout.add(
            "histogram", "request_duration_seconds", text, ("route",), routes, edges=_SECONDS, sparse=True
        ).places
        text = "Waiting for a turn, where one was had"
        self._queued = layout.add("histogram", "queue_wait_seconds", text, edges=_SECONDS).place
        text = "From when the request was read, through the queue, to the engine's first output"
        self._ttft = layout.add("histogram", "time_to_first_token_seconds", text, edges=_SECONDS).place
        text = "Between two sends of a stream: what arrives in one read leaves in one send, however many tokens it is"
        self._gaps = layout.add("histogram", "inter_token_latency_seconds", text, edges=_GAPS).place

    # whose numbers they are

    def share_among(self, workers: int) -> None:
        """Begin anew, for so many workers that are then forked from this process."""
        self._counters = SharedCounters(self._layout, workers)
        self._cells = self._counters.slots[0]

    def count_as(self, worker: int) -> None:
        """From now on this process counts as that worker, whose number begins at 0."""
        self._counters.clear(worker)
        self._cells = self._counters.slots[worker]
        self._cells[self._up] = 1.0
        self._cells[self._starts] += 1.0

    def worker_lost(self, worker: int) -> None:
        """That worker is no more."""
        self._counters.clear(worker)

    def start(self) -> None:
        """Begin to sample for the other workers. Needs a running event loop."""
        if len(self._counters.slots) > 1:
            self._sampled()
            self._timer = asyncio.get_running_loop().call_later(_FRESH, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _sampled(self) -> None:
        if self.sample is None:
            return
        cells, sample = self._cells, self.sample()
        cells[self._waiting] = sample.waiting
        cells[self._running] = sample.running
        cells[self._draining] = sample.draining
        for state in _CONNECTIONS:
            cells[self._connections[state]] = sample.connections.get(state, 0)

    # counting

    def request_began(self) -> None:
        self._cells[self._in_flight] += 1.0

    def request_ended(self, record: RequestRecord) -> None:
        cells = self._cells
        cells[self._in_flight] -= 1.0
        outcome = self.outcomes.of(record)
        cells[self._requests[outcome]] += 1.0
        cells[self._left] += record.client_left
        cells[self._tokens["input"]] += record.input_tokens or 0
        cells[self._tokens["output"]] += record.output_tokens or 0
        cells[self._tokens["cached"]] += record.cached_tokens or 0
        self._observe(self._duration[outcome[:1]], record.duration)
        self._observe(self._queued, record.queued)
        self._observe(self._ttft, record.ttft)

    def _observe(self, place: int, seconds: float | None) -> None:
        if seconds is not None:
            self._cells[place + bisect_left(_SECONDS, seconds)] += 1.0
            self._cells[place + len(_SECONDS) + 1] += seconds

    def observe_gaps(self, marks: list[float]) -> None:
        """Count the times between `marks`, at which a stream sent something, and leave the last of them for the next.

        A reply keeps the clock readings that it takes anyway, and hands over some dozens of them at a time: sorted,
        they fall into few buckets, so that a token costs a third of what a count for each would.
        """
        if len(marks) < 2:
            return
        cells, place = self._cells, self._gaps
        cells[place + len(_GAPS) + 1] += marks[-1] - marks[0]
        between = sorted(map(sub, marks[1:], marks))
        begin, end = 0, len(between)
        while begin < end:
            bucket = bisect_left(_GAPS, between[begin])
            stop = bisect_right(between, _GAPS[bucket], begin) if bucket < len(_GAPS) else end
            cells[place + bucket] += stop - begin
            begin = stop
        del marks[:-1]

    def note(self, what: str, kind: str) -> None:
        """Something happened: an "upstream_error", a "repair" or "refused", each of a kind, or a "ping"."""
        places = self._noted.get(what)
        if places is not None:
            self._cells[places.get(kind, places[OTHER])] += 1.0
        elif what == "ping":
            self._cells[self._pings] += 1.0

    # telling

    def exposition(self) -> tuple[bytes, str]:
        """The text and its content type. Raises NotFound without the extra."""
        self._sampled()
        return exposition(self.constants(), self.families, self._counters)

    def constants(self) -> list[Constant]:
        """What does not change while the service runs."""
        build = {"version": version(), "python": platform.python_version(), **_parts()}
        return [
            Constant(f"{_PREFIX}build_info", "What runs here", 1.0, build),
            Constant(f"{_PREFIX}start_time_seconds", "When the service started, in Unix time", self._began, {}),
        ]


def _labelled(
    layout: CounterLayout, kind: MetricType, name: str, text: str, label: str, values: tuple[str, ...]
) -> dict[str, int]:
    """A family with one label: the places by its values."""
    places = layout.add(kind, name, text, (label,), [(value,) for value in values]).places
    return {value: place for (value,), place in places.items()}


def _parts() -> dict[str, str]:
    """What parses, and what turns the event loop."""
    return {
        "http": "httptools" if find_spec("httptools") else "h11",
        "loop": "uvloop" if find_spec("uvloop") else "asyncio",
    }
