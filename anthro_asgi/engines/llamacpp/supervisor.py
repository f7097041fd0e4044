"""Supervises the child process that runs llama.cpp: starts it, logs its output, restarts it, stops it.

The pause before a restart doubles each time, up to 30 seconds. It is half a second again once a child has run for a
minute. Each line of the child's standard error is logged. When the child ends, the first error that it reported is
given as the reason, because later errors are consequences of the first. Without one, its last line is the reason.
"""

import asyncio
import logging
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_START_TIMEOUT: Final = 10.0  # seconds that a start waits for the model; an invalid file is reported earlier
_MIN_PAUSE: Final = 0.5  # seconds before the first restart
_MAX_PAUSE: Final = 30.0  # seconds
_STABLE: Final = 60.0  # seconds of run time after which the next restart has the shortest pause again
_STOP_TIMEOUT: Final = 5.0  # seconds
_ERROR: Final = re.compile(r"[\d.]+ E +(.*)")  # a log line of llama.cpp: time, level, text
_log = logging.getLogger(__name__)


class LlamaSupervisor:
    """Runs `child` on `socket`. May be created outside an event loop; `start` needs one."""

    def __init__(self, model: str, socket: Path, options: Mapping[str, int]) -> None:
        self._model = model
        self._socket = socket
        self._options = [f"--{name}={value}" for name, value in options.items()]
        self._supervising: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._first_error = self._last_line = ""
        self._pause = _MIN_PAUSE
        self._loaded = asyncio.Event()
        self._loaded_once = False
        self._starting = True  # `start` has not returned yet

    def __repr__(self) -> str:
        state = "loaded" if self._loaded.is_set() else "not running" if self._process is None else "loading"
        return f"<LlamaSupervisor of {Path(self._model).name}: {state}>"

    @property
    def pid(self) -> int | None:
        """The process id of the child, None while there is no child."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the child, and wait up to ten seconds until it has loaded the model.

        Raises RuntimeError with a one-line message when the child ends before it has loaded the model.
        """
        self._supervising = supervising = asyncio.create_task(self._supervise())
        loaded = asyncio.create_task(self._loaded.wait())
        try:
            await asyncio.wait({supervising, loaded}, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            self._starting = False
            loaded.cancel()
            await asyncio.wait({loaded})
        if supervising.done():
            supervising.result()

    async def stop(self) -> None:
        """Stop the child, and do not restart it."""
        if self._supervising is not None and not self._supervising.done():
            self._supervising.cancel()
            await asyncio.wait({self._supervising})

    async def _supervise(self) -> None:
        """Run a child again and again. Raises RuntimeError when the first one cannot load the model."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            reason = await self._run_child()
            if self._starting and not self._loaded_once:
                raise RuntimeError(f"llama.cpp could not load {self._model}: {reason}")
            if loop.time() - started > _STABLE:
                self._pause = _MIN_PAUSE
            _log.error("llama.cpp ended (%s); it restarts in %g s", reason, self._pause)
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _MAX_PAUSE)

    async def _run_child(self) -> str:
        """Run one child until it ends. Returns the reason of its end."""
        self._first_error = self._last_line = ""
        self._socket.unlink(missing_ok=True)
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", f"{__package__}.child", self._model, str(self._socket), *self._options)
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,  # Ctrl-C in the terminal is for the service, whose drain needs the child
        )
        try:
            await asyncio.gather(self._wait_until_loaded(process), self._read_log(process))
            status = await process.wait()
        finally:
            self._loaded.clear()
            await _stop_child(process)
            self._process = None
        if status < 0:
            return self._first_error or signal.Signals(-status).name
        return self._first_error or self._last_line or f"status {status}"

    async def _wait_until_loaded(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        if await process.stdout.readline():
            self._loaded_once = True
            self._loaded.set()
            _log.info("llama.cpp has loaded %s", self._model)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - for the type checker
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # a line that is longer than the stream's limit
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").strip()
            if text:
                error = _ERROR.match(text)
                self._first_error = self._first_error or (error[1] if error else "")
                self._last_line = text
                _log.info("llama.cpp: %s", text)


async def _stop_child(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:  # while it loads the model it does not read its standard input
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
