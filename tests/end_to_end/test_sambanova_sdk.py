"""SambaNova's own SDK against the service: a base URL with `/v1`, and the key in both headers.

Unless a test says otherwise, it runs over the simulated engine (with a key) and over the real llama.cpp.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sambanova

from tests.end_to_end.conftest import KEY
from tests.support.llama.model import ANSWER, ARGUMENT, THINKING
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
def client_of(service: Service, key: str = KEY, **options: Any) -> Iterator[sambanova.SambaNova]:
    """A client that does not retry, and raises for an answer that its types do not describe."""
    base_url = f"{service.url}/v1"
    how: Any = {"max_retries": 0, "_strict_response_validation": True, **options}
    with sambanova.SambaNova(base_url=base_url, api_key=key, **how) as client:
        yield client


@pytest.fixture
def client(service: Service) -> Iterator[sambanova.SambaNova]:
    with client_of(service) as client:
        yield client


def said(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_created(client: sambanova.SambaNova) -> None:
    message: Any = client.messages.create(**HELLO)
    assert (message.type, message.role, message.model) == ("message", "assistant", "one-sentence")
    assert message.id.startswith("msg_")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert said(message)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


def test_a_stream_has_the_content_of_create(client: sambanova.SambaNova) -> None:
    first, *events, delta, last = client.messages.create(**HELLO, thinking=THINK, stream=True)
    whole: Any = client.messages.create(**HELLO, thinking=THINK)
    assert (first.type, delta.type, last.type) == ("message_start", "message_delta", "message_stop")
    pieces: dict[str, str] = {"text_delta": "", "thinking_delta": "", "signature_delta": ""}
    for event in events:
        if event.type == "content_block_delta":
            pieces[event.delta.type] += getattr(event.delta, event.delta.type.removesuffix("_delta"))
    thought, spoken = whole.content
    assert pieces["text_delta"] == spoken.text
    assert pieces["thinking_delta"] == thought.thinking
    assert pieces["signature_delta"] == thought.signature
    assert delta.delta.stop_reason == whole.stop_reason
    assert delta.usage.output_tokens == whole.usage.output_tokens


def test_thinking_and_text_of_the_real_engine_are_exact(real: Service) -> None:
    with client_of(real) as client:
        message: Any = client.messages.create(**HELLO, thinking=THINK)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == THINKING
    assert said(message) == ANSWER


def test_the_parameters_of_its_page_are_accepted(client: sambanova.SambaNova) -> None:
    asked: Any = {
        **HELLO,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["never to be seen"],
        "metadata": {"user_id": "somebody"},
    }
    assert client.messages.create(**asked).stop_reason == "end_turn"


def test_a_call_is_answered_by_its_result(client: sambanova.SambaNova) -> None:
    called: Any = client.messages.create(**HELLO, tools=[WEATHER], tool_choice=ANY)
    assert called.stop_reason == "tool_use"
    call = called.content[-1]
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert isinstance(call.input["city"], str)
    turns: Any = [
        *HELLO["messages"],
        {"role": "assistant", "content": [block.to_dict() for block in called.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}]},
    ]
    answered = client.messages.create(**{**HELLO, "messages": turns}, tools=[WEATHER])
    assert answered.stop_reason == "end_turn"
    assert said(answered)


def test_a_call_is_streamed(real: Service) -> None:
    with client_of(real) as client:
        events: Any = list(client.messages.create(**HELLO, tools=[WEATHER], tool_choice=ANY, stream=True))
    pieces = [
        event.delta.partial_json
        for event in events
        if event.type == "content_block_delta" and event.delta.type == "input_json_delta"
    ]
    assert "".join(pieces) == f'{{"city":"{ARGUMENT}"}}'
    starts = [event.content_block for event in events if event.type == "content_block_start"]
    assert [block.type for block in starts] == ["text", "tool_use"]


def test_tokens_are_counted(client: sambanova.SambaNova) -> None:
    asked = {key: HELLO[key] for key in ("model", "messages")}
    short: Any = client.messages.count_tokens(**asked)
    long: Any = client.messages.count_tokens(**asked, tools=[WEATHER], system="Be brief.")
    assert 0 < short.input_tokens < long.input_tokens


def test_models_are_listed_and_retrieved(client: sambanova.SambaNova) -> None:
    listed = client.models.list()
    assert listed.object == "list"
    (model,) = listed.data
    found = client.models.retrieve(model.id)
    assert (found.id, found.object, found.owned_by) == (model.id, "model", model.owned_by)


def test_the_key_header_does_not_change_the_answer(simulated: Service) -> None:
    with client_of(simulated) as client, client_of(simulated, "sk-wrong", x_api_key=KEY) as other:
        assert said(client.messages.create(**HELLO)) == said(other.messages.create(**HELLO))


def test_a_wrong_key_is_an_authentication_error_on_every_route(simulated: Service) -> None:
    with client_of(simulated, "sk-wrong", x_api_key="sk-wrong") as client:
        calls: list[Callable[[], Any]] = [
            lambda: client.messages.create(**HELLO),
            lambda: client.messages.create(**HELLO, stream=True),
            lambda: client.messages.count_tokens(model="m", messages=HELLO["messages"]),
            lambda: client.models.list(),
        ]
        for call in calls:
            with pytest.raises(sambanova.AuthenticationError) as caught:
                call()
            body: Any = caught.value.body
            assert body["error"]["type"] == "authentication_error"


def test_an_unknown_model_is_a_not_found_error(client: sambanova.SambaNova) -> None:
    with pytest.raises(sambanova.NotFoundError):
        client.models.retrieve("nobody/knows-it")


@pytest.mark.parametrize("stream", [False, True])
def test_an_invalid_request_is_a_bad_request_error_that_names_the_field(
    client: sambanova.SambaNova, stream: bool
) -> None:
    with pytest.raises(sambanova.BadRequestError, match="temperature: "):
        client.messages.create(**HELLO, temperature=3, stream=stream)


def test_an_engine_that_is_down_is_an_internal_server_error_with_status_529() -> None:
    with Service("--upstream", "unix:/nowhere/engine.sock") as service, client_of(service) as client:
        with pytest.raises(sambanova.InternalServerError) as caught:
            client.messages.create(**HELLO)
        assert caught.value.status_code == 529


async def test_the_async_client_works(service: Service) -> None:
    how: Any = {"max_retries": 0, "_strict_response_validation": True}
    async with sambanova.AsyncSambaNova(base_url=f"{service.url}/v1", api_key=KEY, **how) as client:
        whole = await client.messages.create(**HELLO)
        events = [event async for event in await client.messages.create(**HELLO, stream=True)]
        deltas: list[Any] = [event.delta for event in events if event.type == "content_block_delta"]
        assert "".join(delta.text for delta in deltas) == said(whole)
        assert (await client.models.list()).data
        with pytest.raises(sambanova.NotFoundError):
            await client.models.retrieve("nobody")
