"""The log: one line for each request, one for each event of the service such as `started`, and other messages.

A RequestRecord or a LogEvent is the message of its log record (`record.msg`). A handler of an embedding application may
read its attributes; as a string it is `key=value` text. Neither has a field for content or keys. Values from outside
are cleaned when they are written: a control character in a path or a model name must not forge a line or control a
terminal.

`configure` is for the command. An application that embeds the service configures logging itself.
"""

import atexit
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, TextIO

import orjson

from ..wire.deltas import InvalidDelta
from . import log_writer
from .log_writer import LineStream, LogWriter, LogWriterHandler

_logger: Final = logging.getLogger("anthro_asgi")
SCOPE_REFUSAL: Final = "anthro_asgi.refused"
"""Key in an ASGI scope: the RequestRecord of an error that the server itself sent for this request."""
IGNORED_HEADER: Final = "anthro-asgi-ignored"
"""The response header, and the log field, that name the request fields without effect."""
_PROBES: Final = ("/healthz", "/readyz", "/metrics")  # requested many times a minute by machines
_LONGEST: Final = 300  # characters of one value
_MAX_INT: Final = 2**63 - 1  # JSON is written with 64 bits
_LONGEST_MESSAGE: Final = 4000  # characters
_DEBUG: Final = "with_traceback"  # the attribute of a log record whose line has the whole traceback
_TRACEBACK: Final = "traceback"  # the field for it
_LONGEST_TRACEBACK: Final = 20_000  # characters


@dataclass(slots=True, eq=False)
class RequestRecord:
    """The result of one request. None means unknown or not applicable.

    `engine` is the name of the engine that was asked last, where there are several.
    Durations are in seconds. `queued` is the wait for a slot at the engine. `ttft` is the time from the complete
    request to the first output, including `queued`. `input_tokens` excludes `cached_tokens`.
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
    reason: str | None = None
    ignored: str | None = None
    engine: str | None = None

    def fields(self) -> dict[str, object]:
        """The known values, cleaned, in a fixed order."""
        fields = _cleaned(zip(_RECORD_NAMES, _record_values(self), strict=True))
        if not self.client_left:
            del fields["client_left"]
        return fields

    def __str__(self) -> str:
        return _words(self.fields())


_RECORD_NAMES: Final = tuple(IGNORED_HEADER if name == "ignored" else name for name in RequestRecord.__slots__)
_record_values: Final = attrgetter(*RequestRecord.__slots__)


class LogEvent:
    """An event in the life of the service: its name and its values."""

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: Mapping[str, object]) -> None:
        self.name = name
        self.values = values

    def fields(self) -> dict[str, object]:
        return {"event": self.name, **_cleaned(self.values.items())}

    def __str__(self) -> str:
        return _words(self.fields())


def log_request(record: RequestRecord) -> None:
    """Log `record`: at warning when the service or its engine failed, at debug for a successful probe, else at info."""
    failed = record.error_type is not None and (record.status is None or not 400 <= record.status < 500)
    level = logging.WARNING if failed else logging.INFO
    if record.status == 200 and record.path in _PROBES:
        level = logging.DEBUG
    if _logger.isEnabledFor(level):
        # as `_logger.log`, which would also search the stack for its caller: a quarter of the cost of the line
        _logger.handle(_logger.makeRecord(_logger.name, level, __file__, 0, record, (), None, log_request.__name__))


def log_event(name: str, level: int = logging.INFO, /, **values: object) -> None:
    """Log an event in the life of the service, as `event=name` with these values. A value None is omitted."""
    if _logger.isEnabledFor(level):
        _logger.log(level, LogEvent(name, values))


def clean(text: str, longest: int = _LONGEST) -> str:
    """The first `longest` characters of `text`, with all that is not printable (line ends too) written as escapes."""
    if len(text) > longest:
        text = text[:longest] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _cleaned(values: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Names and values without None: numbers as they are, everything else as cleaned text."""
    cleaned: dict[str, object] = {}
    for name, value in values:
        if value is None:
            continue
        kind = type(value)
        if kind is str:
            text: str = value  # type: ignore[assignment]  # it is a str
            cleaned[name] = text if len(text) <= _LONGEST and text.isprintable() else clean(text)
        elif kind is float:
            cleaned[name] = round(value, 6)  # type: ignore[call-overload]  # it is a float
        elif isinstance(value, bool | int):
            cleaned[name] = value if -_MAX_INT <= value <= _MAX_INT else clean(str(value))
        else:
            cleaned[name] = round(value, 6) if isinstance(value, float) else clean(str(value))
    return cleaned


def _words(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_word(value)}" for name, value in values.items())


