"""The real Claude Code with a big and a small model, which are at two engines."""

import json
from pathlib import Path

from tests.clients.claude import ClaudeCode
from tests.clients.engine import Json, Play, ScriptedEngine, call, text
from tests.support.service import Service


def serves(model: str) -> Json:
    return {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "tests"}]}


def test_the_small_model_works_for_the_big_one(tmp_path: Path) -> None:
    agent = {"description": "look", "prompt": "Who are you?", "subagent_type": "general-purpose", "model": "haiku"}

    def big(body: Json, number: int) -> bytes:
        if "I am the small model" in str(body["messages"]):
            return text("The small model has answered")
        if number == 0:
            return call("Agent", json.dumps({**agent, "run_in_background": False}))
        return text("I wait")

    small: Play = lambda body, number: text("I am the small model")  # noqa: E731 - as short as its words
    folder = tmp_path / "project"
    folder.mkdir()
    with (
        ScriptedEngine(small, models=serves("small")) as fast,
        ScriptedEngine(big, models=serves("big")) as gpu,
        Service(
            *("--upstream", f"fast={fast.url}/v1", "--upstream", f"gpu={gpu.url}/v1"),
            *("--model-alias", "claude-haiku*=small@fast", "--model-alias", "*=big@gpu"),
        ) as service,
    ):
        result = ClaudeCode(service.url, folder).ask("Ask the small model who it is")
        assert not result.is_error, result
        assert result.text == "The small model has answered"
        assert {chat["model"] for chat in fast.chats} == {"small"}
        assert {chat["model"] for chat in gpu.chats} == {"big"}
        routed = {(line["engine"], line["model"]) for line in service.log if line.get("event") == "request"}
        assert {engine for engine, _ in routed} == {"fast", "gpu"}
        assert all(model.startswith("claude-haiku") for engine, model in routed if engine == "fast")
