"""Counts the chunks of a streamed answer as its bytes arrive, at a fraction of the cost of parsing them. Pure.

A chunk is a content delta that is not empty: of text, thinking or tool input in the Messages API; of content, reasoning
or tool arguments in chat completions. A server decides how many tokens it puts into a chunk. The token counts of the
prompt and the answer are those of the server's `usage`.

Theory: within one content block all events are equal except for the text. They have a prefix that ends with the quote
before the text and a suffix that starts with the quote after it. The first event is parsed as JSON, and this frame is
learned; it is checked by parsing it with another text. An event is then counted without parsing when it has the prefix,
when the next quote is not escaped and starts the suffix, and when the text is not empty. In chat the suffix ends with
the first `]` after the text, which closes `choices` or a list inside it. What follows, such as the usage, may vary; it
is assumed to hold no further content. Every other event is parsed, and its frame is learned. So the count is the
parser's count, whatever the order of keys, the white space or the boundaries of the reads.
"""

from typing import Any, Final, Literal

import orjson

Api = Literal["messages", "chat"]
PATHS: Final[dict[Api, str]] = {"messages": "/v1/messages", "chat": "/v1/chat/completions"}

_KEYS: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_INPUT: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_SHORT: Final = 200  # characters of an error
_PROBE: Final = "x9Q"
_LESSONS: Final = 64  # frames that are learned per stream; a stream whose frames never repeat is only parsed
_BACKSLASH: Final = 92
_NEVER: Final = b"\n"  # no event starts with it


class Counter:
    """Counts one answer.

    `total` is the number of chunks. `input_tokens` and `output_tokens` are those of the last `usage`, or None. `ended`
    is set by the API's last event. `error` is the kind of failure in the stream, `message` what the server said of it.

    `stamps` holds the texts of the last `feed`, if the first token of all was digits after a space; else None.
    """

    __slots__ = (
        "_api",
        "_held",
        "_lessons",
        "_open",
        "_prefix",
        "_suffix",
        "_tail",
        "ended",
        "error",
        "input_tokens",
        "message",
        "output_tokens",
        "stamps",
        "total",
    )

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tail = b""
        self._held = False  # a carriage return that may be half a line end
        self._prefix = _NEVER
        self._suffix = b""
        self._open = False  # other bytes may follow the suffix
        self._lessons = _LESSONS
        self.ended = False
        self.error: str | None = None
        self.message = ""
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.stamps: list[bytes] | None = None
        self.total = 0

    def feed(self, data: bytes) -> int:
        """Takes the next bytes of the body; returns the number of chunks that they complete."""
        if b"\r" in data or self._held:
            data = self._plain(data)
        if self._tail:
            data = self._tail + data
        events = data.split(b"\n\n")
        self._tail = events.pop()
        stamps = self.stamps
        if stamps:
            stamps.clear()
        before = self.total
        prefix, suffix = self._prefix, self._suffix
        size, least = len(prefix), len(suffix)
        for event in events:
            end = event.find(b'"', size)
            if (
                end > size
                and event.startswith(prefix)
                and event.startswith(suffix, end)
                and event[end - 1] != _BACKSLASH
                and (self._open or len(event) == end + least)
            ):
                self.total += 1
                if stamps is not None:
                    stamps.append(event[size:end])
            else:
                self._parse(event)
                prefix, suffix, stamps = self._prefix, self._suffix, self.stamps
                size, least = len(prefix), len(suffix)
        return self.total - before

    def _plain(self, data: bytes) -> bytes:
        # SSE lines end with LF, CRLF or CR; JSON contains none of them unescaped
        if self._held:
            data = b"\r" + data
        self._held = data.endswith(b"\r")
        if self._held:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    # ---- parsing

    def _parse(self, event: bytes) -> None:
        name, payload = _fields(event)
        if not payload:
            return
        if payload == b"[DONE]":
            self.ended = self.ended or self._api == "chat"
            return
        try:
            value = orjson.loads(payload)
            texts = self._messages(value, name) if self._api == "messages" else self._chat(value)
        except (ValueError, TypeError, AttributeError, KeyError):
            if self.error is None:
                self.error = "garbled"
                self.message = f"an event that is not one of the API: {payload[:80].decode(errors='replace')}"
            return
        if not texts:
            return
        if not self.total and _is_stamp(texts[0]):
            self.stamps = []
        self.total += len(texts)
        if self.stamps is not None:
            self.stamps.extend(text.encode() for text in texts)
        if len(texts) == 1 and self._lessons:
            self._learn(event, texts[0])

    def _messages(self, value: Any, name: bytes) -> list[str]:
        kind = value.get("type")
        if kind == "content_block_delta":
            delta = value["delta"]
            return _filled(delta.get(_KEYS.get(delta["type"], "")))
        if kind == "message_stop":
            self.ended = True
        elif kind in ("message_start", "message_delta"):
            self._use(value if kind == "message_delta" else value.get("message") or {})
        elif kind == "error" or name == b"error":
            self._fail(value)
        return []

    def _chat(self, value: Any) -> list[str]:
        if value.get("error"):
            self._fail(value)
        self._use(value)
        texts: list[str] = []
        for choice in value.get("choices") or ():
            delta = choice.get("delta") or {}
            texts += _filled(delta.get("content"))
            texts += _filled(delta.get("reasoning_content") or delta.get("reasoning"))
            for call in delta.get("tool_calls") or ():
                texts += _filled((call.get("function") or {}).get("arguments"))
        return texts

    def _fail(self, value: Any) -> None:
        self.error = self.error or "error event"
        self.message = self.message or error_message(value)

    def _use(self, value: Any) -> None:
        given, made = used(value.get("usage"))
        self.input_tokens = self.input_tokens if given is None else given
        self.output_tokens = self.output_tokens if made is None else made

    # ---- learning

    def _learn(self, event: bytes, text: str) -> None:
        quoted = f'"{text}"'.encode()
        at = event.find(quoted)
        if at < 0:
            return  # the text is escaped
        self._lessons -= 1
        prefix, rest = event[: at + 1], event[at + len(quoted) - 1 :]
        if self._read(prefix + _PROBE.encode() + rest) != [_PROBE]:
            return  # the text also occurs elsewhere in the event
        bracket = rest.find(b"]")
        self._open = self._api == "chat" and bracket >= 0
        self._prefix, self._suffix = prefix, rest[: bracket + 1] if self._open else rest

    def _read(self, event: bytes) -> list[str]:
        try:
            value = orjson.loads(_fields(event)[1])
        except ValueError:
            return []
        return self._messages(value, b"") if self._api == "messages" else self._chat(value)


