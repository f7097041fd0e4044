"""What engines yield: the deltas that a Message is built from.

A text delta is a bare `str`, so that the most common token costs no object. The others are small classes with slots.
An engine yields single deltas, or a list of the deltas that arrived together (`Batch`). They reach the client in this
order. An engine must keep these rules:

- `ToolStart` opens a call, and the following `ToolJson` belong to it. Any other delta except Usage closes the call.
- `Signature` belongs to the `Thinking` before it. If it is missing or empty, the encoder writes a placeholder.
- `Usage` may come at any time, and the newest counts. One that comes before any content goes into `message_start`.
- `MessageFields` may come at any time. Those that come before any content go into `message_start`.
- `Finish` comes last. An engine that ends without it broke off: that is an error, never `end_turn`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn", "compaction"]


@dataclass(slots=True)
class Thinking:
    """A piece of reasoning."""

    text: str


@dataclass(slots=True)
class Signature:
    """The engine's own signature of the open thinking block."""

    value: str


@dataclass(slots=True)
class ToolStart:
    """A tool call begins. `id` goes to the client and must be unique within the message.

    `fields` are further fields of the block, sent to the client unchanged (`caller`, `toolset_name`).
    """

    id: str
    name: str
    fields: dict[str, Any] | None = None


@dataclass(slots=True)
class ToolJson:
    """A piece of the open call's input, as JSON text. The joined pieces are one JSON object; no piece means `{}`."""

    fragment: str


@dataclass(slots=True)
class Citation:
    """A citation in the open text block; `content` goes to the client unchanged."""

    content: dict[str, Any]


@dataclass(slots=True)
class BlockStop:
    """Ends the open block, even if the next delta is of the same type. Most engines do not need it."""


@dataclass(slots=True)
class Block:
    """A whole content block of a type that has no delta of its own: `redacted_thinking`, `compaction`, and others.

    Args:
        content: the block, as in a Message that is not streamed.
        start: the `content_block` of `content_block_start` in a stream; None for `content`.
        deltas: the `delta` of each `content_block_delta` that follows in a stream.
    """

    content: dict[str, Any]
    start: dict[str, Any] | None = None
    deltas: Sequence[dict[str, Any]] = ()


@dataclass(slots=True)
class ThinkingEstimate:
    """An estimate of the tokens of the open thinking since the last estimate, for a client that shows progress.

    Only a stream sends it.
    """

    tokens: int


@dataclass(slots=True)
class OtherDelta:
    """A delta of a type that this service does not know, in a block of type `block`. The client gets it unchanged."""

    block: Literal["text", "thinking"]
    content: dict[str, Any]


@dataclass(slots=True)
class Usage:
    """Token counts so far; None is unknown. `input_tokens` excludes the tokens read from a cache or written to it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    thinking_tokens: int | None = None
    """The tokens of the reasoning, which `output_tokens` includes."""
    details: dict[str, Any] | None = None
    """Further fields of `usage`, sent to the client unchanged (`cache_creation`, `server_tool_use`, `iterations`)."""

    @property
    def uncached_input_tokens(self) -> int | None:
        """The prompt tokens that were not read from a cache, with those that were written to it."""
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_creation_input_tokens or 0)


@dataclass(slots=True)
class MessageFields:
    """Further fields of the Message, sent to the client unchanged (`container`). The newest values count."""

    content: dict[str, Any]


@dataclass(slots=True)
class Finish:
    """The engine is done. `stop_sequence` is the matched string if `stop_reason` is `stop_sequence`.

    `details` and `fields` are further fields of the Message, sent to the client unchanged. In a stream, `details` stand
    in `delta`, beside the stop reason (`stop_details`, `container`), and `fields` beside it (`context_management`).
    """

    stop_reason: StopReason
    stop_sequence: str | None = None
    details: dict[str, Any] | None = None
    fields: dict[str, Any] | None = None


class DeltaOrderError(Exception):
    """The grammar does not allow a delta, or a call of the service, where it came. A bug in the engine or here."""


class InvalidDelta(TypeError):
    """An engine yielded something that is not a delta. The message names the engine and the type, but no content."""


Delta = (
    str
    | Thinking
    | Signature
    | ToolStart
    | ToolJson
    | Citation
    | BlockStop
    | Block
    | ThinkingEstimate
    | OtherDelta
    | Usage
    | MessageFields
    | Finish
)
DELTA_TYPES: Final[tuple[type[Delta], ...]] = get_args(Delta)
"""The classes of the union. Dispatch tables are built over it, so a class without a handler fails at import."""
Batch = Delta | list[Delta]
Deltas = Sequence[Delta]


class EncodedTexts(list[str]):
    """A batch of non-empty texts only; `literals` are the same texts as JSON strings, as `orjson.dumps` writes them.

    For an engine that received the texts in that form, so that they need not be encoded again.
    """

    __slots__ = ("literals",)

    def __init__(self, texts: list[str], literals: Sequence[bytes]) -> None:
        super().__init__(texts)
        self.literals = literals


def has_output(batch: Batch) -> bool:
    """Whether any delta of the batch is more than an empty text, a count or a field."""
    if type(batch) is str:
        return bool(batch)
    for delta in deltas_of(batch):  # noqa: SIM110 - a generator costs more than the loop
        if delta and not isinstance(delta, _NO_OUTPUT):
            return True
    return False


_NO_OUTPUT: Final = (Usage, MessageFields)


def deltas_of(batch: Batch) -> Deltas:
    """The deltas of a batch, which may be a single delta."""
    return batch if isinstance(batch, list) else (batch,)
