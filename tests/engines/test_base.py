"""What passes for an engine, and how one is found by name."""

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from anthro_asgi.engines.functions import FunctionEngine, as_engine, load
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


async def test_an_async_generator_function_is_an_engine_that_ends_its_turn_by_returning() -> None:
    engine = as_engine(function)
    assert await said(engine) == ["to m"]
    assert getattr(engine, "returning_ends_turn", False)
    assert repr(engine) == "<FunctionEngine tests.engines.test_base.function>"


async def test_an_object_with_a_stream_is_itself_the_engine() -> None:
    whole = Whole()
    assert as_engine(whole) is whole
    assert not getattr(whole, "returning_ends_turn", False)


async def test_a_class_is_made_into_its_object() -> None:
    assert await said(as_engine(Whole)) == ["whole to m"]


@pytest.mark.parametrize("thing", [None, 7, "x", Half, Half(), coroutine, lambda request: None])
def test_anything_else_is_none(thing: Any) -> None:
    with pytest.raises(ValueError, match="is no engine"):
        as_engine(thing)


@pytest.mark.parametrize("attribute", ["function", "Whole", "holder.inner"])
async def test_an_engine_is_loaded_by_module_and_attribute(attribute: str) -> None:
    engine = load(f"tests.engines.test_base:{attribute}")
    assert isinstance(engine, FunctionEngine if attribute == "function" else Whole)
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
        ("tests.engines.test_base:HELLO", "is no engine"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(spec: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        load(spec)
    assert str(caught.value).startswith(f"engine {spec!r}: ")
    assert "\n" not in str(caught.value)
