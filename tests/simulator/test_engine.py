"""The simulated engine, on a clock that only the tests move."""

import asyncio
import re
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from anthro_asgi.engines.base import ModelInfo
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.wire.deltas import Batch, Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import ThinkingConfig, Tool, ToolChoice, parse_request
from tests.simulator.asking import SEARCH, WEATHER, FakeClock, arguments, ask, batches, deltas, text, tokens

KNOWN_ANSWER = "The 漢字, the café and the crimson 東京 drifts. A."


# the clock


async def test_each_token_is_asked_for_at_its_own_hour() -> None:
    clock = FakeClock(start=100.0)
    engine = SimulatedEngine(ttft=0.5, itl=0.25, output_tokens=6, clock=clock)
    seen = [(clock.now, batch) async for batch in engine.stream(ask())]
    assert clock.asked == [100.5, 100.75, 101.0, 101.25, 101.5, 101.75]
    assert [now for now, _ in seen] == [100.5, 100.75, 101.0, 101.25, 101.5, 101.75, 101.75]
    assert isinstance(seen[0][1], list)
    assert all(isinstance(batch, str) for _, batch in seen[1:-1])


async def test_a_late_token_does_not_make_the_later_ones_late() -> None:
    clock = FakeClock(delays=(0.0, 0.125, 0.0625))
    engine = SimulatedEngine(ttft=1.0, itl=0.25, output_tokens=5, clock=clock)
    hours = [clock.now async for _ in engine.stream(ask())]
    assert hours == [1.0, 1.375, 1.5625, 1.75, 2.0, 2.0]


async def test_what_fell_due_during_a_delay_comes_as_one_batch_in_order() -> None:
    prompt = ask()
    on_time = tokens(await deltas(prompt, ttft=1, itl=0.25, output_tokens=10))
    clock = FakeClock(delays=(0.0, 0.0, 0.75))  # token 2 is waited for, and by then tokens 3, 4 and 5 are due
    late = await batches(prompt, ttft=1, itl=0.25, output_tokens=10, clock=clock)
    assert late[1] == on_time[1]
    assert late[2] == on_time[2:6]
    assert late[3] == on_time[6]
    assert clock.asked == [1.0, 1.25, 1.5, 2.5, 2.75, 3.0, 3.25]


async def test_a_client_slower_than_the_engine_gets_all_that_waited_for_it() -> None:
    clock = FakeClock()
    engine = SimulatedEngine(ttft=0, itl=0.5, output_tokens=8, clock=clock)
    seen = []
    async for batch in engine.stream(ask()):
        seen.append(batch)
        clock.now += 1.5  # as long as three tokens
    assert [len(batch) if isinstance(batch, list) else 1 for batch in seen] == [2, 3, 3, 1, 2]


async def test_a_delay_past_the_end_gives_the_whole_rest_at_once() -> None:
    late = await batches(ask(), ttft=0, itl=1e-300, output_tokens=40, clock=FakeClock(delays=(0.0, 1e9)))
    assert [len(batch) for batch in late if isinstance(batch, list)] == [2, 39, 2]


async def test_without_a_pause_between_tokens_other_tasks_still_have_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    longest, before, run = 0, 0, 0
    async for _ in SimulatedEngine(ttft=0, itl=0, output_tokens=1000).stream(ask()):
        run = run + 1 if turns == before else 1
        longest, before = max(longest, run), turns
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns >= 1000 // 32
    assert longest <= 33


async def test_without_a_pause_each_token_still_comes_alone() -> None:
    arrived = await batches(ask(), output_tokens=200)
    assert len(arrived) == 201
    assert all(isinstance(batch, str) for batch in arrived[1:-1])


@pytest.mark.parametrize("wrong", [{"ttft": -1}, {"itl": -0.1}, {"itl": float("nan")}, {"output_tokens": 0}])
def test_a_pace_or_length_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SimulatedEngine(**wrong)


# the same again


async def test_the_same_request_and_seed_give_the_same_answer() -> None:
    for request in (ask(), ask(thinking=ThinkingConfig("adaptive")), ask("search", tools=[SEARCH])):
        assert await deltas(request, seed=4) == await deltas(request, seed=4)


async def test_the_answer_is_the_same_in_every_process() -> None:
    assert text(await deltas(ask(), output_tokens=14)) == KNOWN_ANSWER


async def test_another_seed_or_another_prompt_gives_another_text() -> None:
    texts = {text(await deltas(ask(), seed=seed)) for seed in range(20)}
    texts |= {text(await deltas(ask(f"Question {number}"))) for number in range(20)}
    assert len(texts) == 40


