"""One answer of an engine, from its first delta to its end, without HTTP.

    engine.stream(request) ─► thinking filter ─► stop sequences ─► count, usage, ending ─► the consumer

Everything that holds for an answer whatever it is sent as (a stream, one Message, a chat completion, an entry of a
batch) is applied here and nowhere else. This file knows no socket and no ASGI.

Deltas, as they come:

    async with Answer(engine, request) as answer:
        async for batch in answer:
            ...
    print(answer.stop_reason, answer.usage)

One Message:

    message = await Answer(engine, request).message()

Editors: a consumer that sends every token may not pay for a coroutine per token. It iterates over `batches` itself and
gives each batch to `take`, until `finish` is set, and then calls `ended` if `batches` has run out before that. A batch
that is a `str` needs no `take` while `filters` is false: adding 1 to `counted` is enough. A list of more than
`LARGE_BATCH` deltas, as an engine in this process may yield, is taken `in_turns`. See `message_response`.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Never, NoReturn, Self, TypeVar, get_args

from ..engines.base import BaseEngine, CallRepair, Observer, ignore_observation
from ..engines.functions import as_engine
from ..wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from ..wire.deltas import (
    DELTA_TYPES,
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    Deltas,
    EncodedTexts,
    Finish,
    InvalidDelta,
    MessageFields,
    OtherDelta,
    Signature,
    StopReason,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
    deltas_of,
    has_output,
)
from ..wire.errors import AnswerTooLarge, BadUpstream, no_thread
from ..wire.estimate import estimate_tokens
from ..wire.message import MessageBuilder, final_finish, is_tool_use, merge_fields, merge_usage
from ..wire.request import MessagesRequest
from ..wire.stop_sequences import MAX_PIECE, StopSequenceFilter, divide
from ..wire.thinking_filter import ThinkingFilter

T = TypeVar("T")
_TURN: Final = 0.001  # seconds that a large batch may hold the event loop
_THREADS: Final = 2
# For large tool inputs. Not the default executor of the loop, which also resolves names.
_pool: Final = ThreadPoolExecutor(_THREADS, "anthro-asgi tool inputs")
LARGE_BATCH: Final = 512
"""Deltas that are taken in one turn of the event loop. A delta costs one to ten microseconds."""
YIELD_EVERY: Final = 32
"""Batches after which the event loop runs other tasks: an engine that has its output ready never suspends."""
_STOP_REASONS: Final = frozenset(get_args(StopReason))
_LARGEST_COUNT: Final = 2**64 - 1  # tokens: what JSON is written with
_EXACT_TYPES: Final = frozenset(DELTA_TYPES)


class Answer:
    """One answer of `engine` to `request`. Consume it once, in one of the three ways above.

    Args:
        engine: whatever `engines.functions.as_engine` accepts, for example an async generator function.
        hide_thinking: leave out thinking that the request disabled and the engine produced nevertheless.
        limits: bounds, in bytes, of what `message` collects.
        observe: is called with ("repair", kind) and ("upstream_error", reason).
        fields: fields of the Message that the service gives itself. Those of the engine do not replace them.
        estimate: returns the prompt's length in tokens. It is called at most once, when the engine does not report it.
            The default estimates from the request, which therefore stays in memory until the engine reports the length.

    Raises InvalidRequest if only a relayed upstream could serve the request, and `engine` is not one. Raises ValueError
    if `engine` is no engine at all.

    Attributes:
        id: the id of the Message.
        model: the model as the client named it.
        batches: what the engine yields, unfiltered. It is set on entering.
        filters: whether text has to pass through `take`.
        counted: deltas of text, thinking and tool calls that the engine generated. They stand in for the output tokens
            when the engine does not report these.
        thinking_counted: how many of these are Thinking.
        usage: token counts so far. They are complete once `finish` is set.
        fields: further fields of the Message so far.
        finish: the stop reason that the client gets; None until the answer has ended.
        collected: bytes of the Message, once `message` has returned.
    """

    __slots__ = (
        "_applied_edits",
        "_calls",
        "_engine",
        "_estimate",
        "_given",
        "_has_tool_use",
        "_limits",
        "_observe",
        "_pending",
        "_pulled",
        "_request",
        "_source",
        "_stops",
        "_thinking",
        "batches",
        "collected",
        "counted",
        "fields",
        "filters",
        "finish",
        "id",
        "model",
        "thinking_counted",
        "usage",
    )

    batches: AsyncIterator[Batch]

    def __init__(
        self,
        engine: object,
        request: MessagesRequest,
        *,
        hide_thinking: bool = False,
        limits: AnswerLimits = DEFAULT_LIMITS,
        observe: Observer = ignore_observation,
        estimate: Callable[[], int] | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(engine, BaseEngine):
            engine = as_engine(engine)
        if request.relay_only and not engine.accepts_server_tools:
            request.refuse_relay_only()
        self.id = f"msg_{secrets.token_urlsafe(18)}"
        self.model = request.model
        self.collected = 0
        self.counted = 0
        self.thinking_counted = 0
        self.usage = Usage()
        self.fields: dict[str, Any] = {} if fields is None else dict(fields)
        self._given = fields or {}
        self.finish: Finish | None = None
        self._engine = engine
        self._request: MessagesRequest | None = request  # a prompt is large, so it is dropped once the engine has it
        self._limits = limits
        self._observe = observe
        self._applied_edits = request.applied_edits if request.context_edits else None
        self._estimate = partial(estimate_tokens, request) if estimate is None else estimate
        self._stops = StopSequenceFilter(request.stop_sequences) if request.stop_sequences else None
        self._thinking = _thinking_filter(request, hide_thinking)
        self._calls = engine.call_repair() if request.tools else None
        self.filters = self._stops is not None or self._thinking is not None or self._calls is not None
        self._has_tool_use = False
        self._pending: Batch | None = None  # the first output, between `begin` and its consumer
        self._pulled = 0

    def __repr__(self) -> str:
        return f"<Answer {self.id} of {self._engine!r} counted={self.counted} finish={self.finish}>"

    async def __aenter__(self) -> Self:
        request, self._request = self._request, None
        if request is None:
            raise RuntimeError("an Answer can be entered only once")
        self.batches = self._engine.stream(request)
        if not hasattr(self.batches, "aclose"):
            name = self._engine_name()
            raise InvalidDelta(f"the engine {name} returned {type(self.batches).__name__}, not an async generator")
        if self._stops is not None:
            self.batches = self._divided(self.batches)
        self._source = self.batches
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.batches.aclose()  # type: ignore[attr-defined]  # `stream` is an async generator
        await self._source.aclose()  # a generator that never ran closes no other

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the answer ended; None before that."""
        return None if self.finish is None else self.finish.stop_reason

    @property
    def stop_matched(self) -> str | None:
        """The stop sequence that was found here, and not by the engine."""
        return None if self._stops is None else self._stops.matched

    # consuming

    async def begin(self) -> None:
        """Wait for the engine's first output, and keep it for the consumer. Raises what the engine raises.

        Counts, fields of the Message and empty texts are no output: an engine that has sent only these may still fail
        with its own status.
        """
        empty = False
        async for batch in self.batches:
            if type(batch) is list and len(batch) > LARGE_BATCH:
                self.batches = _continued(batch[LARGE_BATCH:], self.batches)
                batch = batch[:LARGE_BATCH]
            taken = self.take(batch)
            if has_output(taken):
                break
            empty = empty or "" in deltas_of(taken)
            await asyncio.sleep(0)
        else:
            taken = self.ended()
        self._pending = ["", *deltas_of(taken)] if empty else taken

    async def _divided(self, batches: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
        """The batches in pieces that are searched for stop sequences in a short time, with turns of the event loop."""
        async with aclosing(batches):  # type: ignore[type-var]  # `stream` is an async generator
            async for batch in batches:
                if type(batch) is str and len(batch) <= MAX_PIECE:
                    yield batch
                    continue
                until = perf_counter() + _TURN
                for piece, continues in divide(batch):
                    if perf_counter() >= until:
                        await asyncio.sleep(0)
                        until = perf_counter() + _TURN
                    self.counted -= continues  # the pieces of one delta count once
                    yield piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The next batch, never an empty list. The last one holds the Finish that the client gets.

        Raises ApiError, and what else the engine raises.
        """
        if self._pending is not None:
            batch, self._pending = self._pending, None
            return self._with_final_finish(batch)
        while self.finish is None:
            self._pulled += 1
            if self._pulled % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            try:
                batch = await anext(self.batches)
            except StopAsyncIteration:
                batch = self.ended()
            else:
                if type(batch) is list and len(batch) > LARGE_BATCH:
                    self.batches = _continued(batch[LARGE_BATCH:], self.batches)
                    batch = batch[:LARGE_BATCH]
                batch = self.take(batch)
            if batch != []:
                return self._with_final_finish(batch)
        raise StopAsyncIteration

    async def message(self) -> dict[str, Any]:
        """The whole Message, as JSON values. Raises ApiError, and what else the engine raises."""
        if self._request is None:
            return await self._collect()
        async with self:
            return await self._collect()

    async def _collect(self) -> dict[str, Any]:
        builder = MessageBuilder(self.id, self.model, self._estimate, limits=self._limits)
        builder.usage = self.usage
        builder.fields = self.fields
        try:
            if self._pending is not None:
                builder.feed(self._pending)
                self._pending = None
            if self.finish is None:
                await self._feed(builder)
            if builder.has_large_input:
                await in_input_thread(builder.end_block)
            message = builder.message(self.counted)
            self.collected = builder.size
        except AnswerTooLarge:
            self._observe("upstream_error", "too_large")
            raise
        for kind in builder.repairs.elements():
            self._observe("repair", kind)
        assert self.finish is not None  # noqa: S101 - for the type checker
        self.finish = Finish(message["stop_reason"], message["stop_sequence"], self.finish.details, self.finish.fields)
        return message

    async def _feed(self, builder: MessageBuilder) -> None:
        pulled = 0
        async for batch in self.batches:
            if type(batch) is list and len(batch) > LARGE_BATCH:
                async for piece in in_turns(batch):
                    await self._feed_one(builder, piece)
                    if self.finish is not None:
                        return
                continue
            await self._feed_one(builder, batch)
            if self.finish is not None:
                return
            pulled += 1
            if pulled % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        ending = self.ended()
        if builder.has_large_input:
            await in_input_thread(builder.end_block)
        builder.feed(ending)

    async def _feed_one(self, builder: MessageBuilder, batch: Batch) -> None:
        taken = self.take(batch)
        if builder.has_large_input and builder.ends_block(taken):
            await in_input_thread(partial(builder.feed, taken))
        else:
            builder.feed(taken)

    # what the engine yields

    def take(self, batch: Batch) -> Batch:
        """The batch as the client gets it: without unwanted thinking, cut off at a stop sequence, counted.

        Sets `finish` when the answer ends in it. Nothing may be taken after that. What most engines yield most of the
        time is one delta that only has to be counted, alone or in a list; so that comes first.
        """
        if self.filters:
            return self._filtered(batch)
        kind: type = type(batch)
        one: Any = batch
        if kind is EncodedTexts:
            self.counted += len(one)
            return batch
        if kind is list and len(one) == 1:
            one = one[0]
            kind = type(one)
        if kind is str or (kind is ToolJson and type(one.fragment) is str):
            self.counted += 1
            return batch
        if kind is Thinking and type(one.text) is str:
            self.counted += 1
            self.thinking_counted += 1
            return batch
        for delta in deltas_of(batch):
            if type(delta) is str:
                self.counted += 1
                continue
            _check_text(delta)
            if self._note(delta):
                self.counted += 1
        if self.finish is not None:
            self._complete()
        return batch

    def ended(self) -> Batch:
        """The last batch, once the engine has returned and `finish` is not set.

        Raises BadUpstream for an engine that says by Finish, and only by Finish, that its answer is complete.
        """
        if not self._engine.returning_ends_turn:
            raise BadUpstream("the engine ended its response before the answer was complete", reason="ended_early")
        return self.take([Finish("end_turn")])

    def _filtered(self, batch: Batch) -> Batch:
        """Counts what the engine generated, also what the filters leave out; but nothing after a stop sequence."""
        if type(batch) is str:
            self.counted += 1
        else:
            deltas = deltas_of(batch)
            self._check(deltas)
            self.counted += _generated(deltas)
        if self._calls is not None:
            batch = self._repaired(batch, self._calls)
        if self._thinking is not None:
            self.thinking_counted += sum(1 for delta in deltas_of(batch) if isinstance(delta, Thinking))
            batch = self._thinking.feed(batch)
        if self._stops is not None:
            arrived = batch
            batch = self._stops.feed(batch)
            if type(batch) is str:
                return batch
            if self._stops.matched is not None:
                self._observe("repair", "stop_sequence")
                unread = self._stops.unread
                self.counted -= _generated(deltas_of(arrived)[-unread:]) if unread else 0
        for delta in deltas_of(batch):
            self._note(delta)
        if self.finish is not None:
            self._complete()
        return batch

    def _check(self, deltas: Deltas) -> None:
        """Raise InvalidDelta for an object that is not a delta, or a delta without a text."""
        if not _EXACT_TYPES.issuperset(map(type, deltas)):
            yielded: Any = deltas
            for thing in yielded:
                if not isinstance(thing, DELTA_TYPES):
                    self._refuse(thing)
        for delta in deltas:
            _check_text(delta)

    def _repaired(self, batch: Batch, calls: CallRepair) -> Batch:
        """The batch with repaired calls."""
        repaired = calls.feed(batch)
        for kind in calls.repairs.elements():
            self._observe("repair", kind)
        calls.repairs.clear()
        return repaired

    def _complete(self) -> None:
        """At the end: correct a stop reason that contradicts the content, and estimate counts that are missing."""
        assert self.finish is not None  # noqa: S101 - for the type checker
        reason: Any = self.finish.stop_reason
        if not isinstance(reason, str) or reason not in _STOP_REASONS:
            raise InvalidDelta(f"the stop reason of a Finish is one of {', '.join(get_args(StopReason))}")
        if not isinstance(self.finish.stop_sequence, str | None):
            raise InvalidDelta("the stop sequence of a Finish is None, or a text")
        self.finish = final_finish(self.finish, self._has_tool_use)
        if self.usage.input_tokens is None:
            self.usage.input_tokens = self._estimate()
        if self.usage.output_tokens is None:
            self.usage.output_tokens = self.counted

    def _note(self, delta: Delta) -> bool:
        """Keep what the end of the answer depends on. Whether the delta counts as a token."""
        match delta:
            case Usage():
                _check_counts(delta)
                merge_usage(self.usage, delta)
                if delta.input_tokens is not None:
                    self._estimate = _already_reported
                return False
            case MessageFields(content):
                self._merge(content)
                return False
            case str() | ToolJson():
                pass
            case Thinking():
                self.thinking_counted += 1
            case ToolStart(identity, name):
                if not isinstance(identity, str) or not isinstance(name, str) or not identity or not name:
                    raise InvalidDelta("a ToolStart needs an id and a name, both of type str and not empty")
                self._has_tool_use = True
            case Block(content):
                self._has_tool_use |= is_tool_use(content)
                return False
            case Finish():
                self.finish = delta
                if self._applied_edits is not None:
                    edits = {"context_management": {"applied_edits": self._applied_edits}}
                    delta.fields = {**edits, **(delta.fields or {})}
                return False
            case Signature() | Citation() | BlockStop() | ThinkingEstimate() | OtherDelta():
                return False
            case _:
                self._refuse(delta)
        return True

    def _merge(self, content: dict[str, Any]) -> None:
        """Add these fields of the Message, except for those that the service gives itself."""
        for name in self._given:
            content.pop(name, None)
        merge_fields(self.fields, content)

    def _refuse(self, thing: Never) -> NoReturn:
        """Raise InvalidDelta: the engine yielded an object that is not a Delta.

        The parameter is `Never`, so that mypy reports each class of `Delta` that the caller does not handle.
        """
        kind: type = type(thing)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        known = ", ".join(one.__name__ for one in DELTA_TYPES)
        raise InvalidDelta(
            f"the engine {self._engine_name()} yielded {name}, which is not a delta: yield {known}, or a list of these"
        )

    def _engine_name(self) -> str:
        return self._engine.describe() or type(self._engine).__name__

    def _with_final_finish(self, batch: Batch) -> Batch:
        if self.finish is None:
            return batch
        return [self.finish if isinstance(delta, Finish) else delta for delta in deltas_of(batch)]


def _check_text(delta: Delta) -> None:
    """Raise InvalidDelta for a delta of an engine in this process with a text or a citation of a wrong type."""
    text: Any = ""
    if isinstance(delta, Thinking):
        text = delta.text
    elif isinstance(delta, ToolJson):
        text = delta.fragment
    elif isinstance(delta, Signature):
        text = delta.value
    elif isinstance(delta, Citation) and not isinstance(delta.content, dict):
        raise InvalidDelta("a Citation needs a content of type dict")
    if not isinstance(text, str):
        kind = type(delta).__name__
        raise InvalidDelta(f"a {kind} needs a text of type str, and the engine gave {type(text).__name__}")


def _check_counts(usage: Usage) -> None:
    """Raise InvalidDelta for token counts of an engine in this process that are no numbers of tokens."""
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.thinking_tokens,
    )
    for count in counts:
        if count is not None and (type(count) is not int or not 0 <= count <= _LARGEST_COUNT):
            raise InvalidDelta("each count of a Usage is None, or an int from 0 to 2**64 - 1")


async def in_turns(batch: list[Delta]) -> AsyncGenerator[list[Delta], None]:
    """The deltas of a large batch in lists of at most `LARGE_BATCH`, each in its own turn of the event loop."""
    for start in range(0, len(batch), LARGE_BATCH):
        yield batch[start : start + LARGE_BATCH]
        await asyncio.sleep(0)


async def _continued(batch: list[Delta], batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    """`batch` in turns, and then `batches`."""
    async for piece in in_turns(batch):
        yield piece
    async for following in batches:
        yield following


async def in_input_thread(function: Callable[[], T]) -> T:
    """Call `function` in a thread, and return its result. Raises Overloaded if the system has no thread left."""
    try:
        done = asyncio.get_running_loop().run_in_executor(_pool, function)
    except RuntimeError as exc:
        raise no_thread() from exc
    return await done


def _already_reported() -> int:
    """The estimate of an answer whose engine has reported the prompt's length. It holds no request."""
    raise AssertionError("the prompt's length is known")


def _generated(deltas: Deltas) -> int:
    """How many of the deltas count as tokens."""
    return sum(1 for delta in deltas if isinstance(delta, str | Thinking | ToolStart | ToolJson))


def _thinking_filter(request: MessagesRequest, hide_thinking: bool) -> ThinkingFilter | None:
    thinking = request.thinking
    if thinking is None:
        return None
    if hide_thinking and thinking.type == "disabled":
        return ThinkingFilter(keep_signatures=False)
    return ThinkingFilter(keep_signatures=True) if thinking.display == "omitted" else None
