"""What an engine shows of its dialect is used again: the field of its reasoning, and what it refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from anthro_asgi.engines.openai.dialects import PLAIN
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.openai.learned import LearnedDialects
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.deltas import Thinking, ToolStart
from anthro_asgi.wire.errors import BadUpstream, EngineFailed, InvalidRequest
from tests.engines.openai.test_engine import answer, text
from tests.support.chat_requests import assistant, request, result, use, user
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, asked, engine_over, listing
from tests.support.upstream import Answer, Wire, json_answer, sse

Json = dict[str, Any]
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
LOOP = request(user("a"), assistant(THOUGHT, use("x")), user(result("x", "1"), "b"))
FOREIGN = request(user("a"), assistant(use("x")), user(result("x", "1")))


def delta(**content: Any) -> Json:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": None}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def thinking_in(key: str) -> bytes:
    return sse(delta(**{key: "Hm."}), delta(content="Hello"), END)


def refusing(refuses: Callable[[Json], bool], words: str, then: bytes = ANSWER) -> Answer:
    """An engine that refuses some bodies with these words and answers the others."""

    async def choosy(wire: Wire) -> None:
        refused = refuses(json.loads(wire.body))
        await wire.send(json_answer(400, {"error": {"message": words}}) if refused else then)

    return choosy


def assistants(body: Json) -> list[Json]:
    return [turn for turn in body["messages"] if turn["role"] == "assistant"]


@pytest.mark.clause("3.40")
@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "reasoning_text", "thinking"])
async def test_history_goes_back_in_the_field_that_the_engine_used(key: str) -> None:
    async with engine_over({CHAT: thinking_in(key)}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            assert Thinking("Hm.") in await answer(engine, LOOP)
        first, second = asked(upstream)
    assert set(assistants(first)[0]) == {"role", "content", "tool_calls"}
    assert assistants(second)[0] == assistants(first)[0] | {key: "Hm."}


@pytest.mark.clause("3.40")
async def test_history_goes_back_as_details_where_the_engine_speaks_in_details() -> None:
    said = delta(reasoning_details=[{"type": "reasoning.text", "text": "Hm."}])
    async with engine_over({CHAT: sse(said, delta(content="Hello"), END)}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            assert Thinking("Hm.") in await answer(engine, LOOP)
        sent = assistants(asked(upstream)[-1])[0]["reasoning_details"]
    assert sent == [{"type": "reasoning.text", "text": "Hm."}]


@pytest.mark.clause("3.40")
async def test_an_engine_that_never_showed_reasoning_never_gets_it() -> None:
    async with engine_over({CHAT: ANSWER}, dialect="openai") as (upstream, engine):
        for _ in range(3):
            await answer(engine, LOOP)
    assert not any({"reasoning", "reasoning_content"} & set(assistants(body)[0]) for body in asked(upstream))


@pytest.mark.clause("3.40", "8.4")
@pytest.mark.parametrize(
    "words",
    [
        "The reasoning_content in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
    ],
)
async def test_demanded_reasoning_is_sent_at_once_and_from_then_on(words: str) -> None:
    strict = refusing(lambda body: any("reasoning_content" not in turn for turn in assistants(body)), words)
    async with engine_over({CHAT: strict}, dialect="openai") as (upstream, engine):
        assert text(await answer(engine, LOOP)) == "Hello"
        assert text(await answer(engine, FOREIGN)) == "Hello"
        sent = [assistants(body)[0].get("reasoning_content") for body in asked(upstream)]
    assert sent == [None, "Hm.", ""]


async def test_a_field_in_which_reasoning_was_refused_is_not_used_again() -> None:
    words = "'messages.1': property 'reasoning' is unsupported"
    choosy = refusing(lambda body: "reasoning" in assistants(body)[0], words, thinking_in("reasoning"))
    async with engine_over({CHAT: choosy}, dialect="openai") as (upstream, engine):
        for _ in range(4):
            await answer(engine, LOOP)
        assert ["reasoning" in assistants(body)[0] for body in asked(upstream)] == [False, True, False, False, False]


@pytest.mark.clause("3.37", "8.4")
async def test_text_behind_a_tool_result_moves_into_it_from_the_first_refusal_on() -> None:
    strict = refusing(lambda body: body["messages"][-1]["role"] == "user", "Unexpected role 'user' after role 'tool'")
    async with engine_over({CHAT: strict}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            assert text(await answer(engine, LOOP)) == "Hello"
        assert [body["messages"][-1]["content"] for body in asked(upstream)] == ["b", "1\nb", "1\nb"]


@pytest.mark.clause("3.6", "8.3")
async def test_top_k_is_sent_until_the_engine_refuses_it() -> None:
    choosy = refusing(lambda body: "top_k" in body, "Unrecognized request argument supplied: top_k")
    async with engine_over({CHAT: choosy}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            await answer(engine, request(top_k=5))
        assert ["top_k" in body for body in asked(upstream)] == [True, False, False]


async def test_fields_without_effect_are_named_in_the_request() -> None:
    schema = {"format": {"type": "json_schema", "schema": {}}}
    async with engine_over({CHAT: ANSWER}, dialect="mlx-lm") as (_, engine):
        said = request(output_config=schema)
        await answer(engine, said)
        assert said.ignored == ["output_config.format"]
    choosy = refusing(lambda body: "user" in body, "Unrecognized request argument supplied: user")
    async with engine_over({CHAT: choosy}, dialect="openai") as (_, engine):
        await answer(engine, request(metadata={"user_id": "u"}))
        said = request(metadata={"user_id": "u"})
        await answer(engine, said)
        assert said.ignored == ["metadata.user_id"]


async def test_tools_are_left_out_once_the_engine_called_one_against_the_tool_choice_none() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}
    unused = request(tools=[{"name": "look"}], tool_choice={"type": "none"})
    async with engine_over({CHAT: [sse(delta(tool_calls=[call]), END), ANSWER]}, dialect="openai") as (
        upstream,
        engine,
    ):
        for _ in range(2):
            await answer(engine, unused)
        await answer(engine, request(tools=[{"name": "look"}]))
        assert ["tools" in body for body in asked(upstream)] == [True, False, True]


@pytest.mark.clause("8.4")
async def test_nothing_is_learned_from_a_refusal_if_the_amended_request_fails_too() -> None:
    refusal = refusing(lambda body: True, "property 'top_k' is unsupported")
    async with engine_over({CHAT: [refusal, refusal, ANSWER]}, dialect="openai") as (upstream, engine):
        with pytest.raises(InvalidRequest):
            await answer(engine, request(top_k=5))
        await answer(engine, request(top_k=5))
        assert ["top_k" in body for body in asked(upstream)] == [True, False, True]


@pytest.mark.clause("8.4")
async def test_a_refusal_that_quotes_the_clients_own_words_teaches_nothing() -> None:
    words = (
        "tools.0.input_schema.type: 'chat_template_kwargs' is not one of 'object', stream_options, parallel_tool_calls"
    )
    broken = {"type": "chat_template_kwargs"}
    choosy = refusing(lambda body: body["tools"][0]["function"]["parameters"]["type"] == broken["type"], words)
    options: Json = {
        "thinking": {"type": "disabled"},
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    }
    async with engine_over({CHAT: choosy}, dialect="vllm") as (upstream, engine):
        for _ in range(5):
            with pytest.raises(InvalidRequest, match="is not one of"):
                await answer(engine, request(tools=[{"name": "look", "input_schema": broken}], **options))
        await answer(engine, request(tools=[{"name": "look"}], **options))
        last = asked(upstream)[-1]
    assert {"max_tokens", "stream_options", "chat_template_kwargs", "parallel_tool_calls"} <= set(last)


@pytest.mark.clause("8.3", "8.4")
async def test_a_field_of_comfort_is_left_out_once_the_request_without_it_succeeded() -> None:
    choosy = refusing(lambda body: "stream_options" in body, "Unexpected fields in the request: {'stream_options'}")
    async with engine_over({CHAT: choosy}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            await answer(engine)
        assert ["stream_options" in body for body in asked(upstream)] == [True, False, False]


async def test_an_answer_that_was_shortened_stays_short_when_the_dialect_is_amended() -> None:
    async def choosy(wire: Wire) -> None:
        body = json.loads(wire.body)
        words = "property 'top_k' is unsupported" if "top_k" in body else ""
        if body["max_tokens"] > 9:
            words = "This model supports at most 9 completion tokens"
        await wire.send(json_answer(400, {"error": {"message": words}}) if words else ANSWER)

    async with engine_over({CHAT: choosy}, dialect="openai") as (upstream, engine):
        await answer(engine, request(top_k=5))
        assert [(body["max_tokens"], "top_k" in body) for body in asked(upstream)] == [
            (16, True),
            (9, True),
            (9, False),
        ]


# A client must not be able to change how others are asked

DROPPED = ("chat_template_kwargs", "stream_options", "parallel_tool_calls", "max_tokens", "return_progress", "user")


def quoting(status: int, told: str, broken: Callable[[Json], bool], then: bytes = ANSWER) -> Answer:
    """An engine that quotes a broken schema of the request in its refusal, as llama.cpp does."""

    async def quote(wire: Wire) -> None:
        body = json.loads(wire.body)
        if broken(body):
            schema = json.dumps(body["tools"][0]["function"]["parameters"])
            await wire.send(json_answer(status, {"error": {"message": f"{told} {schema}", "code": status}}))
        else:
            await wire.send(then)

    return quote


def poisoned(words: str) -> Json:
    return {"name": "look", "input_schema": {"type": words}}


@pytest.mark.clause("8.4")
@pytest.mark.parametrize("dialect", ["llamacpp", "openai", "vllm"])
async def test_words_that_a_client_makes_the_engine_quote_change_nothing_for_others(dialect: str) -> None:
    hostile = [
        *(f"unknown parameter: '{name}'" for name in DROPPED),
        "max_tokens is not supported, use max_completion_tokens",
        "property 'top_k' is unsupported",
        "Conversation roles must alternate; tool_choice only auto; strict; content must be a string, not null",
    ]
    innocent = request(
        user("a"),
        tools=[{"name": "look", "input_schema": {"type": "object", "properties": {}}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 1024},
        metadata={"user_id": "u"},
        top_k=5,
    )
    bad = quoting(400, "JSON schema conversion failed: Unrecognized schema:", lambda body: "!" in json.dumps(body))
    async with engine_over({CHAT: bad}, dialect=dialect) as (upstream, engine):
        observed: list[tuple[str, str]] = []
        engine.observe = lambda what, kind: observed.append((what, kind))
        await answer(engine, innocent)
        before = asked(upstream)[-1]
        for words in hostile * 5:
            with pytest.raises(InvalidRequest):
                await answer(engine, replace(innocent, tools=request(tools=[poisoned(f"! {words}")]).tools))
        await answer(engine, innocent)
        assert asked(upstream)[-1] == before
        assert not [kind for what, kind in observed if what == "learned"]


@pytest.mark.clause("8.4")
async def test_only_the_change_that_made_the_engine_accept_the_request_is_learned() -> None:
    """The engine refuses `top_k` alone, and quotes the name of another field from the client's schema."""
    bad = quoting(400, "property 'top_k' is unsupported beside", lambda body: "top_k" in body)
    schema = {"name": "look", "input_schema": {"type": "object", "title": "unknown parameter: 'user'"}}
    hostile = request(tools=[schema], top_k=5, metadata={"user_id": "u"})
    async with engine_over({CHAT: bad}, dialect="openai") as (upstream, engine):
        await answer(engine, hostile)
        await answer(engine, hostile)
        assert [("top_k" in body, "user" in body) for body in asked(upstream)] == [
            (True, True),
            (True, False),
            (False, False),
            (False, True),
        ]


