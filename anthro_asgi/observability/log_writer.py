"""Writes log lines so that a reader that has stopped reading cannot stop the service.

Theory. A write to a pipe, a terminal or a slow disk blocks while its reader does not read, and a blocked event loop
serves no request. So the thread that logs a line writes it only if that cannot block, and else leaves it to a thread
that writes nothing else:

    any thread ── line ─┬─ no line waits ──────► write(2) that does not block ────────────────────────► descriptor
                        └─ no room, or a file ─► queue, bounded in bytes ─► writer thread ── write(2) ──► descriptor

To wake the writer thread costs ten to twenty times as much as the write, and at fewer than a hundred lines a second
each line would wake it. Whether a write blocks is a property of an open file, which other processes share, so it is
not changed: `_Unblocking` writes to a pipe or a terminal through an open file of its own, and to a socket with a flag.

When the queue is full, new lines are dropped and counted. When the reader reads again, one line says how many. A file
descriptor that is closed or whose disk is full loses its lines in the same way: they count as dropped.

Editors: a forked child inherits the queue without the thread. It forgets the lines, which the parent writes, and starts
a thread at its first line. Where the system has no thread left, a line is written at once if that does not block, and
dropped otherwise. The thread sleeps `_PAUSE` before it takes the lines, so that a busy service wakes it a
hundred times a second at most; a process that is killed loses the lines of that time.
"""

import io
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final

LIMIT: Final = 1 << 20  # bytes of lines that wait to be written
_PAUSE: Final = 0.01  # seconds
_CHUNK: Final = 1 << 16  # bytes of one line that is written, and of one that is held until its end
_ENDING: Final = 2.0  # seconds for the lines that wait when the process ends


class LogWriter:
    """Writes lines to the file descriptor `fd`. `notice(count)` gives the line that tells of dropped lines."""

    def __init__(self, fd: int, notice: Callable[[int], bytes], limit: int = LIMIT) -> None:
        self._fd = fd
        self._unblocking = _Unblocking(fd)
        self._notice = notice
        self._limit = limit
        self.dropped = 0  # lines, since the start of this process
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._lines: list[bytes] = []
        self._size = 0  # bytes that wait, those that are being written included
        self._untold = 0  # dropped lines that no notice has told of
        self._hurry = False  # a flush waits
        self._thread: threading.Thread | None = None

    def write_line(self, line: bytes) -> None:
        """Write or queue one line, which ends with a line feed. Never blocks and never raises."""
        with self._changed:
            if not self._size and not self._untold:
                line = line[self._unblocking.write(line) :]
                if not line:
                    return
            if self._size + len(line) > self._limit:
                self._drop(1)
                return
            self._lines.append(line)
            self._size += len(line)
            if self._thread is None:
                self._start()
            elif len(self._lines) == 1:
                self._changed.notify_all()

    def flush(self, timeout: float = _ENDING) -> None:
        """Wait until all lines are written, `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            while self._size and self._thread is not None and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._hurry = False

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._untold += count

    def _start(self) -> None:
        # a daemon: a thread that is blocked in write(2) must not keep the process from ending
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no more threads, or the interpreter is ending
            self._thread = None
            self._drop(sum(1 for line in self._lines if not self._write_at_once(line)))
            self._lines.clear()
            self._size = 0

    def _write_at_once(self, line: bytes) -> bool:
        """Write a line if that does not block; whether it was written. A pipe that polls as writable has this room."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return len(line) <= select.PIPE_BUF and poll.poll(0) == [(self._fd, select.POLLOUT)] and self._write(line)

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                while not self._lines:
                    changed.wait()
                if not self._hurry:
                    changed.wait(_PAUSE)
                lines, self._lines = self._lines, []
                taken = sum(map(len, lines))
                untold, self._untold = self._untold, 0
            pieces = _pieces([*lines, *([self._notice(untold)] if untold else ())])
            lost = min(len(lines), sum(piece.count(b"\n") for piece in pieces if not self._write(piece)))
            with changed:
                self._size -= taken
                if lost:  # an error, which a later line may not meet
                    self.dropped += lost
                    self._untold += untold + lost
                changed.notify_all()

    def _write(self, data: bytes) -> bool:
        """Write all of `data`, however long that takes; whether it was written."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view[:_CHUNK]) :]
            except BlockingIOError:  # another process made the descriptor non-blocking
                select.poll().poll(int(_PAUSE * 1000))
            except OSError:
                return False
        return True


class _Unblocking:
    """Writes to the descriptor `fd` without blocking, where that is possible: to a pipe, a terminal or a socket."""

    def __init__(self, fd: int) -> None:
        self._write: Callable[[bytes], int] | None = None
        with suppress(OSError):
            self._write = _unblocking_write(fd)

    def write(self, line: bytes) -> int:
        """The number of bytes that are written. A line that is not longer than PIPE_BUF is written whole or not."""
        if self._write is None or len(line) > select.PIPE_BUF:
            return 0
        try:
            return self._write(line)
        except OSError:  # no room, or an error that the writer thread will meet
            return 0


def _unblocking_write(fd: int) -> Callable[[bytes], int] | None:
    """A function that writes to `fd` and raises BlockingIOError where it would block; None for a file on a disk.

    Raises OSError for a descriptor that is closed, or that this process may not open again.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(fd))
        flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
        return lambda line: sock.send(line, flags)
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)) or not sys.platform.startswith("linux"):
        return None
    own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)  # Linux opens what `fd` refers to
    return lambda line: os.write(own, line)


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """The lines in pieces of at most PIPE_BUF bytes: writes of several workers to one pipe are not mixed (POSIX)."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and size + len(line) > select.PIPE_BUF:
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    yield b"".join(held)


class LogWriterHandler(logging.Handler):
    """A logging handler that gives formatted lines to a LogWriter."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as exc:  # a bug in a format string must not end a request
            words = "a log line could not be formatted: %s"
            line = self.format(logging.LogRecord(record.name, logging.ERROR, "", 0, words, (type(exc).__name__,), None))
        self._writer.write_line(line.encode("utf-8", "backslashreplace") + b"\n")


