"""Keeps a child process: started, listened to, started again when it has ended, stopped.

It is started again after a pause that doubles each time, up to half a minute, and begins anew once a child has lived
for a minute. What it says on standard error is logged, line by line. Of its end the first error is told that it spoke
of, for what follows that is its consequence.
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

_PATIENCE: Final = 10.0  # seconds that a start waits for the model: what is wrong with a file is known by then
_SHORTEST: Final = 0.5  # seconds of pause before it is started again, at first
_LONGEST: Final = 30.0
_SETTLED: Final = 60.0  # seconds of life after which an end is taken to be a new trouble
_FAREWELL: Final = 5.0  # seconds that a child has to end
_ERROR: Final = re.compile(r"[\d.]+ E +(.*)")  # as llama.cpp logs one, behind the time
_log = logging.getLogger(__name__)


class LlamaSupervisor:
    """Keeps `child` on `socket`. Made outside an event loop; `start` is called in one."""

    def __init__(self, model: str, socket: Path, options: Mapping[str, int]) -> None:
        self._model = model
        self._socket = socket
        self._options = [f"--{name}={value}" for name, value in options.items()]
        self._keeping: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._first_error = ""
        self._pause = _SHORTEST
        self._loaded = asyncio.Event()
        self._ever = False  # loaded
        self._awaited = True  # by a start

    def __repr__(self) -> str:
        state = "loaded" if self._loaded.is_set() else "away" if self._process is None else "loading"
        return f"<LlamaSupervisor of {Path(self._model).name}: {state}>"

    @property
    def pid(self) -> int | None:
        """The child's, while there is one."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the child and keep it. Raises RuntimeError, one line, when it ends before it has loaded the model."""
        self._keeping = keeping = asyncio.create_task(self._keep())
        loaded = asyncio.create_task(self._loaded.wait())
        try:
            await asyncio.wait({keeping, loaded}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            self._awaited = False
            loaded.cancel()
            await asyncio.wait({loaded})
        if keeping.done():
            keeping.result()

    async def stop(self) -> None:
        """End the child, and keep no other."""
        if self._keeping is not None and not self._keeping.done():
            self._keeping.cancel()
            await asyncio.wait({self._keeping})

    async def _keep(self) -> None:
        """Raises RuntimeError when the first child ends before it has loaded the model, and a start waits for it."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            how = await self._live()
            if self._awaited and not self._ever:
                raise RuntimeError(f"llama.cpp could not load {self._model}: {how}")
            if loop.time() - began > _SETTLED:
                self._pause = _SHORTEST
            _log.error("llama.cpp ended (%s); it is started again in %g s", how, self._pause)
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST)

    async def _live(self) -> str:
        """A child's life, from its start until it has ended; how it did."""
        self._first_error = ""
        self._socket.unlink(missing_ok=True)
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", f"{__package__}.child", self._model, str(self._socket), *self._options)
        self._process = process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            await asyncio.gather(self._await_load(process), self._read_log(process))
            status = await process.wait()
        finally:
            self._loaded.clear()
            await _end(process)
            self._process = None
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return self._first_error or how

    async def _await_load(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        if await process.stdout.readline():
            self._ever = True
            self._loaded.set()
            _log.info("llama.cpp has loaded %s", self._model)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - for the type checker
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # longer than anybody would read
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").strip()
            if text:
                error = _ERROR.match(text)
                self._first_error = self._first_error or (error[1] if error else "")
                _log.info("llama.cpp: %s", text)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_FAREWELL):
            await process.wait()
    except TimeoutError:  # it is loading, and does not look at its standard input
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
