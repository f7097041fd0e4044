"""Vercel's AI SDK: `generateText` and `streamText`, which run the tools themselves."""

import json

import pytest

from tests.clients.client import Client
from tests.clients.engine import USAGE, Json, call, delta, finish, refusal, text, tool_results
from tests.clients.scenario import PARIS, REPORT, SUNNY, served, weather
from tests.support.upstream import sse

DRIVER = "ai_node"


def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])
        outcome = client.run(s.url, stream=stream, structured=True, tools=[], model="claude-sonnet-4-5")
        assert (outcome.error, outcome.structured) == (None, REPORT)


@pytest.mark.fault("A3")
def test_reasoning_goes_back_in_the_field_of_the_engine(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        if tool_results(body):
            return text("Done")
        return call("weather", json.dumps(PARIS), reasoning="I should look.")

    with served(play) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text) == (None, "Done")
        assert s.engine.chats[-1]["messages"][1]["reasoning"] == "I should look."


@pytest.mark.fault("B19")
def test_calls_of_another_choice_are_executed(client: Client, stream: bool) -> None:
    function = {"name": "weather", "arguments": json.dumps(PARIS)}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    second: Json = {"index": 1, "delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}
    answer = sse(delta(content="I look."), finish("stop"), {"id": "c", "choices": [second]}, USAGE)

    with served(lambda body, number: text("Done") if tool_results(body) else answer) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, "Done", [PARIS])


@pytest.mark.fault("B20")
def test_late_reasoning_does_not_hide_the_answer(client: Client, stream: bool) -> None:
    answer = sse(delta(content="Forty-two."), delta(reasoning_content="That was easy."), finish("stop"), USAGE)
    with served(lambda body, number: answer) as s:
        outcome = client.run(s.url, stream=stream, tools=[])
        assert (outcome.error, outcome.text, outcome.fields["finish"]) == (None, "Forty-two.", "stop")


@pytest.mark.fault("B23")
def test_strict_is_left_out_for_an_engine_that_refuses_it(client: Client) -> None:
    def play(body: Json, number: int) -> bytes:
        if "strict" in json.dumps(body):
            return refusal(400, "Extra inputs are not permitted: strict", param="strict")
        return text(json.dumps(REPORT))

    with served(play) as s:
        outcome = client.run(s.url, structured=True, tools=[], model="claude-sonnet-4-5")
        assert (outcome.error, outcome.structured) == (None, REPORT)
