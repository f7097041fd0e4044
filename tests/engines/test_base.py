"""What can be used as an engine, and loading one by name."""

import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from anthro_asgi.engines.base import BaseEngine
from anthro_asgi.engines.functions import AdaptedEngine, FunctionEngine, as_engine, load
from anthro_asgi.wire.request import MessagesRequest

HELLO = MessagesRequest("m", 1, [{"role": "user", "content": "Hi"}])


async def function(request: MessagesRequest) -> AsyncIterator[str]:
    yield f"to {request.model}"


class Whole:
    def __init__(self) -> None:
        self.made = True

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield f"whole to {request.model}"


class Half:
    stream = "not a method"


async def coroutine(request: MessagesRequest) -> str:
    return "no generator"


holder = ModuleType("holder")
holder.inner = Whole()  # type: ignore[attr-defined]


async def said(engine: Any) -> list[Any]:
    return [batch async for batch in engine.stream(HELLO)]


async def test_an_async_generator_function_is_an_engine_that_ends_the_turn_by_returning() -> None:
    engine = as_engine(function)
    assert await said(engine) == ["to m"]
    assert engine.returning_ends_turn
    assert repr(engine) == "<FunctionEngine tests.engines.test_base.function>"


async def test_an_object_with_a_stream_gets_defaults_for_the_methods_it_lacks() -> None:
    engine = as_engine(Whole())
    assert await said(engine) == ["whole to m"]
    assert not engine.returning_ends_turn
    assert (await engine.ready(), await engine.models(), engine.connections()) == (True, [], {})
    with pytest.raises(NotImplementedError):
        await engine.count_tokens(HELLO)
    await engine.start()
    await engine.stop()
    engine.replace_key("key")


async def test_methods_of_the_object_replace_the_defaults() -> None:
    class Observed(Whole):
        returning_ends_turn = True

        def __init__(self) -> None:
            super().__init__()
            self.observe = lambda what, kind: None
            self.started = False

        async def start(self) -> None:
            self.started = True

        async def count_tokens(self, request: MessagesRequest) -> int:
            return 7

    thing = Observed()
    engine = as_engine(thing)
    await engine.start()
    assert thing.started
    assert engine.returning_ends_turn
    assert await engine.count_tokens(HELLO) == 7
    seen: list[tuple[str, str]] = []
    engine.observe = lambda what, kind: seen.append((what, kind))
    getattr(thing, "observe")("repair", "usage")  # noqa: B009  # set on the object, and not in its class
    assert seen == [("repair", "usage")]


async def test_an_engine_that_derives_from_the_base_class_is_taken_as_it_is() -> None:
    class Derived(BaseEngine):
        async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
            yield "hi"

    engine = Derived()
    assert as_engine(engine) is engine


async def test_a_class_is_instantiated() -> None:
    assert await said(as_engine(Whole)) == ["whole to m"]


@pytest.mark.parametrize("thing", [None, 7, "x", Half, Half(), coroutine, lambda request: None])
def test_anything_else_is_not_an_engine(thing: Any) -> None:
    with pytest.raises(ValueError, match="is not an engine"):
        as_engine(thing)


async def no_request() -> AsyncIterator[str]:
    yield "hi"


def two_arguments(request: MessagesRequest, more: int) -> Iterator[str]:
    yield "hi"


class Coroutine:
    async def stream(self, request: MessagesRequest) -> str:
        return "hi"


class Derived(BaseEngine):
    async def stream(self, request: MessagesRequest) -> Any:  # type: ignore[override]  # the mistake
        return "hi"


class Blocking(BaseEngine):
    def stream(self, request: MessagesRequest) -> Any:
        yield "hi"


class Abstract(BaseEngine):
    pass


class NeedsArguments(Whole):
    def __init__(self, model: str) -> None:
        super().__init__()


class NoRequest(BaseEngine):
    async def stream(self) -> Any:  # type: ignore[override]  # the mistake
        yield "hi"


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (no_request, "cannot be called with one argument, the request: too many positional arguments"),
        (two_arguments, "cannot be called with one argument, the request: missing a required argument: 'more'"),
        (Coroutine(), "has a method `stream` without `yield`: it must yield what it answers"),
        (Derived, "has a method `stream` without `yield`: it must yield what it answers"),
        (Blocking(), "has a method `stream` that is a generator: in a class that derives from BaseEngine, write it as"),
        (Abstract, "is not an engine: it has no method stream"),
        (NeedsArguments, "cannot be called without arguments: missing a required argument: 'model'; name an instance"),
        (NoRequest(), "cannot be called with one argument, the request: too many positional arguments"),
    ],
)
def test_an_engine_that_could_never_answer_is_refused_with_what_is_wrong(thing: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        as_engine(thing)


def test_an_attribute_error_of_the_module_itself_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_with_an_error.py").write_text("import sys\nsys.no_such_attribute\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(AttributeError, match="no_such_attribute"):
        load("module_with_an_error:engine")


@pytest.mark.parametrize("attribute", ["function", "Whole", "holder.inner"])
async def test_an_engine_is_loaded_by_module_and_attribute(attribute: str) -> None:
    engine = load(f"tests.engines.test_base:{attribute}")
    assert isinstance(engine, FunctionEngine if attribute == "function" else AdaptedEngine)
    assert (await said(engine))[0].endswith("to m")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "write it as module:attr"),
        ("module", "write it as module:attr"),
        (":attr", "write it as module:attr"),
        ("module:", "write it as module:attr"),
        ("no_such_module_anywhere:x", "No module named"),
        ("tests.engines.test_base:nothing", "tests.engines.test_base has no nothing"),
        ("tests.engines.test_base:holder.nothing", "tests.engines.test_base has no holder.nothing"),
        ("tests.engines.test_base:HELLO", "is not an engine"),
    ],
)
def test_an_engine_that_cannot_be_loaded_is_an_error_in_one_line(spec: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        load(spec)
    assert str(caught.value).startswith(f"engine {spec!r}: ")
    assert "\n" not in str(caught.value)
