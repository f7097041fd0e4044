"""Deltas → the bytes of a Messages stream: a state machine (contract section 5).

Every stream follows this grammar, whatever the engine yields:

    stream = message_start ping? block* message_delta message_stop      (once started, `error` may end it at any point)
    block  = content_block_start content_block_delta* content_block_stop

The state says what is open: READY (nothing sent), IDLE (between blocks), TEXT, THINKING, SIGNED (a thinking block that
has its signature), TOOL, DONE. A verb is a delta of the engine or a call of the service. `TRANSITIONS` is the whole
machine as data: for each state and verb, the events written and the next state. A missing pair is misuse and raises
DeltaOrderError. The methods below are that table, made fast; the tests check them against every cell of it.

Editors: the hot method is `text`. A token in an open block costs a comparison, an `orjson.dumps`, and a `join` of the
frame around it (one allocation; two `+` would make two). Everything a block needs once is done when it opens.
`python -m bench micro` measures it.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, assert_never

import orjson

from .deltas import (
    DELTA_TYPES,
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    DeltaOrderError,
    EncodedTexts,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
)
from .errors import ApiError
from .json_codec import dumps as json
from .message import (
    PLACEHOLDER_SIGNATURE,
    empty_message,
    final_finish,
    is_tool_use,
    merge_fields,
    merge_usage,
    tool_use_block,
    usage_json,
)

dumps = orjson.dumps


class State(Enum):
    READY = auto()
    IDLE = auto()
    TEXT = auto()
    THINKING = auto()
    SIGNED = auto()
    TOOL = auto()
    DONE = auto()


READY, IDLE, TEXT, THINKING, SIGNED, TOOL, DONE = State

# The events that close the open block, by state.
_CLOSE: Final[dict[State, tuple[str, ...]]] = {
    IDLE: (),
    TEXT: ("content_block_stop",),
    THINKING: ("signature_delta", "content_block_stop"),
    SIGNED: ("content_block_stop",),
    TOOL: ("content_block_stop",),
}
_OPENERS: Final[dict[str, tuple[tuple[str, ...], State]]] = {
    "text": (("content_block_start", "text_delta"), TEXT),
    "citation": (("content_block_start", "citations_delta"), TEXT),
    "thinking": (("content_block_start", "thinking_delta"), THINKING),
    "signature": (("content_block_start", "signature_delta"), SIGNED),
    "tool_start": (("content_block_start",), TOOL),
    "block": (("content_block_start", "content_block_stop"), IDLE),
    "block_stop": ((), IDLE),
    "estimate": (("content_block_start", "thinking_delta"), THINKING),
    "other_text": (("content_block_start", "other_delta"), TEXT),
    "other_thinking": (("content_block_start", "other_delta"), THINKING),
    "finish": (("message_delta", "message_stop"), DONE),
}
TRANSITIONS: Final[dict[tuple[State, str], tuple[tuple[str, ...], State]]] = {
    (READY, "start"): (("message_start",), IDLE),
    **{
        (state, verb): (closing + events, after)
        for state, closing in _CLOSE.items()
        for verb, (events, after) in _OPENERS.items()
    },
    **{(state, "ping"): (("ping",), state) for state in _CLOSE},
    **{(state, "error"): (("error",), DONE) for state in _CLOSE},
    (TEXT, "text"): (("text_delta",), TEXT),
    (TEXT, "citation"): (("citations_delta",), TEXT),
    (THINKING, "thinking"): (("thinking_delta",), THINKING),
    (THINKING, "signature"): (("signature_delta",), SIGNED),
    (THINKING, "estimate"): (("thinking_delta",), THINKING),
    (TEXT, "other_text"): (("other_delta",), TEXT),
    (THINKING, "other_thinking"): (("other_delta",), THINKING),
    (SIGNED, "other_thinking"): (("other_delta",), SIGNED),
    (TOOL, "tool_json"): (("input_json_delta",), TOOL),
}

PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP_EVENT: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b'
_WHOLE_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
_CLOSE_DELTA: Final = b"}}\n\n"
_SIGNATURE_DELTA: Final = b'"signature_delta","signature":'


class StreamEncoder:
    """Encodes one stream. Each method returns the bytes to send; b"" if there is nothing to send.

    `estimate` returns the prompt's length in tokens. It is called at most once, if the engine reported no length.
    """

    __slots__ = (
        "_empty_text",
        "_estimate",
        "_frame",
        "_id",
        "_index",
        "_model",
        "_started_with",
        "_state",
        "_tools",
        "fields",
        "finish",
        "usage",
    )

    def __init__(self, message_id: str, model: str, estimate: Callable[[], int]) -> None:
        self._id = message_id
        self._model = model
        self._estimate = estimate
        self._state = READY
        self._index = -1  # of the newest block
        self._frame = (b"", b"")  # bytes before and after the JSON string in deltas of the open block
        self._tools = False
        self._empty_text = False
        self._started_with: dict[str, Any] = {}  # the fields in `message_start`
        self.usage = Usage()
        self.fields: dict[str, Any] = {}  # further fields of the Message
        self.finish: Finish | None = None  # set when the engine is done; `end` sends it to the client

    @property
    def state(self) -> State:
        return self._state

    @property
    def frame(self) -> tuple[bytes, bytes]:
        """The bytes before and after the JSON string of a delta in the open block, of the block's usual type."""
        return self._frame

    # Called once, first

    def start(self) -> bytes:
        """`message_start`, with the prompt's length from a Usage, or an estimate."""
        if self._state is not READY:
            raise self._misplaced("start")
        self._state = IDLE
        if self.usage.input_tokens is None:
            self.usage.input_tokens = self._estimate()
        message = empty_message(self._id, self._model, self.usage, self.fields)
        if self.fields:
            self._started_with = dict(self.fields)
        return b"event: message_start\ndata: " + json({"type": "message_start", "message": message}) + b"\n\n"

    # Deltas of the engine

    def feed(self, batch: Batch) -> bytes:
        """The batch, as the bytes of one send."""
        if isinstance(batch, list):
            if type(batch) is EncodedTexts and self._state is TEXT:
                opening, closing = self._frame
                return (closing + opening).join(batch.literals).join(self._frame)
            if len(batch) != 1:
                return b"".join([_HANDLERS[type(delta)](self, delta) for delta in batch])
            batch = batch[0]  # most reads from an engine hold one delta
        if type(batch) is str:
            return self.text(batch)
        return _HANDLERS[type(batch)](self, batch)

    def text(self, text: str) -> bytes:
        if self._state is TEXT and text:
            try:
                return dumps(text).join(self._frame)
            except TypeError:
                return json(text).join(self._frame)
        return self._open_text(text)

    def _open_text(self, text: str) -> bytes:
        if not text:
            self._empty_text = True  # becomes a block only if nothing else comes
            return b""
        return self._open_text_block("text") + self.text(text)

    def citation(self, delta: Citation) -> bytes:
        opening = b"" if self._state is TEXT else self._open_text_block("citation")
        return opening + self._extra(b'"citations_delta","citation":', delta.content)

    def thinking(self, delta: Thinking) -> bytes:
        if not delta.text:
            return b""
        opening = b"" if self._state is THINKING else self._open_thinking("thinking")
        return opening + json(delta.text).join(self._frame)

    def signature(self, delta: Signature) -> bytes:
        """A signature without thinking makes a block whose thinking was left out (`display: omitted`)."""
        if not delta.value:
            return b""
        opening = b"" if self._state is THINKING else self._open_thinking("signature")
        self._state = SIGNED
        return opening + self._extra(_SIGNATURE_DELTA, delta.value)

    def tool_start(self, delta: ToolStart) -> bytes:
        if delta.fields is None:
            block = b'{"type":"tool_use","id":' + json(delta.id) + b',"name":' + json(delta.name) + b',"input":{}}'
        else:
            block = json(tool_use_block(delta))
        opening = self._open("tool_start", TOOL, block, b'"input_json_delta","partial_json":')
        self._tools = True
        return opening

    def tool_json(self, delta: ToolJson) -> bytes:
        if self._state is not TOOL:
            raise self._misplaced("tool_json")
        return json(delta.fragment).join(self._frame) if delta.fragment else b""

    def block_stop(self, _: BlockStop) -> bytes:
        closing = self._close("block_stop")
        self._state = IDLE
        return closing

    def block(self, delta: Block) -> bytes:
        opening = self._open("block", IDLE, json(delta.content if delta.start is None else delta.start), b"")
        self._tools |= is_tool_use(delta.content)
        return opening + b"".join([self._unchanged(piece) for piece in delta.deltas]) + self._block_stop()

    def thinking_estimate(self, delta: ThinkingEstimate) -> bytes:
        opening = b"" if self._state is THINKING else self._open_thinking("estimate")
        return opening + self._unchanged({"type": "thinking_delta", "thinking": "", "estimated_tokens": delta.tokens})

    def other_delta(self, delta: OtherDelta) -> bytes:
        opening = b""
        if delta.block == "text":
            if self._state is not TEXT:
                opening = self._open_text_block("other_text")
        elif self._state is not THINKING and self._state is not SIGNED:
            opening = self._open_thinking("other_thinking")
        return opening + self._unchanged(delta.content)

    def note_usage(self, usage: Usage) -> bytes:
        merge_usage(self.usage, usage)
        return b""

    def note_fields(self, fields: MessageFields) -> bytes:
        merge_fields(self.fields, fields.content)
        return b""

    def note_finish(self, finish: Finish) -> bytes:
        self.finish = finish
        return b""

    # Calls of the service

    def ping(self) -> bytes:
        if self._state not in _CLOSE:
            raise self._misplaced("ping")
        return PING

    def error(self, error: ApiError, request_id: str) -> bytes:
        """The `error` event. Nothing may be written after it."""
        if self._state not in _CLOSE:
            raise self._misplaced("error")
        self._state = DONE
        return error.frame(request_id)

    def end(self, counted: int) -> bytes:
        """The end of the stream. `counted` is the number of output tokens if the engine reported none."""
        finish = self.finish
        if finish is None or self._state not in _CLOSE:
            raise self._misplaced("finish")
        if self.usage.output_tokens is None:
            self.usage.output_tokens = counted
        self.finish = finish = final_finish(finish, self._tools)
        delta = {"stop_reason": finish.stop_reason, "stop_sequence": finish.stop_sequence, **(finish.details or {})}
        event = {"type": "message_delta", "delta": delta, "usage": usage_json(self.usage)}
        if finish.fields or self.fields != self._started_with:
            event = self._new_fields() | (finish.fields or {}) | event
        body = json(event)  # before the state changes: a value that is not JSON ends the stream with an error
        opening = b""
        if self._empty_text and self._index < 0:
            opening = self._open_text_block("finish")
        closing = self._close("finish")
        self._state = DONE
        return opening + closing + b"event: message_delta\ndata: " + body + b"\n\n" + _STOP_EVENT

    def _new_fields(self) -> dict[str, Any]:
        """The fields of the Message that are not in `message_start`, or have another value there."""
        started = self._started_with
        return {key: value for key, value in self.fields.items() if key not in started or started[key] != value}

    # Opening and closing blocks

    def _open(self, verb: str, state: State, block: bytes, delta: bytes) -> bytes:
        closing = self._close(verb)
        self._index += 1
        self._state = state
        self._frame = (_DELTA % (self._index, delta), _CLOSE_DELTA)
        return (
            closing
            + b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":'
            % self._index
            + block
            + b"}\n\n"
        )

    def _open_text_block(self, verb: str) -> bytes:
        return self._open(verb, TEXT, b'{"type":"text","text":""}', b'"text_delta","text":')

    def _open_thinking(self, verb: str) -> bytes:
        block = b'{"type":"thinking","thinking":"","signature":""}'
        return self._open(verb, THINKING, block, b'"thinking_delta","thinking":')

    def _close(self, verb: str) -> bytes:
        state = self._state
        if state is IDLE:
            return b""
        if state not in _CLOSE:
            raise self._misplaced(verb)
        return (self._extra(_SIGNATURE_DELTA, PLACEHOLDER_SIGNATURE) if state is THINKING else b"") + self._block_stop()

    def _block_stop(self) -> bytes:
        return b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % self._index

    def _unchanged(self, delta: dict[str, Any]) -> bytes:
        return _WHOLE_DELTA % self._index + json(delta) + b"}\n\n"

    def _extra(self, kind: bytes, value: object) -> bytes:
        """A delta of another type than the open block's usual one."""
        return _DELTA % (self._index, kind) + json(value) + _CLOSE_DELTA

    def _misplaced(self, verb: str) -> DeltaOrderError:
        return DeltaOrderError(f"{verb} in state {self._state.name}")


