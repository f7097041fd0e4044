"""What the scripts take from the pages. The scripts themselves are a command: `python -m tests.checks.first_hour`."""

import inspect
import re
from pathlib import Path

import pytest

from tests.checks.first_hour.fresh import StepFailed, adapted, block_with
from tests.checks.first_hour.steps import KINDS
from tests.docs.pages import PAGES

CHECKOUT = Path("/c")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pip install '.[fast,llama]'", "pip install '/c[fast,llama]'"),
        ("pip install -e '.[bench]'", "pip install -e '/c[bench]'"),
        ("pip install /path/to/anthro-asgi pytest", "pip install /c pytest"),
        ("anthro-asgi serve --upstream http://127.0.0.1:8000/v1", "anthro-asgi serve --upstream http://127.0.0.1:9/v1"),
        ("uvicorn host:app --port 8000", "uvicorn host:app --port 9"),
        ("anthro-asgi serve --model model.gguf", "anthro-asgi serve --model model.gguf"),
        ("claude --model big-80001", "claude --model big-80001"),
    ],
)
def test_a_command_gets_free_ports_and_the_package_of_the_checkout(command: str, expected: str) -> None:
    assert adapted(command, {"8000": "9"}, CHECKOUT) == expected


def test_a_page_without_the_command_fails_its_script() -> None:
    with pytest.raises(StepFailed, match=r"docs/how-to/browser.md has no block of sh with 'absent'"):
        block_with("absent", "sh", "how-to/browser.md")


@pytest.mark.parametrize("name", KINDS)
def test_a_page_has_the_commands_that_its_script_takes(name: str) -> None:
    page, script = KINDS[name]
    source = inspect.getsource(script)
    wanted = [("sh", text) for text in re.findall(r"machine\.line\(\"([^\"]+)\"\)", source)]
    wanted += re.findall(r"machine\.code\(\"(\w+)\", \"([^\"]+)\"\)", source)
    assert wanted
    for language, text in wanted:
        assert block_with(text, language, page)


def test_the_first_page_leads_each_kind_of_user_to_the_page_of_its_script() -> None:
    assert {kind.page for kind in KINDS.values()} <= set(re.findall(r"\]\(([\w/-]+\.md)\)", PAGES["index.md"]))
