"""Encodes an answer for chat completions: deltas as the chunks of a stream, or a Message as one completion. Pure.

The frame of a chunk is the same for all tokens of a stream. So a token costs one `dumps` of its text, between two
constants.
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
from ..wire.errors import ApiError
from ..wire.json_codec import dumps

DONE: Final = b"data: [DONE]\n\n"
_REASONS: Final = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}
_FINGERPRINT: Final = "fp_anthro_asgi"  # of the model and its settings; some SDKs require one
_TEXT: Final = "\x00"
_TYPES: Final = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "server_error",
}


def error_body(error: ApiError) -> bytes:
    """The error as a JSON body in OpenAI's format."""
    status = status_of(error)
    kind = _TYPES.get(error.status, "invalid_request_error" if status < 500 else "server_error")
    fields = {"message": error.message, "type": kind, "param": error.error_code, "code": status}
    return dumps({"error": fields})


def status_of(error: ApiError) -> int:
    """The HTTP status for chat completions, which know no 529."""
    return 503 if error.status == 529 else error.status


def _usage_json(prompt: int, cached: int | None, output: int, thinking: int) -> dict[str, Any]:
    """The `usage` of a completion, in tokens. `prompt` is without the `cached` ones, which OpenAI includes."""
    prompt += cached or 0
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }
    if cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    if thinking:
        counts["completion_tokens_details"] = {"reasoning_tokens": thinking}
    return counts


def _finish_reason(stop_reason: str) -> str:
    return _REASONS.get(stop_reason, "stop")


class ChunkEncoder:
    """One stream. `usage` tells whether it ends with the token counts. Methods return the bytes to send."""

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
        self.text = self._frame("content")
        self._thinking = self._frame("reasoning_content")
        self.ended = False

    def start(self) -> bytes:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def feed(self, batch: Batch) -> bytes:
        """The chunks of a batch, b"" where it has nothing that this API can express."""
        return b"".join([self._encoded(delta) for delta in deltas_of(batch)])

    def _encoded(self, delta: Delta) -> bytes:
        match delta:
            case str():
                return self.text(delta)
            case Thinking():
                return self._thinking(delta.text)
            case ToolStart():
                self._calls += 1
                function = {"name": delta.name, "arguments": ""}
                return self._call({"id": delta.id, "type": "function", "function": function})
            case ToolJson():
                return self._call({"function": {"arguments": delta.fragment}})
            case Signature() | Citation() | BlockStop() | Block() | ThinkingEstimate() | OtherDelta() | MessageFields():
                return b""  # there is nothing like it in this API
            case Usage() | Finish():
                return b""  # `end` reports it
            case _:
                assert_never(delta)

    def _call(self, fields: dict[str, Any]) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls - 1, **fields}]})

    def end(self, finish: Finish, usage: Usage, thinking: int) -> bytes:
        """Everything after the last token. `usage` is complete; `thinking` tokens of the output are reasoning."""
        self.ended = True
        last = self._chunk({}, _finish_reason(finish.stop_reason))
        if self._usage:
            counts = _usage_json(
                usage.uncached_input_tokens or 0, usage.cache_read_input_tokens, usage.output_tokens or 0, thinking
            )
            last += _event({**self._head, "choices": [], "usage": counts})
        return last + DONE

    def error(self, error: ApiError) -> bytes:
        """The end of a stream that fails after it has begun."""
        self.ended = True
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
            except TypeError:  # a lone surrogate, which orjson rejects
                return before + dumps(text) + after

        return framed


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def completion_body(message: dict[str, Any], identity: str, created: int, thinking: int) -> bytes:
    """A whole completion that says what `message` says, a Message of the Messages API.

    `created` in Unix seconds; `thinking` tokens of the output are reasoning.
    """
    blocks = message["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    reasoning = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": dumps(block["input"]).decode()},
        }
        for block in blocks
        if block["type"] == "tool_use"
    ]
    said: dict[str, Any] = {"role": "assistant", "content": text or None}
    if reasoning:
        said["reasoning_content"] = reasoning
    if calls:
        said["tool_calls"] = calls
    usage = message["usage"]
    return dumps(
        {
            "id": identity,
            "object": "chat.completion",
            "created": created,
            "model": message["model"],
            "system_fingerprint": _FINGERPRINT,
            "choices": [
                {
                    "index": 0,
                    "message": said,
                    "logprobs": None,
                    "finish_reason": _finish_reason(message["stop_reason"]),
                }
            ],
            "usage": _usage_json(
                usage["input_tokens"] + usage.get("cache_creation_input_tokens", 0),
                usage.get("cache_read_input_tokens"),
                usage["output_tokens"],
                thinking,
            ),
        }
    )
