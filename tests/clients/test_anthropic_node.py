"""Anthropic's SDK for TypeScript: its tool runner against engines that write tool calls in their own ways."""

import json

import pytest

from tests.clients.client import Client
from tests.clients.engine import Json, call, last_role, refusal, text, tool_results
from tests.clients.scenario import PARIS, REPORT, SUNNY, calls_in_styles, served, weather

DRIVER = "anthropic_node"


def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])
        outcome = client.run(s.url, stream=stream, structured=True)
        assert (outcome.error, outcome.structured) == (None, REPORT)


# The calls of one conversation, one after the other: the arguments as the engine writes them, and what the tool gets.
HOSTILE: dict[str, tuple[str, Json]] = {
    "encoded twice": (json.dumps(json.dumps(PARIS)), PARIS),
    "null": ("null", {}),
    "white space": ("  \n", {}),
    "an array": ('["Paris"]', {}),
    "no closing brace": ('{"city": "Paris"', PARIS),
    "too many closing braces": ('{"city": "Paris"}}', PARIS),
    "an empty object behind it": ('{"city": "Paris"}{}', PARIS),
    "an empty object before it": ('{}{"city": "Paris"}', PARIS),
    "NaN": ('{"city": "Paris", "degrees": NaN}', PARIS),
    "a single backslash": ('{"city": "C:\\Users"}', {"city": "C:\\Users"}),
    "a raw line break and a raw tab": ('{"city": "Pa\nr\tis"}', {"city": "Pa\nr\tis"}),
    "a trailing comma": ('{"city": "Paris",}', PARIS),
    "Python's constants": ('{"city": "Paris", "sure": True, "unit": None}', PARIS),
    "a fence": ('```json\n{"city": "Paris"}\n```', PARIS),
    "a byte order mark": ('\ufeff{"city": "Paris"}', PARIS),
}


@pytest.mark.fault("A4", "A5", "A12")
def test_hostile_arguments_become_the_same_calls_and_stay_in_the_history(client: Client, stream: bool) -> None:
    arguments = [arguments for arguments, _ in HOSTILE.values()]

    def play(body: Json, number: int) -> bytes:
        return call("weather", arguments[number], f"call_{number}") if number < len(arguments) else text("Done")

    with served(play) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text) == (None, "Done")
        assert outcome.inputs == [expected for _, expected in HOSTILE.values()]


@pytest.mark.fault("A4", "A5", "A6", "A7", "A12")
def test_a_call_runs_once_however_the_engine_says_it(client: Client, stream: bool) -> None:
    styles = calls_in_styles("weather", PARIS)
    answers = list(styles.values())

    def play(body: Json, number: int) -> bytes:
        return answers[number // 2] if last_role(body) == "user" else text("Done")

    with served(play) as s:
        for style in styles:
            outcome = client.run(s.url, stream=stream)
            assert (style, outcome.error, outcome.text, outcome.inputs) == (style, None, "Done", [PARIS])


@pytest.mark.fault("A9")
def test_tools_are_added_and_removed_in_mid_conversation(client: Client, stream: bool) -> None:
    with served(play_changing) as s:
        outcome = client.run(s.url, kind="changing", stream=stream)
        assert (outcome.error, outcome.text) == (None, "Done")
        assert [call["name"] for call in outcome.calls] == ["weather", "clock"]
        assert [sorted(names(chat)) for chat in s.engine.chats] == [["weather"], ["clock", "weather"], ["clock"]]


def names(chat: Json) -> list[str]:
    return [tool["function"]["name"] for tool in chat.get("tools", [])]


def play_changing(body: Json, number: int) -> bytes:
    return [call("weather", json.dumps(PARIS)), call("clock", "{}", "call_2"), text("Done")][number]


@pytest.mark.fault("A3")
def test_reasoning_goes_back_in_the_field_of_the_engine(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        for at, message in enumerate(body["messages"]):
            if "tool_calls" in message and "reasoning_content" not in message:
                words = "thinking is enabled but reasoning_content is missing in assistant tool call message at index"
                return refusal(400, f"{words} {at}", type="invalid_request_error")
        if tool_results(body):
            return text("Done")
        return call("weather", json.dumps(PARIS), reasoning_content="I should look.")

    with served(play) as s:
        outcome = client.run(s.url, stream=stream, params={"thinking": {"type": "adaptive"}})
        assert (outcome.error, outcome.text) == (None, "Done")
        assert s.engine.chats[-1]["messages"][1]["reasoning_content"] == "I should look."


@pytest.mark.fault("B23")
def test_a_tool_without_arguments_has_a_schema_with_properties(client: Client) -> None:
    def play(body: Json, number: int) -> bytes:
        schemas = [tool["function"]["parameters"] for tool in body["tools"]]
        if not all("properties" in schema for schema in schemas):
            return refusal(400, "Invalid schema for function 'clock': object schema missing properties")
        return text("Done") if tool_results(body) else call("clock", "{}")

    with served(play) as s:
        outcome = client.run(s.url, tools=["clock"])
        assert (outcome.error, outcome.text, len(outcome.calls), len(s.engine.chats)) == (None, "Done", 1, 2)