async def test_how_the_answer_is_delivered_does_not_change_it() -> None:
    plain = await deltas(ask())
    assert await deltas(ask(stream=True, user_id="u", stop_sequences=("x",), max_tokens=2000)) == plain
    assert await deltas(ask(), ttft=3, itl=0.5) == plain


async def test_keys_in_another_order_are_the_same_request() -> None:
    one = ask(messages=[{"role": "user", "content": "hi"}])
    other = ask(messages=[{"content": "hi", "role": "user"}])
    assert await deltas(one) == await deltas(other)


# text


async def test_the_text_is_sentences_with_some_words_beyond_ascii() -> None:
    long = text(await deltas(ask(max_tokens=10_000), output_tokens=3000))
    sentences = re.split(r"(?<=\.)\s+", long)
    assert all(re.fullmatch(r"\S[^.]*\.", sentence) for sentence in sentences)
    assert all(not sentence[0].islower() for sentence in sentences)
    assert {"café", "漢字", "🙂"} <= set(re.findall(r"[^\s.,]+", long))
    assert "  " not in long
    assert "\n\n" in long


async def test_the_length_is_the_one_asked_for_or_else_seeded() -> None:
    for length in (1, 2, 3, 17, 500):
        assert len(tokens(await deltas(ask(), output_tokens=length))) == length
    lengths = {len(tokens(await deltas(ask(), seed=seed))) for seed in range(60)}
    assert 24 <= min(lengths) < 40
    assert 80 < max(lengths) <= 96


async def test_an_answer_that_fits_exactly_ends_its_turn() -> None:
    assert (await deltas(ask(max_tokens=30), output_tokens=30))[-1] == Finish("end_turn")
    assert (await deltas(ask(max_tokens=30), output_tokens=31))[-1] == Finish("max_tokens")


async def test_max_tokens_cuts_the_same_answer_sooner() -> None:
    whole = tokens(await deltas(ask(), output_tokens=50))
    for most in (1, 2, 20, 49):
        cut = await deltas(ask(max_tokens=most), output_tokens=50)
        assert tokens(cut) == whole[:most]
        assert cut[-1] == Finish("max_tokens")


async def test_a_giant_length_costs_no_more_than_max_tokens() -> None:
    assert len(tokens(await deltas(ask(max_tokens=5), output_tokens=10**12))) == 5


# usage


async def test_input_tokens_come_with_the_first_token_and_output_tokens_before_the_end() -> None:
    request = ask("Look!", thinking=ThinkingConfig("enabled", 1024), tools=[WEATHER], tool_choice=ToolChoice("any"))
    arrived = await batches(request)
    counted = await SimulatedEngine().count_tokens(request)
    assert isinstance(arrived[0], list)
    assert arrived[0][0] == Usage(input_tokens=counted)
    assert len(arrived[0]) == 2
    assert arrived[-1] == [Usage(output_tokens=len(arrived) - 1), Finish("tool_use")]


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}}


@pytest.mark.parametrize(
    "more",
    [
        {"system": ["Be brief."]},
        {"messages": [{"role": "user", "content": "How is the river?"}, {"role": "assistant", "content": "Wide"}]},
        {"tools": [SEARCH]},
        {"tools": [Tool("bare")]},
        {"output_schema": {"type": "object"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "How is the river?"}, IMAGE]}]},
    ],
)
async def test_everything_in_the_prompt_counts(more: dict[str, Any]) -> None:
    engine = SimulatedEngine()
    assert await engine.count_tokens(ask(**more)) > await engine.count_tokens(ask())


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ({"type": "tool_use", "id": "t", "name": "n", "input": {}}, {"input": {"path": "a long path, and longer"}}),
        ({"type": "tool_result", "tool_use_id": "t"}, {"content": "what came of it"}),
        ({"type": "tool_result", "tool_use_id": "t", "content": []}, {"content": [IMAGE]}),
        ({"type": "thinking", "thinking": ""}, {"thinking": "let me see"}),
        ({"type": "document", "source": {"type": "text", "data": ""}}, {"source": {"type": "text", "data": "words"}}),
        ({"type": "search_result", "content": []}, {"title": "found", "content": [{"type": "text", "text": "it"}]}),
    ],
)
async def test_what_a_block_holds_counts(small: dict[str, Any], large: dict[str, Any]) -> None:
    engine = SimulatedEngine()
    counts = [
        await engine.count_tokens(ask(messages=[{"role": "user", "content": [block]}]))
        for block in (small, small | large)
    ]
    assert counts[0] < counts[1]


async def test_an_image_counts_the_same_whatever_its_size() -> None:
    larger = {"type": "image", "source": {**IMAGE["source"], "data": "A" * 100_000}}  # type: ignore[dict-item]
    engine = SimulatedEngine()
    counts = {
        await engine.count_tokens(ask(messages=[{"role": "user", "content": [image]}])) for image in (IMAGE, larger)
    }
    assert len(counts) == 1
    assert counts.pop() > 1000


