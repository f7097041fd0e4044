"""Anthropic's own SDK against the service. The SDK checks every answer against its types.

Unless a test says otherwise, it runs over the simulated engine (with a key) and over the real llama.cpp.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, ThreadNotFoundError

from tests.end_to_end.conftest import KEY, Endless
from tests.end_to_end.test_leaving import BOUND, ENDLESS
from tests.support.llama.model import ANSWER, THINKING
from tests.support.service import Service

HELLO: Any = {
    "model": "one-sentence",
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "Hello?"}],
}
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ANY: Any = {"type": "any"}
THINK: Any = {"type": "enabled", "budget_tokens": 1024}


@contextmanager
def client_of(service: Service, path: str = "", **options: Any) -> Iterator[anthropic.Anthropic]:
    """A client that does not retry, and raises for an answer that its types do not describe."""
    if "auth_token" not in options:
        options = {"api_key": KEY, **options}
    base_url = f"{service.url}{path}"
    with anthropic.Anthropic(base_url=base_url, max_retries=0, _strict_response_validation=True, **options) as client:
        yield client


@pytest.fixture
def client(service: Service) -> Iterator[anthropic.Anthropic]:
    with client_of(service) as client:
        yield client


def async_client_of(service: Service) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=service.url, api_key=KEY, max_retries=0, _strict_response_validation=True)


def said(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# --- messages ---


def test_a_message_is_created(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**HELLO)
    assert (message.type, message.role, message.model) == ("message", "assistant", "one-sentence")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert [block.type for block in message.content] == ["text"]
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


def test_the_text_of_the_real_engine_is_exact(real: Service) -> None:
    with client_of(real) as client:
        assert said(client.messages.create(**HELLO)) == ANSWER


@pytest.mark.parametrize("more", [{}, {"thinking": THINK}, {"tools": [WEATHER], "tool_choice": ANY}])
def test_a_stream_adds_up_to_the_message_that_create_returns(client: anthropic.Anthropic, more: Any) -> None:
    with client.messages.stream(**HELLO, **more) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    whole = client.messages.create(**HELLO, **more)
    assert "".join(pieces) == said(streamed) == said(whole)
    assert len(pieces) > 1 or not said(whole)
    assert without_ids(streamed) == without_ids(whole)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert prompt_tokens(streamed) == prompt_tokens(whole)


def without_ids(message: Message) -> tuple[Any, ...]:
    content = [block.model_dump(exclude={"id"}) for block in message.content]
    return content, message.stop_reason, message.stop_sequence, message.model


def prompt_tokens(message: Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_raw_events_contain_every_block(client: anthropic.Anthropic) -> None:
    events = list(client.messages.create(**HELLO, thinking=THINK, stream=True))
    kinds = [event.type for event in events if event.type != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    assert kinds == ["message_start", *block, *block, "message_delta", "message_stop"]


def test_a_thinking_block_is_signed_and_can_be_sent_back(client: anthropic.Anthropic) -> None:
    thought, spoken = client.messages.create(**HELLO, thinking=THINK).content
    assert thought.type == "thinking"
    assert thought.thinking
    assert thought.signature
    turns = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": [thought, spoken]},
        {"role": "user", "content": "And now?"},
    ]
    again: Any = {**HELLO, "messages": turns, "thinking": THINK}
    assert client.messages.create(**again).content[0].type == "thinking"


def test_the_thinking_of_the_real_engine_is_exact(real: Service) -> None:
    with client_of(real) as client, client.messages.stream(**HELLO, thinking=THINK) as stream:
        thoughts = [event.thinking for event in stream if event.type == "thinking"]
    assert "".join(thoughts) == THINKING


def test_a_stop_sequence_is_reported(real: Service) -> None:
    with client_of(real) as client:
        message = client.messages.create(**HELLO, stop_sequences=["漢字", "nowhere"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "漢字")
    assert said(message) == ANSWER.partition("漢字")[0]


# --- tools ---


def test_a_call_is_answered_by_its_result(client: anthropic.Anthropic) -> None:
    called = client.messages.create(**HELLO, tools=[WEATHER], tool_choice=ANY)
    assert called.stop_reason == "tool_use"
    call = called.content[-1]
    assert call.type == "tool_use"
    assert isinstance(call.input["city"], str)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}
    turns: Any = [*HELLO["messages"], called.to_param(), {"role": "user", "content": [result]}]
    answered = client.messages.create(**{**HELLO, "messages": turns}, tools=[WEATHER])
    assert answered.stop_reason == "end_turn"
    assert said(answered)


@pytest.mark.clause("3.23")
@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_runner_works_although_threads_are_not_stored(client: anthropic.Anthropic, stream: bool) -> None:
    """It continues a thread with the new messages only, gets a 404, and sends the whole conversation."""
    asked: list[str] = []
    statuses: list[tuple[str, int]] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Tells the weather.

        Args:
            city: Where.
        """
        asked.append(city)
        return "Sunny"

    def watched(request: Any, call_next: Callable[[Any], Any]) -> Any:
        response = call_next(request)
        statuses.append((request.json.get("thread", {}).get("type", "none"), response.status_code))
        return response

    how: Any = {**HELLO, "messages": [{"role": "user", "content": "Use get_weather"}]}
    runner: Any = client.with_middleware(watched).beta.messages.tool_runner(
        **how, tools=[get_weather], tool_choice=ANY, stream=stream
    )
    reasons = []
    for turn in runner:
        reasons.append((turn.get_final_message() if stream else turn).stop_reason)
        if len(reasons) == 1:
            runner.set_messages_params(lambda params: {**params, "tool_choice": {"type": "auto"}})
    assert reasons == ["tool_use", "end_turn"]
    assert len(asked) == 1
    assert statuses == [("create", 200), ("continue", 404), ("create", 200)]