class LineStream(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr, the descriptor `fd`. Calls `write_line` with each line that is written."""

    encoding = "utf-8"

    def __init__(self, fd: int, write_line: Callable[[str], None]) -> None:
        self._fd = fd
        self._write_line = write_line
        self._rest = ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > _CHUNK:
                lines.append(self._rest)
                self._rest = ""
        for line in lines:
            self._write_line(line)
        return len(text)


def open_standard_descriptors() -> None:
    """Open /dev/null in the place of a standard stream that is closed: else a socket would get its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is `fd`


def capture_output() -> LogWriter:
    """Let nothing block on standard output and standard error, and log what others write to standard error.

    A line for standard output is written as it is, by the LogWriter that is returned. What is written to standard
    error, warnings and uncaught exceptions become log lines. For the command, once the log is configured.
    """
    writer = LogWriter(1, lambda count: b"(%d lines dropped)\n" % count)
    sys.stdout = LineStream(1, lambda line: writer.write_line(line.encode("utf-8", "backslashreplace") + b"\n"))
    sys.stderr = LineStream(2, _log_stderr)
    warnings.showwarning = _log_warning
    sys.excepthook = _log_exception
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_exception
    return writer


_log: Final = logging.getLogger("anthro_asgi")


def _log_stderr(line: str) -> None:
    if line.strip():
        logging.getLogger("stderr").warning("%s", line)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    _log.warning("%s: %s at %s:%d", category.__name__, message, filename, lineno)


def _log_exception(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("uncaught exception", exc_info=(kind, exc, traceback))


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    exc = unraisable.exc_value
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    _log.error("exception ignored in %s", type(unraisable.object).__name__, exc_info=info)


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _log.error("exception in a thread", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
