"""The models an engine lists, kept for a while: who asks often need not ask the engine, and who asks while it is away
is told what it last had.

Everybody who asks at one time shares one question. One who asks with a list at hand that is merely old waits a moment
for the new one; the question goes on without him, so that the next one has its answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ...wire.errors import BadUpstream
from ..base import ModelInfo
from .single_flight import SingleFlight

MAX_AGE: Final = 30.0  # seconds for which a list is as good as new
_MOMENT: Final = 1.0  # seconds that one with an old list at hand waits for a new one
_LATEST: Final = 253402300800  # the end of the year 9999, beyond which there are no dates

Ask = Callable[[], Awaitable[Sequence[ModelInfo]]]


class ModelList:
    """The list that `ask` gives. `ask` raises ApiError; `time` is a clock in seconds, the loop's by default."""

    def __init__(self, ask: Ask, time: Callable[[], float] | None = None) -> None:
        self._asking = SingleFlight(self._refresh)
        self._ask = ask
        self._time = time or (lambda: asyncio.get_running_loop().time())
        self._models: list[ModelInfo] | None = None
        self._noted = float("-inf")

    def __repr__(self) -> str:
        models = "nothing" if self._models is None else f"{len(self._models)} models"
        return f"<ModelList {models}{' asking' if self._asking.running else ''}>"

    async def models(self) -> list[ModelInfo]:
        """The list. Raises what `ask` raises, when there is none yet."""
        if self._models is None or self._time() - self._noted >= MAX_AGE:
            task = self.refresh()
            await asyncio.wait({task}, timeout=None if self._models is None else _MOMENT)
            if self._models is None:
                await task
        return list(self._models or ())

    def refresh(self) -> "asyncio.Task[None]":
        """Ask, unless it is being asked already."""
        return self._asking.start()

    async def _refresh(self) -> None:
        self.note(await self._ask())

    def note(self, models: Sequence[ModelInfo]) -> None:
        """A list that was come by in another way. A model that was there before keeps its time of creation: some
        engines give the time of the question.
        """
        created = {model.id: model.created for model in self._models or ()}
        self._models = [replace(model, created=created.get(model.id, model.created)) for model in models]
        self._noted = self._time()

    def window(self, name: str) -> int | None:
        """The context length of a model, in tokens, as far as it is known."""
        models = self._models or []
        named = [model for model in models if model.id == name]
        # many engines have one model and answer to any name
        only = named or (models if len(models) == 1 else [])
        return only[0].max_input_tokens if only else None

    async def close(self) -> None:
        """Ask no more."""
        await self._asking.close()


def parse_models(answer: Any) -> list[ModelInfo]:
    """The models in the answer to `GET /v1/models`. Raises BadUpstream when there is no list in it."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise BadUpstream("the engine's model list is none")
    return [_model(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _model(entry: dict[str, Any]) -> ModelInfo:
    """A list entry; the window is `max_model_len` in vLLM and SGLang, `meta.n_ctx` in llama.cpp, `context_length` in
    SambaNova, which tells the longest answer too.
    """
    meta = entry.get("meta")
    inner = meta.get("n_ctx") if isinstance(meta, dict) else None
    told = (entry.get("max_model_len"), entry.get("context_length"), inner)
    window = next((length for length in told if type(length) is int and length > 0), None)
    longest = entry.get("max_completion_tokens")
    created = entry.get("created")
    return ModelInfo(
        id=entry["id"],
        display_name=entry["id"],
        created=created if type(created) is int and 0 <= created < _LATEST else 0,
        max_input_tokens=window,
        max_tokens=longest if type(longest) is int and longest > 0 else window,
        owned_by=entry["owned_by"] if isinstance(entry.get("owned_by"), str) else "",
    )
