"""A model file, served by llama.cpp in a child process that this engine keeps (extra `llama`).

    child   the child: llama.cpp's own HTTP server on a Unix socket
    keeper  starts it, reads what it says, starts it again when it has ended, stops it

It is a process of its own because llama.cpp answers a bad file, and any error within, with `abort()`.
"""

import tempfile
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ...upstream.origin import Origin
from ...wire.deltas import Batch
from ...wire.request import MessagesRequest
from .. import ModelInfo
from ..openai import OpenAIEngine
from .keeper import Keeper

_MAGIC: Final = b"GGUF"


class LocalEngine:
    """The model in the GGUF file at `path`, for `slots` requests at a time with `context` tokens each.

    `context` 0 is what the model was trained with; `threads` 0 is left to llama.cpp. `how` goes to `OpenAIEngine`.
    Raises ValueError, one line, for a file that is none or without llama.cpp.
    """

    def __init__(self, path: str, *, context: int = 0, slots: int = 4, threads: int = 0, **how: Any) -> None:
        _check(path)
        self._folder = tempfile.TemporaryDirectory(prefix="anthro-asgi-")
        socket = Path(self._folder.name, "llama.sock")  # llama.cpp knows a Unix socket by this ending
        options = {"context": context, "slots": slots, "threads": threads}
        self._keeper = Keeper(path, socket, options)
        self._chat = OpenAIEngine(Origin.parse(f"unix:{socket}"), dialect="llamacpp", **how)

    def __repr__(self) -> str:
        return f"<LocalEngine {self._keeper!r} {self._chat!r}>"

    async def start(self) -> None:
        """Starts llama.cpp. Raises RuntimeError when it cannot load the file; a large one is not waited for."""
        try:
            await self._keeper.start()
        except BaseException:
            self._folder.cleanup()
            raise
        await self._chat.start()

    async def stop(self) -> None:
        await self._chat.stop()
        await self._keeper.stop()
        self._folder.cleanup()

    async def ready(self) -> bool:
        return await self._chat.ready()

    async def models(self) -> list[ModelInfo]:
        """The one model. Raises ApiError while it was never loaded."""
        return await self._chat.models()

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length by the model's own tokenizer. Raises ApiError."""
        return await self._chat.count_tokens(request)

    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        return self._chat.stream(request)


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
