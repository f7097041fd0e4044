"""Checks the README: its length, its commands, its examples and its links."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.testing.driver import Driver
from tests.docs.pages import PAGES, README, ROOT, marked

pytestmark = pytest.mark.slow


def test_the_readme_is_one_page() -> None:
    assert len(README.encode()) <= 8 * 1024


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", README)
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_figure_of_the_readmes_cost_table_is_in_the_report() -> None:
    figures = re.findall(r"^\| .* \| ([\d.]+ \S+) \|$", README, re.MULTILINE)
    assert len(figures) == 5
    assert [figure for figure in figures if figure not in PAGES["performance.md"]] == []


def test_the_readme_names_the_number_of_faults_in_the_matrix() -> None:
    found = re.search(r"^(\d+) cells: ", PAGES["explanation/faults-and-limits.md"], re.MULTILINE)
    assert found is not None
    assert f"{found[1]} faults of engines, clients and processes" in README


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of the service, started as in the README, but on a free port."""
    command = [
        sys.executable,
        "-m",
        "anthro_asgi",
        "serve",
        "--port",
        "0",
        "--simulate-ttft",
        "0",
        "--simulate-itl",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
        process.terminate()


def test_each_command_creates_its_own_environment() -> None:
    for mark, job in (("run", "anthro-asgi serve"), ("test", "python -m pytest -m alone tests/checks")):
        command = marked(README, mark)
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv ")
        assert "pip install " in command
        assert command.strip().endswith(job)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "readme_command test" in script


def test_the_curl_command_gets_a_stream(served: str) -> None:
    command = marked(README, "curl").replace("http://127.0.0.1:8484", served)
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout
    assert shown.startswith("event: message_start\n")
    assert shown.rstrip().endswith('data: {"type":"message_stop"}')


def test_the_sdk_example_prints_the_answer(served: str) -> None:
    code = marked(README, "sdk").replace("http://127.0.0.1:8484", served)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout) > 20


async def test_the_embedded_example_is_an_app() -> None:
    names: dict[str, object] = {}
    exec(marked(README, "embedded"), names)
    app = names["app"]
    assert isinstance(app, MessagesApp)
    body = b'{"model":"m","max_tokens":9,"thinking":{"type":"adaptive"},"messages":[{"role":"user","content":"Hi"}]}'
    content = (await Driver(app).request("POST", "/v1/messages", body=body)).json()["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    assert content[1]["text"] == "Hello, world"


def test_the_top_level_of_the_repository_has_only_the_expected_names() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    tops = {name.partition("/")[0] for name in listed if name}
    visible = {name for name in tops if not name.startswith(".")}
    assert visible <= {
        "setup.cfg",
        "setup.py",
        "pyproject.toml",
        "anthro_asgi",
        "tests",
        "bench",
        "examples",
        "deploy",
        "Dockerfile",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs",
    }


def test_the_package_has_three_run_time_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split(r"[><=]", name)[0] for name in project["dependencies"]} == {"uvicorn", "orjson", "h11"}


def test_every_path_that_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:anthro_asgi|bench|deploy|docs|tests|\.ci)/[\w./-]*|\w+\.(?:md|toml))`", text))
    named |= set(re.findall(r"\]\(([\w/.-]+)\)", text))
    assert len(named) > 30
    assert {name for name in named if not (ROOT / name).exists()} == set()
