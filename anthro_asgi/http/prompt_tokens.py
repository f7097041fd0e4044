"""Counts the tokens of a prompt: by the engine, else by a tokenizer file, else by an estimate (contract section 10).

`count_tokens` waits for the most exact of these. An answer does not wait: its `message_start` contains the tokenizer's
count if that is ready by then, else the estimate. The engine's own count follows in `message_delta`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final

from ..engines.base import BaseEngine
from ..wire.errors import no_thread
from ..wire.estimate import estimate_in_steps, estimate_tokens
from ..wire.large.cooperative import run_with_yields
from ..wire.request import MessagesRequest

ResponseHeaders = tuple[tuple[str, str], ...]
Tokenizer = Callable[[MessagesRequest], int]

_THREADS: Final = 2  # a tokenizer file uses several cores by itself
_HEADER: Final = "anthro-asgi-token-count"
_BY_TOKENIZER: Final[ResponseHeaders] = ((_HEADER, "tokenizer"),)
_ESTIMATED: Final[ResponseHeaders] = ((_HEADER, "estimate"),)


class PromptCounter:
    """Counts prompts for `engine`. `tokenizer` is called in one of a few threads, when the engine does not count."""

    __slots__ = ("_engine", "_pool", "_tokenizer")

    def __init__(self, engine: BaseEngine, tokenizer: Tokenizer | None = None) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        # Not the default executor of the loop, which also resolves names.
        self._pool = None if tokenizer is None else ThreadPoolExecutor(_THREADS, "anthro-asgi tokenizer")

    async def count(self, request: MessagesRequest) -> tuple[int, ResponseHeaders]:
        """The count in tokens, and the response headers that tell when it is not the engine's own. Raises ApiError."""
        if request.relay_only and not self._engine.accepts_server_tools:
            request.refuse_relay_only()
        try:
            return await self._engine.count_tokens(request), ()
        except NotImplementedError:
            pass
        if self._tokenizer is not None:
            loop = asyncio.get_running_loop()
            try:
                counting = loop.run_in_executor(self._pool, self._tokenizer, request)
            except RuntimeError as exc:
                raise no_thread() from exc
            return await counting, _BY_TOKENIZER
        return await run_with_yields(estimate_in_steps(request), perf_counter), _ESTIMATED

    def start_estimate(self, request: MessagesRequest) -> "PromptEstimate":
        """Start counting in the background, for an answer whose engine may not report the prompt's length in time."""
        if self._tokenizer is None:
            return PromptEstimate(request)
        try:
            counting = asyncio.get_running_loop().run_in_executor(self._pool, self._tokenizer, request)
        except RuntimeError:  # the system has no thread left: the estimate replaces the count
            return PromptEstimate(request)
        counting.add_done_callback(_settle)
        return PromptEstimate(request, counting)


class PromptEstimate:
    """Call it for a prompt's length in tokens: the result of `counting` if that is ready, else an estimate.

    If the request has its estimate already, as a large one does, it is not held: it has to be freed in steps.
    """

    __slots__ = ("_counting", "_request", "_tokens")

    def __init__(self, request: MessagesRequest, counting: "asyncio.Future[int] | None" = None) -> None:
        self._tokens = 0 if request.estimate is None else estimate_tokens(request)
        self._request = request if request.estimate is None else None
        self._counting = counting

    def __call__(self) -> int:
        if self._counting is not None and _has_result(self._counting):
            return self._counting.result()
        return self._tokens if self._request is None else estimate_tokens(self._request)

    def release_request(self) -> None:
        """Free the request, which may be large. The estimate may not be called after that.

        A count that has not begun is cancelled: nothing needs it any more.
        """
        self._request = None
        if self._counting is not None:
            self._counting.cancel()


def _has_result(counting: "asyncio.Future[int]") -> bool:
    return counting.done() and not counting.cancelled() and counting.exception() is None


def _settle(counting: "asyncio.Future[int]") -> None:
    if not counting.cancelled():
        counting.exception()  # read, so that asyncio does not log it: the estimate replaces the count
