"""One line for each request, and the service's other lines in the same shape.

A RequestRecord is the message of its log record (`record.msg`): a handler of an embedding application may read its
attributes, any other gets it as `key=value` text. It has no place for content or keys. What came from outside is
cleaned when it is written: a control character in a path or a model's name must not forge a line or drive a terminal.

`configure` is for the command. An application that embeds the service configures logging itself.
"""

import logging
import time
import traceback
from dataclasses import dataclass
from typing import Final, TextIO

import orjson

_logger: Final = logging.getLogger("anthro_asgi")
_LONGEST: Final = 300  # characters of one value
_LONGEST_MESSAGE: Final = 4000


@dataclass(slots=True, eq=False)
class RequestRecord:
    """How one request went. Durations in seconds; `ttft` is until the first output. None is unknown or not so."""

    method: str
    path: str
    request_id: str
    status: int | None = None
    model: str | None = None
    stream: bool | None = None
    stop_reason: str | None = None
    ttft: float | None = None
    duration: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    client_left: bool = False
    error_type: str | None = None
    error: str | None = None

    def fields(self) -> dict[str, object]:
        """What is known, in a fixed order, fit to be printed."""
        known: dict[str, object] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None or (name == "client_left" and not value):
                continue
            if isinstance(value, str):
                value = clean(value)
            elif isinstance(value, float):
                value = round(value, 6)
            known[name] = value
        return known

    def __str__(self) -> str:
        return " ".join(f"{name}={_word(value)}" for name, value in self.fields().items())


def log_request(record: RequestRecord) -> None:
    """Log `record`: as a warning when the service or its engine failed, else as info."""
    failed = record.error_type is not None and (record.status is None or not 400 <= record.status < 500)
    level = logging.WARNING if failed else logging.INFO
    if _logger.isEnabledFor(level):
        _logger.log(level, record)


def clean(text: str, longest: int = _LONGEST) -> str:
    """`text`, bounded, with everything that does not print (line ends and lone surrogates too) written as an escape."""
    if len(text) > longest:
        text = text[:longest] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


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
        message = clean(record.getMessage(), _LONGEST_MESSAGE)
        values: dict[str, object] = {"event": "log", "logger": record.name, "message": message}
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info).encode("utf-8", "replace").decode()
        return values


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _when(record), "level": record.levelname.lower()}
        return orjson.dumps({**head, **self.values(record)}).decode()


class TextFormatter(_Formatter):
    """`TIME LEVEL key=value …`, for eyes; only a traceback takes more than its line."""

    def format(self, record: logging.LogRecord) -> str:
        values = self.values(record)
        traceback = values.pop("exception", None)
        line = " ".join(f"{name}={_word(value)}" for name, value in values.items())
        line = f"{_when(record)} {record.levelname:<7} {line}"
        return line if traceback is None else f"{line}\n{traceback}"


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
    """Log a bug of ours: its type and where it happened, but not its message, which may quote what a client said."""
    if _logger.isEnabledFor(logging.ERROR):
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(exc.__traceback__)]
        _logger.error("%s: %s at %s", request_id, type(exc).__name__, " < ".join(reversed(places)))
