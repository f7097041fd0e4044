"""What a check is, and what checks use: a session with one server.

A check is a function that takes a `Session`, sends requests and raises `Failure` if the server breaks the rule. The
decorator `check` registers it with its area, its weight and its authority.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, TypeVar

from .exchange import Client, Exchange, Json
from .grammar import Event, GrammarError, parse_events
from .scripted_engine import ScriptedEngine

Weight = Literal["must", "should", "may"]
Profile = Literal["server", "gateway"]

MAX_TOKENS: Final = 48  # of a usual request, so that a run costs little
STOP_REASONS: Final = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "compaction",
    "model_context_window_exceeded",
)
WEATHER: Final[Json] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Failure(Exception):
    """The server breaks the rule of a check. The text says how."""


class Unsupported(Exception):
    """The check cannot be made with this server. The text says why."""


@dataclass(slots=True)
class Session:
    """A server under test. `exchanges` are those of the running check, for its report.

    `scripted` is the engine of the profile `gateway`; None in the profile `server`.
    """

    client: Client
    model: str
    scripted: ScriptedEngine | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    tokens: int = 0  # the sum of all max_tokens that were sent

    @property
    def engine(self) -> ScriptedEngine:
        """The scripted engine. Raises Unsupported in the profile `server`."""
        if self.scripted is None:
            raise Unsupported("there is no scripted engine")
        return self.scripted

    # requests

    def post(
        self,
        body: object,
        path: str = "/v1/messages",
        headers: Mapping[str, str | None] | None = None,
    ) -> Exchange:
        """POST `body`: bytes as they are, chunks of bytes from an iterator, anything else as JSON."""
        raw = body if isinstance(body, bytes | Iterator) else json.dumps(body).encode()
        return self.note(self.client.send("POST", path, raw, headers))

    def get(self, path: str, headers: Mapping[str, str | None] | None = None) -> Exchange:
        """GET `path`."""
        return self.note(self.client.send("GET", path, b"", headers))

    def note(self, exchange: Exchange) -> Exchange:
        """Keep an exchange for the report."""
        self.exchanges.append(exchange)
        return exchange

    def body(self, *messages: Json | str, **fields: Any) -> Json:
        """The body of a request to create a message. A field of value `...` is left out."""
        turns = [{"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in messages]
        body: Json = {"model": self.model, "max_tokens": MAX_TOKENS, "messages": turns or [_user("Say hello.")]}
        body |= fields
        if isinstance(body.get("max_tokens"), int):
            self.tokens += max(0, body["max_tokens"])
        return {name: value for name, value in body.items() if value is not ...}

    def message(self, *messages: Json | str, headers: Mapping[str, str | None] | None = None, **fields: Any) -> Json:
        """The message that answers a request. Raises Failure if the answer is none."""
        return message_of(self.post(self.body(*messages, **fields), headers=headers))

    def stream(self, *messages: Json | str, **fields: Any) -> list[Event]:
        """The events that answer a request with `stream`. Raises Failure if the answer is no stream."""
        return events_of(self.post(self.body(*messages, stream=True, **fields)))

    def refusal(self, body: object, status: int, kind: str, path: str = "/v1/messages") -> Json:
        """The error that answers `body`. Raises Failure if it has another status or another type."""
        return error_of(self.post(body, path), status, kind)


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


# --- registration ---


@dataclass(frozen=True, slots=True)
class Check:
    """A rule and the function that tests it. `name` is a sentence that is true of a server that keeps the rule."""

    name: str
    area: str
    weight: Weight
    authority: str
    profile: Profile
    run: Callable[[Session], None]


CHECKS: Final[list[Check]] = []
F = TypeVar("F", bound=Callable[[Session], None])


def check(profile: Profile, area: str, weight: Weight, authority: str) -> Callable[[F], F]:
    """Register a check. Its name is the name of the function, with spaces."""

    def register(function: F) -> F:
        name = function.__name__.replace("_", " ")
        CHECKS.append(Check(name, area, weight, authority, profile, function))
        return function

    return register


# --- judgements ---


def fail(text: str) -> NoReturn:
    """Raise Failure."""
    raise Failure(text)


def must(holds: object, text: str) -> None:
    """Raise Failure with `text` unless `holds` is true."""
    if not holds:
        raise Failure(text)


def document(exchange: Exchange) -> Json:
    """The body of a response as a JSON object."""
    must(not exchange.cut, f"the connection ended inside the response: {exchange.cut}")
    must(
        exchange.content_type == "application/json", f"content-type is {exchange.content_type!r}, not application/json"
    )
    try:
        value = exchange.json
    except ValueError as exc:
        fail(f"the body is not JSON: {exc}")
    must(isinstance(value, dict), "the body is not a JSON object")
    return dict(value)


def message_of(exchange: Exchange) -> Json:
    """The message in a response, of which the required parts are checked."""
    must(exchange.status == 200, f"status {exchange.status}, not 200: {_start(exchange)}")
    message = document(exchange)
    must(message.get("type") == "message", f"type is {message.get('type')!r}, not 'message'")
    must(message.get("role") == "assistant", f"role is {message.get('role')!r}, not 'assistant'")
    must(is_text(message.get("id")), "id is not a text")
    must(is_text(message.get("model")), "model is not a text")
    must(message.get("stop_reason") in STOP_REASONS, f"stop_reason is {message.get('stop_reason')!r}")
    must("stop_sequence" in message, "stop_sequence is missing")
    content = message.get("content")
    must(isinstance(content, list), "content is not an array")
    for index, block in enumerate(content or []):
        check_block(block, f"content[{index}]")
    check_usage(message.get("usage"), "usage")
    return message


def check_block(block: object, where: str) -> None:
    """Raise Failure unless `block` is a whole content block of a message."""
    if not isinstance(block, dict):
        fail(f"{where} is not an object")
    kind = block.get("type")
    must(is_text(kind), f"{where}.type is not a text")
    if kind == "text":
        must(isinstance(block.get("text"), str), f"{where}.text is not a text")
    elif kind == "thinking":
        must(isinstance(block.get("thinking"), str), f"{where}.thinking is not a text")
        must(isinstance(block.get("signature"), str), f"{where}.signature is not a text")
    elif kind == "tool_use":
        must(is_text(block.get("id")), f"{where}.id is not a text")
        must(is_text(block.get("name")), f"{where}.name is not a text")
        must(isinstance(block.get("input"), dict), f"{where}.input is not an object")


def check_usage(usage: object, where: str) -> None:
    """Raise Failure unless `usage` has both counts."""
    if not isinstance(usage, dict):
        fail(f"{where} is not an object")
    for name in ("input_tokens", "output_tokens"):
        must(type(usage.get(name)) is int and usage[name] >= 0, f"{where}.{name} is {usage.get(name)!r}, not a count")


def error_of(exchange: Exchange, status: int | None = None, kind: str | None = None) -> Json:
    """The error in a response."""
    if status is not None:
        must(exchange.status == status, f"status {exchange.status}, not {status}: {_start(exchange)}")
    envelope = document(exchange)
    must(envelope.get("type") == "error", f"type is {envelope.get('type')!r}, not 'error'")
    error = envelope.get("error")
    if not isinstance(error, dict):
        fail("error is not an object")
    must(is_text(error.get("type")), "error.type is not a text")
    must(is_text(error.get("message")), "error.message is not a text")
    if kind is not None:
        must(error["type"] == kind, f"error.type is {error['type']!r}, not {kind!r}")
    return error


def events_of(exchange: Exchange) -> list[Event]:
    """The events of a response that is a stream."""
    must(exchange.status == 200, f"status {exchange.status}, not 200: {_start(exchange)}")
    must(
        exchange.content_type == "text/event-stream",
        f"content-type is {exchange.content_type!r}, not text/event-stream",
    )
    must(not exchange.cut, f"the connection ended inside the stream: {exchange.cut}")
    try:
        return parse_events(normalised(exchange.body))
    except GrammarError as exc:
        fail(str(exc))


def normalised(body: bytes) -> bytes:
    """Server-sent events with LF line ends, without comments, one space after the colon, a name for each event.

    All of these are free to a server (the HTML standard, section 9.2); the grammar reads one form.
    """
    frames = []
    *whole, rest = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    must(not rest.strip(), f"the body ends inside an event: {rest[:60]!r}")
    for frame in whole:
        fields: dict[bytes, list[bytes]] = {}
        for line in frame.split(b"\n"):
            name, _, value = line.partition(b":")
            if name in (b"event", b"data"):
                fields.setdefault(name, []).append(value.removeprefix(b" "))
        if b"data" in fields:
            event = b"".join(b"event: %b\n" % name for name in fields.get(b"event", ())[-1:])
            frames.append(event + b"data: " + b"\n".join(fields[b"data"]) + b"\n\n")
    return b"".join(frames)


def is_text(value: object) -> bool:
    """Whether `value` is a string that is not empty."""
    return isinstance(value, str) and value != ""


def text_of(message: Json) -> str:
    """The joined text blocks of a message."""
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def calls_of(message: Json) -> list[Json]:
    """The tool_use blocks of a message."""
    return [block for block in message["content"] if block["type"] == "tool_use"]


def _start(exchange: Exchange) -> str:
    return exchange.body[:200].decode("utf-8", "replace")
