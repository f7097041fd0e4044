"""As many processes as are asked for: one serves by itself; of several, the master forks the others.

    master ──forks──► worker ── "I listen" ──► when all do, the master prints where
      │  signals ──────► each                      a worker that dies is replaced, at its sockets
      └─ its end ──────► the end of a pipe, `lifeline`: they stop as well

The master has no event loop and no thread. What it has made, the application and its engine, each worker gets a copy
of, so that must not hold what belongs to a process: a loop, a thread, a connection. These begin when the application
starts.
"""

import gc
import logging
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final, NoReturn

from ..settings.options import ResourceUnavailable, Settings
from .listeners import Listener
from .process import ServerProcess
from .tls import Certificate

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_READY: Final = b"+"
_STABLE: Final = 30.0  # seconds after which a worker that dies is replaced as if it were the first to
_REST: Final = 0.1  # seconds until then, doubled each time up to
_LONGEST_REST: Final = 5.0
_log = logging.getLogger(__name__)


def serve(
    app: Any,
    shares: list[list[Listener]],
    settings: Settings,
    certificate: Certificate | None,
    reload: Callable[[], object],
) -> int:
    """Serve `app` until a signal, each of `shares` in a process; the exit status.

    Raises ResourceUnavailable when it cannot start.

    `reload` is called on SIGHUP to take what files hold now, or to raise ConfigError and leave everything as it is.
    """
    _have_files()
    process = ServerProcess(app, settings, certificate, reload)
    scheme = "http" if certificate is None else "https"

    def announce() -> None:
        for listener in shares[0]:
            listener.publish()
        for listener in shares[0]:
            print("listening on", listener.address(scheme), flush=True)

    if len(shares) == 1:
        return process.serve_listeners(shares[0], announce)
    app.metrics.share_among(len(shares))
    return WorkerSupervisor(process, shares, announce, started=app.metrics.count_as, lost=app.metrics.worker_lost).run()


