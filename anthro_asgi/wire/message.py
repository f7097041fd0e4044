"""Deltas → one Message (contract section 4), and functions that a Message and a stream share.

The builder takes the same deltas as the encoder and ends blocks by the same rules, so that both give the same content.
The tests compare them.
"""

from collections.abc import Callable
from typing import Any, Final, assert_never

from .answer_limits import BLOCK_OVERHEAD, DEFAULT_LIMITS, AnswerLimits, delta_size, utf8_size
from .deltas import (
    DELTA_TYPES,
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    DeltaOrderError,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
    deltas_of,
)
from .json_codec import replace_lone_surrogates
from .repairs import Repairs
from .tool_input import parse_tool_input

# Signs a thinking block if the engine does not. Clients send it back unchanged, and reject an empty signature.
PLACEHOLDER_SIGNATURE: Final = "YW50aHJvLWFzZ2k6dW5zaWduZWQ="
_STEP: Final = 64 * 1024  # bytes between two folds of the pieces
_LARGE_INPUT: Final = 16 * 1024  # bytes of a tool's input that takes long to parse, or to repair


def empty_message(message_id: str, model: str, usage: Usage, fields: dict[str, Any]) -> dict[str, Any]:
    """A Message without content, as `message_start` holds it. `fields` replace none of its keys."""
    message: dict[str, Any] = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_json(usage),
    }
    return message | {key: value for key, value in fields.items() if key not in message} if fields else message


