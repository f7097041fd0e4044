"""The Claude Agent SDK: what its users see is the result of a run."""

import json

import pytest

from tests.clients.client import Client
from tests.clients.engine import USAGE, Json, call, delta, finish, last_role, text
from tests.clients.scenario import PARIS, REPORT, SUNNY, offered, served, weather
from tests.support.upstream import sse

DRIVER = "agent_python"


def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.fields["result"], outcome.inputs) == (None, SUNNY, [PARIS])
        assert outcome.fields["is_error"] is False


def test_structured_output(client: Client) -> None:
    def play(body: Json, number: int) -> bytes:
        return text("Done") if last_role(body) == "tool" else call(offered(body, "Structured"), json.dumps(REPORT))

    with served(play) as s:
        outcome = client.run(s.url, structured=True)
        assert (outcome.error, outcome.structured) == (None, REPORT)


@pytest.mark.fault("B20")
def test_an_answer_does_not_end_in_a_thinking_block(client: Client) -> None:
    answer = sse(delta(content="Forty-two."), delta(reasoning_content="That was easy."), finish("stop"), USAGE)
    with served(lambda body, number: answer) as s:
        outcome = client.run(s.url)
        assert (outcome.error, outcome.fields["result"], outcome.fields["is_error"]) == (None, "Forty-two.", False)
