"""A message batch and its results, as the Messages API writes them (contract section 11). Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

Outcome = Literal["succeeded", "errored", "canceled", "expired"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("succeeded", "errored", "canceled", "expired")
LIFETIME: Final = 24 * 3600.0
"""Seconds after which a batch expires."""


@dataclass(frozen=True, slots=True)
class MessageBatch:
    """One batch. Times are Unix times in seconds; `total` counts its requests, `unfinished` those without an outcome.

    `outcomes` counts the requests by their outcome, in the order of OUTCOMES. It is complete once the batch has ended.
    """

    id: str
    created_at: float
    expires_at: float
    cancel_initiated_at: float | None
    ended_at: float | None
    total: int
    unfinished: int
    outcomes: tuple[int, int, int, int]

    @property
    def processing_status(self) -> Literal["in_progress", "canceling", "ended"]:
        if self.ended_at is not None:
            return "ended"
        return "in_progress" if self.cancel_initiated_at is None else "canceling"


def batch_json(batch: MessageBatch, results_url: str) -> dict[str, Any]:
    """The MessageBatch object. Every request counts as `processing` until the whole batch has ended."""
    ended = batch.ended_at is not None
    outcomes = batch.outcomes if ended else (0, 0, 0, 0)
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.processing_status,
        "request_counts": {"processing": 0 if ended else batch.total, **dict(zip(OUTCOMES, outcomes, strict=True))},
        "created_at": _written(batch.created_at),
        "expires_at": _written(batch.expires_at),
        "ended_at": _written(batch.ended_at),
        "cancel_initiated_at": _written(batch.cancel_initiated_at),
        "archived_at": None,
        "results_url": results_url if ended else None,
    }


def result_line(custom_id: str, outcome: Outcome, body: bytes | None) -> bytes:
    """One line of the results. `body` is the JSON of a Message if succeeded, of an error envelope if errored."""
    head = b'{"custom_id":"%b","result":{"type":"%b"' % (custom_id.encode(), outcome.encode())
    if outcome == "succeeded":
        head += b',"message":%b' % (body or b"null")
    elif outcome == "errored":
        head += b',"error":%b' % (body or b"null")
    return head + b"}}\n"


def _written(time: float | None) -> str | None:
    """RFC 3339, in UTC."""
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
