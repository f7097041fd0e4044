"""Generator functions and foreign objects as engines, and `load("module:attr")`.

    as_engine(thing)  a BaseEngine            is taken as it is
                      an async generator fn   FunctionEngine
                      a generator function    ThreadedEngine: it may block without blocking the event loop
                      an object with stream   AdaptedEngine, which forwards to the methods the object has
                      a class or a function without parameters: what calling it returns

The smallest engine is an async generator function:

    async def engine(request):
        yield "Hello"

Theory of ThreadedEngine. Each stream has a thread of its own, because its generator may block until the stream ends.
Everything the thread has yielded by the time the loop reads it becomes one batch. A thread that is `AHEAD` batches
ahead of the loop waits. A thread cannot be interrupted: when the client disconnects, the generator is closed at its
next `yield`, in its own thread. The stream is closed when the generator has ended, so a request keeps its slot until
then, and no more generators run than the engine has slots.
"""

import asyncio
import importlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from ..wire.deltas import Batch, Delta, deltas_of
from ..wire.errors import no_thread
from ..wire.request import MessagesRequest
from .base import BaseEngine, Observer, ignore_observation

AHEAD: Final = 64
_OPTIONAL: Final = ("start", "stop", "ready", "why_not_ready", "models", "count_tokens", "connections", "replace_key")