def whole(body: bytes) -> tuple[int | None, int]:
    """The tokens of the prompt, and of an answer that was not streamed. Raises ValueError without a usage."""
    value = orjson.loads(body)
    given, made = used(value.get("usage") if isinstance(value, dict) else None)
    if made is None:
        raise ValueError("an answer without usage")
    return given, made


def used(usage: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt, cached ones included, and of the answer, as either API says; None for what is not said."""
    if not isinstance(usage, dict):
        return None, None
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        return _number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens"))
    given = [_number(usage.get(name)) for name in _INPUT]
    return (None if given[0] is None else sum(part or 0 for part in given)), _number(usage.get("output_tokens"))


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def error_message(value: Any) -> str:
    """What an error of either API says, in short."""
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        error = error.get("message") or error
    text = error if isinstance(error, str) else orjson.dumps(error).decode()
    return " ".join(text.split())[:_SHORT]


def answer_text(api: Api, body: bytes, *, stream: bool) -> str:
    """The text of an answer, without thinking and tool calls. Raises ValueError and TypeError for an invalid one."""
    if not stream:
        value = orjson.loads(body)
        if api == "chat":
            return str(value["choices"][0]["message"].get("content") or "")
        return "".join(block["text"] for block in value["content"] if block["type"] == "text")
    texts = []
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        payload = _fields(event)[1]
        if payload and payload != b"[DONE]":
            value = orjson.loads(payload)
            if api == "chat":
                texts += [(choice.get("delta") or {}).get("content") or "" for choice in value.get("choices") or ()]
            elif value.get("type") == "content_block_delta":
                texts.append(value["delta"].get("text", ""))
    return "".join(texts)


def _fields(event: bytes) -> tuple[bytes, bytes]:
    """An event's name and its data."""
    name, data = b"", []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return name, b"\n".join(data)


def _filled(text: Any) -> list[str]:
    if text is None or text == "":
        return []
    if not isinstance(text, str):
        raise TypeError("a delta that is not text")
    return [text]


def _is_stamp(text: str) -> bool:
    return text[:1] == " " and text[1:].isdecimal()
