"""Runs the service in one process or in several: a supervisor forks the workers and replaces those that die.

    supervisor ──forks──► worker ── "ready" ──► when all are ready, the supervisor prints the addresses
        │  signals ──────► each                 a worker that dies is replaced, with the same listeners
        │  heartbeats ◄─── each                 a worker whose event loop hangs is killed, and then replaced;
        │                                       until then the other workers accept its connections
        └─ its exit ─────► EOF on the pipe `lifeline`: the workers stop too

The supervisor has no event loop and no thread. Each worker gets a copy of what the supervisor has created, which
includes the application and its engine. So those must not hold anything that belongs to one process, such as an event
loop, a thread or a connection, until the application starts.
"""

import gc
import logging
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from types import FrameType
from typing import Final, NoReturn

from ..observability.logs import flush
from ..observability.prometheus import load_exposition
from ..settings.options import ResourceUnavailable, Settings
from .exit_deadline import exit_within
from .heartbeats import Heartbeats
from .listeners import Listener
from .process import Application, ServerProcess, StartReport
from .tls import Certificate

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_READY: Final = b"+"
_REPORT: Final = 4096  # bytes of the report that a worker is ready, or why it cannot start
_STABLE: Final = 30.0  # seconds; a worker that lived longer starts again with the first back-off
_FIRST_BACKOFF: Final = 0.1  # seconds before a worker is replaced, doubled with each death up to
_MAX_BACKOFF: Final = 5.0
_CHECK: Final = 1.0  # seconds between two checks of the heartbeats
_CONFIRM: Final = 2.0  # seconds; the supervisor itself may have been stopped, so an old heartbeat is checked twice
_KILL_GRACE: Final = 2.0  # seconds beyond the deadline that a worker has by itself
_log = logging.getLogger(__name__)


def serve(
    app: Application,
    listeners: list[list[Listener]],
    settings: Settings,
    certificate: Certificate | None,
    reload: Callable[[], object],
    report: StartReport | None = None,
) -> int:
    """Serve `app` until a signal, with one process for each item of `listeners`; return the exit status.

    On SIGHUP it calls `reload`, which re-reads the app's files, or raises ConfigError and changes nothing. Each process
    reports its start with `report`.
    Raises ResourceUnavailable if a process cannot start.
    """
    _raise_file_limit()
    process = ServerProcess(app, settings, certificate, reload, report)
    process.owns_process = True
    scheme = "http" if certificate is None else "https"

    def announce() -> None:
        for listener in listeners[0]:
            listener.publish()
        for listener in listeners[0]:
            print("listening on", listener.address(scheme), flush=True)
        if process.banner:
            print(process.banner, flush=True)

    if len(listeners) == 1:
        return process.serve_listeners(listeners[0], announce)
    app.metrics.share_among(len(listeners))
    load_exposition()  # before the fork: the workers share its memory
    supervisor = WorkerSupervisor(
        process, listeners, announce, on_start=app.metrics.count_as, on_exit=app.metrics.worker_lost
    )
    supervisor.hang_deadline = settings.worker_deadline
    return supervisor.run()


def _raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: a request takes two, and the usual soft limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # an infinite hard limit may be more than the system allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class Worker:
    """One worker process. Times are of the monotonic clock, in seconds.

    `number` counts from 0. `ready` is the read end of a pipe until the worker has written that it is ready, or why it
    cannot start, which is then `reason`. `pid` is None while the worker is dead; it is replaced at `restart_at`.
    `suspect_since` is when its heartbeat was first found to be too old.
    """

    number: int
    pid: int | None = None
    ready: int | None = None
    reason: str = ""
    started_at: float = 0.0
    backoff: float = _FIRST_BACKOFF
    restart_at: float = 0.0
    suspect_since: float | None = None