class FunctionEngine(BaseEngine):
    """An async generator function as an engine. Returning ends the turn."""

    returning_ends_turn = True

    def __init__(self, function: Callable[[MessagesRequest], AsyncIterator[Batch]]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"<FunctionEngine {_name(self._function)}>"

    def describe(self) -> str:
        return _name(self._function)

    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        return self._function(request)


class AdaptedEngine(BaseEngine):
    """Any object with a generator method `stream`, async or not, as an engine. Missing methods have their defaults."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        stream = engine.stream
        self._stream = ThreadedEngine(stream).stream if inspect.isgeneratorfunction(stream) else stream
        self.returning_ends_turn = bool(getattr(engine, "returning_ends_turn", False))
        self.accepts_server_tools = bool(getattr(engine, "accepts_server_tools", False))
        for name in _OPTIONAL:
            method = getattr(engine, name, None)
            if callable(method):
                setattr(self, name, method)

    def __repr__(self) -> str:
        return repr(self._engine)

    def describe(self) -> str:
        return type(self._engine).__name__

    @property
    def observe(self) -> Observer:
        observer: Observer = getattr(self._engine, "observe", ignore_observation)
        return observer

    @observe.setter
    def observe(self, observer: Observer) -> None:
        if hasattr(self._engine, "observe"):
            self._engine.observe = observer

    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        return self._stream(request)


def as_engine(thing: object) -> BaseEngine:
    """`thing` as an engine; see the head of this file. Raises ValueError if it cannot be one."""
    if inspect.isclass(thing):
        _check_class(thing)
    if inspect.isclass(thing) or (inspect.isfunction(thing) and not _is_generator(thing) and _has_no_parameters(thing)):
        thing = thing()
    if isinstance(thing, BaseEngine):
        if inspect.isgeneratorfunction(thing.stream):
            raise ValueError(
                f"{thing!r:.100} has a method `stream` that is a generator: in a class that derives from BaseEngine, "
                "write it as `async def`"
            )
        _check_callable(thing, thing.stream)
        return thing
    if callable(stream := getattr(thing, "stream", None)):
        _check_callable(thing, stream)
        return AdaptedEngine(thing)
    if inspect.isasyncgenfunction(thing):
        _check_callable(thing, thing)
        return FunctionEngine(thing)
    if inspect.isgeneratorfunction(thing):
        _check_callable(thing, thing)
        return ThreadedEngine(thing)
    raise ValueError(
        f"{thing!r:.100} is not an engine: it needs a generator method `stream(request)`, preferably an async one"
    )


def _check_class(thing: type) -> None:
    """Raises ValueError if the class cannot be instantiated without arguments."""
    if missing := getattr(thing, "__abstractmethods__", None):
        raise ValueError(f"{thing!r:.100} is not an engine: it has no method {', '.join(sorted(missing))}")
    try:
        inspect.signature(thing).bind()
    except TypeError as exc:
        raise ValueError(f"{thing!r:.100} cannot be called without arguments: {exc}; name an instance of it") from exc
    except ValueError:  # a class in C without a signature
        return


def _check_callable(thing: object, stream: Callable[..., Any]) -> None:
    """Raises ValueError if `stream` does not take a request, or is a coroutine function, which returns no generator."""
    if inspect.iscoroutinefunction(stream):
        raise ValueError(f"{thing!r:.100} has a method `stream` without `yield`: it must yield what it answers")
    try:
        inspect.signature(stream).bind(None)
    except TypeError as exc:
        raise ValueError(f"{thing!r:.100} cannot be called with one argument, the request: {exc}") from exc
    except ValueError:  # a function in C without a signature
        return


def load(spec: str) -> BaseEngine:
    """The engine at `module:attr`. Raises ValueError with one line if there is none."""
    try:
        return as_engine(load_attribute(spec))
    except ValueError as exc:
        raise ValueError(f"engine {spec!r}: {exc}") from exc


def load_attribute(spec: str) -> Any:
    """What `module:attr` names. Raises ValueError with one line if there is nothing."""
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError("write it as module:attr")
    try:
        thing: Any = importlib.import_module(module_name)
    except ImportError as exc:
        raise ValueError(str(exc)) from exc
    try:
        for step in attribute.split("."):
            thing = getattr(thing, step)
    except AttributeError as exc:
        raise ValueError(f"{module_name} has no {attribute}") from exc
    return thing


def _is_generator(thing: object) -> bool:
    return inspect.isgeneratorfunction(thing) or inspect.isasyncgenfunction(thing)


def _has_no_parameters(function: Callable[..., Any]) -> bool:
    return not inspect.signature(function).parameters and not inspect.iscoroutinefunction(function)


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


class ThreadedEngine(BaseEngine):
    """A generator function that yields deltas or batches, run in a thread per stream. Returning ends the turn."""

    returning_ends_turn = True

    def __init__(self, function: Callable[[MessagesRequest], Iterator[Batch]]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"<ThreadedEngine {_name(self._function)}>"

    def describe(self) -> str:
        return _name(self._function)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        """The deltas that the generator yields. Raises what it raises; Overloaded without a thread."""
        handover = _Handover(asyncio.get_running_loop())
        thread = threading.Thread(target=handover.run, args=(self._function, request), name="anthro-asgi engine")
        thread.daemon = True  # a generator that never returns must not keep the process alive
        del request
        try:
            thread.start()
        except RuntimeError as exc:
            raise no_thread() from exc
        try:
            while (batch := await handover.take()) is not None:
                yield batch
        finally:
            handover.cancel()
            # until then the request keeps its slot, so there are never more generators than slots
            await handover.ended()


class _Handover:
    """Passes deltas from a thread to a coroutine of `loop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived = asyncio.Event()
        self._room = threading.Semaphore(AHEAD)
        self._lock = threading.Lock()
        self._deltas: list[Delta] = []
        self._batches = 0
        self._ended = False
        self._error: Exception | None = None
        self._cancelled = False

    # called by the thread

    def run(self, function: Callable[[MessagesRequest], Iterator[Batch]], request: MessagesRequest) -> None:
        """Run the generator until it ends or the stream is cancelled."""
        try:
            generator: Any = function(request)
            del request
            for batch in generator:
                self._put(list(deltas_of(batch)))
                self._room.acquire()
                if self._cancelled:
                    generator.close()
                    break
        except Exception as exc:
            self._error = exc
        except BaseException as exc:  # SystemExit in this thread must not end the service
            self._error = RuntimeError(f"the engine ended its thread by {type(exc).__name__}")
        self._ended = True
        self._wake()

    def _put(self, deltas: list[Delta]) -> None:
        with self._lock:
            self._deltas += deltas
            self._batches += 1
            first = self._batches == 1
        if first:
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            self._cancelled = True  # the loop is closed

    # called by the coroutine

    async def take(self) -> list[Delta] | None:
        """Wait for deltas and return all that have arrived; None at the end. Raises what the generator raised."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            ended = self._ended
            with self._lock:
                deltas, self._deltas = self._deltas, []
                batches, self._batches = self._batches, 0
            if batches:
                self._room.release(batches)
                if ended:
                    self._arrived.set()  # the next call returns the end
                return deltas
            if ended:
                if self._error is not None:
                    raise self._error
                return None

    async def ended(self) -> None:
        """Wait until the generator has ended. A cancellation in the meantime is raised then."""
        cancelled = False
        while not self._ended:
            try:
                await self._arrived.wait()
            except asyncio.CancelledError:
                cancelled = True
            self._arrived.clear()
        if cancelled:
            raise asyncio.CancelledError

    def cancel(self) -> None:
        """Close the generator at its next `yield`; nothing is read any more."""
        self._cancelled = True
        self._room.release()
