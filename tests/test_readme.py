"""Checks the README against the code: the option table, the commands, the examples and the list of folders."""

import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.settings.options import markdown_table
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.errors import UPSTREAM_ERROR_KINDS, ApiError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def marked(mark: str) -> str:
    """The block of code under `<!-- mark -->`."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


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


def test_the_options_table_is_the_option_table() -> None:
    assert markdown_table().strip() in README


def section(heading: str) -> str:
    """The text under this heading, up to the next heading of the same or a higher level."""
    level = heading.partition(" ")[0]
    _, _, rest = README.partition(f"\n{heading}\n")
    assert rest
    return re.split(rf"\n#{{2,{len(level)}}} ", rest)[0]


def error_classes(base: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    for error in base.__subclasses__():
        yield error
        yield from error_classes(error)


def test_the_error_table_has_the_status_and_type_of_every_error_class() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| .* \| (.*) \|$", section("## Errors and logs"), re.MULTILINE)
    described = {(name, int(status), kind) for status, kind, names in rows for name in re.findall(r"`(\w+)`", names)}
    ours = (error for error in error_classes() if error.__module__ == ApiError.__module__)
    assert described == {(error.__name__, error.status, error.type) for error in ours}


def test_the_table_of_keywords_has_every_keyword_of_the_application_and_no_other() -> None:
    table = section("## Embedding").partition("**Keywords of `MessagesApp`.**")[2].partition("**Mounted**")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert described == set(inspect.signature(MessagesApp).parameters) - {"engine"}


def test_every_kind_of_upstream_error_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", section("## Errors and logs")))
    assert explained >= set(UPSTREAM_ERROR_KINDS)


def test_the_metrics_table_has_every_metric_and_no_other() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section("### Metrics"), re.MULTILINE)
    described = {f"anthro_asgi_{name}" for names in rows for name in re.findall(r"`(\w+)`", names)}
    metrics = Metrics(["/"])
    families = {family.name for family in metrics.families}
    assert described == families | {constant.name for constant in metrics.constants()}


def test_each_command_creates_its_own_environment() -> None:
    for mark, job in (("run", "anthro-asgi serve"), ("test", "python -m pytest -n auto")):
        command = marked(mark)
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv ")
        assert "pip install " in command
        assert command.strip().endswith(job)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "readme_command test" in script


def test_the_curl_command_gets_a_stream(served: str) -> None:
    command = marked("curl").replace("http://127.0.0.1:8484", served)
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout
    assert shown.startswith("event: message_start\n")
    assert shown.rstrip().endswith('data: {"type":"message_stop"}')


def test_the_sdk_example_prints_the_answer(served: str) -> None:
    code = marked("sdk").replace("http://127.0.0.1:8484", served)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout) > 20


async def test_the_embedded_example_is_an_app() -> None:
    names: dict[str, object] = {}
    exec(marked("embedded"), names)
    app = names["app"]
    assert isinstance(app, MessagesApp)
    body = b'{"model":"m","max_tokens":9,"thinking":{"type":"adaptive"},"messages":[{"role":"user","content":"Hi"}]}'
    content = (await Driver(app).request("POST", "/v1/messages", body=body)).json()["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    assert content[1]["text"] == "Hello, world"


async def test_the_example_of_a_rich_engine_does_what_it_says() -> None:
    names: dict[str, object] = {}
    exec(marked("engine"), names)
    app = names["app"]
    assert isinstance(app, MessagesApp)
    driver = Driver(app)
    async with driver.lifespan():
        body = b'{"model":"parrot","max_tokens":9,"messages":[{"role":"user","content":"%s"}]%s}'
        whole = (await driver.request("POST", "/v1/messages", body=body % (b"a b", b""))).json()
        assert (whole["content"][0]["text"], whole["usage"]) == ("a b", {"input_tokens": 2, "output_tokens": 2})
        tools = b',"tools":[{"name":"look","input_schema":{"type":"object"}}]'
        whole = (await driver.request("POST", "/v1/messages", body=body % (b"a b", tools))).json()
        assert (whole["content"][0]["name"], whole["stop_reason"]) == ("look", "tool_use")
        refused = await driver.request("POST", "/v1/messages", body=body % (b"a " * 200, b""))
        assert (refused.status, refused.json()["error"]["message"]) == (
            400,
            "prompt is too long: 200 tokens > 100 maximum",
        )
        assert (await driver.request("GET", "/readyz")).status == 200
        assert (await driver.request("GET", "/v1/models")).json()["data"][0]["max_input_tokens"] == 100


async def test_the_example_of_a_mounted_application_answers_under_its_prefix() -> None:
    names: dict[str, object] = {}
    exec(marked("mount"), names)
    body = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'
    answer = await Driver(names["host"]).request("POST", "/llm/v1/messages", body=body)  # type: ignore[arg-type]
    assert (answer.status, answer.json()["type"]) == (200, "message")


async def test_the_example_without_http_gives_the_message_that_the_service_gives() -> None:
    names: dict[str, Any] = {}
    exec(marked("no http"), names)
    engine = SimulatedEngine(ttft=0, itl=0)
    body = b'{"model":"m","max_tokens":40,"stop_sequences":["e"],"messages":[{"role":"user","content":"Hi"}]}'
    message = await names["answer"](engine, body)
    served = (await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=body)).json()
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == (
        served["content"],
        served["stop_reason"],
        served["stop_sequence"],
    )
    assert message["stop_sequence"] == "e"


def test_the_list_of_folders_has_every_folder_of_the_package_and_no_other() -> None:
    found = re.search(r"```text\n(anthro_asgi/.*?)\nbench/", README, re.DOTALL)
    assert found is not None
    package = ROOT / "anthro_asgi"
    folders = {path.parent.name for path in package.rglob("*.py") if path.parent != package}
    assert set(re.findall(r"^ +(\w+)/", found[1], re.MULTILINE)) == folders


def test_every_test_that_the_readme_names_is_there() -> None:
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", README))
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in written} == set()


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
