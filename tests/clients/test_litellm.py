"""LiteLLM with an agent loop of its documentation."""

import pytest

from tests.clients.client import Client
from tests.clients.engine import Json, refusal, text
from tests.clients.scenario import PARIS, REPORT, SUNNY, served, weather

DRIVER = "litellm_python"


def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])


@pytest.mark.fault("B13")
def test_a_response_format_reaches_the_engine(client: Client, stream: bool) -> None:
    """For Claude's names, LiteLLM sends it as `output_format`."""
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream, structured=True, tools=[], model="claude-sonnet-4-5")
        assert (outcome.error, outcome.structured) == (None, REPORT)
        schema = s.engine.chats[0]["response_format"]["json_schema"]["schema"]
        assert set(schema["properties"]) == {"city", "degrees"}


@pytest.mark.fault("B22")
def test_top_k_reaches_an_unknown_engine_and_is_left_out_after_a_refusal(client: Client) -> None:
    def play(body: Json, number: int) -> bytes:
        refuses = number == 1 and "top_k" in body
        return refusal(400, "Unrecognized request argument supplied: top_k") if refuses else text("Done")

    with served(play) as s:
        for _ in range(3):
            outcome = client.run(s.url, tools=[], params={"top_k": 7})
            assert (outcome.error, outcome.text) == (None, "Done")
        assert [chat.get("top_k") for chat in s.engine.chats] == [7, 7, None, None]


@pytest.mark.fault("D29")
def test_top_p_zero_is_sent_in_a_form_that_the_engine_takes(client: Client) -> None:
    def play(body: Json, number: int) -> bytes:
        if body.get("top_p") == 0:
            return refusal(400, "top_p must be in (0, 1], got 0.0.")
        return text("Done")

    with served(play, "--dialect", "vllm") as s:
        outcome = client.run(s.url, tools=[], params={"top_p": 0.0})
        assert (outcome.error, outcome.text, len(s.engine.chats)) == (None, "Done", 1)
        sent = s.engine.chats[0]
        assert sent.get("top_k") == 1 or sent.get("temperature") == 0, "greedy decoding is what top_p 0 means"
