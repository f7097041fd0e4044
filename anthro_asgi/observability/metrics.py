"""The metrics of one application, and `GET /metrics` in the Prometheus text format (extra `metrics`).

    Metrics ── counts in ──► SharedCounters, one slot for each worker ── sums ──► exposition

Every label set has its place in a slot from the start, so counting is one addition, and a client cannot create a label
set. Counting works without the extra; only the exposition needs it.
"""

import asyncio
import platform
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from itertools import product
from operator import sub
from typing import Final, NamedTuple, get_args

from ..wire.deltas import StopReason, Usage
from ..wire.errors import UPSTREAM_ERROR_KINDS, ApiError, InternalError
from ..wire.prompt_fingerprint import REASONS
from ..wire.repairs import REPAIRS
from .logs import RequestRecord, dropped_lines
from .prometheus import Constant, exposition
from .shared_counters import CounterLayout, MetricType, SharedCounters
from .version import VERSION

OTHER: Final = "other"
"""The label value for everything that is in no table."""

_PREFIX: Final = "anthro_asgi_"
_SAMPLE_INTERVAL: Final = 1.0  # seconds between the samples that a worker takes for the exposition of another worker
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_GAPS: Final = (
    0.001,
    0.0025,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
_PAUSES: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_GENERATIONS: Final = ("0", "1", "2")
_CONNECTIONS: Final = ("idle", "leased", "connecting", "draining", "waiting")
_TOKENS: Final = ("input", "output", "cached")

# The first argument of `note`: the metric, its help, its label, and the label's values.
_NOTED: Final = {
    "upstream_error": (
        "upstream_errors_total",
        "Failures of the upstream, by kind",
        "kind",
        (*UPSTREAM_ERROR_KINDS, OTHER),
    ),
    "repair": ("repairs_total", "Repairs of invalid upstream responses, by kind", "kind", (*REPAIRS, OTHER)),
    "learned": (
        "engine_dialect_learned_total",
        "Changes of requests that were learned from the engine's refusals, by what changed",
        "field",
        (
            "call_id_length",
            "forced_choice",
            "forced_choice_while_thinking",
            "late_system",
            "longest_answer",
            "max_tokens_field",
            "needs_reasoning",
            "never",
            "no_content",
            "none_choice",
            "prefill_mark",
            "prompt_scale",
            "reasoning_key",
            "reserved_window",
            "strict_schema",
            "strict_tools",
            "text_in_tool_result",
            "thinks",
            "thinks_when_off",
            "thought_signatures",
            "top_k",
            OTHER,
        ),
    ),
    "cache_diagnosis": (
        "cache_diagnoses_total",
        "Prompts compared with the one before: kept, or what changed first",
        "result",
        ("kept", "first", *REASONS, "previous_message_not_found", OTHER),
    ),
    "batch_request": (
        "batch_requests_total",
        "Requests of message batches: their outcomes, and attempts that are run again",
        "outcome",
        ("succeeded", "errored", "retried", "yielded", OTHER),
    ),
    "file": (
        "files_total",
        "Uploaded files: uploads and deletions, and requests that referred to files",
        "what",
        ("uploaded", "deleted", "read", "not_found", OTHER),
    ),
    "refused": (
        "admission_refusals_total",
        "Requests refused with status 529, by the limit that they exceeded",
        "reason",
        ("queue_full", "queue_timeout", "key", "bodies", "bodies_of_key", OTHER),
    ),
}


# The same for several engines: the metric and its help. The label is the engine.
_NOTED_BY_ENGINE: Final = {
    "engine_error": ("engine_errors_total", "Failures of the upstream, by engine"),
    "engine_fallback": (
        "engine_fallbacks_total",
        "Requests that another engine answered because this engine was not ready",
    ),
}
_RESULTS: Final = ("ok", "error", "client_left")


class Sample(NamedTuple):
    """Values that are read when they are needed, not counted. `connections` to the upstream are by their state."""

    waiting: int
    running: int
    draining: bool
    connections: Mapping[str, int]
    ready: Mapping[str, bool] = {}
    """Whether each engine is ready, where there are several."""


class Metrics:
    """The metrics of one application, whose routes are `paths`. `engines` are the names of the engines behind it, if
    there are several: the metrics with the label `engine` exist only then.

    The application sets `sample`. It is called for each exposition. Between `start` and `stop` it is called once a
    second too, if there are other workers, because any worker may be asked for the exposition.

    With several workers, call `share_among` before the fork, `count_as` in each worker, and `worker_lost` in the
    supervisor when a worker has died.
    """

    def __init__(self, paths: Collection[str], engines: tuple[str, ...] = ()) -> None:
        self._engines = engines
        self.sample: Callable[[], Sample] | None = None
        self.request_labels = RequestLabels(paths)
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = time.time()
        self._layout = CounterLayout(_PREFIX)
        self._add_gauges(self._layout)
        self._add_counters(self._layout)
        self._add_histograms(self._layout)
        self.families = tuple(self._layout.families)
        self.share_among(1)
        self.count_as(0)

    # --- the metrics ---

    def _add_gauges(self, layout: CounterLayout) -> None:
        self._up = layout.add("gauge", "worker_up", "Whether the worker is running", by_worker=True).place
        text = "Requests in progress, on any route"
        self._in_flight = layout.add("gauge", "requests_in_flight", text).place
        text = "Requests that the engine is answering"
        self._running = layout.add("gauge", "answers_running", text).place
        text = "Requests that wait for a slot at the engine"
        self._waiting = layout.add("gauge", "queue_depth", text).place
        text = "Workers that finish open requests before they stop"
        self._draining = layout.add("gauge", "workers_draining", text).place
        text = "Connections to the upstream by state; waiting: requests that wait for a connection"
        self._connections = _add_labelled(layout, "gauge", "upstream_connections", text, "state", _CONNECTIONS)
        if self._engines:
            text = "Whether the engine is ready, in how many workers"
            self._ready = _add_labelled(layout, "gauge", "engine_ready", text, "engine", self._engines)

    def _add_counters(self, layout: CounterLayout) -> None:
        text = "Number of times the worker was started"
        self._starts = layout.add("counter", "worker_starts_total", text, by_worker=True).place
        text = (
            "Requests. status none: no response was sent; stop_reason error: the stream failed after its status was "
            "sent; stop_reason client_left: the client disconnected"
        )
        every = self.request_labels.every()
        self._requests = layout.add("counter", "requests_total", text, REQUEST_LABELS, every, sparse=True).places
        text = "Requests whose client disconnected before the end"
        self._left = layout.add("counter", "clients_left_total", text).place
        text = "Tokens as counted by the engine; input excludes cached"
        self._tokens = _add_labelled(layout, "counter", "tokens_total", text, "kind", _TOKENS)
        text = "Log lines that were dropped because they could not be written in time"
        self._dropped = layout.add("counter", "log_lines_dropped_total", text).place
        text = "Requests that failed because of a bug of this service, or of an engine written for it"
        self._internal_errors = layout.add("counter", "internal_errors_total", text).place
        self._pings = layout.add("counter", "pings_total", "Pings sent on silent streams").place
        self._noted = {
            what: _add_labelled(layout, "counter", name, text, label, values)
            for what, (name, text, label, values) in _NOTED.items()
        }
        if self._engines:
            self._add_engine_counters(layout)

    def _add_engine_counters(self, layout: CounterLayout) -> None:
        for what, (name, text) in _NOTED_BY_ENGINE.items():
            self._noted[what] = _add_labelled(layout, "counter", name, text, "engine", (*self._engines, OTHER))
        text = (
            "Requests by the engine that was asked last; result error: the response is an error, or its stream failed"
        )
        values = list(product(self._engines, _RESULTS))
        self._engine_requests = layout.add(
            "counter", "engine_requests_total", text, ("engine", "result"), values
        ).places
        text = "Tokens as counted by the engine; input excludes cached"
        values = list(product(self._engines, _TOKENS))
        self._engine_tokens = layout.add("counter", "engine_tokens_total", text, ("engine", "kind"), values).places

    def _add_histograms(self, layout: CounterLayout) -> None:
        text = "Duration of a whole request"
        routes = [(route,) for route in self.request_labels.routes]
        self._duration = layout.add(
            "histogram", "request_duration_seconds", text, ("route",), routes, edges=_SECONDS, sparse=True
        ).places
        text = "Time that a request waited for a slot at the engine, for requests that got one"
        self._queued = layout.add("histogram", "queue_wait_seconds", text, edges=_SECONDS).place
        text = "Time from the complete request to the engine's first output, including the wait in the queue"
        self._ttft = layout.add("histogram", "time_to_first_token_seconds", text, edges=_SECONDS).place
        if self._engines:
            text = "Time from the complete request to the engine's first output, by engine"
            values = [(name,) for name in self._engines]
            self._engine_ttft = layout.add(
                "histogram", "engine_time_to_first_token_seconds", text, ("engine",), values, edges=_SECONDS
            ).places
        text = "Time between two writes to a stream; the tokens of one read from the upstream leave in one write"
        self._gaps = layout.add("histogram", "inter_token_latency_seconds", text, edges=_GAPS).place
        text = "Pauses of the process by garbage collections"
        generations = [(generation,) for generation in _GENERATIONS]
        pauses = layout.add("histogram", "gc_pause_seconds", text, ("generation",), generations, edges=_PAUSES).places
        self._pauses = [pauses[generation,] for generation in _GENERATIONS]

    # --- workers ---

    def share_among(self, workers: int) -> None:
        """Start again with one slot for each of `workers`, which are then forked from this process."""
        self._counters = SharedCounters(self._layout, workers)
        self._cells = self._counters.slots[0]

    def count_as(self, worker: int) -> None:
        """From now on this process counts in the slot of `worker`, a number from 0."""
        self._counters.clear_gauges(worker)
        self._cells = self._counters.slots[worker]
        self._cells[self._up] = 1.0
        self._cells[self._starts] += 1.0

    def worker_lost(self, worker: int) -> None:
        """The process of `worker` has ended."""
        self._counters.clear_gauges(worker)

    def start(self) -> None:
        """Begin to sample for the other workers. Needs a running event loop."""
        if len(self._counters.slots) > 1:
            self._take_sample()
            self._timer = asyncio.get_running_loop().call_later(_SAMPLE_INTERVAL, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _take_sample(self) -> None:
        self._cells[self._dropped] = dropped_lines()
        if self.sample is None:
            return
        cells, sample = self._cells, self.sample()
        cells[self._waiting] = sample.waiting
        cells[self._running] = sample.running
        cells[self._draining] = sample.draining
        for state in _CONNECTIONS:
            cells[self._connections[state]] = sample.connections.get(state, 0)
        for name, ready in sample.ready.items():
            cells[self._ready[name]] = ready

    # --- counting ---

    @property
    def open_requests(self) -> int:
        """Requests in progress in this process, on any route."""
        return int(self._cells[self._in_flight])

    def request_began(self) -> None:
        self._cells[self._in_flight] += 1.0

    def request_ended(self, record: RequestRecord) -> None:
        cells = self._cells
        cells[self._in_flight] -= 1.0
        labels = self.request_labels.of(record)
        cells[self._requests[labels]] += 1.0
        cells[self._left] += record.client_left
        cells[self._internal_errors] += record.error == InternalError.__name__
        cells[self._tokens["input"]] += record.input_tokens or 0
        cells[self._tokens["output"]] += record.output_tokens or 0
        cells[self._tokens["cached"]] += record.cached_tokens or 0
        self._observe(self._duration[labels[:1]], record.duration)
        self._observe(self._queued, record.queued)
        self._observe(self._ttft, record.ttft)
        if record.engine is not None:
            self._engine_answered(record.engine, record)

    def _engine_answered(self, engine: str, record: RequestRecord) -> None:
        """Count a request for which this engine was asked."""
        cells = self._cells
        failed = record.error_type is not None or record.status != 200
        result = _LEFT if record.client_left else "error" if failed else "ok"
        cells[self._engine_requests[engine, result]] += 1.0
        for kind, count in zip(_TOKENS, (record.input_tokens, record.output_tokens, record.cached_tokens), strict=True):
            cells[self._engine_tokens[engine, kind]] += count or 0
        self._observe(self._engine_ttft[engine,], record.ttft)

    def batch_tokens(self, usage: Usage) -> None:
        """Count the tokens of an answer to a request of a batch."""
        cells = self._cells
        cells[self._tokens["input"]] += usage.uncached_input_tokens or 0
        cells[self._tokens["output"]] += usage.output_tokens or 0
        cells[self._tokens["cached"]] += usage.cache_read_input_tokens or 0

    def _observe(self, place: int, seconds: float | None) -> None:
        if seconds is not None:
            self._cells[place + bisect_left(_SECONDS, seconds)] += 1.0
            self._cells[place + len(_SECONDS) + 1] += seconds

    def observe_gaps(self, marks: list[float]) -> None:
        """Count the times between `marks`, the clock readings at which a stream was written to.

        The last mark stays in the list, as the first one of the next call. A response keeps the clock readings that it
        takes anyway, and passes some dozens of them at once: sorted, they fall into few buckets, so that a token costs
        a third of what a count for each would.
        """
        if len(marks) < 2:
            return
        cells, place = self._cells, self._gaps
        cells[place + len(_GAPS) + 1] += max(0.0, marks[-1] - marks[0])  # not all marks are of one clock
        between = sorted(map(sub, marks[1:], marks))
        begin, end = 0, len(between)
        while begin < end:
            bucket = bisect_left(_GAPS, between[begin])
            stop = bisect_right(between, _GAPS[bucket], begin) if bucket < len(_GAPS) else end
            cells[place + bucket] += stop - begin
            begin = stop
        del marks[:-1]

    def observe_collection(self, generation: int, seconds: float) -> None:
        """Count a garbage collection of this generation (0 to 2), which paused the process for `seconds`."""
        place = self._pauses[generation]
        self._cells[place + bisect_left(_PAUSES, seconds)] += 1.0
        self._cells[place + len(_PAUSES) + 1] += seconds

    def note(self, what: str, kind: str) -> None:
        """Count one event: a "ping", or something of this `kind`: see `_NOTED`.

        An unknown `kind` counts as `other`, an unknown `what` is ignored: both may come from an engine of a user.
        """
        places = self._noted.get(what)
        if places is not None:
            self._cells[places.get(kind, places[OTHER])] += 1.0
        elif what == "ping":
            self._cells[self._pings] += 1.0

    # --- exposition ---

    def exposition(self) -> tuple[bytes, str]:
        """The text and its content type. Raises NotFound without the extra."""
        self._take_sample()
        return exposition(self.constants(), self.families, self._counters)

    def constants(self) -> list[Constant]:
        """The values that do not change while the service runs."""
        build = {
            "version": VERSION,
            "python": platform.python_version(),
            "http": "httptools" if find_spec("httptools") else "h11",
            "loop": "uvloop" if find_spec("uvloop") else "asyncio",
        }
        return [
            Constant(f"{_PREFIX}build_info", "Versions of the service and of its parts", 1.0, build),
            Constant(f"{_PREFIX}start_time_seconds", "Start of the service, in Unix time", self._started_at, {}),
        ]


def _add_labelled(
    layout: CounterLayout, kind: MetricType, name: str, text: str, label: str, values: tuple[str, ...]
) -> dict[str, int]:
    """Add a family with one label, and return the place of each of its values."""
    places = layout.add(kind, name, text, (label,), [(value,) for value in values]).places
    return {value: place for (value,), place in places.items()}


# --- the labels of a request ---

Labels = tuple[str, str, str, str]
REQUEST_LABELS: Final[Labels] = ("route", "status", "stop_reason", "stream")

_ANSWER_ROUTES: Final = ("/v1/messages", "/v1/chat/completions")  # only these have a stop_reason and a stream label
_MODEL_ROUTE: Final = "/v1/models/{id}"
_BATCH_ROUTES: Final = {
    "": "/v1/messages/batches/{id}",
    "cancel": "/v1/messages/batches/{id}/cancel",
    "results": "/v1/messages/batches/{id}/results",
}
"""What follows the id in the path of a batch → the route."""
_FILE_ROUTES: Final = {"": "/v1/files/{id}", "content": "/v1/files/{id}/content"}
"""The same for a file."""
_FAILED: Final = "error"
_LEFT: Final = "client_left"
_STOP_REASONS: Final = ("", *get_args(StopReason), _FAILED, _LEFT, OTHER)
_STREAMS: Final = {None: "", False: "false", True: "true"}


class RequestLabels:
    """The labels of `requests_total`: route, status, stop reason, streamed or not. All values come from tables."""

    def __init__(self, paths: Collection[str]) -> None:
        self._routes = {path: _canonical(path, paths) for path in paths}
        self._model_prefixes = tuple(f"{path}/" for path in paths if path.endswith("/models"))
        self._batch_prefixes = tuple(f"{path}/" for path in paths if path.endswith("/messages/batches"))
        self._file_prefixes = tuple(f"{path}/" for path in paths if path.endswith("/files"))
        batch_routes = _BATCH_ROUTES.values() if self._batch_prefixes else ()
        file_routes = _FILE_ROUTES.values() if self._file_prefixes else ()
        self.routes = tuple(dict.fromkeys([*self._routes.values(), _MODEL_ROUTE, *batch_routes, *file_routes, OTHER]))

    def route(self, path: str) -> str:
        """The one name of a route that has several paths."""
        if path in self._routes:
            return self._routes[path]
        if path.startswith(self._batch_prefixes):
            return _BATCH_ROUTES.get(path.partition("/batches/")[2].partition("/")[2], OTHER)
        if path.startswith(self._file_prefixes):
            return _FILE_ROUTES.get(path.partition("/files/")[2].partition("/")[2], OTHER)
        return _MODEL_ROUTE if path.startswith(self._model_prefixes) else OTHER

    def every(self) -> Iterator[Labels]:
        """Every label set that `of` may return."""
        statuses = (*_STATUSES.values(), OTHER)
        for route in self.routes:
            if route in _ANSWER_ROUTES:
                yield from product((route,), statuses, _STOP_REASONS, _STREAMS.values())
            else:
                yield from product((route,), statuses, ("", _LEFT), ("",))

    def of(self, record: RequestRecord) -> Labels:
        """The label set of one request."""
        route = self.route(record.path)
        status = _STATUSES.get(record.status, OTHER)
        stop_reason = ""
        if record.client_left:
            stop_reason = _LEFT
        elif route in _ANSWER_ROUTES and record.status == 200:
            stop_reason = _FAILED if record.error_type is not None else record.stop_reason or ""
            if stop_reason not in _STOP_REASONS:
                stop_reason = OTHER
        return route, status, stop_reason, _STREAMS[record.stream] if route in _ANSWER_ROUTES else ""


def _canonical(path: str, paths: Collection[str]) -> str:
    """`/v1/…` for `/…` and `/v1/v1/…`, if the application has that path."""
    usual = "/v1" + path.removeprefix("/v1").removeprefix("/v1")
    return usual if usual in paths else path


def _error_statuses(error: type[ApiError] = ApiError) -> Iterator[int]:
    yield error.status
    for kind in error.__subclasses__():
        yield from _error_statuses(kind)


_STATUSES: Final[dict[int | None, str]] = {
    None: "none",  # no response was sent
    **{status: str(status) for status in sorted({200, 503, *_error_statuses()})},  # `/readyz` responds with 503
}
