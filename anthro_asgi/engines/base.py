"""Who answers: the one thing an engine must do, and how one is found by name.

The smallest engine is an async generator function:

    async def engine(request):
        yield "Hello"
"""

import importlib
import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..wire.deltas import Batch
from ..wire.request import MessagesRequest
from .functions import ThreadedEngine
from .openai.chat_request import to_chat
from .openai.dialects import PLAIN


class Engine(Protocol):
    """What the service needs of an engine.

    `stream` is an async generator; it is closed with `aclose` when the client leaves or a stop sequence matched.
    An engine may also have: `async start()` and `async stop()`, run with the service; `async count_tokens(request)
    -> int`, the prompt's exact length, which raises NotImplementedError when it cannot tell that of this request;
    `async models() -> list[ModelInfo]`; `async ready() -> bool`; `observe`, which is set to a function that it tells,
    as `observe("upstream_error", kind)` and `observe("repair", kind)`, what went wrong and what it mended;
    `connections() -> dict[str, int]`, by their states. What it lacks is done without. It raises ApiError for what a
    client should know; see `wire.errors`. Ending without a Finish is an error, unless it has
    `returning_ends_turn = True`.
    """

    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model an engine serves. `created` in Unix seconds; limits in tokens, None when the engine does not say."""

    id: str
    display_name: str = ""
    created: int = 0
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    owned_by: str = ""


class FunctionEngine:
    """An async generator function as an engine: to return is to end the turn."""

    returning_ends_turn = True

    def __init__(self, function: Any) -> None:
        self.stream = function

    def __repr__(self) -> str:
        return f"<FunctionEngine {self.stream.__module__}.{self.stream.__qualname__}>"


def as_chat(request: MessagesRequest) -> dict[str, Any]:
    """The request as the body of a chat-completions call, for an engine that reads those: `messages`, `tools`, ….

    Raises InvalidRequest for what such a body cannot say.
    """
    return to_chat(request, PLAIN)


def as_engine(thing: Any) -> Engine:
    """`thing` as an engine: it has `stream`, or is a generator function, async or not, or makes one when it is called
    without arguments, as a class does.

    A function that is not async, as `stream` too, is run in a thread for each request (see `threaded`).

    Raises ValueError when it is none of these.
    """
    if inspect.isclass(thing) or (inspect.isfunction(thing) and not _is_generator(thing) and _takes_nothing(thing)):
        thing = thing()
    stream = getattr(thing, "stream", None)
    if inspect.isgeneratorfunction(stream):
        thing.stream = ThreadedEngine(stream).stream
    if callable(stream):
        return thing  # type: ignore[no-any-return]
    if inspect.isasyncgenfunction(thing):
        return FunctionEngine(thing)
    if inspect.isgeneratorfunction(thing):
        return ThreadedEngine(thing)
    raise ValueError(f"{thing!r:.100} is no engine: it needs a generator method `stream(request)`, best an async one")


def _is_generator(thing: Any) -> bool:
    return inspect.isgeneratorfunction(thing) or inspect.isasyncgenfunction(thing)


def _takes_nothing(function: Any) -> bool:
    return not inspect.signature(function).parameters and not inspect.iscoroutinefunction(function)


def load(spec: str) -> Engine:
    """The engine at `module:attr`. Raises ValueError, in one line, when there is none."""
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"engine {spec!r}: write it as module:attr")
    try:
        thing: Any = importlib.import_module(module_name)
        for step in attribute.split("."):
            thing = getattr(thing, step)
    except ImportError as exc:
        raise ValueError(f"engine {spec!r}: {exc}") from exc
    except AttributeError as exc:
        raise ValueError(f"engine {spec!r}: {module_name} has no {attribute}") from exc
    try:
        return as_engine(thing)
    except ValueError as exc:
        raise ValueError(f"engine {spec!r}: {exc}") from exc
