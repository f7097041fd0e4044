"""pydantic-ai: an Agent with tools and with typed output."""

import json

import pytest

from tests.clients.client import Client
from tests.clients.engine import Json, call, refusal, text, tool_results
from tests.clients.scenario import PARIS, REPORT, SUNNY, offered, served, weather

DRIVER = "pydantic_python"


def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])
        outcome = client.run(s.url, stream=stream, structured="native", tools=[])
        assert (outcome.error, outcome.structured) == (None, REPORT)


def test_typed_output_through_a_forced_call(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        assert body["tool_choice"] == "required", body
        return call(offered(body, "final"), json.dumps(REPORT))

    with served(play) as s:
        outcome = client.run(s.url, stream=stream, structured="tool", tools=[])
        assert (outcome.error, outcome.structured) == (None, REPORT)


@pytest.mark.fault("B23", "D31")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, 'can only concatenate str (not "NoneType") to str'),
        (400, "messages.1.content: Input should be a valid string, got null"),
    ],
    ids=["llama-cpp-python", "a strict gateway"],
)
def test_an_agent_goes_on_with_an_engine_that_refuses_null_content(
    client: Client, stream: bool, status: int, words: str
) -> None:
    def play(body: Json, number: int) -> bytes:
        if any(message.get("content", "") is None for message in body["messages"]):
            return refusal(status, words)
        return text("Done") if tool_results(body) else call("weather", json.dumps(PARIS))

    with served(play) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, "Done", [PARIS])
