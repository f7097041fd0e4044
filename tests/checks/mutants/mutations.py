"""The mutants: each is one fault of a Messages server, and the words of a check that has to find it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Fields = dict[str, str]


@dataclass(slots=True)
class Response:
    """A whole response that a mutant may change."""

    path: str
    status: int
    headers: Fields
    body: bytes
    cut: bool = False  # the connection is to end inside the body

    @property
    def streams(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault. `found_by`: words of the name of a check that has to fail."""

    name: str
    found_by: str
    response: Callable[[Response], None] = lambda response: None
    request: Callable[[Json], None] = lambda body: None


def _whole(change: Callable[[Json], object]) -> Callable[[Response], None]:
    """Change whole messages."""

    def apply(response: Response) -> None:
        if response.status == 200 and response.path.endswith("/messages") and not response.streams:
            _edit(response, change)

    return apply


def _refusal(change: Callable[[Json], object]) -> Callable[[Response], None]:
    """Change error envelopes."""

    def apply(response: Response) -> None:
        if response.status >= 400:
            _edit(response, change)

    return apply


def _at(ending: str, change: Callable[[Json], object]) -> Callable[[Response], None]:
    """Change good answers of the paths with this ending."""

    def apply(response: Response) -> None:
        if response.status == 200 and response.path.endswith(ending):
            _edit(response, change)

    return apply


def _edit(response: Response, change: Callable[[Json], object]) -> None:
    value = json.loads(response.body)
    changed = change(value)
    response.body = json.dumps(changed if isinstance(changed, dict) else value).encode()


def _stream(change: Callable[[bytes], bytes]) -> Callable[[Response], None]:
    """Change the bytes of streams."""

    def apply(response: Response) -> None:
        if response.streams:
            response.body = change(response.body)

    return apply


def _event(kind: str, change: Callable[[Json], object]) -> Callable[[Response], None]:
    """Change the data of one type of events."""

    def edit(match: re.Match[bytes]) -> bytes:
        data = json.loads(match[1])
        change(data)
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps(data).encode())

    return _stream(lambda body: re.sub(rb"event: %b\ndata: (.*)\n\n" % kind.encode(), edit, body))


def _without(kind: bytes) -> Callable[[Response], None]:
    """Drop the events of a type."""
    return _stream(lambda body: re.sub(rb"event: %b\ndata: .*\n\n" % kind, b"", body))


def _header(name: str, value: str | None, streams: bool | None = None) -> Callable[[Response], None]:
    """Set a header, or drop it."""

    def apply(response: Response) -> None:
        if streams is None or response.streams == streams:
            response.headers.pop(name, None)
            if value is not None:
                response.headers[name] = value

    return apply


def _status(of: range, to: int) -> Callable[[Response], None]:
    def apply(response: Response) -> None:
        if response.status in of:
            response.status = to

    return apply


def _cut(streams: bool) -> Callable[[Response], None]:
    def apply(response: Response) -> None:
        response.cut = response.cut or (response.status == 200 and response.streams == streams)

    return apply


def _flat(envelope: Json) -> Json:
    return {"error": envelope["error"]["message"]} if "error" in envelope else envelope


def _page(response: Response) -> None:
    if response.status >= 400:
        response.headers["content-type"], response.body = "text/html", b"<h1>Bad Request</h1>"


def _calls(message: Json, **changes: Any) -> None:
    for block in message["content"]:
        if block["type"] == "tool_use":
            block |= changes


def _each_block(message: Json, change: Callable[[Json], object]) -> None:
    for block in message["content"]:
        change(block)


def _texts(change: Callable[[str], str]) -> Callable[[Response], None]:
    """Change the pieces of text in streams."""

    def edit(data: Json) -> None:
        if data["delta"].get("type") == "text_delta":
            data["delta"]["text"] = change(data["delta"]["text"])

    return _event("content_block_delta", edit)


def _ends(message: Json, reason: str) -> None:
    if message["stop_reason"] == "tool_use":
        message["stop_reason"] = reason


def _clear(*names: str) -> Callable[[Json], None]:
    """Take fields out of a request: a server that ignores them."""

    def apply(body: Json) -> None:
        for name in names:
            body.pop(name, None)

    return apply


