"""An answer as a stream and as a whole Message, and the comparison of the two.

Deltas are filtered, encoded or collected as in `http.answer`. An error is a status before the first output, and an
`error` event after it. A share of the trials goes through the service itself.

Stream and Message must mean the same, with one exception: a stream has the input of a tool as the engine sent it, where
the Message has an object or leaves the call out (see `wire.tool_input`).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from anthro_asgi.conformance.grammar import Event, GrammarError, check_stream, message_from_events, parse_events
from anthro_asgi.upstream.sse import EventTooLarge
from anthro_asgi.wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from anthro_asgi.wire.deltas import Batch, Delta, Usage, deltas_of
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.errors import ApiError, BadUpstream
from anthro_asgi.wire.json_codec import dumps, is_shallow, replace_lone_surrogates
from anthro_asgi.wire.message import MessageBuilder
from anthro_asgi.wire.stop_sequences import StopSequenceFilter
from anthro_asgi.wire.thinking_filter import ThinkingFilter
from anthro_asgi.wire.tool_input import parse_tool_input
from tests.checks.fuzz.running import Breach

Json = dict[str, Any]
MESSAGE_ID = "msg_" + "x" * 24
REQUEST_ID = "req_1"
TOO_LARGE = b"the engine's answer is too large"


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a client."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked for. `sealed`: how thinking is hidden; None if it is shown."""

    stops: tuple[str, ...] = ()
    sealed: bool | None = None


class _Passing:
    """The deltas that the client must get."""

    def __init__(self, wish: Wish) -> None:
        self._stops = StopSequenceFilter(wish.stops) if wish.stops else None
        self._thoughts = None if wish.sealed is None else ThinkingFilter(keep_signatures=wish.sealed)
        self.counted = 0

    def __call__(self, batch: Batch) -> Batch:
        self.counted += len(deltas_of(batch))
        if self._thoughts is not None:
            batch = self._thoughts.feed(batch)
        return batch if self._stops is None else self._stops.feed(batch)


def new_ids() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"toolu_{next(numbers)}"


def streamed(said: Iterable[Batch], wish: Wish) -> Answer:
    encoder = StreamEncoder(MESSAGE_ID, "m", lambda: 7)
    out: list[bytes] = []
    try:
        out += _stream(said, wish, encoder, out)
    except ApiError as exc:
        if not out:
            return Answer(exc.status, exc.body(REQUEST_ID))
        out.append(encoder.error(exc, REQUEST_ID))
    return Answer(200, b"".join(out))


def _stream(said: Iterable[Batch], wish: Wish, encoder: StreamEncoder, out: list[bytes]) -> list[bytes]:
    """Appends the output to `out`; returns what ended it."""
    passing = _Passing(wish)
    for batch in map(passing, said):
        if not out and not _opens(batch, encoder):
            continue
        if not out:
            out.append(encoder.start())
        out.append(encoder.feed(batch))
        if encoder.finish is not None:
            return [encoder.end(passing.counted)]
    raise BadUpstream("the engine ended its response before the answer was complete")


def _opens(batch: Batch, encoder: StreamEncoder) -> bool:
    opens = False
    for delta in deltas_of(batch):
        if isinstance(delta, Usage) or delta == "":
            encoder.feed(delta)
        else:
            opens = True
    return opens


def whole(said: Iterable[Batch], wish: Wish, limits: AnswerLimits = DEFAULT_LIMITS) -> Answer:
    builder = MessageBuilder(MESSAGE_ID, "m", lambda: 7, limits=limits)
    passing = _Passing(wish)
    try:
        for batch in map(passing, said):
            builder.feed(batch)
            if builder.finish is not None:
                return Answer(200, dumps(builder.message(passing.counted)))
        raise BadUpstream("the engine ended its response before the answer was complete")
    except ApiError as exc:
        return Answer(exc.status, exc.body(REQUEST_ID))


def deltas(said: Iterable[Batch]) -> tuple[list[Delta], str]:
    """All output, and how it ended."""
    out: list[Delta] = []
    try:
        for batch in said:
            out += deltas_of(batch)
    except (ApiError, EventTooLarge) as exc:
        return out, f"{type(exc).__name__}: {exc}"
    return out, "complete"