def longer(field: str, most: int) -> Callable[[Json], bool]:
    return lambda body: len(str(body.get(field, ""))) > most


@pytest.mark.clause("8.4")
@pytest.mark.parametrize(
    ("field", "words", "hostile"),
    [
        (
            "user",
            "Invalid 'user': string too long. Expected a string with maximum length 8, but got one with length 100.",
            {"metadata": {"user_id": "u" * 100}},
        ),
        (
            "user",
            "Invalid parameter 'user': unsupported unknown field",
            {"metadata": {"user_id": "unsupported unknown field"}},
        ),
        ("top_k", "top_k must be at most 99", {"top_k": 1_000_000_000}),
        ("top_k", "Unsupported value: 'top_k' does not support 1000000000 with this model.", {"top_k": 1_000_000_000}),
        (
            "thinking_token_budget",
            "thinking_token_budget should be less than 8192",
            {"thinking": {"type": "enabled", "budget_tokens": 100_000_000}, "max_tokens": 200_000_000},
        ),
    ],
)
async def test_a_value_of_one_client_that_the_engine_refuses_costs_no_other_client_the_field(
    field: str, words: str, hostile: Json
) -> None:
    innocent = request(
        thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048, metadata={"user_id": "u"}, top_k=5
    )
    async with engine_over({CHAT: refusing(longer(field, 8), words)}, dialect="vllm") as (upstream, engine):
        await answer(engine, request(**hostile))
        await answer(engine, innocent)
        assert [field in body for body in asked(upstream)] == [True, False, True]