async def test_ids_and_cache_marks_do_not_count_and_a_string_is_one_text_block() -> None:
    marked = {"type": "text", "text": "How is the river?", "cache_control": {"type": "ephemeral"}}
    engine = SimulatedEngine()
    assert await engine.count_tokens(
        ask(messages=[{"role": "user", "content": [marked]}])
    ) == await engine.count_tokens(ask())


def nested(key: str) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": "deep"}
    for _ in range(5_000):
        block = {"type": "tool_use", "id": "t", "name": "n", key: {"v": block} if key == "input" else block}
    return block


@pytest.mark.parametrize("key", ["input", "content"])
async def test_a_prompt_nested_too_deeply_is_the_clients_fault(key: str) -> None:
    request = ask(messages=[{"role": "assistant", "content": [nested(key)]}])
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        await deltas(request)
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        await SimulatedEngine().count_tokens(request)


async def test_a_seed_may_be_any_whole_number() -> None:
    assert text(await deltas(ask(), seed=-1)) != text(await deltas(ask(), seed=2**100))


# thinking


@pytest.mark.parametrize("kind", ["enabled", "adaptive"])
async def test_thinking_comes_first_and_then_the_text(kind: str) -> None:
    some = tokens(await deltas(ask(thinking=ThinkingConfig(kind)), output_tokens=30))
    kinds = [isinstance(delta, Thinking) for delta in some]
    thought = kinds.count(True)
    assert 8 <= thought <= 24
    assert kinds == [True] * thought + [False] * 30


async def test_no_thinking_when_it_is_disabled_or_not_asked_for() -> None:
    for request in (ask(), ask(thinking=ThinkingConfig("disabled"))):
        assert not any(isinstance(delta, Thinking) for delta in await deltas(request))


async def test_thinking_keeps_to_its_budget_and_shares_max_tokens_with_the_text() -> None:
    some = await deltas(ask(thinking=ThinkingConfig("enabled", 3)), output_tokens=9)
    assert [isinstance(delta, Thinking) for delta in tokens(some)] == [True] * 3 + [False] * 9
    cut = await deltas(ask(thinking=ThinkingConfig("enabled", 3), max_tokens=5), output_tokens=9)
    assert tokens(cut) == tokens(some)[:5]
    all_thought = await deltas(ask(thinking=ThinkingConfig("enabled"), max_tokens=4))
    assert [type(delta) for delta in all_thought] == [Usage, *[Thinking] * 4, Usage, Finish]
    assert all_thought[-1] == Finish("max_tokens")


# tools


def assert_weather(some: list[Delta]) -> None:
    calls = [delta for delta in some if isinstance(delta, ToolStart)]
    assert [call.name for call in calls] == ["get_weather"]
    assert re.fullmatch(r"toolu_[A-Za-z0-9_-]{24}", calls[0].id)
    value = orjson.loads(arguments(some))
    assert {"city", "unit"} <= value.keys() <= {"city", "unit", "days"}
    assert isinstance(value["city"], str)
    assert value["unit"] in ("c", "f")
    assert isinstance(value.get("days", 1), int)
    assert some[-1] == Finish("tool_use")


async def test_a_named_tool_is_called_with_an_input_its_schema_allows() -> None:
    for seed in range(30):
        request = ask(tools=[SEARCH, WEATHER], tool_choice=ToolChoice("tool", "get_weather"))
        some = await deltas(request, seed=seed)
        assert_weather(some)
        assert text(some) == ""
        assert all(1 <= len(delta.fragment) <= 6 for delta in some if isinstance(delta, ToolJson))


async def test_any_calls_one_of_the_tools_and_each_in_its_turn() -> None:
    names = set()
    for seed in range(20):
        some = await deltas(ask(tools=[SEARCH, WEATHER], tool_choice=ToolChoice("any")), seed=seed)
        names |= {delta.name for delta in some if isinstance(delta, ToolStart)}
        assert some[-1] == Finish("tool_use")
        assert isinstance(orjson.loads(arguments(some)), dict)
    assert names == {"search", "get_weather"}


@pytest.mark.parametrize("choice", [None, ToolChoice("auto")])
async def test_auto_calls_the_tool_that_the_last_user_message_names(choice: ToolChoice | None) -> None:
    for words in ("Please use get_weather.", "`get_weather`, then search", "(get_weather)"):
        some = await deltas(ask(words, tools=[SEARCH, WEATHER], tool_choice=choice))
        assert_weather(some)
        assert text(some).endswith(".")