def _have_files() -> None:
    """As many open files as this process may have: an answer takes two, and the usual soft limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # an endless limit may be more than the system has
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(slots=True)
class Worker:
    """`number` counts from 0. `ready` is the file in which it says that it listens, until it has, or `why` it does not.

    A worker without a `pid` has died, and is `due` to be replaced. Times are of the monotonic clock.
    """

    number: int
    pid: int | None = None
    ready: int | None = None
    why: str = ""
    began: float = 0.0
    rest: float = _REST
    due: float = 0.0


class WorkerSupervisor:
    """Runs `process` at each of `shares`. `started` is called in each worker and `lost` for it, with its number."""

    def __init__(
        self,
        process: ServerProcess,
        shares: list[list[Listener]],
        announce: Callable[[], None],
        *,
        started: Callable[[int], None],
        lost: Callable[[int], None],
    ) -> None:
        self._process = process
        self._shares = shares
        self._announce = announce
        self._started = started
        self._lost = lost
        self._workers = [Worker(number) for number in range(len(shares))]
        self._announced = False
        self._stopping = False
        self._failure: str | None = None
        self._status = 0

    def run(self) -> int:
        """Until a signal; the exit status. Raises ResourceUnavailable when a worker cannot start."""
        gc.collect()
        gc.freeze()  # the pages of what is there now stay shared
        self._lifeline, self._life = os.pipe()
        self._ear, self._mouth = os.pipe()
        self._listen_to_signals()
        for worker in self._workers:
            self._fork(worker)
        while not self._stopping or any(worker.pid for worker in self._workers):
            self._wait()
        if self._failure is not None:
            raise ResourceUnavailable(self._failure)
        return self._status

    def _listen_to_signals(self) -> None:
        """Never undone: a signal that comes while the process is ending must not end it differently."""
        for file in (self._ear, self._mouth):
            os.set_blocking(file, False)
        signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)  # their numbers can be read from the ear
        for number in _SIGNALS:
            signal.signal(number, _heard)

    # what happens

    def _wait(self) -> None:
        """Wait until something happens, and do what is to be done about it."""
        dead = [] if self._stopping else [worker for worker in self._workers if worker.pid is None]
        poll = select.poll()
        poll.register(self._ear, select.POLLIN)
        for worker in self._workers:
            if worker.ready is not None:
                poll.register(worker.ready, select.POLLIN)
        rest = min((max(0.0, worker.due - time.monotonic()) for worker in dead), default=None)
        happened = [file for file, _ in poll.poll(None if rest is None else rest * 1000)]
        for worker in self._workers:
            if worker.ready in happened:
                self._hear_from(worker)
        if self._ear in happened:
            for number in os.read(self._ear, 4096):
                self._obey(number)
        for worker in dead:
            if not self._stopping and worker.due <= time.monotonic():
                self._fork(worker)

    def _hear_from(self, worker: Worker) -> None:
        """It listens, or says why it does not, or ended without a word."""
        assert worker.ready is not None  # noqa: S101 - for the type checker
        said = os.read(worker.ready, 4096)
        os.close(worker.ready)
        worker.ready = None
        if said != _READY:
            worker.why = said.decode()
            if not self._announced:
                self._fail(worker.why or f"worker {worker.number} ended before it was ready; the log may say why")
        elif not (self._announced or self._stopping or any(worker.ready is not None for worker in self._workers)):
            try:
                self._announce()
                self._announced = True
            except ResourceUnavailable as exc:
                self._fail(str(exc))

    def _obey(self, number: int) -> None:
        if number == signal.SIGCHLD:
            for worker in self._workers:
                self._look_at(worker)
        elif number != signal.SIGHUP:
            self._stop(number)
        elif not self._stopping and self._process.renew():  # for those that are yet to be forked, and to say it once
            self._tell_all(number)

    def _look_at(self, worker: Worker) -> None:
        if worker.pid is None:
            return
        ended, how = os.waitpid(worker.pid, os.WNOHANG)
        if not ended:
            return
        worker.pid = None
        self._lost(worker.number)
        status = os.waitstatus_to_exitcode(how)
        if self._stopping:
            # before it serves, a worker has no other way to end by a signal than to die of it
            self._status = max(self._status, 0 if -status in (signal.SIGTERM, signal.SIGINT) else abs(status))
            return
        now = time.monotonic()
        if now - worker.began > _STABLE:
            worker.rest = _REST
        worker.due = now + worker.rest
        why = f" ({worker.why})" if worker.why else ""
        text = "worker %s (process %s) ended with status %s%s; another starts in %g s"
        _log.error(text, worker.number, ended, status, why, worker.rest)
        worker.rest = min(2 * worker.rest, _LONGEST_REST)

    # what is done about it

    def _fail(self, reason: str) -> None:
        """The service does not come to be."""
        self._failure = self._failure or reason
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if not self._stopping:
            self._stopping = True
            for share in self._shares:
                for listener in share:
                    if not self._announced:
                        listener.withdraw()
                    listener.close()  # only where the workers close it too is it closed
        self._tell_all(number)

    def _tell_all(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)

    def _fork(self, worker: Worker) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        worker.ready, mouth = os.pipe()
        worker.why = ""
        worker.began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # what the child gets shall not be heard by us
        try:
            pid = os.fork()
        except OSError as exc:
            os.close(worker.ready)
            worker.ready = None
            worker.due = worker.began + _LONGEST_REST
            if self._announced:
                _log.error("cannot start worker %s: %s", worker.number, exc.strerror)
            else:
                self._fail(f"cannot start worker {worker.number}: {exc.strerror}")
        else:
            if pid == 0:
                self._be(worker, mouth)
            worker.pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(mouth)

    def _be(self, worker: Worker, mouth: int) -> NoReturn:
        """What the worker does, in its own process."""
        status = 1
        try:
            self._let_go(worker)
            self._started(worker.number)
            listeners = self._shares[worker.number]
            status = self._process.serve_listeners(listeners, partial(os.write, mouth, _READY), self._lifeline)
        except ResourceUnavailable as exc:
            os.write(mouth, str(exc).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _let_go(self, worker: Worker) -> None:
        """Of what is the master's, or another worker's."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.setpgid(0, 0)  # a terminal tells its whole group of an interrupt, and the master tells us as well
        for file in (self._life, self._ear, self._mouth, *(other.ready for other in self._workers)):
            if file is not None:
                os.close(file)
        ours = self._shares[worker.number]
        for share in self._shares:
            for listener in share:
                if listener not in ours:
                    listener.close()


def _heard(number: int, _: FrameType | None) -> None:
    """It is read from the ear."""
