"""The chunks of a chat stream as vLLM and llama.cpp write them, and the script of one stream.

Within a stream only the time stamp, the token counts and the size of the HTTP chunk change, so a token costs one
formatting of bytes. `tests/bench` compares the chunks with recordings of the real engines.
"""

from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Final

import orjson


@dataclass(frozen=True, slots=True)
class Style:
    """`%` templates with the fields `id`, `created`, `model`; `usage` and `final` are empty, or further members.

    `call` has the members of the delta in which a tool call begins, and `arguments` those of a piece of its arguments,
    up to the quote before the piece.
    """

    name: str
    owned_by: str
    server: str  # the `server` header
    id_form: str
    role: str
    content_head: str
    content_tail: str
    call: str
    arguments: str
    finish: str
    usage_chunk: str
    final: str  # members of the last chunk
    usage: str  # an object with the fields `prompt`, `completion` and `total`
    every_chunk: bool = True  # the engine can send the usage in every chunk


_VLLM: Final = '{"id":"%(id)s","object":"chat.completion.chunk","created":%(created)d,"model":"%(model)s","choices":'
VLLM: Final = Style(
    "vllm",
    owned_by="vllm",
    server="uvicorn",
    id_form="chatcmpl-%016x",
    role=f'{_VLLM}[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]'
    '%(usage)s,"prompt_token_ids":null,"prompt_text":null}',
    content_head=f'{_VLLM}[{{"index":0,"delta":{{"content":"',
    content_tail='"},"logprobs":null,"finish_reason":null,"token_ids":null}]%(usage)s}',
    call='"content":null,"tool_calls":[{"id":"chatcmpl-tool-985f657730af7f6f","type":"function","index":0,'
    '"function":{"name":"write"}}]',
    arguments='"content":null,"tool_calls":[{"index":0,"function":{"arguments":"',
    finish=f'{_VLLM}[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop","stop_reason":null,'
    '"token_ids":null}]%(usage)s%(final)s}',
    usage_chunk=f"{_VLLM}[]%(usage)s%(final)s}}",
    final=',"system_fingerprint":"vllm-0.32.0-dcaafb6d"',
    usage='{"prompt_tokens":%(prompt)d,"total_tokens":%(total)d,"completion_tokens":%(completion)d,'
    '"completion_tokens_details":{"reasoning_tokens":0}}',
)

_LLAMA: Final = (
    '"created":%(created)d,"id":"%(id)s","model":"%(model)s","system_fingerprint":"b0-unknown",'
    '"object":"chat.completion.chunk"'
)
LLAMACPP: Final = Style(
    "llamacpp",
    owned_by="llamacpp",
    server="llama.cpp",
    id_form="chatcmpl-%032x",
    role='{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],' + _LLAMA + "}",
    content_head='{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"',
    content_tail=f'"}}}}],{_LLAMA}}}',
    call='"tool_calls":[{"index":0,"id":"XCNZO10XHBV9W6ON52I3svT2S4ma748l","type":"function",'
    '"function":{"name":"write","arguments":"{"}}]',
    arguments='"tool_calls":[{"index":0,"function":{"arguments":"',
    finish='{"choices":[{"finish_reason":"stop","index":0,"delta":{}}],' + _LLAMA + "%(final)s}",
    usage_chunk='{"choices":[],' + _LLAMA + "%(usage)s%(final)s}",
    final=',"timings":{"cache_n":0,"prompt_n":%(prompt)d,"prompt_ms":0.325,"prompt_per_token_ms":0.325,'
    '"prompt_per_second":3076.9230769230767,"predicted_n":%(completion)d,"predicted_ms":1.765,'
    '"predicted_per_token_ms":0.1961111111111111,"predicted_per_second":5099.15014164306}',
    usage='{"completion_tokens":%(completion)d,"prompt_tokens":%(prompt)d,"total_tokens":%(total)d,'
    '"prompt_tokens_details":{"cached_tokens":0}}',
    every_chunk=False,
)

STYLES: Final = {style.name: style for style in (VLLM, LLAMACPP)}

_LINE: Final = (b"data: ", b"\n\n")
_ROOM: Final = "\x00"  # placeholder for the space and the digits of a stamp; JSON text contains no such byte
_CHUNK_END: Final = b"\r\n"
_CONTENT: Final = '"content":"'  # at the end of `content_head`
_BEFORE: Final = '{"a":"'  # the arguments of a call, but for the tokens
_AFTER: Final = '"}'


