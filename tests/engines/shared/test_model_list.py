"""The model list: kept for a while, asked for once by many, and there while the engine is not."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from anthro_asgi.engines.base import ModelInfo
from anthro_asgi.engines.shared import model_list
from anthro_asgi.engines.shared.model_list import MAX_AGE, ModelList, parse_models
from anthro_asgi.wire.errors import ApiError, BadUpstream, Overloaded


class Engine:
    """Lists what it has when `answers` is set; `clock` is its time and the catalogue's."""

    def __init__(self, *models: ModelInfo) -> None:
        self.models = models
        self.asked = 0
        self.error: ApiError | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.clock = 100.0
        self.model_list = ModelList(self, lambda: self.clock)

    async def __call__(self) -> Sequence[ModelInfo]:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.models

    async def ids(self) -> list[str]:
        return [model.id for model in await self.model_list.models()]


async def test_a_list_is_cached_for_half_a_minute() -> None:
    engine = Engine(ModelInfo("a"))
    assert await engine.ids() == ["a"]
    engine.models = (ModelInfo("b"),)
    engine.clock += MAX_AGE - 1
    assert await engine.ids() == ["a"]
    engine.clock += 1
    assert await engine.ids() == ["b"]
    assert engine.asked == 2


async def test_concurrent_callers_share_one_request() -> None:
    engine = Engine(ModelInfo("a"))
    engine.answers.clear()
    many = [asyncio.create_task(engine.ids()) for _ in range(50)]
    await asyncio.sleep(0)  # each has its first turn
    assert repr(engine.model_list) == "<ModelList not fetched refreshing>"
    many[0].cancel()
    engine.answers.set()
    told = await asyncio.gather(*many, return_exceptions=True)
    assert [isinstance(told[0], asyncio.CancelledError), *told[1:]] == [True, *[["a"]] * 49]
    assert engine.asked == 1


async def test_the_last_list_is_used_while_the_engine_is_unreachable() -> None:
    engine = Engine(ModelInfo("a"))
    await engine.ids()
    engine.clock += MAX_AGE
    engine.error = Overloaded("the engine is not reachable")
    assert await engine.ids() == ["a"]
    assert engine.asked == 2


async def test_without_a_cached_list_the_error_is_raised() -> None:
    engine = Engine(ModelInfo("a"))
    engine.error = Overloaded("the engine is not reachable")
    for _ in range(2):
        with pytest.raises(Overloaded):
            await engine.ids()
    engine.error = None
    engine.clock += 1
    assert await engine.ids() == ["a"]


async def test_after_a_failure_the_engine_is_asked_once_a_second() -> None:
    engine = Engine(ModelInfo("a"))
    for text in ("loading", "gone"):
        engine.error = Overloaded(text)
        for _ in range(9):
            with pytest.raises(Overloaded, match=text):
                await engine.ids()
        engine.clock += 1
    assert engine.asked == 2
    engine.error = None
    assert await engine.ids() == ["a"]
    engine.clock += MAX_AGE
    engine.error = Overloaded("gone")
    for _ in range(9):
        assert await engine.ids() == ["a"]
    assert engine.asked == 4
    engine.error = None
    engine.models = (ModelInfo("b"),)
    engine.clock += 1
    assert await engine.ids() == ["b"]


async def test_a_list_that_was_fetched_for_another_purpose_ends_the_pause() -> None:
    engine = Engine(ModelInfo("a"))
    engine.error = Overloaded("loading")
    with pytest.raises(Overloaded):
        await engine.ids()
    engine.model_list.note([ModelInfo("b")])
    assert await engine.ids() == ["b"]
    assert engine.asked == 1


async def test_an_old_list_is_used_while_the_new_one_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "_MAX_WAIT", 0.01)
    engine = Engine(ModelInfo("a"))
    await engine.ids()
    engine.clock += MAX_AGE
    engine.models = (ModelInfo("b"),)
    engine.answers.clear()
    assert await engine.ids() == ["a"]
    engine.answers.set()
    await engine.model_list.refresh()
    assert await engine.ids() == ["b"]
    assert engine.asked == 2, "the question went on without its asker"


