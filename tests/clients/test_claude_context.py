"""A session of the real Claude Code goes on past a window of 32 768 tokens: its conversation is compacted."""

from pathlib import Path

from anthro_asgi.wire.compaction_prompt import SUMMARY_PROMPT
from tests.clients.claude import bash, session
from tests.clients.engine import Json, text
from tests.clients.scenario import said
from tests.clients.window import MODELS, OTHERS, WINDOW, length, within_window

STEPS = 8
STEP = 16_000  # characters that a step prints
SERVICE_ASKS = SUMMARY_PROMPT[:60]
CLAUDE_ASKS = "CRITICAL: Respond with TEXT ONLY"


class Worker:
    """Plays a model that does its steps one by one, and knows only from its prompt which one is next."""

    def __init__(self) -> None:
        self.asked_for_summary: list[str] = []

    def __call__(self, body: Json, number: int) -> bytes:
        prompt = length(body)
        steps = range(STEPS, 0, -1)
        done = next((step for step in steps if f"step {step} is done" in str(body["messages"])), 0)
        if said(body).startswith((SERVICE_ASKS, CLAUDE_ASKS)):
            self.asked_for_summary.append(said(body))
            return text(f"<summary>So far, step {done} is done.</summary>", prompt=prompt)
        if done == STEPS:
            return text("All steps are done", prompt=prompt)
        command = f"echo step {done + 1} is done; head -c {STEP} /dev/zero | tr '\\0' x | fold -w 80"
        return bash(command, f"call_{done + 1}", prompt=prompt)


def test_the_service_compacts_a_conversation_before_the_window_is_full(tmp_path: Path) -> None:
    worker = Worker()
    with session(tmp_path, within_window(worker), "--compact-at", "0.8", models=MODELS, others=OTHERS) as s:
        for prompt in ("Do all steps", "Look at them again"):  # the second one is of another process
            result = s.claude.ask(prompt)
            assert not result.is_error, result
            assert result.text == "All steps are done"
        assert {asked.startswith(SERVICE_ASKS) for asked in worker.asked_for_summary} == {True}
        compacted = [line for line in s.service.log if line.get("event") == "compacted"]
        assert {line["summary"] for line in compacted} == {"made", "reused"}
        assert compacted[-1]["summary"] == "reused"
        refused = [line for line in s.service.log if line.get("reason") == "context_too_long"]
        assert refused == []


def test_claude_code_compacts_when_the_service_says_that_the_prompt_is_too_long(tmp_path: Path) -> None:
    worker = Worker()
    with session(tmp_path, within_window(worker), models=MODELS, others=OTHERS) as s:
        result = s.claude.ask("Do all steps")
        assert not result.is_error, result
        assert result.text == "All steps are done"
        assert worker.asked_for_summary
        assert {asked.startswith(CLAUDE_ASKS) for asked in worker.asked_for_summary} == {True}
        s.service.logged(reason="context_too_long")
        assert length(s.engine.chats[-1]) < WINDOW
