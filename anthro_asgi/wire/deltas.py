"""What engines yield: the pieces a Message grows from.

A text delta is a bare `str`, so the common token costs no object. Everything else is a small slots class.
An engine yields them one by one or as a list of those that arrived together (`Batch`); they reach the client
in the order given. The rules an engine keeps:

- `ToolStart` opens a call, the `ToolJson` after it belong to that call; the next other delta closes it;
- `Signature` belongs to the `Thinking` before it; without one, or with an empty one, the encoder signs;
- `Usage` may come at any time, the newest counts; what comes before the first content goes into `message_start`;
- `Finish` is last. An engine that ends without it broke off, which is an error and never `end_turn`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn"]


@dataclass(slots=True)
class Thinking:
    """A piece of reasoning."""

    text: str


@dataclass(slots=True)
class Signature:
    """The engine's own signature of the thinking block that is open."""

    value: str


@dataclass(slots=True)
class ToolStart:
    """A tool call begins. `id` as the client shall see it, unique within the message."""

    id: str
    name: str


@dataclass(slots=True)
class ToolJson:
    """A piece of the open call's input, as JSON text. The pieces of one call make one JSON object; none means `{}`."""

    fragment: str


@dataclass(slots=True)
class Citation:
    """A citation of the text block that is open, as the client shall see it."""

    content: dict[str, Any]


@dataclass(slots=True)
class BlockStop:
    """The open block ends here, though the next delta may be of its kind. Most engines have no need of it."""


@dataclass(slots=True)
class Block:
    """A whole content block of a kind that has no deltas here (`redacted_thinking`, server-tool results, …)."""

    content: dict[str, Any]


@dataclass(slots=True)
class Usage:
    """Token counts so far; None is unknown. `input_tokens` leaves out the prompt tokens read from a cache."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


@dataclass(slots=True)
class Finish:
    """The engine is done. `stop_sequence` is the string that matched, when `stop_reason` says so.

    `details` are further fields of the answer as the client shall see them (`stop_details`, `container`).
    """

    stop_reason: StopReason
    stop_sequence: str | None = None
    details: dict[str, Any] | None = None


class DeltaOrderError(Exception):
    """A delta, or a verb of the service, that the grammar does not allow where it came: a bug of the engine or ours."""


Delta = str | Thinking | Signature | ToolStart | ToolJson | Citation | BlockStop | Block | Usage | Finish
DELTA_TYPES: Final[tuple[type[Delta], ...]] = get_args(Delta)
"""The classes of the union. Dispatch tables are built over it, so a class without a handler fails at import."""
Batch = Delta | list[Delta]
Deltas = Sequence[Delta]


class EncodedTexts(list[str]):
    """Nothing but texts, none of them empty; `literals` are the same as JSON, as `orjson.dumps` writes it.

    For an engine that has these from the wire, so that they are not written again.
    """

    __slots__ = ("literals",)

    def __init__(self, texts: list[str], literals: Sequence[bytes]) -> None:
        super().__init__(texts)
        self.literals = literals


def deltas_of(batch: Batch) -> Deltas:
    """The deltas of a batch, of which there may be one without a list around it."""
    return batch if isinstance(batch, list) else (batch,)