async def test_a_model_keeps_the_time_of_creation_it_first_had() -> None:
    engine = Engine(ModelInfo("a", created=1), ModelInfo("b", created=2))
    await engine.ids()
    engine.clock += MAX_AGE
    engine.models = (ModelInfo("b", created=9), ModelInfo("c", created=9))
    assert [(model.id, model.created) for model in await engine.model_list.models()] == [("b", 2), ("c", 9)]


@pytest.mark.clause("8.2")
@pytest.mark.parametrize(
    ("entry", "window", "longest"),
    [
        ({"max_model_len": 9}, 9, 9),
        ({"context_length": 9, "max_completion_tokens": 4}, 9, 4),
        ({"context_window": 9, "max_context_window": 10}, 9, 9),
        ({"context_window": 9, "max_completion_tokens": 4}, 9, 4),
        ({"max_context_length": 9}, 9, 9),
        ({"max_input_tokens": 9, "max_output_tokens": 4}, 9, 4),
        ({"meta": {"n_ctx": 9}, "max_model_len": 10}, 9, 9),
        ({"context_window": "9", "max_input_tokens": 0}, None, None),
    ],
)
def test_the_limits_of_a_model_are_read_from_the_keys_of_each_engine(
    entry: dict[str, Any], window: int | None, longest: int | None
) -> None:
    (model,) = parse_models({"data": [{"id": "m", **entry}]})
    assert (model.max_input_tokens, model.max_tokens) == (window, longest)


@pytest.mark.clause("8.2")
async def test_a_window_is_known_by_name_or_because_there_is_only_one_model() -> None:
    engine = Engine(ModelInfo("a", max_input_tokens=9))
    assert engine.model_list.window("a") is None
    await engine.ids()
    assert (engine.model_list.window("a"), engine.model_list.window("x")) == (9, 9)
    engine.model_list.note([ModelInfo("a", max_input_tokens=9), ModelInfo("b")])
    assert [engine.model_list.window(name) for name in ("a", "b", "x")] == [9, None, None]


async def test_close_cancels_the_request() -> None:
    engine = Engine()
    engine.answers.clear()
    task = engine.model_list.refresh()
    assert engine.model_list.refresh() is task
    await asyncio.sleep(0)
    await engine.model_list.close()
    assert task.cancelled()
    await engine.model_list.close()


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"data": None}, {"data": {}}])
def test_an_answer_without_a_list_is_an_error(answer: Any) -> None:
    with pytest.raises(BadUpstream):
        parse_models(answer)


@pytest.mark.parametrize("length", [0, -1, "9", None, True, 1.5])
def test_an_invalid_length_is_ignored(length: Any) -> None:
    entry = {"id": "a", "max_model_len": length, "max_completion_tokens": length}
    assert parse_models({"data": [entry]}) == [ModelInfo("a", "a")]


@pytest.mark.clause("9.1")
def test_the_limits_in_the_list_of_a_messages_server_are_kept() -> None:
    entry = {"id": "m", "type": "model", "max_input_tokens": 200_000, "max_tokens": 64_000}
    (model,) = parse_models({"data": [entry]})
    assert (model.max_input_tokens, model.max_tokens) == (200_000, 64_000)


@pytest.mark.clause("9.1")
@pytest.mark.parametrize(
    ("date", "created"),
    [
        ("2025-02-19T00:00:00Z", 1_739_923_200),
        ("2025-02-19T01:00:00+01:00", 1_739_923_200),
        ("2025-02-19", 1_739_923_200),
        ("1969-12-31T00:00:00Z", 0),
        ("9999-12-31T23:59:59-12:00", 0),
        ("yesterday", 0),
        (7, 0),
    ],
)
def test_the_name_and_the_date_in_the_list_of_a_messages_server_are_kept(date: Any, created: int) -> None:
    entry = {"id": "m", "type": "model", "display_name": "Model M", "created_at": date}
    (model,) = parse_models({"data": [entry]})
    assert (model.display_name, model.created) == ("Model M", created)
    assert parse_models({"data": [entry | {"display_name": None, "created": 5}]})[0] == ModelInfo("m", "m", created=5)