class Script:
    """The bytes of one stream: in HTTP chunks, or `bare` where the body ends with the connection.

    Its tokens are a text or, with `calls`, a string in the arguments of a tool call.
    """

    __slots__ = (
        *("_bare", "_calls", "_every", "_head", "_limit", "_names", "_piece", "_prompt", "_style", "_tail", "tokens"),
    )

    def __init__(
        self, style: Style, names: dict[str, Any], prompt: int, every_chunk: bool, bare: bool, *, calls: bool = False
    ) -> None:
        self._style = style
        self._calls = calls
        self._piece = (style.content_head, style.content_tail)
        if calls:
            head = style.content_head.removesuffix(_CONTENT) + style.arguments
            self._piece = (head, '"}}]' + style.content_tail.removeprefix('"'))
        self._names = names
        self._prompt = prompt
        self._every = every_chunk and style.every_chunk
        self._bare = bare
        self._limit = 0
        self._head = self._tail = b""
        self.tokens = 0

    def opening(self) -> bytes:
        """The role chunk, and those with which a call begins."""
        role = self._event(self._style.role)
        if not self._calls:
            return role
        call = self._style.content_head.removesuffix(_CONTENT) + self._style.call
        call += self._style.content_tail.removeprefix('"')
        begun = "{" if self._style.call.endswith('"{"}}]') else ""
        return role + self._event(call) + self._arguments(_BEFORE.removeprefix(begun))

    def token(self) -> bytes:
        """The next content chunk, with the current time as its text."""
        now = monotonic_ns()
        self.tokens += 1
        if now >= self._limit or self._every:
            self._fit(now)
        return b"%b %d%b" % (self._head, now, self._tail)

    def ending(self, usage: bool) -> bytes:
        """Everything after the last token, including the end of the body."""
        finish = self._style.finish
        events = b""
        if self._calls:
            finish = finish.replace('"finish_reason":"stop"', '"finish_reason":"tool_calls"')
            events = self._arguments(_AFTER)
        events += self._event(finish, final=not usage)
        if usage:
            events += self._event(self._style.usage_chunk, usage=True, final=True)
        return events + self._framed(b"[DONE]") + (b"" if self._bare else b"0\r\n\r\n")

    def _fit(self, now: int) -> None:
        # the size of the HTTP chunk depends on the number of digits of the stamp, and on the usage
        fields = self._fields(self._every)
        digits = len(str(now))
        head, tail = (part % fields for part in self._piece)
        whole = self._framed((head + _ROOM * (digits + 1) + tail).encode())
        self._head, self._tail = whole.split(_ROOM.encode() * (digits + 1))
        self._limit = 10**digits

    def _arguments(self, text: str) -> bytes:
        head, tail = self._piece
        return self._event(head + orjson.dumps(text).decode()[1:-1] + tail)

    def _event(self, template: str, usage: bool = False, final: bool = False) -> bytes:
        return self._framed((template % self._fields(usage or self._every, final)).encode())

    def _fields(self, usage: bool, final: bool = False) -> dict[str, Any]:
        counts = {"prompt": self._prompt, "completion": self.tokens, "total": self._prompt + self.tokens}
        member = ',"usage":' + self._style.usage % counts if usage else ""
        return {**self._names, **counts, "usage": member, "final": self._style.final % counts if final else ""}

    def _framed(self, data: bytes) -> bytes:
        event = data.join(_LINE)
        return event if self._bare else b"%x\r\n" % len(event) + event + _CHUNK_END


def names_of(style: Style, model: str, serial: int, created: int) -> dict[str, Any]:
    """The constant fields of the chunks of stream number `serial`. `created` is in seconds since the epoch."""
    # the templates have the quotes around the model name
    quoted = orjson.dumps(model)[1:-1].decode()
    return {"id": style.id_form % serial, "created": created, "model": quoted}


def models(style: Style, model: str, created: int) -> bytes:
    """The answer to `GET /v1/models`: one model, owned by the style's engine."""
    entry = {"id": model, "object": "model", "created": created, "owned_by": style.owned_by, "max_model_len": 131072}
    return orjson.dumps({"object": "list", "data": [entry]})


def whole_answer(style: Style, names: dict[str, Any], prompt: int, tokens: int) -> bytes:
    """The answer to a request that does not stream."""
    now = monotonic_ns()
    text = "".join(f" {now + number}" for number in range(tokens))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
    counts = {"prompt": prompt, "completion": tokens, "total": prompt + tokens}
    return orjson.dumps(
        {
            "id": names["id"],
            "object": "chat.completion",
            "created": names["created"],
            "model": orjson.loads(f'"{names["model"]}"'),
            "choices": [choice],
            "usage": orjson.loads(style.usage % counts),
        }
    )