@pytest.mark.clause("8.4")
async def test_what_is_learned_is_logged_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anthro_asgi")
    choosy = refusing(lambda body: "top_k" in body, "property 'top_k' is unsupported")
    observed: list[tuple[str, str]] = []
    async with engine_over({CHAT: choosy}, dialect="openai") as (_, engine):
        engine.observe = lambda what, kind: observed.append((what, kind))
        for _ in range(3):
            await answer(engine, request(top_k=5))
    assert [kind for what, kind in observed if what == "learned"] == ["top_k"]
    learned = [record.getMessage() for record in caplog.records if "learned" in record.getMessage()]
    assert learned == ["engine_dialect_learned field=top_k value=False"]


@pytest.mark.clause("8.4")
async def test_names_that_clients_make_up_share_the_memory_of_the_one_listed_model() -> None:
    choosy = refusing(lambda body: "top_k" in body, "property 'top_k' is unsupported")
    async with engine_over({MODELS: listing("somebody"), CHAT: choosy}) as (upstream, engine):
        for number in range(100):
            await answer(engine, request(top_k=5, model=f"made-up-{number}"))
        assert sum("top_k" in body for body in asked(upstream)) == 1


@pytest.mark.clause("8.4")
async def test_names_that_a_longer_list_does_not_have_share_one_memory() -> None:
    models = json_answer(200, {"data": [{"id": name, "owned_by": "somebody"} for name in ("m", "n")]})
    choosy = refusing(lambda body: "top_k" in body, "property 'top_k' is unsupported")
    async with engine_over({MODELS: models, CHAT: choosy}) as (upstream, engine):
        for model in ("m", "m", "made-up-1", "made-up-2", "m", "n"):
            await answer(engine, request(top_k=5, model=model))
        assert [body["model"] for body in asked(upstream) if "top_k" in body] == ["m", "made-up-1", "n"]