def test_an_unknown_thread_has_its_own_error_code(client: anthropic.Anthropic) -> None:
    thread = {"thread": {"type": "continue", "previous_message_id": "msg_1"}}
    with pytest.raises(ThreadNotFoundError):
        client.beta.messages.create(**HELLO, extra_body=thread)


# --- other routes ---


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    asked = {key: HELLO[key] for key in ("model", "messages")}
    short = client.messages.count_tokens(**asked).input_tokens
    assert 0 < short < client.messages.count_tokens(**asked, tools=[WEATHER]).input_tokens


def test_models_are_listed_and_retrieved(client: anthropic.Anthropic) -> None:
    listed = list(client.models.list(limit=1))
    assert len(listed) == 1
    found = client.models.retrieve(listed[0].id)
    assert (found.id, found.display_name, found.type) == (listed[0].id, listed[0].display_name, "model")


@pytest.mark.clause("7.13")
def test_the_request_id_of_a_response_is_in_the_log(client: anthropic.Anthropic, service: Service) -> None:
    raw = client.messages.with_raw_response.create(**HELLO)
    identity = raw.headers["request-id"]
    assert raw.parse()._request_id == identity
    assert service.logged(request_id=identity)["status"] == 200


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_base_url_may_end_in_v1(service: Service, path: str) -> None:
    with client_of(service, path) as client:
        assert said(client.messages.create(**HELLO))
        assert len(list(client.models.list())) == 1
        assert client.messages.count_tokens(model="m", messages=HELLO["messages"]).input_tokens


# --- errors ---


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": KEY},
        {"auth_token": KEY},
        {"api_key": "sk-wrong", "default_headers": {"x-api-key": KEY}},
        {"auth_token": "sk-wrong", "default_headers": {"x-api-key": KEY}},
    ],
)
def test_a_key_is_valid_in_either_header(simulated: Service, options: Any) -> None:
    with client_of(simulated, **options) as client:
        assert said(client.messages.create(**HELLO))


@pytest.mark.parametrize("options", [{"api_key": "sk-wrong"}, {"auth_token": f"{KEY}x"}])
def test_a_wrong_key_is_an_authentication_error_on_every_route(simulated: Service, options: Any) -> None:
    with client_of(simulated, **options) as client:
        calls: list[Callable[[], Any]] = [
            lambda: client.messages.create(**HELLO),
            lambda: client.messages.create(**HELLO, stream=True),
            lambda: client.messages.count_tokens(model="m", messages=HELLO["messages"]),
            lambda: client.models.list(),
            lambda: client.models.retrieve("simulated"),
        ]
        for call in calls:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                call()
            assert caught.value.type == "authentication_error"
            assert caught.value.request_id
            assert KEY not in str(caught.value)


def test_an_unknown_model_is_a_not_found_error(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.models.retrieve("nobody/knows-it")
    assert caught.value.type == "not_found_error"


@pytest.mark.parametrize("stream", [False, True])
def test_an_invalid_request_is_a_bad_request_error_that_names_the_field(
    client: anthropic.Anthropic, stream: bool
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{**HELLO, "max_tokens": -1}, stream=stream)
    assert caught.value.type == "invalid_request_error"
    assert str(caught.value.api_message).startswith("max_tokens: ")


def test_a_body_too_large_is_a_content_too_large_error(simulated: Service) -> None:
    with client_of(simulated) as client, pytest.raises(anthropic.ContentTooLargeError) as caught:
        client.messages.create(**{**HELLO, "messages": [{"role": "user", "content": "x" * (1 << 20)}]})
    assert str(caught.value.type) == "request_too_large"


def test_an_engine_that_is_down_is_an_overloaded_error() -> None:
    with Service("--upstream", "unix:/nowhere/engine.sock") as service, client_of(service) as client:
        for stream in (False, True):
            with pytest.raises(anthropic.OverloadedError) as caught:
                client.messages.create(**HELLO, stream=stream)
            assert caught.value.type == "overloaded_error"
            assert caught.value.response.headers["retry-after"]
            assert "nowhere" not in str(caught.value)


# --- async ---


async def test_the_async_client_works(service: Service) -> None:
    async with async_client_of(service) as client:
        whole = await client.messages.create(**HELLO)
        async with client.messages.stream(**HELLO) as stream:
            pieces = [piece async for piece in stream.text_stream]
        assert "".join(pieces) == said(whole)
        assert [model.id async for model in client.models.list()]
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("nobody")


async def test_many_concurrent_async_streams_do_not_mix(service: Service) -> None:
    async def one(client: anthropic.AsyncAnthropic, words: str) -> str:
        turns: Any = [{"role": "user", "content": words}]
        async with client.messages.stream(**{**HELLO, "messages": turns}) as stream:
            return said(await stream.get_final_message())

    async with async_client_of(service) as client:
        questions = [f"Question {number}" for number in range(16)]
        together = await asyncio.gather(*(one(client, words) for words in questions))
        assert together == [await one(client, words) for words in questions]


async def test_a_cancelled_stream_stops_the_engine(endless: Endless) -> None:
    arrived = asyncio.Event()
    asked: Any = {**HELLO, **ENDLESS, "timeout": 60}

    async def reading(client: anthropic.AsyncAnthropic) -> None:
        async with client.messages.stream(**asked) as stream:
            async for _ in stream.text_stream:
                arrived.set()

    async with async_client_of(endless.service) as client:
        seen = len(endless.service.log)
        task = asyncio.create_task(reading(client))
        await arrived.wait()
        assert endless.llama.metrics()["requests_processing"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(endless.service.logged, within=BOUND, since=seen, client_left=True)
        await asyncio.to_thread(endless.llama.until_idle, BOUND)