ALL = [
    # whole messages
    Mutant("a message is called completion", "answered with a message", _whole(lambda m: m.update(type="completion"))),
    Mutant("a message has no role", "answered with a message", _whole(lambda m: m.pop("role"))),
    Mutant("each message has the same id", "two messages have two ids", _whole(lambda m: m.update(id="msg_1"))),
    Mutant("a message has no id", "answered with a message", _whole(lambda m: m.pop("id"))),
    Mutant("ids are of another kind", "begins with msg", _whole(lambda m: m.update(id=m["id"][4:]))),
    Mutant("a message names no model", "names a model", _whole(lambda m: m.pop("model"))),
    Mutant("stop_reason is null", "answered with a message", _whole(lambda m: m.update(stop_reason=None))),
    Mutant("stop_reason is stop", "answered with a message", _whole(lambda m: m.update(stop_reason="stop"))),
    Mutant("stop_sequence is missing", "answered with a message", _whole(lambda m: m.pop("stop_sequence"))),
    Mutant("content is a text", "answered with a message", _whole(lambda m: m.update(content="hello"))),
    Mutant("content is empty", "answered with a message", _whole(lambda m: m.update(content=[]))),
    Mutant("a block has no type", "answered with a message", _whole(lambda m: _each_block(m, lambda b: b.pop("type")))),
    Mutant(
        "a text is null", "answered with a message", _whole(lambda m: _each_block(m, lambda b: b.update(text=None)))
    ),
    Mutant("usage is missing", "answered with a message", _whole(lambda m: m.pop("usage"))),
    Mutant("no output is counted", "counts its tokens", _whole(lambda m: m["usage"].update(output_tokens=0))),
    Mutant("input_tokens is a text", "counts its tokens", _whole(lambda m: m["usage"].update(input_tokens="9"))),
    Mutant(
        "the prompt costs always the same",
        "longer prompt has more",
        _whole(lambda m: m["usage"].update(input_tokens=9)),
    ),
    Mutant("a message is text/plain", "answered with a message", _header("content-type", "text/plain", streams=False)),
    Mutant("a message is cut", "answered with a message", _cut(streams=False)),
    Mutant("the stop sequence is not named", "matched stop sequence", _whole(lambda m: m.update(stop_sequence=None))),
    Mutant("max_tokens is end_turn", "ends at max tokens", _whole(lambda m: m.update(stop_reason="end_turn"))),
    # tools
    Mutant("a call has no id", "has an id and an input", _whole(lambda m: _calls(m, id=""))),
    Mutant("the input is a text", "has an id and an input", _whole(lambda m: _calls(m, input="{}"))),
    Mutant("a call has another name", "a forced tool is called", _whole(lambda m: _calls(m, name="x"))),
    Mutant("a call ends with end_turn", "a call ends with", _whole(lambda m: _ends(m, "end_turn"))),
    Mutant("ids of calls have spaces", "letters digits and dashes", _whole(lambda m: _calls(m, id="call 1"))),
    # errors
    Mutant("errors are 200", "without model", _status(range(400, 600), 200)),
    Mutant("errors are 422", "without max tokens", _status(range(400, 401), 422)),
    Mutant("an error is flat", "without messages", _refusal(_flat)),
    Mutant("an error has no type", "messages that are empty", _refusal(lambda e: e.pop("type"))),
    Mutant(
        "an error is of type bad_request", "an unknown role", _refusal(lambda e: e["error"].update(type="bad_request"))
    ),
    Mutant("an error says nothing", "no json is refused", _refusal(lambda e: e["error"].update(message=""))),
    Mutant("an error names no request", "names its request", _refusal(lambda e: e.pop("request_id"))),
    Mutant("an error is a page", "is an array", _page),
    Mutant("the header request-id is missing", "the header request id", _header("request-id", None)),
    # streams
    Mutant("[DONE] follows", "nothing follows", _stream(lambda body: body + b"data: [DONE]\n\n")),
    Mutant("message_stop is missing", "keeps the order", _without(b"message_stop")),
    Mutant("message_start is missing", "keeps the order", _without(b"message_start")),
    Mutant("content_block_start is missing", "keeps the order", _without(b"content_block_start")),
    Mutant("content_block_stop is missing", "keeps the order", _without(b"content_block_stop")),
    Mutant("message_delta is missing", "keeps the order", _without(b"message_delta")),
    Mutant(
        "all deltas are missing",
        "is not in the stream|holds a message",
        _without(b"content_block_(?:start|delta|stop)"),
    ),
    Mutant("blocks count from 1", "keeps the order", _stream(lambda body: body.replace(b'"index":0', b'"index":1'))),
    Mutant(
        "an event has another name",
        "keeps the order",
        _stream(lambda b: b.replace(b"event: message_stop", b"event: end")),
    ),
    Mutant("events have no name", "keeps the order", _stream(lambda body: re.sub(rb"event: .*\n", b"", body))),
    Mutant(
        "text deltas are called text", "keeps the order", _stream(lambda body: body.replace(b'"text_delta"', b'"text"'))
    ),
    Mutant(
        "message_start has content",
        "keeps the order",
        _event("message_start", lambda d: d["message"].update(content=[1])),
    ),
    Mutant(
        "message_start has no usage", "start has usage", _event("message_start", lambda d: d["message"].pop("usage"))
    ),
    Mutant(
        "message_start has a stop_reason",
        "keeps the order",
        _event("message_start", lambda d: d["message"].update(stop_reason="x")),
    ),
    Mutant("message_delta has no usage", "count of output tokens", _event("message_delta", lambda d: d.pop("usage"))),
    Mutant(
        "output_tokens stay at 1",
        "count of output tokens",
        _event("message_delta", lambda d: d["usage"].update(output_tokens=1)),
    ),
    Mutant(
        "a stream ends without reason",
        "keeps the order",
        _event("message_delta", lambda d: d["delta"].update(stop_reason=None)),
    ),
    Mutant(
        "a stream is application/json", "keeps the order", _header("content-type", "application/json", streams=True)
    ),
    Mutant(
        "partial_json is broken",
        "streamed as json",
        _stream(lambda body: body.replace(b'"partial_json":"', b'"partial_json":"]')),
    ),
    Mutant("deltas are empty", "no delta is empty", _texts(lambda text: "")),
    Mutant(
        "a stream is latin-1", "a stream is utf8", _stream(lambda body: body.replace(b'"text":"', b'"text":"\xe9', 2))
    ),
    Mutant("a stream is cut", "keeps the order", _cut(streams=True)),
    Mutant("a stream may be cached", "not be cached", _header("cache-control", "public", streams=True)),
    Mutant(
        "a streamed call ends with end_turn",
        "a streamed call",
        _event("message_delta", lambda d: _ends(d["delta"], "end_turn")),
    ),
    Mutant("the stream says something else", "agree at temperature zero", _texts(lambda text: text.upper() + "!")),
    # fields that a server ignores
    Mutant("stop_sequences are ignored", "sequence is not in the answer", request=_clear("stop_sequences")),
    Mutant("max_tokens is ignored", "answer ends at max tokens", request=lambda body: body.update(max_tokens=64)),
    Mutant(
        "tool_choice is ignored",
        "no tool is called with tool choice none|forced tool",
        request=lambda body: body.update(tool_choice=None, tools=None),
    ),
    Mutant("stream is ignored", "keeps the order", request=_clear("stream")),
    Mutant("max_tokens has a default", "without max tokens", request=lambda body: body.setdefault("max_tokens", 16)),
    Mutant("the temperature is not checked", "text as temperature", request=_clear("temperature")),
    # the other routes
    Mutant("a count is 0", "a prompt is counted", _at("count_tokens", lambda c: c.update(input_tokens=0))),
    Mutant("a count is a text", "a prompt is counted", _at("count_tokens", lambda c: c.update(input_tokens="9"))),
    Mutant("all counts are equal", "prompt counts more", _at("count_tokens", lambda c: c.update(input_tokens=9))),
    Mutant(
        "counts are ten times too high",
        "close to the usage",
        _at("count_tokens", lambda c: c.update(input_tokens=c["input_tokens"] * 10)),
    ),
    Mutant(
        "models are called models",
        "models are listed",
        _at("/models", lambda page: page.update(models=page.pop("data"))),
    ),
    Mutant(
        "a model has no id",
        "models are listed",
        _at("/models", lambda page: [m.pop("id") for m in page["data"]] and None),
    ),
    Mutant(
        "models have no dates",
        "fields of the api",
        _at("/models", lambda page: [m.pop("created_at") for m in page["data"]] and None),
    ),
    Mutant("the list has no end", "fields of the api", _at("/models", lambda page: page.pop("has_more"))),
    # connections
    Mutant("each connection is closed", "serves several requests", _header("connection", "close")),
]