async def test_two_unwelcome_fields_are_both_learned() -> None:
    choosy = refusing(lambda body: "user" in body, "Unrecognized request argument supplied: user")

    async def strict(wire: Wire) -> None:
        if "parallel_tool_calls" in json.loads(wire.body):
            await wire.send(json_answer(400, {"error": {"message": "unknown parameter: 'parallel_tool_calls'"}}))
        else:
            await choosy(wire)  # type: ignore[operator]  # a function, not bytes

    said = request(
        tools=[{"name": "look", "input_schema": {"type": "object", "properties": {}}}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        metadata={"user_id": "u"},
    )
    async with engine_over({CHAT: strict}, dialect="openai") as (upstream, engine):
        for _ in range(3):
            await answer(engine, said)
        sent = [("user" in body, "parallel_tool_calls" in body) for body in asked(upstream)]
    assert sent == [(True, True), (True, False), (False, False), (False, True), (False, False), (False, False)]


async def test_each_model_has_its_own_memory() -> None:
    choosy = refusing(lambda body: "top_k" in body and body["model"] == "m", "property 'top_k' is unsupported")
    async with engine_over({CHAT: choosy}, dialect="openai") as (upstream, engine):
        for model in ("m", "n", "m"):
            await answer(engine, request(top_k=5, model=model))
        assert [(body["model"], "top_k" in body) for body in asked(upstream)] == [
            ("m", True),
            ("m", False),
            ("n", True),
            ("m", False),
        ]


@pytest.mark.clause("3.44")
async def test_a_signed_call_comes_back_with_its_signature() -> None:
    signed = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}
    signed["extra_content"] = {"google": {"thought_signature": "c2ln"}}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    async with engine_over({CHAT: sse(delta(tool_calls=[signed]), end)}, dialect="gemini") as (upstream, engine):
        started = [part for part in await answer(engine) if isinstance(part, ToolStart)]
        (call,) = started
        await answer(engine, request(user("a"), assistant(use(call.id)), user(result(call.id, "1"))))
        sent, said = assistants(asked(upstream)[1])[0]["tool_calls"][0], asked(upstream)[1]["messages"][-1]
    assert (sent["id"], said["tool_call_id"]) == ("c1", "c1")
    assert sent["extra_content"] == signed["extra_content"]


