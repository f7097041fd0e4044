"""The engine's model list, cached for 30 seconds. The last list is used while the engine is not reachable.

Concurrent callers share one request. When the cached list is too old, a caller waits one second for a new one and then
receives the old one. The request goes on, so that the next caller receives the new list.

After a failed request, the engine is not asked again for a second. `/v1/models` may be open to everyone, and must not
pass each request on to an engine that is in trouble.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from ...wire.errors import ApiError, BadUpstream
from ..base import ModelInfo
from .fetch import FetchResult
from .single_flight import SingleFlight

MAX_AGE: Final = 30.0  # seconds after which a list is refreshed
_FAILURE_AGE: Final = 1.0  # seconds after a failure in which the engine is not asked again
_MAX_WAIT: Final = 1.0  # seconds that a caller waits for a new list when there is an old one
_WINDOW_KEYS: Final = (
    "max_model_len",  # vLLM, SGLang, MAX
    "context_length",  # SambaNova, OpenRouter, Moonshot, vllm-mlx
    "context_window",  # Groq, Dynamo, fastllm
    "max_context_length",  # Mistral
    "max_input_tokens",  # LiteLLM, and servers of the Messages API
)
_LONGEST_ANSWER_KEYS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_LATEST: Final = 253402300800  # the end of the year 9999, beyond which there are no dates

FetchModels = Callable[[], Awaitable[Sequence[ModelInfo]]]


class ModelList:
    """Caches the list that `fetch` returns. `fetch` raises ApiError. `time` is a clock in seconds, else the loop's.

    `window` is the context length of every model in tokens, where the operator says it.
    """

    def __init__(
        self, fetch: FetchModels, time: Callable[[], float] | None = None, *, window: int | None = None
    ) -> None:
        self._refreshing = SingleFlight(self._refresh)
        self._fetch = fetch
        self._window = window
        self._time = time or (lambda: asyncio.get_running_loop().time())
        self._models: list[ModelInfo] | None = None
        self._fetched_at = float("-inf")
        self._failure: ApiError | None = None  # of the last request, if that failed
        self._failed_at = float("-inf")

    def __repr__(self) -> str:
        models = "not fetched" if self._models is None else f"{len(self._models)} models"
        return f"<ModelList {models}{' refreshing' if self._refreshing.running else ''}>"

    def known(self) -> list[ModelInfo] | None:
        """The list that was fetched last, however old it is; None if there is none yet."""
        return None if self._models is None else list(self._models)

    async def models(self) -> list[ModelInfo]:
        """The list. Raises what `fetch` raised last when there is no list yet."""
        now = self._time()
        if self._models is None or now - self._fetched_at >= MAX_AGE:
            if self._failure is not None and now - self._failed_at < _FAILURE_AGE:
                if self._models is None:
                    raise self._failure.with_traceback(None)
                return list(self._models)
            task = self.refresh()
            await asyncio.wait({task}, timeout=None if self._models is None else _MAX_WAIT)
            if self._models is None:
                await task
        return list(self._models or ())

    def refresh(self) -> "asyncio.Task[None]":
        """Start to fetch the list, unless that is running."""
        return self._refreshing.start()

    async def _refresh(self) -> None:
        try:
            models = await self._fetch()
        except ApiError as exc:
            self._failure, self._failed_at = exc, self._time()
            raise
        self.note(models)

    def note(self, models: Sequence[ModelInfo]) -> None:
        """Store a list that was fetched for another purpose.

        A known model keeps its time of creation: some engines report the time of the request.
        """
        created = {model.id: model.created for model in self._models or ()}
        self._models = [replace(model, created=created.get(model.id, model.created)) for model in models]
        if self._window is not None:
            self._models = [_with_window(model, self._window) for model in self._models]
        self._fetched_at = self._time()
        self._failure = None

    def window(self, name: str) -> int | None:
        """The context length of a model in tokens; None when it is unknown."""
        model = self._find(name)
        return None if model is None else model.max_input_tokens

    def listed_name(self, name: str) -> str:
        """The listed name of the model that answers to `name`; "" for all names that the list does not know.

        Without a list, it is `name`.
        """
        if self._models is None:
            return name
        model = self._find(name)
        return "" if model is None else model.id

    def _find(self, name: str) -> ModelInfo | None:
        models = self._models or []
        named = next((model for model in models if model.id == name), None)
        # many engines have one model and accept any name for it
        return named or (models[0] if len(models) == 1 else None)

    async def close(self) -> None:
        """Cancel a running request for the list."""
        await self._refreshing.close()


def _with_window(model: ModelInfo, window: int) -> ModelInfo:
    longest = window if model.max_tokens is None else min(window, model.max_tokens)
    return replace(model, max_input_tokens=window, max_tokens=longest)


def parse_models(body: Any) -> list[ModelInfo]:
    """The models in the body of a response to `GET /v1/models`. Raises BadUpstream when it is not a list of models."""
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise BadUpstream("the engine returned an invalid model list")
    return [_model(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def has_model(result: FetchResult) -> bool:
    """Whether the response is a list with a model."""
    try:
        return result.status == 200 and bool(parse_models(result.json()))
    except BadUpstream:
        return False


def model_page(result: FetchResult) -> dict[str, Any] | None:
    """The body of one page of a model list; None if it is not one."""
    body = result.json() if result.status == 200 else None
    return body if isinstance(body, dict) and isinstance(body.get("data"), list) else None


def entries_by_id(page: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of a page that are models, by their id, in order."""
    return {
        entry["id"]: entry for entry in page["data"] if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    }


def next_page(page: dict[str, Any]) -> str | None:
    """The query for the page behind `page`: of the Messages API, or of OpenAI's lists. None if there is none."""
    entries = list(entries_by_id(page).values())
    if page.get("has_more") is not True or not entries:
        return None
    last = page.get("last_id")
    cursor = quote(last if isinstance(last, str) and last else entries[-1]["id"], safe="")
    return f"limit=1000&after_id={cursor}" if entries[-1].get("type") == "model" else f"after={cursor}"


def _model(entry: dict[str, Any]) -> ModelInfo:
    """The model of a list entry.

    llama.cpp reports the context length inside `meta`, other engines in one of `_WINDOW_KEYS`.
    """
    meta = entry.get("meta")
    inner = meta.get("n_ctx") if isinstance(meta, dict) else None
    lengths = [inner, *map(entry.get, _WINDOW_KEYS)]
    window = next((length for length in lengths if type(length) is int and length > 0), None)
    longest = next((entry[key] for key in _LONGEST_ANSWER_KEYS if entry.get(key) is not None), None)
    title = entry.get("display_name")
    return ModelInfo(
        id=entry["id"],
        display_name=title if isinstance(title, str) and title else entry["id"],
        created=_created(entry),
        max_input_tokens=window,
        max_tokens=longest if type(longest) is int and longest > 0 else window,
        owned_by=entry["owned_by"] if isinstance(entry.get("owned_by"), str) else "",
    )


def _created(entry: dict[str, Any]) -> int:
    """The time of creation in Unix seconds: a number in OpenAI's lists, a date in those of the Messages API; else 0."""
    created, date = entry.get("created"), entry.get("created_at")
    if type(created) is not int and isinstance(date, str):
        try:
            parsed = datetime.fromisoformat(date)
        except ValueError:
            return 0
        created = int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    return created if type(created) is int and 0 <= created < _LATEST else 0
