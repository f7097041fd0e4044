"""`max_tokens: 0`: the engine reads the prompt, and the answer is empty."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from anthro_asgi import BaseEngine, Batch, Finish, MessagesApp, MessagesRequest, RateLimited, Thinking, Usage
from anthro_asgi.testing.in_process import InProcessApp

WARM: Any = {"model": "m", "max_tokens": 0, "messages": [{"role": "user", "content": "Hi"}]}


class Engine(BaseEngine):
    """Yields `steps`, raises the exceptions among them, and keeps the requests."""

    def __init__(self, *steps: Batch | Exception) -> None:
        self.steps = steps
        self.requests: list[MessagesRequest] = []

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        self.requests.append(request)
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            yield step


ONE_TOKEN = (Usage(input_tokens=7), Thinking("Hm"), "He", Usage(7, 1, 3), Finish("max_tokens"))


def sdk(running: InProcessApp) -> anthropic.Anthropic:
    return running.client(anthropic.Anthropic, max_retries=0, _strict_response_validation=True)


@pytest.mark.clause("3.46")
def test_the_engine_is_asked_for_one_token_and_the_answer_is_empty() -> None:
    engine = Engine(*ONE_TOKEN)
    with InProcessApp(MessagesApp(engine)) as running, sdk(running) as client:
        message = client.messages.create(**WARM)
    assert (message.content, message.stop_reason) == ([], "max_tokens")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 0)
    assert message.usage.cache_read_input_tokens == 3
    assert [(request.max_tokens, request.raw["max_tokens"]) for request in engine.requests] == [(1, 1)]


@pytest.mark.clause("3.46")
def test_a_stream_that_warms_the_cache_has_no_blocks() -> None:
    with InProcessApp(MessagesApp(Engine(*ONE_TOKEN))) as running, sdk(running) as client:
        events = list(client.messages.create(**WARM, stream=True))
        with client.messages.stream(**WARM) as stream:
            message = stream.get_final_message()
    assert [event.type for event in events] == ["message_start", "message_delta", "message_stop"]
    assert (message.content, message.stop_reason, message.usage.output_tokens) == ([], "max_tokens", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_while_warming_has_its_own_status(stream: bool) -> None:
    app = MessagesApp(Engine(Usage(input_tokens=7), RateLimited("later")))
    async with InProcessApp(app) as running, running.client(anthropic.AsyncAnthropic, max_retries=0) as client:
        with pytest.raises(anthropic.RateLimitError):
            await client.messages.create(**WARM, stream=stream)


async def test_an_engine_that_breaks_off_while_warming_is_an_error() -> None:
    async with InProcessApp(MessagesApp(Engine("He"))) as running:
        client = running.client(anthropic.AsyncAnthropic, max_retries=0)
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**WARM)
        await client.close()
    assert caught.value.status_code == 502