async def test_thinking_between_tags_is_found_for_a_dialect_that_writes_it_so() -> None:
    tagged = sse(delta(content="<think>\nHm.\n</think>\n\nHello"), END)
    async with engine_over({CHAT: tagged}, dialect="minimax") as (_, engine):
        deltas = await answer(engine)
    assert (text(deltas).strip(), [part.text.strip() for part in deltas if isinstance(part, Thinking)]) == (
        "Hello",
        ["Hm."],
    )


def test_a_hosted_api_has_the_dialect_of_its_host() -> None:
    assert repr(OpenAIEngine(Origin.parse("https://api.deepseek.com"))).startswith("<OpenAIEngine deepseek ")
    chosen = OpenAIEngine(Origin.parse("https://api.deepseek.com"), dialect="openai")
    assert repr(chosen).startswith("<OpenAIEngine openai ")


# the memory


def test_changes_expire_an_hour_after_they_were_learned() -> None:
    memory = LearnedDialects()
    assert memory.learn("m", {"top_k": False}, 0.0) == ["top_k"]
    assert memory.learn("m", {"top_k": False}, 10.0) == []
    assert memory.apply("m", PLAIN, 3599.0).top_k is False
    assert memory.apply("n", PLAIN, 3599.0) is PLAIN
    assert memory.apply("m", PLAIN, 3600.0) is PLAIN
    assert memory.changes("m") == {}


def test_the_number_of_models_is_limited_and_the_first_is_dropped_first() -> None:
    memory = LearnedDialects()
    for number in range(65):
        memory.learn(f"m{number}", {"top_k": False}, float(number))
    assert memory.changes("m0") == {}
    assert memory.changes("m1") == memory.changes("m64") == {"top_k": False}
    memory.forget()
    assert memory.changes("m64") == {}


def test_later_changes_join_the_earlier_ones() -> None:
    memory = LearnedDialects()
    memory.learn("m", {"top_k": False}, 0.0)
    memory.learn("m", {"no_content": ""}, 1.0)
    learned = memory.apply("m", PLAIN, 2.0)
    assert (learned.top_k, learned.no_content) == (False, "")


