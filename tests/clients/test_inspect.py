"""Inspect: the loop that its agents use, and its structured output."""

import pytest

from tests.clients.client import Client
from tests.clients.engine import Json, refusal, text
from tests.clients.scenario import PARIS, REPORT, SUNNY, served, weather

DRIVER = "inspect_python"


def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])


@pytest.mark.fault("B13")
def test_a_response_schema_reaches_the_engine(client: Client, stream: bool) -> None:
    """Inspect sends it as `output_format`."""
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream, structured=True, tools=[])
        assert (outcome.error, outcome.structured) == (None, REPORT)
        schema = s.engine.chats[0]["response_format"]["json_schema"]["schema"]
        assert set(schema["properties"]) == {"city", "degrees"}


@pytest.mark.fault("D28")
def test_a_fifth_stop_string_is_matched_here(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        if len(body.get("stop") or []) > 4:
            return refusal(400, "stop: at most 4 stop strings are allowed")
        return text("One. Two. FIVE Three.")

    stops = ["FIRST", "SECOND", "THIRD", "FOURTH", "FIVE"]
    with served(play, "--dialect", "vllm") as s:
        outcome = client.run(s.url, stream=stream, tools=[], config={"stop_seqs": stops})
        assert (outcome.error, outcome.text, len(s.engine.chats)) == (None, "One. Two. ", 1)
