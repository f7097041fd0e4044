"""The real Claude Code with a big and a small model, which are at two engines."""

import json
from contextlib import ExitStack
from pathlib import Path

from tests.clients.claude import ClaudeCode
from tests.clients.engine import Json, ScriptedEngine, call, text, tool_results
from tests.support.service import Service


def serves(model: str) -> Json:
    return {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "tests"}]}


def engines(fast: ScriptedEngine, gpu: ScriptedEngine) -> str:
    """The configuration of the service."""
    return f"""
[[engine]]
name = "fast"
url = "{fast.url}/v1"
fallback = "big@gpu"

[[engine]]
name = "gpu"
url = "{gpu.url}/v1"

[model-alias]
"claude-haiku*" = "small@fast"
"*" = "big@gpu"
"""


def test_the_small_model_works_for_the_big_one_until_its_engine_stops(tmp_path: Path) -> None:
    agent = {"description": "look", "prompt": "Who are you?", "subagent_type": "general-purpose", "model": "haiku"}

    def small(body: Json, number: int) -> bytes:
        return text("I am the small model")

    def big(body: Json, number: int) -> bytes:
        if "Agent" not in [tool["function"]["name"] for tool in body["tools"]]:
            return text("I am the big model, too")
        results = tool_results(body)
        if not results:
            return call("Agent", json.dumps({**agent, "run_in_background": False}), f"call_{number}")
        return text(f"It said: {results[0]}")

    folder = tmp_path / "project"
    folder.mkdir()
    config = tmp_path / "engines.toml"
    with ExitStack() as running:
        gpu = running.enter_context(ScriptedEngine(big, models=serves("big")))
        stopping = running.enter_context(ExitStack())
        fast = stopping.enter_context(ScriptedEngine(small, models=serves("small")))
        config.write_text(engines(fast, gpu), "utf-8")
        service = running.enter_context(Service("--config", str(config), may_log_errors=True))
        claude = ClaudeCode(service.url, folder)

        result = claude.ask("Ask the small model who it is")
        assert "I am the small model" in result.text, result
        assert {chat["model"] for chat in fast.chats} == {"small"}
        assert {chat["model"] for chat in gpu.chats} == {"big"}
        requests = [line for line in service.log if line.get("event") == "request"]
        assert {line["engine"] for line in requests} == {"fast", "gpu"}
        assert all(line["model"].startswith("claude-haiku") for line in requests if line["engine"] == "fast")

        stopping.close()
        result = claude.ask("Ask it again")
        assert "I am the big model, too" in result.text, result
        service.logged(event="engine_not_ready")