def usage_json(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {"input_tokens": usage.input_tokens or 0, "output_tokens": usage.output_tokens or 0}
    if usage.cache_read_input_tokens is not None:
        counts["cache_read_input_tokens"] = usage.cache_read_input_tokens
    if usage.cache_creation_input_tokens is not None:
        counts["cache_creation_input_tokens"] = usage.cache_creation_input_tokens
    if usage.thinking_tokens is not None:
        counts["output_tokens_details"] = {"thinking_tokens": usage.thinking_tokens}
    return counts if usage.details is None else counts | usage.details


def merge_usage(into: Usage, newer: Usage) -> None:
    """Copies the counts that `newer` has into `into`. Raises TypeError for a count that is no integer."""
    if newer.input_tokens is not None:
        into.input_tokens = _integer(newer.input_tokens)
    if newer.output_tokens is not None:
        into.output_tokens = _integer(newer.output_tokens)
    if newer.cache_read_input_tokens is not None:
        into.cache_read_input_tokens = _integer(newer.cache_read_input_tokens)
    if newer.cache_creation_input_tokens is not None:
        into.cache_creation_input_tokens = _integer(newer.cache_creation_input_tokens)
    if newer.thinking_tokens is not None:
        into.thinking_tokens = _integer(newer.thinking_tokens)
    if newer.details:
        into.details = {} if into.details is None else into.details
        merge_fields(into.details, newer.details)


def merge_fields(into: dict[str, Any], newer: dict[str, Any]) -> None:
    """Copies `newer` into `into`. A null takes no value away."""
    into.update({key: value for key, value in newer.items() if value is not None or key not in into})


def _integer(count: object) -> int:
    if not isinstance(count, int):
        raise TypeError(f"a token count must be an int, not {type(count).__name__}")
    return count


def final_finish(finish: Finish, has_tool_use: bool) -> Finish:
    """The Finish for the client, corrected where the engine's own contradicts the answer.

    The reason is `tool_use` exactly if there is a call and the engine did not run out of tokens: a client that expects
    a call and finds none would wait forever. It is `stop_sequence` only together with the matched string.
    """
    reason, matched = finish.stop_reason, finish.stop_sequence
    if has_tool_use and reason in ("end_turn", "stop_sequence"):
        reason = "tool_use"
    elif (reason == "tool_use" and not has_tool_use) or (reason == "stop_sequence" and not matched):
        reason = "end_turn"
    return Finish(reason, matched if reason == "stop_sequence" else None, finish.details, finish.fields)


def tool_use_block(start: ToolStart) -> dict[str, Any]:
    """The block of a call, without its input. `fields` replace none of its keys."""
    block: dict[str, Any] = {"type": "tool_use", "id": start.id, "name": start.name, "input": {}}
    return (
        block if start.fields is None else block | {key: start.fields[key] for key in start.fields if key not in block}
    )


def is_tool_use(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_use"


class MessageBuilder:
    """Collects one answer. `estimate` is as in StreamEncoder. `repairs` counts the repairs, those of `message` too."""

    __slots__ = (
        "_before_input",
        "_blocks",
        "_due",
        "_empty_text",
        "_estimate",
        "_id",
        "_limits",
        "_model",
        "_open",
        "_parts",
        "_runs",
        "_size",
        "fields",
        "finish",
        "repairs",
        "usage",
    )

    def __init__(
        self, message_id: str, model: str, estimate: Callable[[], int], *, limits: AnswerLimits = DEFAULT_LIMITS
    ) -> None:
        self._id = message_id
        self._model = model
        self._estimate = estimate
        self._limits = limits
        self._size = 0  # bytes collected; the newest pieces count in characters until they are folded
        self._due = _STEP  # value of `_size` from which to fold the pieces
        self._before_input = 0  # value of `_size` before the newest call's input
        self._blocks: list[dict[str, Any]] = []
        self._open = ""  # type of the newest block while it can grow, else ""
        self._parts: list[str] = []  # newest pieces of the open block
        self._runs: list[str] = []  # earlier pieces of the open block, folded
        self._empty_text = False
        self.repairs = Repairs()
        self.usage = Usage()
        self.fields: dict[str, Any] = {}  # further fields of the Message
        self.finish: Finish | None = None

    def feed(self, batch: Batch) -> None:
        """Adds the deltas of a batch. Raises AnswerTooLarge; DeltaOrderError for ToolJson outside a call."""
        for delta in deltas_of(batch):
            _HANDLERS[type(delta)](self, delta)
        if self._size >= self._due:
            self._fold()

    @property
    def size(self) -> int:
        """About how many bytes were collected."""
        return self._size

    @property
    def has_large_input(self) -> bool:
        """Whether the open block is a tool call with a large input, so that it takes long to end it."""
        return self._open == "tool_use" and self._size - self._before_input > _LARGE_INPUT

    def ends_block(self, batch: Batch) -> bool:
        """Whether `feed(batch)` ends an open tool call."""
        return not all(isinstance(delta, ToolJson | Usage | Finish) for delta in deltas_of(batch))

    def end_block(self) -> None:
        """End the open block. Raises AnswerTooLarge."""
        self._close()

    def _text(self, text: str) -> None:
        self._piece("text", text)

    def _thinking(self, delta: Thinking) -> None:
        self._piece("thinking", delta.text)

    def _signature(self, delta: Signature) -> None:
        if not delta.value:
            return
        if self._open != "thinking":
            self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._blocks[-1]["signature"] = delta.value
        self._size += utf8_size(delta.value)
        self._close()

    def _tool_start(self, delta: ToolStart) -> None:
        self._begin("tool_use", tool_use_block(delta))
        self._size += delta_size(delta)
        self._before_input = self._size

    def _tool_json(self, delta: ToolJson) -> None:
        if self._open != "tool_use":
            raise DeltaOrderError("tool_json outside a tool_use block")
        if delta.fragment:
            self._size += len(delta.fragment)
            self._parts.append(delta.fragment)

    def _citation(self, delta: Citation) -> None:
        if self._open != "text":
            self._begin("text", {"type": "text", "text": ""})
        self._blocks[-1].setdefault("citations", []).append(delta.content)
        self._size += BLOCK_OVERHEAD + delta_size(delta)

    def _block_stop(self, _: BlockStop) -> None:
        self._close()

    def _block(self, delta: Block) -> None:
        self._size += delta_size(delta)
        self._begin("", delta.content)

    def _estimate_thinking(self, _: ThinkingEstimate) -> None:
        if self._open != "thinking":
            self._begin("thinking", _new_block("thinking"))

    def _other(self, delta: OtherDelta) -> None:
        if not self._blocks or self._blocks[-1]["type"] != delta.block:
            self._begin(delta.block, _new_block(delta.block))
        own = {key: value for key, value in delta.content.items() if key != delta.block}
        apply_delta(own, self._blocks[-1])
        self._size += BLOCK_OVERHEAD + delta_size(delta)

    def _note_usage(self, usage: Usage) -> None:
        merge_usage(self.usage, usage)

    def _note_fields(self, fields: MessageFields) -> None:
        merge_fields(self.fields, fields.content)

    def _note_finish(self, finish: Finish) -> None:
        self.finish = finish

    def _piece(self, kind: str, text: str) -> None:
        if not text:
            self._empty_text |= kind == "text"
            return
        if self._open != kind:
            self._begin(kind, _new_block(kind))
        self._size += len(text)
        self._parts.append(text)

    def _fold(self) -> None:
        """Joins the newest pieces, since short strings take many times their length in memory; checks the limits."""
        if self._parts:
            run = _joined(self._parts)
            self._parts.clear()
            self._runs.append(run)
            self._size += utf8_size(run) - len(run)
        self._due = self._size + _STEP
        self._limits.check_answer(self._size)
        if self._open == "tool_use":
            self._limits.check_tool_input(self._size - self._before_input)

    def _begin(self, kind: str, block: dict[str, Any]) -> None:
        self._close()
        self._blocks.append(block)
        self._open = kind
        self._size += BLOCK_OVERHEAD

    def _close(self) -> None:
        self._fold()
        joined = "".join(self._runs)
        if self._open == "tool_use":
            self._close_tool(joined)
        elif self._open:
            self._blocks[-1][self._open] = joined
        self._open = ""
        self._runs.clear()

    def _close_tool(self, arguments: str) -> None:
        value = parse_tool_input(arguments, self.repairs)
        if value is None:
            self._blocks.pop()
        else:
            self._blocks[-1]["input"] = value

    def message(self, counted: int) -> dict[str, Any]:
        """The Message, after a Finish was fed. `counted` is the number of output tokens if the engine reported none.

        Raises DeltaOrderError before a Finish; AnswerTooLarge.
        """
        finish = self.finish
        if finish is None:
            raise DeltaOrderError("message before Finish")
        self._close()
        if self._empty_text and not self._blocks:
            self._blocks.append({"type": "text", "text": ""})
        if self.usage.input_tokens is None:
            self.usage.input_tokens = self._estimate()
        if self.usage.output_tokens is None:
            self.usage.output_tokens = counted
        message = empty_message(self._id, self._model, self.usage, self.fields)
        finish = final_finish(finish, any(map(is_tool_use, self._blocks)))
        message["content"] = self._blocks
        message["stop_reason"] = finish.stop_reason
        message["stop_sequence"] = finish.stop_sequence
        merge_fields(message, finish.fields or {})
        merge_fields(message, finish.details or {})
        return message


# Keys of deltas whose newest value counts. Texts under any other key are joined.
_REPLACED: Final = frozenset({"encrypted_content", "signature"})


def apply_delta(delta: dict[str, Any], block: dict[str, Any]) -> None:
    """Change `block` as a client does that receives `delta` in it."""
    for key, value in delta.items():
        known = block.get(key)
        if key == "type":
            continue
        if isinstance(value, str) and isinstance(known, str) and key not in _REPLACED:
            block[key] = known + value
        elif value is not None or key not in block:
            block[key] = value


def _new_block(kind: str) -> dict[str, Any]:
    """An empty block of text or thinking."""
    block = {"type": kind, kind: ""}
    if kind == "thinking":
        block["signature"] = PLACEHOLDER_SIGNATURE
    return block


def _joined(parts: list[str]) -> str:
    """The joined pieces. As in a stream, two halves of a surrogate pair from different pieces are not combined."""
    joined = "".join(parts)
    try:
        joined.encode()
    except UnicodeEncodeError:
        return "".join(map(replace_lone_surrogates, parts))
    return joined


def _handler(delta_type: type[Delta]) -> Callable[[MessageBuilder, Any], None]:  # noqa: C901 - one branch for each class
    """The method that takes this class. A class of the union that is missing here is a type error."""
    if issubclass(delta_type, str):
        return MessageBuilder._text
    if issubclass(delta_type, Thinking):
        return MessageBuilder._thinking
    if issubclass(delta_type, Signature):
        return MessageBuilder._signature
    if issubclass(delta_type, ToolStart):
        return MessageBuilder._tool_start
    if issubclass(delta_type, ToolJson):
        return MessageBuilder._tool_json
    if issubclass(delta_type, Citation):
        return MessageBuilder._citation
    if issubclass(delta_type, BlockStop):
        return MessageBuilder._block_stop
    if issubclass(delta_type, Block):
        return MessageBuilder._block
    if issubclass(delta_type, ThinkingEstimate):
        return MessageBuilder._estimate_thinking
    if issubclass(delta_type, OtherDelta):
        return MessageBuilder._other
    if issubclass(delta_type, Usage):
        return MessageBuilder._note_usage
    if issubclass(delta_type, MessageFields):
        return MessageBuilder._note_fields
    if issubclass(delta_type, Finish):
        return MessageBuilder._note_finish
    assert_never(delta_type)


_HANDLERS: Final = {delta_type: _handler(delta_type) for delta_type in DELTA_TYPES}