def _word(value: object) -> str:
    """A value as one word. A text with spaces or quotes is quoted as JSON, so that its end is clear."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str) and (not text or any(char in text for char in ' "=\\')):
        return orjson.dumps(text).decode()
    return text


_second: tuple[int, str] = (0, "")  # the newest second of a line, and how it is written


def _when(record: logging.LogRecord) -> str:
    """The time of `record` in RFC 3339 format, in UTC."""
    global _second
    second, written = _second
    if second != int(record.created):
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        _second = int(record.created), written
    return f"{written}.{int(record.msecs):03d}Z"


class _Formatter(logging.Formatter):
    """The values of a line, for both formats."""

    def values(self, record: logging.LogRecord) -> dict[str, object]:
        if isinstance(record.msg, RequestRecord):
            return {"event": "request", **record.msg.fields()}
        if isinstance(record.msg, LogEvent):
            return record.msg.fields()
        if isinstance(record.args, Mapping) and record.name.partition(".")[0] == _logger.name:
            # a room that may not import this one logs an event so: `_log.warning("name key=%(key)s", {"key": …})`
            return {"event": str(record.msg).partition(" ")[0], **_cleaned(record.args.items())}
        message = record.getMessage()
        if record.name == "asyncio":  # the rest of its message may show arguments of a task or a callback
            message = message.partition("\n")[0].partition("(")[0]
        values: dict[str, object] = {"event": "log", "logger": record.name, "message": clean(message, _LONGEST_MESSAGE)}
        if record.exc_info and record.exc_info[1] is not None:
            exc = record.exc_info[1]
            if getattr(record, _DEBUG, False):
                text = "".join(traceback.format_exception(exc))[-_LONGEST_TRACEBACK:]
                values[_TRACEBACK] = text.encode("utf-8", "backslashreplace").decode()  # JSON has no lone surrogates
            else:
                values["exception"] = _traced(exc)
        return values


class JsonFormatter(_Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _when(record), "level": record.levelname.lower()}
        return orjson.dumps({**head, **self.values(record)}).decode()


class TextFormatter(_Formatter):
    """`TIME LEVEL key=value …`, for people. `colour`: with the escape sequences of a terminal.

    A traceback follows on lines of its own, which are indented.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        values = self.values(record)
        lines = str(values.pop(_TRACEBACK, "")).splitlines()
        when, level, words = _when(record), f"{record.levelname:<7}", _words(values)
        if self._colour:
            code = next(code for lowest, code in _COLOURS if record.levelno >= lowest)
            when, level = f"\x1b[2m{when}\x1b[0m", f"\x1b[{code}m{level}\x1b[0m"
        return "\n    ".join([f"{when} {level} {words}", *(clean(line, _LONGEST_MESSAGE) for line in lines)])


_COLOURS: Final = ((logging.ERROR, 31), (logging.WARNING, 33), (logging.INFO, 32), (0, 2))  # red, yellow, green, dim


def configure(level: str, style: str, stream: TextIO | None = None) -> str:
    """Write the lines of every logger to `stream` as "json" or "text". `level` is for our own loggers.

    The style "auto" is "text" if the stream is a terminal, and "json" otherwise. Returns the style that is used. Text
    on a terminal is coloured, unless NO_COLOR is set or the terminal is dumb (https://no-color.org).

    Without a stream they go to standard error through a LogWriter, so that a reader that has stopped reading blocks
    nothing; see `close`. Other loggers are written from warning on (at `debug`, everything): uvicorn logs each start
    and stop at info, for which the command has events of its own.
    """
    terminal = os.isatty(2) if stream is None else stream.isatty()
    if style == "auto":
        style = "text" if terminal else "json"
    formatter = JsonFormatter() if style == "json" else TextFormatter(colour=terminal and has_colour())
    handler = LogWriterHandler(_new_writer(formatter)) if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level == "debug" else max(logging.WARNING, _level(level)))
    _logger.setLevel(_level(level))
    # what no formatter here writes is not looked up for each record either
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return style


def has_colour() -> bool:
    """Whether a terminal should be sent colours: unless NO_COLOR is set or the terminal is dumb."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_writer: LogWriter | None = None  # one standard error for a process, so one writer
_output: LogWriter | None = None


def _new_writer(formatter: logging.Formatter) -> LogWriter:
    def notice(count: int) -> bytes:
        event = LogEvent("log_lines_dropped", {"count": count})
        record = logging.LogRecord(_logger.name, logging.WARNING, "", 0, event, None, None)
        return formatter.format(record).encode() + b"\n"

    global _writer
    if _writer is None:
        atexit.register(flush)
    _writer = LogWriter(2, notice)
    return _writer


def dropped_lines() -> int:
    """The number of log lines that this process has dropped because they could not be written in time."""
    return 0 if _writer is None else _writer.dropped


def capture_output() -> None:
    """See `log_writer.capture_output`. What waits at the end of the process is written then."""
    global _output
    _output = log_writer.capture_output()


def release_output() -> None:
    """Write what comes for standard error as it is, behind the log: for the last words of a command that fails."""
    writer = _writer
    if writer is not None:
        sys.stderr = LineStream(2, lambda line: writer.write_line(line.encode("utf-8", "backslashreplace") + b"\n"))


def flush() -> None:
    """Write the lines that wait, for some seconds at most."""
    for writer in (_output, _writer):
        if writer is not None:
            writer.flush()


def _level(name: str) -> int:
    return logging.getLevelNamesMapping()[name.upper()]


def log_failure(where: str, exc: BaseException, *, debug: bool = False) -> None:
    """Log an unexpected exception in the service or in an engine, with the place where it was raised.

    `where` is the id of the request. With `debug`, the line has the whole traceback, which may quote content.
    """
    if _logger.isEnabledFor(logging.ERROR):
        info = exc if debug else None  # which the handler of an embedding application writes as well
        _logger.error("%s: %s", where, _traced(exc), exc_info=info, extra={_DEBUG: debug})


def _traced(exc: BaseException) -> str:
    """The type of an exception and its traceback in one line.

    Its message is omitted, because it may quote content. That of an InvalidDelta has none.
    """
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(exc.__traceback__)]
    words = f": {exc}" if isinstance(exc, InvalidDelta) else ""
    return clean(f"{type(exc).__name__}{words} at {' < '.join(reversed(places)) or 'unknown place'}", _LONGEST_MESSAGE)
