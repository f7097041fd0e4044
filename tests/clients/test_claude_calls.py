"""The real Claude Code executes a call once, with its arguments, however the engine says it."""

from pathlib import Path

import pytest

from tests.clients.claude import session
from tests.clients.engine import Json, last_role, text, tool_results
from tests.clients.scenario import calls_in_styles

ARGUMENTS = {"command": "echo once >> runs.txt; cat runs.txt", "description": "a step"}
STYLES = calls_in_styles("Bash", ARGUMENTS)


@pytest.mark.fault("A4", "A5", "A6", "A7", "A12")
@pytest.mark.parametrize("style", STYLES)
def test_a_call_runs_once_with_its_arguments_however_the_engine_says_it(tmp_path: Path, style: str) -> None:
    def play(body: Json, number: int) -> bytes:
        return text(f"It said {tool_results(body)}") if last_role(body) == "tool" else STYLES[style]

    with session(tmp_path, play) as s:
        result = s.claude.ask("Run it")
        assert result.text == "It said ['once']", result
        assert (s.folder / "runs.txt").read_text() == "once\n"
        assert not s.claude.ask("And go on").is_error