# rules


def judge(stream: Answer, message: Answer, *, counts: bool) -> str:
    """The outcome in a word. With `counts` the token counts must be equal too. Raises Breach, GrammarError."""
    told = _told(message)
    if TOO_LARGE in stream.body or TOO_LARGE in message.body:  # only the Message is bounded, or only in some reads
        if stream.status == 200:
            _meant(parse_events(stream.body))
        return "too large"
    if stream.status != 200:
        if (stream.status, _error(stream)) != (message.status, _error(message)):
            raise Breach(f"refused streaming as it is otherwise\n{stream}\n{message}")
        return f"refused: {told['error']['type']}"
    events = parse_events(stream.body)
    meant, as_sent = _meant(events)
    if meant is None:
        if message.status == 200 or events[-1].data["error"] != told["error"]:
            raise Breach(f"an error in the stream is one otherwise\n{events[-1].data}\n{message}")
        return f"broken off: {told['error']['type']}"
    if message.status != 200:
        raise Breach(f"a complete stream is no error otherwise\n{meant}\n{message}")
    for one in (meant, told):
        _must_have_own_ids(one)
    expected = _repaired(meant, told)
    if _shown(expected, counts) != _shown(told, counts):
        raise Breach(f"a stream means the Message\n{expected}\n{told}")
    return f"complete{', with input as sent' if as_sent else ''}"


def _told(answer: Answer) -> Json:
    told: Json = json.loads(answer.body)  # reads large integers exactly
    if answer.status != 200 and "internal error" in told["error"]["message"]:
        raise Breach(f"nothing but errors for clients is raised\n{told}")
    return told


def _error(answer: Answer) -> object:
    return _told(answer)["error"]


def _meant(events: list[Event]) -> tuple[Json | None, bool]:
    """The Message, or None after an error; and whether some tool input is invalid JSON and was sent as it came."""
    try:
        check_stream(events)
        return (None if events[-1].type == "error" else message_from_events(events)), False
    except GrammarError as exc:
        if exc.rule != "the pieces of a tool's input are not a JSON object":
            raise
    # The grammar allows this in an answer that ran out of tokens; everything else must keep the rules.
    ending = events[-2].data
    out_of_tokens = {**ending["delta"], "stop_reason": "max_tokens", "stop_sequence": None}
    message = message_from_events(
        [*events[:-2], Event("message_delta", {**ending, "delta": out_of_tokens}), events[-1]]
    )
    return message | ending["delta"], True


def _must_have_own_ids(message: Json) -> None:
    ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    if len(ids) != len(set(ids)):
        raise Breach(f"each call has an id of its own\n{ids}")


def _mended(value: Any) -> Any:
    """With U+FFFD for lone surrogates, as this service reads them. A stream has the escape as it was written."""
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, dict):
        return {replace_lone_surrogates(key): _mended(inner) for key, inner in value.items()}
    return [_mended(inner) for inner in value] if isinstance(value, list) else value


def _repaired(message: Json, told: Json) -> Json:
    """The message, with the input of each call as in the Message `told`, which leaves out invalid calls."""
    content = []
    for block in message["content"]:
        if block["type"] == "tool_use" and type(block["input"]) is str:
            given = parse_tool_input(block["input"])
            if given is None:
                continue
            block = {**block, "input": given}
        elif block["type"] == "tool_use":
            if not is_shallow(block["input"]):
                continue
            block = {**block, "input": _mended(block["input"])}
        content.append(block)
    if not content and told["content"] == [{"type": "text", "text": ""}]:  # text before a call that is left out
        content = told["content"]
    ending = message
    if message["stop_reason"] == "tool_use" and all(block["type"] != "tool_use" for block in content):
        ending = told  # the end without that call
    return {**message, "content": content, **{key: ending[key] for key in ("stop_reason", "stop_sequence")}}


def _shown(message: Json, counts: bool) -> Iterator[Any] | list[Any]:
    hidden = ("id", "model") if counts else ("id", "model", "usage")
    shown = {**message, "usage": sorted(message["usage"].items())}  # a stream may report its fields in another order
    return [(key, repr(value)) for key, value in sorted(shown.items()) if key not in hidden]
