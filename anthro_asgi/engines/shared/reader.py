"""What the readers of all upstream streams share: the same answer however the reads fell."""

from collections.abc import Iterable

from ...wire.deltas import Delta
from ...wire.errors import ApiError, BadUpstream
from ...wire.repairs import Repairs


class Reader:
    """Reads one answer: `feed` with the payloads of events as they arrive, `end` when the body is over.

    An error behind words waits for the next call, so that the words are given first whether they came in one read or
    two. A subclass has `_read`, which appends what payloads say and raises ApiError, and `_rest`, what is then left.
    `repairs` counts what was mended.
    """

    __slots__ = ("_failed", "repairs")

    def __init__(self, repairs: Repairs) -> None:
        self._failed: ApiError | None = None  # and not yet raised
        self.repairs = repairs

    @property
    def failed(self) -> ApiError | None:
        """What the next call will raise."""
        return self._failed

    @property
    def finished(self) -> bool:
        """The engine has said that it is done: whatever happens to the connection now, the answer is whole."""
        raise NotImplementedError

    def feed(self, payloads: Iterable[bytes], out: list[Delta] | None = None) -> list[Delta]:
        """What these events say, behind what was said before them in `out`. Raises ApiError."""
        if self._failed is not None:
            raise self._failed
        out = [] if out is None else out
        try:
            self._read(payloads, out)
        except ApiError as exc:
            if not out:
                raise
            self._failed = exc
        return out

    def end(self) -> list[Delta]:
        """What is left once the body is over. Raises ApiError, BadUpstream when the engine never finished."""
        if self._failed is not None:
            raise self._failed
        if not self.finished:
            raise BadUpstream("the engine broke off before it had finished")
        return self._rest()

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        raise NotImplementedError

    def _rest(self) -> list[Delta]:
        raise NotImplementedError
