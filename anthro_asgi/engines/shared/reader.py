"""The base class of the readers of upstream streams: the same answer, however its bytes are split into reads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from ...wire.deltas import Delta
from ...wire.errors import ApiError, BadUpstream
from ...wire.repairs import Repairs


class Reader(ABC):
    """Reads one answer. Call `feed` with the payloads of events as they arrive, and `end` once the body is over.

    When an error follows deltas in one read, the deltas are returned and the next call raises the error: the client
    receives the deltas, whether both came in one read or in two. `repairs` counts what was repaired.
    """

    __slots__ = ("_failed", "repairs")

    def __init__(self, repairs: Repairs) -> None:
        self._failed: ApiError | None = None
        self.repairs = repairs

    @property
    def failed(self) -> ApiError | None:
        """The error that the next call will raise."""
        return self._failed

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the engine has finished its answer. Then the answer is complete, whatever the connection does."""

    def feed(self, payloads: Iterable[bytes], out: list[Delta] | None = None) -> list[Delta]:
        """Append the deltas of these events to `out`, and return it. Raises ApiError."""
        if self._failed is not None:
            self.raise_failed()
        out = [] if out is None else out
        try:
            self._read(payloads, out)
        except ApiError as exc:
            if not out:
                raise
            self._failed = exc
        return out

    def end(self) -> list[Delta]:
        """The last deltas. Raises ApiError; BadUpstream when the answer is not complete."""
        self.raise_failed()
        if not self.finished:
            raise BadUpstream("the engine ended its response before the answer was complete", reason="ended_early")
        return self._rest()

    def raise_failed(self) -> None:
        """Raise the error that came after the last deltas. It is not kept: its traceback refers to this object."""
        failed, self._failed = self._failed, None
        if failed is not None:
            try:
                raise failed
            finally:
                del failed

    @abstractmethod
    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        """Append the deltas of these events to `out`. Raises ApiError."""

    @abstractmethod
    def _rest(self) -> list[Delta]:
        """The deltas that are still to come, once the answer is complete."""
