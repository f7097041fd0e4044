"""Test an agent that streams and calls tools.

    pip install . anthropic pytest pytest-xdist && pytest examples/test_async_agent.py

No server and no socket: the application runs in the event loop of the test.
"""

import asyncio

import anthropic
import httpx2
import pytest

from anthro_asgi import Thinking
from anthro_asgi.testing import Cut, InProcessMessages, Stall, ToolCall, error

# The code under test.

TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather in a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]


def get_weather(city):
    return f"sunny in {city}"


async def agent(client, question, show):
    """Answers the question. Calls the tools that the model asks for. Shows text while it arrives."""
    messages = [{"role": "user", "content": question}]
    while True:
        async with client.messages.stream(
            model="claude-test", max_tokens=1000, messages=messages, tools=TOOLS
        ) as stream:
            async for text in stream.text_stream:
                show(text)
            message = await stream.get_final_message()
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return message
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)} for call in calls
        ]
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]


# Its tests.


def test_the_agent_calls_the_tool_and_shows_the_answer_while_it_arrives():
    async def main():
        call = ToolCall("get_weather", {"city": "Paris"})
        async with InProcessMessages(
            [Thinking("I need the weather."), "Let me look. ", call],
            "It is sunny in Paris.",
        ) as messages:
            shown = []
            await agent(messages.client(anthropic.AsyncAnthropic), "Umbrella in Paris?", shown.append)

            assert "".join(shown) == "Let me look. It is sunny in Paris."
            assert len(shown) > 2
            first, second = messages.requests
            assert first.tools == ["get_weather"]
            assert second.tool_results == {call.id: "sunny in Paris"}
            messages.check_all_used()

    asyncio.run(main())


def test_two_calls_in_one_message_get_two_results():
    async def main():
        paris, rome = ToolCall("get_weather", {"city": "Paris"}), ToolCall("get_weather", {"city": "Rome"})
        async with InProcessMessages([paris, rome], "Both are sunny.") as messages:
            await agent(messages.client(anthropic.AsyncAnthropic), "Paris or Rome?", print)
            assert messages.requests[1].tool_results == {paris.id: "sunny in Paris", rome.id: "sunny in Rome"}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ending", "raised"),
    [
        (error(529, "busy"), anthropic.APIStatusError),  # an `error` event in the stream
        (Cut(), httpx2.RemoteProtocolError),  # the connection is lost; the SDK does not wrap this error
    ],
)
def test_an_agent_whose_stream_breaks_has_shown_what_arrived(ending, raised):
    async def main():
        async with InProcessMessages(["It is", ending]) as messages:
            shown = []
            with pytest.raises(raised):
                await agent(messages.client(anthropic.AsyncAnthropic), "Umbrella?", shown.append)
            assert shown == ["It is"]

    asyncio.run(main())


def test_a_cancelled_agent_closes_its_request():
    async def main():
        async with InProcessMessages(["It is", Stall()]) as messages:
            arrived = asyncio.Event()
            client = messages.client(anthropic.AsyncAnthropic)
            task = asyncio.create_task(agent(client, "Umbrella?", lambda text: arrived.set()))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert messages.requests[0].client_left

    asyncio.run(main())
