"""The worst finds of the search: no answer and no request holds the event loop for long. The search finds what does."""

import json
import random

import pytest

from anthro_asgi import Finish
from anthro_asgi.http import answer, message_response
from anthro_asgi.wire.deltas import Batch, Delta
from tests.checks.hold import BAR
from tests.checks.hold.application import MIB, Application, Case, scale
from tests.checks.hold.bodies import WORST, holds, is_within_bounds
from tests.checks.hold.fuzz import Find, measured, search
from tests.checks.hold.shapes import IN_ANSWER, MANY, Recipe, drawn, mutated

pytestmark = pytest.mark.alone

HI = {"messages": [{"role": "user", "content": "Hi"}]}
LARGE = 300_000  # characters


def _keys(size: int) -> str:
    return ",".join(f'"key{number:06}":1' for number in range(size // 14))


ANSWERS = [
    Recipe("arguments", size=LARGE),
    Recipe("arguments", size=LARGE, stream=False),
    Recipe("arguments", size=LARGE, broken="a bracket"),
    Recipe("arguments", ("deep arrays", "spaces"), size=200_000),
    Recipe("arguments", ("small objects", "spaces"), "a constant", size=200_000),
    Recipe("arguments", ("escapes", "surrogates"), size=200_000, stream=False),
    Recipe("arguments", ("small strings",), "a control character", size=100_000, event=60),
    Recipe("arguments twice", ("small strings", "spaces"), size=200_000),
    Recipe("arguments twice", ("deep arrays",), size=381_785, stream=False, in_process=True),
    Recipe("arguments", ("deep arrays",), size=250_000, stream=False, in_process=True),
    Recipe("array", size=LARGE),
    Recipe("array", ("empty arrays",), size=LARGE, stream=False),
    Recipe("encoded twice", size=LARGE),
    Recipe("object", size=LARGE),
    Recipe("text", text="a", stops=1, size=LARGE),
    Recipe("text", text="ab", stops=2, size=LARGE, event=600),
    Recipe("text", text="a", stops=3, size=LARGE, stream=False),
    Recipe("text", text="\ud83d", size=LARGE),
    Recipe("text", text="word ", size=LARGE, event=16),
    Recipe("reasoning", text="</think>", size=LARGE, event=64),
    Recipe("junk", text="\u20ac", size=LARGE),
    Recipe("text", text="word ", size=LARGE, stream=False, whole=True),
]

REQUESTS = [
    *(
        Recipe(place, size=250_000)
        for place in ("schema", "tool input", "output schema", "unknown field", "metadata", "messages", "blocks")
    ),
    *(Recipe(place, size=1_000_000) for place in ("schema", "tool input")),
    *(Recipe(place, ("small objects",), size=250_000) for place in ("schema", "tool input", "metadata")),
    Recipe("unknown field", ("empty arrays", "spaces"), size=100_000),
    Recipe("schema", ("small objects", "spaces"), size=100_000),
    Recipe("blocks", size=100_000),
    Recipe("tools", size=40_000),
    Recipe("deferred tools", text="placeholder ", size=950_000),
    Recipe("string input", size=950_000),
    Recipe("string inputs", size=950_000),
    *(Recipe(place, size=950_000, in_process=True) for place in MANY if place != "string inputs"),
    *(Recipe("output schema", content, size=225_000, in_process=True) for content in (("numbers",), ("surrogates",))),
    Recipe("tool input", ("surrogates",), size=225_000),
    Recipe("tools", size=640_000),
    Recipe("string inputs", ("surrogates",), text="<think>", size=96_000),
    *(Recipe(place, ("fractions",), size=950_000, in_process=True) for place in ("schema", "tool input")),
    Recipe("string inputs", size=300_000, in_process=True),  # a larger one is refused: its values take much memory
]


def _keys_in_no_order(size: int) -> str:
    source = random.Random(1)
    return ",".join(f'"{source.getrandbits(48):012x}":1' for _ in range(size // 17))


def _with(field: str) -> bytes:
    return b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],%s}' % field.encode()


LONG = 950_000  # characters
ODD: dict[str, bytes] = {
    "a billing header": _with(f'"system":"x-anthropic-billing-header:{"a=b;" * (LONG // 4)}"'),
    "a description beside a deferred tool": _with(
        f'"tools":[{{"name":"d","defer_loading":true}},{{"name":"f","description":"{"x defer " * (LONG // 8)}"}}]'
    ),
    "surrogates": _with(f'"system":"{chr(92)}ud83d{(chr(92) + "ud83d") * (LONG // 6)}"'),
    "the type of a block is an object": _with(
        f'"messages":[{{"role":"user","content":[{{"type":{{{_keys(LONG)}}}}}]}}]'
    ),
    "the name in a choice": _with(f'"tool_choice":{{"type":"tool","name":"{chr(233) * (LONG // 2)}"}}'),
    "fields": _with(_keys(LONG)),
    "many messages and diagnostics": _with('"diagnostics":{}').replace(
        b'{"role":"user","content":"Hi"}', b",".join([b'{"role":"user","content":"%b"}' % (b"x" * 60)] * 9_000)
    ),
    "keys in no order and diagnostics": _with(
        f'"diagnostics":{{}},"tools":[{{"name":"f","input_schema":{{{_keys_in_no_order(LONG)}}}}}]'
    ),
}


@pytest.fixture
def application() -> Application:
    return Application()


def test_no_answer_of_the_worst_finds_holds_the_event_loop(application: Application) -> None:
    with application:
        application.hold(Recipe(size=4096).case())
        finds = [measured(application, recipe) for recipe in ANSWERS]
    assert not [str(find) for find in finds if not find.is_within_bounds]
    assert {find.status for find in finds} == {200}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("before", [[], ["Hi"]], ids=["first", "later"])
def test_a_list_of_many_deltas_of_an_engine_in_this_process_is_taken_in_turns(
    before: list[Batch], stream: bool
) -> None:
    request = json.dumps({"model": "m", "max_tokens": 9, "stream": stream, **HI}).encode()
    many: list[Delta] = [str(number) for number in range(250_000)]
    with Application() as application:
        application.hold(Recipe(size=4096).case())
        hold = application.hold(Case(request, deltas=[*before, many, Finish("end_turn")]), 3)
    assert hold.status == 200
    assert hold.seconds < 2 * BAR * scale()  # the list itself is created and freed in one step


def test_no_request_of_the_worst_finds_holds_the_event_loop(application: Application) -> None:
    with application:
        application.hold(Recipe(size=4096).case())
        finds = [measured(application, recipe) for recipe in REQUESTS]
    assert not [str(find) for find in finds if not find.is_within_bounds]
    assert {find.status for find in finds} == {200}


@pytest.mark.parametrize("shape", ODD)
def test_no_single_value_of_a_request_holds_the_event_loop(application: Application, shape: str) -> None:
    with application:
        application.hold(Recipe(size=4096).case())
        held = application.hold(Case(ODD[shape]), 3)
    assert held.seconds <= BAR * scale()
    assert held.status in (200, 400, 413)


@pytest.mark.parametrize("size", [MIB * 95 // 100, 4 * MIB], ids=["1 MiB", "4 MiB"])
def test_no_body_of_the_worst_shapes_holds_the_event_loop(size: int) -> None:
    sizes: dict[str, int] = {}
    found = holds(WORST, size, lambda shape, bytes_, _: sizes.update({shape: bytes_}))
    assert not {shape: held for shape, held in found.items() if not is_within_bounds(held, sizes[shape])}
    assert {held.status for held in found.values()} <= {200, 413}


def test_a_long_hold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Recipe) -> Case:
        return Case(deltas=[[str(number) for number in range(60_000)]])

    monkeypatch.setattr(Recipe, "case", slow)
    for module in (answer, message_response):
        monkeypatch.setattr(module, "LARGE_BATCH", 1 << 30)
    told: list[Find] = []
    finds = search(0.5, 1, told.append)
    assert finds
    assert told
    assert not any(find.is_within_bounds for find in finds)


def test_recipes_are_drawn_and_mutated_in_one_place() -> None:
    source = random.Random(1)
    recipes = [drawn(source) for _ in range(50)]
    assert len({recipe.place for recipe in recipes}) > 10
    for recipe in recipes:
        small = mutated(source, recipe)
        assert (small.place in IN_ANSWER) is (recipe.place in IN_ANSWER)
        assert recipe.case().size > 0
