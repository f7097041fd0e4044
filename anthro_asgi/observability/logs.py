"""One line for each request, one for each turn in the service's life, and other lines in the same shape.

A RequestRecord is the message of its log record (`record.msg`), and so is a LogEvent: a handler of an embedding
application may read its attributes, any other gets it as `key=value` text. Neither has a place for content or keys.
What came from outside is cleaned when it is written: a control character in a path or a model's name must not forge a
line or drive a terminal.

`configure` is for the command. An application that embeds the service configures logging itself.
"""

import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

import orjson

_logger: Final = logging.getLogger("anthro_asgi")
SCOPE_REFUSAL: Final = "anthro_asgi.refused"
"""Key in an ASGI scope: the RequestRecord of an error that the server itself sent for this request."""
_PROBES: Final = ("/healthz", "/readyz", "/metrics")  # asked some twenty times a minute, by machines
_LONGEST: Final = 300  # characters of one value
_LONGEST_MESSAGE: Final = 4000


@dataclass(slots=True, eq=False)
class RequestRecord:
    """How one request went; None is unknown or not so.

    Durations in seconds: `queued` for its turn, `ttft` from when it was read, queued or not, to the first output.
    `input_tokens` are without the cached ones.
    """

    method: str
    path: str
    request_id: str
    status: int | None = None
    model: str | None = None
    stream: bool | None = None
    stop_reason: str | None = None
    queued: float | None = None
    ttft: float | None = None
    duration: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    trace_id: str | None = None
    client_left: bool = False
    error_type: str | None = None
    error: str | None = None

    def fields(self) -> dict[str, object]:
        """What is known, in a fixed order, fit to be printed."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "client_left" or self.client_left}
        return _fit(values)

    def __str__(self) -> str:
        return _words(self.fields())


class LogEvent:
    """A turn in the service's life: what it is called, and what is to be known of it."""

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: Mapping[str, object]) -> None:
        self.name = name
        self.values = values

    def fields(self) -> dict[str, object]:
        return {"event": self.name, **_fit(self.values)}

    def __str__(self) -> str:
        return _words(self.fields())


def log_request(record: RequestRecord) -> None:
    """Log `record`: a warning when the service or its engine failed, debug for a probe that went well, else info."""
    failed = record.error_type is not None and (record.status is None or not 400 <= record.status < 500)
    level = logging.WARNING if failed else logging.INFO
    if record.status == 200 and record.path in _PROBES:
        level = logging.DEBUG
    if _logger.isEnabledFor(level):
        _logger.log(level, record)


def log_event(name: str, level: int = logging.INFO, **values: object) -> None:
    """Log a turn in the service's life, as `event=name` with these values; None is unknown and left out."""
    if _logger.isEnabledFor(level):
        _logger.log(level, LogEvent(name, values))


def clean(text: str, longest: int = _LONGEST) -> str:
    """`text`, bounded, with everything that does not print (line ends and lone surrogates too) written as an escape."""
    if len(text) > longest:
        text = text[:longest] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _fit(values: Mapping[str, object]) -> dict[str, object]:
    """What is known of `values`, fit to be printed."""
    fit: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, float):
            fit[name] = round(value, 6)
        elif isinstance(value, bool | int):
            fit[name] = value
        elif value is not None:
            fit[name] = clean(str(value))
    return fit


def _words(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_word(value)}" for name, value in values.items())


def _word(value: object) -> str:
    """A value as one word, quoted as JSON where a reader could lose its end."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str) and (not text or any(char in text for char in ' "=\\')):
        return orjson.dumps(text).decode()
    return text


def _when(record: logging.LogRecord) -> str:
    """RFC 3339, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class _Formatter(logging.Formatter):
    """What both shapes are made of."""

    def values(self, record: logging.LogRecord) -> dict[str, object]:
        if isinstance(record.msg, RequestRecord):
            return {"event": "request", **record.msg.fields()}
        if isinstance(record.msg, LogEvent):
            return record.msg.fields()
        message = record.getMessage()
        if record.name == "asyncio":  # which goes on with what a task or a callback was given
            message = message.partition("\n")[0].partition("(")[0]
        values: dict[str, object] = {"event": "log", "logger": record.name, "message": clean(message, _LONGEST_MESSAGE)}
        if record.exc_info and record.exc_info[1] is not None:
            values["exception"] = _traced(record.exc_info[1])
        return values


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _when(record), "level": record.levelname.lower()}
        return orjson.dumps({**head, **self.values(record)}).decode()


class TextFormatter(_Formatter):
    """`TIME LEVEL key=value …`, for eyes."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_when(record)} {record.levelname:<7} {_words(self.values(record))}"


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send every logger's lines to `stream` (default stderr) as "json" or "text". `level` is that of our own.

    The server below tells of each start and stop at info, which the command says itself: it is heard from warning on.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level == "debug" else max(logging.WARNING, _level(level)))
    _logger.setLevel(_level(level))


def _level(name: str) -> int:
    return logging.getLevelNamesMapping()[name.upper()]


def log_failure(request_id: str, exc: BaseException) -> None:
    """Log a bug of ours."""
    if _logger.isEnabledFor(logging.ERROR):
        _logger.error("%s: %s", request_id, _traced(exc))


def _traced(exc: BaseException) -> str:
    """The type of an exception and where it happened, but not its message, which may quote what a client said."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(exc.__traceback__)]
    return clean(f"{type(exc).__name__} at {' < '.join(reversed(places)) or 'an unknown place'}", _LONGEST_MESSAGE)
