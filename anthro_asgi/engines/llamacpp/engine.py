"""A model file, served by llama.cpp in a child process (extra `llama`).

    child       the child process: llama.cpp's own HTTP server on a Unix socket
    supervisor  starts the child, reads its output, restarts it when it has ended, and stops it

llama.cpp runs in a process of its own because it calls `abort()` for an invalid file and for internal errors.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Unpack

from ...upstream.origin import Origin
from ..openai.engine import OpenAIEngine
from ..shared.remote import RemoteOptions
from .supervisor import LlamaSupervisor

_MAGIC: Final = b"GGUF"


class LlamaCppEngine(OpenAIEngine):
    """The model in the GGUF file at `path`, with `slots` concurrent requests of `context` tokens each.

    `context` 0 is the context that the model was trained with. With `threads` 0, llama.cpp chooses. `options` are those
    of every RemoteEngine. Raises ValueError with a one-line message for an invalid file and without llama.cpp.
    """

    def __init__(
        self, path: str, *, context: int = 0, slots: int = 4, threads: int = 0, **options: Unpack[RemoteOptions]
    ) -> None:
        _check(path)
        self._folder = tempfile.TemporaryDirectory(prefix="anthro-asgi-")
        socket = Path(self._folder.name, "llama.sock")  # llama.cpp recognises a Unix socket by this suffix
        self._supervisor = LlamaSupervisor(path, socket, {"context": context, "slots": slots, "threads": threads})
        super().__init__(Origin.parse(f"unix:{socket}"), dialect="llamacpp", **options)

    def __repr__(self) -> str:
        return f"<LlamaCppEngine {self._supervisor!r} {super().__repr__()}>"

    async def start(self) -> None:
        """Start llama.cpp. Raises RuntimeError when it cannot load the file. A large file is not awaited."""
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
            magic = file.read(len(_MAGIC))
    except OSError as exc:
        raise ValueError(f"cannot read the model {path}: {exc.strerror}") from exc
    if magic != _MAGIC:
        raise ValueError(f"{path} is not a GGUF file")