def _handler(delta_type: type[Delta]) -> Callable[[StreamEncoder, Any], bytes]:  # noqa: C901 - one branch for each class
    """The method that encodes this class. A class of the union that is missing here is a type error."""
    if issubclass(delta_type, str):
        return StreamEncoder.text
    if issubclass(delta_type, Thinking):
        return StreamEncoder.thinking
    if issubclass(delta_type, Signature):
        return StreamEncoder.signature
    if issubclass(delta_type, ToolStart):
        return StreamEncoder.tool_start
    if issubclass(delta_type, ToolJson):
        return StreamEncoder.tool_json
    if issubclass(delta_type, Citation):
        return StreamEncoder.citation
    if issubclass(delta_type, BlockStop):
        return StreamEncoder.block_stop
    if issubclass(delta_type, Block):
        return StreamEncoder.block
    if issubclass(delta_type, ThinkingEstimate):
        return StreamEncoder.thinking_estimate
    if issubclass(delta_type, OtherDelta):
        return StreamEncoder.other_delta
    if issubclass(delta_type, Usage):
        return StreamEncoder.note_usage
    if issubclass(delta_type, MessageFields):
        return StreamEncoder.note_fields
    if issubclass(delta_type, Finish):
        return StreamEncoder.note_finish
    assert_never(delta_type)


_HANDLERS: Final = {delta_type: _handler(delta_type) for delta_type in DELTA_TYPES}