@pytest.mark.clause("4.9")
async def test_stop_sequences_stay_here_for_a_model_that_thinks() -> None:
    thought: Json = delta(reasoning="I will ")
    cut = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "count"}]}

    async def engine_that_matches_in_thinking(wire: Wire) -> None:
        cuts = json.loads(wire.body).get("stop")
        await wire.send(sse(thought, cut) if cuts else sse(thought, delta(content="1 count"), END))

    asking = replace(request(user("a")), stop_sequences=("count",))
    async with engine_over({CHAT: engine_that_matches_in_thinking}, dialect="vllm") as (upstream, engine):
        for _ in range(2):
            assert text(await answer(engine, asking)) == "1 count"  # the application cuts it
        assert ["stop" in body for body in asked(upstream)] == [False, False]


@pytest.mark.clause("4.9")
async def test_an_engine_gets_the_stop_sequences_once_its_model_has_answered_without_thinking() -> None:
    asking = replace(request(user("a")), stop_sequences=("count",))
    async with engine_over({CHAT: ANSWER}, dialect="vllm") as (upstream, engine):
        await answer(engine, request(user("a")))
        for _ in range(3):
            assert text(await answer(engine, asking)) == "Hello"
        assert ["stop" in body for body in asked(upstream)] == [False, False, True, True]


@pytest.mark.clause("4.9")
async def test_a_switch_that_a_model_does_not_obey_sends_no_stop_sequences() -> None:
    off = replace(request(user("a"), thinking={"type": "disabled"}), stop_sequences=("count",))
    async with engine_over({CHAT: thinking_in("reasoning")}, dialect="vllm") as (upstream, engine):
        for _ in range(2):
            await answer(engine, off)
        assert ["stop" in body for body in asked(upstream)] == [False, False]
    async with engine_over({CHAT: ANSWER}, dialect="vllm") as (upstream, engine):
        for _ in range(2):
            await answer(engine, off)
        assert ["stop" in body for body in asked(upstream)] == [False, True]


@pytest.mark.clause("4.9")
async def test_thinking_that_an_engine_stopped_is_an_error_and_the_next_answer_is_whole() -> None:
    cut = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "count"}]}
    asking = replace(request(user("a")), stop_sequences=("count",))
    answers: list[Answer] = [ANSWER, sse(delta(reasoning="I "), cut), thinking_in("reasoning")]
    async with engine_over({CHAT: answers}, dialect="vllm") as (upstream, engine):
        await answer(engine, asking)
        with pytest.raises(BadUpstream, match="inside its thinking"):
            await answer(engine, asking)
        assert text(await answer(engine, asking)) == "Hello"
        assert ["stop" in body for body in asked(upstream)] == [False, True, False]


@pytest.mark.clause("3.39")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, 'can only concatenate str (not "NoneType") to str'),
        (500, "Internal Server Error"),
        (500, ""),
        (400, "messages.1.content: Input should be a valid string, got null"),
    ],
)
async def test_null_content_that_an_engine_cannot_read_becomes_empty(status: int, words: str) -> None:
    async def strict(wire: Wire) -> None:
        refused = any(turn["content"] is None for turn in json.loads(wire.body)["messages"])
        await wire.send(json_answer(status, {"error": {"message": words}}) if refused else ANSWER)

    async with engine_over({CHAT: strict}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            assert text(await answer(engine, FOREIGN)) == "Hello"
        assert [assistants(body)[0]["content"] for body in asked(upstream)] == [None, "", ""]


async def test_a_failure_with_other_words_is_not_asked_again() -> None:
    failed = json_answer(500, {"error": {"message": "CUDA out of memory"}})
    async with engine_over({CHAT: failed}, dialect="openai") as (upstream, engine):
        with pytest.raises(EngineFailed):
            await answer(engine, FOREIGN)
        assert len(asked(upstream)) == 1
