"""Deltas → what chat completions call them: the chunks of a stream, or one whole completion. Pure.

A chunk's frame is the same for all tokens of a stream, so a token is one `dumps` of its text between two constants.
"""

from collections.abc import Callable
from typing import Any, Final, assert_never

import orjson

from ..wire.deltas import (
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    Signature,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
    deltas_of,
)
from ..wire.errors import ApiError
from ..wire.json_codec import dumps

DONE: Final = b"data: [DONE]\n\n"
_REASONS: Final = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}
_FINGERPRINT: Final = "fp_anthro_asgi"  # of what made the answer; some SDKs insist on one
_TEXT: Final = "\x00"
_TYPES: Final = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "server_error",
}


def error_body(error: ApiError) -> bytes:
    """OpenAI's envelope. What an engine of ours calls overloaded is 503 there: see `status_of`."""
    status = status_of(error)
    kind = _TYPES.get(error.status, "invalid_request_error" if status < 500 else "server_error")
    said = {"message": error.message, "type": kind, "param": error.error_code, "code": status}
    return dumps({"error": said})


def status_of(error: ApiError) -> int:
    """The status that says the same in this tongue."""
    return 503 if error.status == 529 else error.status


class CompletionCounts:
    """What an answer costs, as it comes to be known. `tokens` and `thought` are counted here."""

    __slots__ = ("finish", "thought", "tokens", "usage")

    def __init__(self) -> None:
        self.tokens = 0
        self.thought = 0
        self.usage = Usage(input_tokens=0)
        self.finish: Finish | None = None

    def note(self, delta: Delta) -> bool:
        """Record `delta`. True if it is a token; False for counts, the end, and what chat completions cannot say."""
        match delta:
            case str() | ToolStart() | ToolJson():
                self.tokens += 1
                return True
            case Thinking():
                self.tokens += 1
                self.thought += 1
                return True
            case Usage():
                if delta.input_tokens is not None:
                    self.usage = delta
            case Finish():
                self.finish = delta
            case Signature() | Citation() | BlockStop() | Block():
                pass
            case _:
                assert_never(delta)
        return False

    def json(self) -> dict[str, Any]:
        """The `usage` of a completion."""
        cached = self.usage.cache_read_input_tokens
        prompt = (self.usage.input_tokens or 0) + (cached or 0)
        counts: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }
        if cached is not None:
            counts["prompt_tokens_details"] = {"cached_tokens": cached}
        if self.thought:
            counts["completion_tokens_details"] = {"reasoning_tokens": self.thought}
        return counts


def _reason(finish: Finish, called: bool) -> str:
    if called and finish.stop_reason != "max_tokens":
        return "tool_calls"
    return _REASONS.get(finish.stop_reason, "stop")


class ChunkEncoder:
    """One stream. `usage` is whether it ends with the counts."""

    def __init__(self, identity: str, model: str, created: int, *, usage: bool) -> None:
        self._head: dict[str, Any] = {
            "id": identity,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": _FINGERPRINT,
        }
        self._usage = usage
        self._calls = 0
        self.counted = CompletionCounts()
        self._text = self._frame("content")
        self._thought = self._frame("reasoning_content")

    def start(self) -> bytes:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def feed(self, batch: Batch) -> bytes:
        """The chunks of a batch."""
        if type(batch) is str:
            self.counted.tokens += 1
            return self._text(batch)
        return b"".join([self._encoded(delta) for delta in deltas_of(batch) if self.counted.note(delta)])

    def _encoded(self, delta: Delta) -> bytes:
        match delta:
            case str():
                return self._text(delta)
            case Thinking():
                return self._thought(delta.text)
            case ToolStart():
                self._calls += 1
                function = {"name": delta.name, "arguments": ""}
                return self._call({"id": delta.id, "type": "function", "function": function})
            case ToolJson():
                return self._call({"function": {"arguments": delta.fragment}})
            case Signature() | Citation() | BlockStop() | Block() | Usage() | Finish():
                return b""
            case _:
                assert_never(delta)

    def _call(self, said: dict[str, Any]) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls - 1, **said}]})

    def end(self) -> bytes:
        """All that comes after the last token, once `counted.finish` is there."""
        finish = self.counted.finish
        assert finish is not None  # noqa: S101 - for the type checker
        last = self._chunk({}, _reason(finish, self._calls > 0))
        if self._usage:
            last += _event({**self._head, "choices": [], "usage": self.counted.json()})
        return last + DONE

    def error(self, error: ApiError) -> bytes:
        """The end of a stream that has begun and fails."""
        return b"data: " + error_body(error) + b"\n\n" + DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return _event(self._with(delta, reason))

    def _with(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head, "choices": [choice], **({"usage": None} if self._usage else {})}

    def _frame(self, key: str) -> Callable[[str], bytes]:
        before, after = _event(self._with({key: _TEXT}, None)).rsplit(dumps(_TEXT), 1)

        def framed(text: str) -> bytes:
            try:
                return before + orjson.dumps(text) + after
            except TypeError:  # half a surrogate pair
                return before + dumps(text) + after

        return framed


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


class Completion:
    """One whole answer."""

    def __init__(self, identity: str, model: str, created: int) -> None:
        self._head: dict[str, Any] = {
            "id": identity,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "system_fingerprint": _FINGERPRINT,
        }
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[tuple[ToolStart, list[str]]] = []
        self.counted = CompletionCounts()

    def feed(self, batch: Batch) -> None:
        for delta in deltas_of(batch):
            self.counted.note(delta)
            match delta:
                case str():
                    self._texts.append(delta)
                case Thinking():
                    self._thoughts.append(delta.text)
                case ToolStart():
                    self._calls.append((delta, []))
                case ToolJson():
                    self._calls[-1][1].append(delta.fragment)
                case Signature() | Citation() | BlockStop() | Block() | Usage() | Finish():
                    pass
                case _:
                    assert_never(delta)

    def body(self) -> bytes:
        """The completion, once `counted.finish` is there."""
        finish = self.counted.finish
        assert finish is not None  # noqa: S101 - for the type checker
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts) or None}
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(pieces)}}
                for call, pieces in self._calls
            ]
        reason = _reason(finish, bool(self._calls))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return dumps({**self._head, "choices": [choice], "usage": self.counted.json()})
