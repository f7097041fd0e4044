"""A model file, served by llama.cpp in a child process that this engine keeps (extra `llama`).

    child   the child: llama.cpp's own HTTP server on a Unix socket
    supervisor  starts it, reads what it says, starts it again when it has ended, stops it

It is a process of its own because llama.cpp answers a bad file, and any error within, with `abort()`.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ...upstream.origin import Origin
from ..openai.engine import OpenAIEngine
from .supervisor import LlamaSupervisor

_MAGIC: Final = b"GGUF"


class LlamaCppEngine(OpenAIEngine):
    """The model in the GGUF file at `path`, for `slots` requests at a time with `context` tokens each.

    `context` 0 is what the model was trained with; `threads` 0 is left to llama.cpp. `how` goes to `OpenAIEngine`.
    Raises ValueError, one line, for a file that is none or without llama.cpp.
    """

    def __init__(self, path: str, *, context: int = 0, slots: int = 4, threads: int = 0, **how: Any) -> None:
        _check(path)
        self._folder = tempfile.TemporaryDirectory(prefix="anthro-asgi-")
        socket = Path(self._folder.name, "llama.sock")  # llama.cpp knows a Unix socket by this ending
        self._supervisor = LlamaSupervisor(path, socket, {"context": context, "slots": slots, "threads": threads})
        super().__init__(Origin.parse(f"unix:{socket}"), dialect="llamacpp", **how)

    def __repr__(self) -> str:
        return f"<LlamaCppEngine {self._supervisor!r} {super().__repr__()}>"

    async def start(self) -> None:
        """Starts llama.cpp. Raises RuntimeError when it cannot load the file; a large one is not waited for."""
        try:
            await self._supervisor.start()
        except BaseException:
            self._folder.cleanup()
            raise
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._supervisor.stop()
        self._folder.cleanup()


def _check(path: str) -> None:
    if find_spec("xllamacpp") is None:
        raise ValueError("a model file needs an extra: pip install 'anthro-asgi[llama]'")
    try:
        with open(path, "rb") as file:
            begins = file.read(len(_MAGIC))
    except OSError as exc:
        raise ValueError(f"cannot read the model {path}: {exc.strerror}") from exc
    if begins != _MAGIC:
        raise ValueError(f"{path} is no GGUF file")