@pytest.mark.parametrize("words", ["How is the weather?", "get_weathers", "forget_weather", "get-weather", ""])
async def test_auto_answers_in_words_when_no_tool_is_named_as_a_word(words: str) -> None:
    some = await deltas(ask(words, tools=[WEATHER]))
    assert text(some)
    assert not any(isinstance(delta, ToolStart) for delta in some)
    assert some[-1] == Finish("end_turn")


async def test_a_tool_named_in_an_earlier_message_or_by_the_assistant_is_not_called() -> None:
    turns = [
        {"role": "user", "content": "get_weather"},
        {"role": "assistant", "content": "get_weather?"},
        {"role": "user", "content": [{"type": "text", "text": "Never mind."}]},
        {"role": "system", "content": "get_weather exists"},
    ]
    assert (await deltas(ask(messages=turns, tools=[WEATHER])))[-1] == Finish("end_turn")


async def test_a_tools_result_is_answered_in_words() -> None:
    call = {"type": "tool_use", "id": "t", "name": "get_weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "get_weather says 20"}
    turns = [
        {"role": "user", "content": "get_weather"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "What did get_weather say?"}]},
    ]
    assert (await deltas(ask(messages=turns, tools=[WEATHER])))[-1] == Finish("end_turn")


async def test_none_never_calls_a_tool() -> None:
    some = await deltas(ask("get_weather", tools=[WEATHER], tool_choice=ToolChoice("none")))
    assert some[-1] == Finish("end_turn")


async def test_a_tool_without_schema_or_arguments_gets_an_empty_object() -> None:
    for schema in (None, {"type": "object", "properties": {}}):
        some = await deltas(ask(tools=[Tool("ping", None, schema)], tool_choice=ToolChoice("any")))
        assert arguments(some) == "{}"


async def test_a_call_cut_by_max_tokens_leaves_partial_json() -> None:
    whole = tokens(await deltas(ask(tools=[WEATHER], tool_choice=ToolChoice("any"))))
    cut = await deltas(ask(tools=[WEATHER], tool_choice=ToolChoice("any"), max_tokens=4))
    assert tokens(cut) == whole[:4]
    assert cut[-2:] == [Usage(output_tokens=4), Finish("max_tokens")]
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(arguments(cut))


async def test_thinking_and_a_call_go_together() -> None:
    some = await deltas(ask("get_weather", tools=[WEATHER], thinking=ThinkingConfig("adaptive")))
    assert isinstance(tokens(some)[0], Thinking)
    assert_weather(some)


# structured output


async def test_structured_output_is_json_of_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    for seed in range(20):
        some = await deltas(ask(output_schema=schema), seed=seed)
        value = orjson.loads(text(some))
        assert list(value) == ["name", "age"]
        assert isinstance(value["name"], str)
        assert value["age"] >= 0
        assert some[-1] == Finish("end_turn")


# the engine


async def test_a_client_that_leaves_ends_the_stream_wherever_it_stands() -> None:
    engine = SimulatedEngine(ttft=0, itl=0.5, clock=FakeClock())
    async with aclosing(engine.stream(ask())) as stream:
        await anext(stream)
        await anext(stream)
        assert engine.streaming == 1
    assert engine.streaming == 0
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_cancelled_in_its_sleep_ends() -> None:
    asleep = asyncio.Event()

    class Endless(FakeClock):
        async def until(self, when: float) -> None:
            asleep.set()
            await asyncio.Event().wait()

    engine = SimulatedEngine(clock=Endless())
    task = asyncio.ensure_future(anext(engine.stream(ask())))
    await asleep.wait()
    assert engine.streaming == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.streaming == 0


async def test_streams_of_one_engine_do_not_disturb_each_other() -> None:
    engine = SimulatedEngine(ttft=0, itl=0)

    async def run(question: str) -> list[Batch]:
        return [batch async for batch in engine.stream(ask(question))]

    together = await asyncio.gather(*(run(f"q{number}") for number in range(10)))
    assert together == [await run(f"q{number}") for number in range(10)]


async def test_it_is_an_engine_with_one_model_and_always_ready() -> None:
    engine = SimulatedEngine(model="tiny")
    assert as_engine(engine) is engine
    models = await engine.models()
    assert [type(model) for model in models] == [ModelInfo]
    assert models[0].id == "tiny"
    assert await engine.ready() is True
    assert repr(engine) == "<SimulatedEngine tiny ttft=0.02 itl=0.005 seed=0 streaming=0>"


async def test_a_parsed_request_is_answered() -> None:
    body = {
        "model": "m",
        "max_tokens": 100,
        "system": "Be kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "search for it"}]}],
        "tools": [{"name": "search", "input_schema": SEARCH.input_schema}],
    }
    some = await deltas(parse_request(orjson.dumps(body)))
    assert list(orjson.loads(arguments(some))) == ["q"]
    assert some[-1] == Finish("tool_use")
