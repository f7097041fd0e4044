"""`GET /metrics`: what has passed through, as Prometheus text (extra `metrics`).

Without prometheus-client everything else works, and the route says what to install.
"""

import importlib
from collections.abc import Collection
from typing import Any

from .logs import RequestRecord
from .wire.errors import NotFound

prometheus: Any
try:
    prometheus = importlib.import_module("prometheus_client")
except ImportError:
    prometheus = None

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One app's counters, in a registry of their own, so that several apps in a process do not mix.

    `paths` are the app's own: any other is one label, since a client must not be able to make labels.
    """

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = paths
        self._registry: Any = None
        if prometheus is None:
            return
        registry = self._registry = prometheus.CollectorRegistry()
        prefix = "anthro_asgi"
        self._requests = prometheus.Counter(
            f"{prefix}_requests", "Requests answered", ("path", "status", "stop_reason"), registry=registry
        )
        self._open = prometheus.Gauge(f"{prefix}_requests_in_flight", "Requests being answered", registry=registry)
        self._left = prometheus.Counter(
            f"{prefix}_clients_left", "Requests whose client left before the end", registry=registry
        )
        self._ttft = prometheus.Histogram(
            f"{prefix}_time_to_first_token_seconds",
            "Until the engine's first output",
            registry=registry,
            buckets=_SECONDS,
        )
        self._duration = prometheus.Histogram(
            f"{prefix}_duration_seconds", "Of whole requests", ("path",), registry=registry, buckets=_SECONDS
        )
        self._tokens = prometheus.Counter(f"{prefix}_tokens", "Tokens", ("direction",), registry=registry)

    def began(self) -> None:
        if self._registry is not None:
            self._open.inc()

    def ended(self, record: RequestRecord) -> None:
        if self._registry is None:
            return
        self._open.dec()
        path = record.path if record.path in self._paths else "other"
        self._requests.labels(path, str(record.status or 0), record.stop_reason or "").inc()
        self._duration.labels(path).observe(record.duration or 0.0)
        if record.client_left:
            self._left.inc()
        if record.ttft is not None:
            self._ttft.observe(record.ttft)
        self._tokens.labels("in").inc(record.input_tokens or 0)
        self._tokens.labels("out").inc(record.output_tokens or 0)

    def exposition(self) -> tuple[bytes, str]:
        """The text and its content type. Raises NotFound without the extra."""
        if self._registry is None:
            raise NotFound("metrics need an extra: pip install 'anthro-asgi[metrics]'")
        return prometheus.generate_latest(self._registry), prometheus.CONTENT_TYPE_LATEST