class WorkerSupervisor:
    """Runs `process` in one worker for each item of `listeners`.

    `announce` is called once, when all workers are ready. `on_start` is called in each worker, and `on_exit` in the
    supervisor, with the number of the worker.
    """

    def __init__(
        self,
        process: ServerProcess,
        listeners: list[list[Listener]],
        announce: Callable[[], None],
        *,
        on_start: Callable[[int], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._process = process
        self._listeners = listeners
        self._announce = announce
        self._on_start = on_start
        self._on_exit = on_exit
        self._workers = [Worker(number) for number in range(len(listeners))]
        self.hang_deadline = inf  # seconds without a heartbeat after which a worker is replaced
        self._heartbeats = Heartbeats(len(listeners))
        self._kill_at = inf  # on the monotonic clock
        self._announced = False
        self._stopping = False
        self._failure: str | None = None
        self._status = 0

    def run(self) -> int:
        """Serve until a signal, and return the exit status. Raises ResourceUnavailable if a worker cannot start."""
        gc.collect()
        gc.freeze()  # the workers then share the memory pages of the objects that exist now
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._signal_read, self._signal_write = os.pipe()
        self._install_signal_handlers()
        for worker in self._workers:
            self._fork(worker)
        while not self._stopping or any(worker.pid for worker in self._workers):
            self._wait()
        if self._failure is not None:
            raise ResourceUnavailable(self._failure)
        return self._status

    def _install_signal_handlers(self) -> None:
        """They are never removed: a signal during the exit must not change how the process exits."""
        for file in (self._signal_read, self._signal_write):
            os.set_blocking(file, False)
        signal.set_wakeup_fd(self._signal_write, warn_on_full_buffer=False)  # writes the number of each signal
        for number in _SIGNALS:
            signal.signal(number, _ignore)

    # events

    def _wait(self) -> None:
        """Wait for the next event, and handle it."""
        dead = [] if self._stopping else [worker for worker in self._workers if worker.pid is None]
        poll = select.poll()
        poll.register(self._signal_read, select.POLLIN)
        for worker in self._workers:
            if worker.ready is not None:
                poll.register(worker.ready, select.POLLIN)
        seconds = min((max(0.0, worker.restart_at - time.monotonic()) for worker in dead), default=_CHECK)
        readable = [file for file, _ in poll.poll(min(seconds, _CHECK) * 1000)]
        for worker in self._workers:
            if worker.ready in readable:
                self._on_ready_pipe(worker)
        if self._signal_read in readable:
            for number in os.read(self._signal_read, 4096):
                self._on_signal(number)
        for worker in dead:
            if not self._stopping and worker.restart_at <= time.monotonic():
                self._fork(worker)
        self._check_workers()

    def _check_workers(self) -> None:
        """Kill the workers that hang, and those that do not end in time."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.pid is None:
                continue
            if now >= self._kill_at:
                _log.error("worker %s (pid %s) did not end in time; killing it", worker.number, worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            elif now - self._heartbeats.last(worker.number, now) < self.hang_deadline:
                worker.suspect_since = None
            elif worker.suspect_since is None:
                worker.suspect_since = now
            elif now - worker.suspect_since >= _CONFIRM and not self._stopping:
                text = "worker %s (pid %s) has not responded for %g s; killing it"
                _log.error(text, worker.number, worker.pid, self.hang_deadline)
                os.kill(worker.pid, signal.SIGKILL)
        if now >= self._kill_at:
            self._kill_at = now + _KILL_GRACE

    def _on_ready_pipe(self, worker: Worker) -> None:
        """The worker is ready, or reports why it cannot start, or has exited without a report."""
        assert worker.ready is not None  # noqa: S101 - for the type checker
        report = os.read(worker.ready, _REPORT)
        os.close(worker.ready)
        worker.ready = None
        if not report.startswith(_READY):
            worker.reason = report.decode()
            if not self._announced:
                self._fail(worker.reason or f"worker {worker.number} exited before it was ready; see the log")
            return
        self._process.banner = report.removeprefix(_READY).decode(errors="ignore")
        if not (self._announced or self._stopping or any(worker.ready is not None for worker in self._workers)):
            try:
                self._announce()
                self._announced = True
            except ResourceUnavailable as exc:
                self._fail(str(exc))

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            for worker in self._workers:
                self._reap(worker)
        elif number != signal.SIGHUP:
            self._stop(number)
        elif not self._stopping and self._process.reload():  # for workers forked later, and to log an error only once
            self._signal_workers(number)

    def _reap(self, worker: Worker) -> None:
        """If the worker has exited, schedule its replacement."""
        if worker.pid is None:
            return
        pid, wait_status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return
        worker.pid = worker.suspect_since = None
        self._heartbeats.clear(worker.number)
        self._on_exit(worker.number)
        status = os.waitstatus_to_exitcode(wait_status)
        if self._stopping:
            # a worker that does not serve yet has no handler, so a signal kills it
            self._status = max(self._status, 0 if -status in (signal.SIGTERM, signal.SIGINT) else abs(status))
            return
        now = time.monotonic()
        if now - worker.started_at > _STABLE:
            worker.backoff = _FIRST_BACKOFF
        worker.restart_at = now + worker.backoff
        reason = f" ({worker.reason})" if worker.reason else ""
        text = "worker %s (pid %s) exited with status %s%s; restarting it in %g s"
        _log.error(text, worker.number, pid, status, reason, worker.backoff)
        worker.backoff = min(2 * worker.backoff, _MAX_BACKOFF)

    # actions

    def _fail(self, reason: str) -> None:
        """Give up the start of the service."""
        self._failure = self._failure or reason
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        again = self._stopping and number == signal.SIGINT
        limit = self._process.longest_forced_stop if again else self._process.longest_stop
        self._kill_at = min(self._kill_at, time.monotonic() + limit + _KILL_GRACE)
        if self._process.owns_process:
            exit_within(limit + 2 * _KILL_GRACE, 1, logging.ERROR, "the supervisor did not end in time; it exits now")
        if not self._stopping:
            self._stopping = True
            for group in self._listeners:
                for listener in group:
                    if not self._announced:
                        listener.withdraw()
                    listener.close()  # a socket is closed only when the workers have closed it too
        self._signal_workers(number)

    def _signal_workers(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)

    def _fork(self, worker: Worker) -> None:
        worker.ready, report_to = os.pipe()
        worker.reason = ""
        worker.started_at = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # signals to the child must not reach our pipe
        try:
            pid = os.fork()
        except OSError as exc:
            os.close(worker.ready)
            worker.ready = None
            worker.restart_at = worker.started_at + _MAX_BACKOFF
            if self._announced:
                _log.error("cannot start worker %s: %s", worker.number, exc.strerror)
            else:
                self._fail(f"cannot start worker {worker.number}: {exc.strerror}")
        else:
            if pid == 0:
                self._run_worker(worker, report_to)
            worker.pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(report_to)

    def _run_worker(self, worker: Worker, report_to: int) -> NoReturn:
        """Serve in the worker's own process, and exit."""
        status = 1
        try:
            self._close_inherited(worker)
            self._on_start(worker.number)
            self._process.heartbeat = partial(self._heartbeats.beat, worker.number)
            self._process.neglected = partial(self._neglected_listeners, worker.number)
            listeners = self._listeners[worker.number]
            status = self._process.serve_listeners(
                listeners, partial(self._report_ready, report_to), self._lifeline_read
            )
        except ResourceUnavailable as exc:
            os.write(report_to, str(exc).encode())
        except BaseException:
            _log.critical("worker %s failed", worker.number, exc_info=True)
        finally:
            flush()
            os._exit(status)

    def _report_ready(self, report_to: int) -> None:
        """Tell the supervisor that this worker is ready, and its banner. One write of this size is never split."""
        os.write(report_to, (_READY + self._process.banner.encode())[:_REPORT])

    def _close_inherited(self, worker: Worker) -> None:
        """Undo and close what belongs to the supervisor or to other workers."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        # A terminal sends an interrupt to its whole process group. The supervisor passes it on, so without a group of
        # its own a worker would get it twice, and a second SIGINT ends everything at once.
        os.setpgid(0, 0)
        pipes = (self._lifeline_write, self._signal_read, self._signal_write)
        for file in (*pipes, *(other.ready for other in self._workers)):
            if file is not None:
                os.close(file)

    def _neglected_listeners(self, number: int) -> list[Listener]:
        """The listeners of the workers that hang or are dead; for the worker `number`."""
        own = self._listeners[number]
        others = [self._listeners[other] for other in self._heartbeats.neglected(number)]
        return [listener for group in others for listener in group if listener not in own]


def _ignore(number: int, frame: FrameType | None) -> None:
    """The signal's number is read from the wakeup pipe."""
