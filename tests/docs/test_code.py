"""Every block of code of the README and of `docs/` is run, or checked as far as it can be without foreign software.

- Python: as a test file, by a test of its mark, or as it stands.
- Shell: each `anthro-asgi` line is parsed by the command itself, with its environment. Each `curl` line to the
  service's usual address is sent to a service. Each `python -m` line names a module that exists. Lines of other
  programs must be in `FOREIGN`.
- TOML, YAML and JSON are parsed.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
import yaml

from anthro_asgi.bench import command as bench
from anthro_asgi.bench import record
from anthro_asgi.bench.load import command as load
from anthro_asgi.bench.options import unused_option
from anthro_asgi.cli import batch
from anthro_asgi.cli.main import main, parse_command_line
from anthro_asgi.conformance import command as conformance
from anthro_asgi.settings.loader import load_settings
from tests.docs.pages import PAGES, README, ROOT, blocks

MARKED: Final = {"run", "test", "curl", "sdk", "embedded", "engine", "mount", "no http", "batches", "files"}
"""The marks of blocks that `test_pages`, `test_readme` and `tests/end_to_end/` run."""
TEST_FILES: Final = "how-to/testing-your-client.md"
"""The page whose Python blocks are test files; `tests/end_to_end/test_testing_kit.py` runs them."""
FOREIGN: Final = frozenset(
    {
        "aiperf",
        "apt-get",
        "buildah",
        "chrt",
        "claude",
        "docker",
        "echo",
        "envoy",
        "export",
        "granian",
        "grep",
        "guidellm",
        "hypercorn",
        "install",
        "journalctl",
        "kill",
        "kubectl",
        "llama-server",
        "mkdir",
        "ollama",
        "openssl",
        "pip",
        "podman",
        "pytest",
        "source",
        "sqlite3",
        "systemctl",
        "umask",
        "uvicorn",
        "vllm",
    }
)
"""Programs that are not ours, or that change the machine. Their lines are not run here."""
SERVICE: Final = "http://127.0.0.1:8484"
MOUNTED: Final = f"{SERVICE}/llm/"  # of a host with FastAPI, which `tests.checks.first_hour` starts
FOREIGN_MODULES: Final = frozenset({"pip", "pytest", "sglang.launch_server", "venv"})
TEXTS: Final = {"README.md": README, **PAGES}


def commands(line: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The commands of a line of a shell: the variables that are set for each, and its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if word.strip("&|;()<>"):
            if not redirected:
                words.append(word)
            redirected = False
        elif word in ("<", ">", ">>"):
            redirected = True  # the next word is a file
        else:
            variables = {}
            while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
                name, _, value = words.pop(0).partition("=")
                variables[name] = value
            if words:
                yield variables, words
            words = []


def shell_lines() -> Iterator[str]:
    """Every logical line of every block of shell, with quoted line ends kept."""
    for text in TEXTS.values():
        for _, language, code in blocks(text):
            if language == "sh":
                yield from joined_lines(code)


def joined_lines(code: str) -> Iterator[str]:
    """Lines, joined where a backslash or an open quote continues them."""
    pending = ""
    for line in re.sub(r"\\\n", " ", code).splitlines():
        pending += line
        try:
            shlex.split(pending, comments=True)
        except ValueError:  # a quotation is open
            pending += "\n"
            continue
        yield pending
        pending = ""
    assert not pending, pending


LINES: Final = sorted(set(shell_lines()))


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_shell_has_only_known_programs_and_valid_options(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for variables, words in commands(line):
        program = words[0].rpartition("/")[2]
        if program == "anthro-asgi":
            check_command(variables, words[1:], capsys)
        elif program in ("python", "python3"):
            assert words[1] in ("-m", "-c"), line
            if words[1] == "-m" and words[2] not in FOREIGN_MODULES:
                assert find_spec(words[2]) is not None, line
        elif program != "curl":
            assert program in FOREIGN, line


def check_command(variables: dict[str, str], arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The options exist, have valid values and suit each other. Files that they name are not read."""
    arguments = [word for word in arguments if word != "\n"]
    if "--help" in arguments or "--help-all" in arguments or "--version" in arguments:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        capsys.readouterr()
        return
    if arguments[0] == "bench":
        parsed = bench.parser(arguments[1:]).parse_args(arguments[1:])
        if arguments[1] != "report":
            action = load if arguments[1] == "load" else record
            assert unused_option(parsed, action.CONDITIONS, action.add_arguments) is None
        return
    if arguments[0] in ("batch", "conformance"):
        own = batch if arguments[0] == "batch" else conformance
        own.parser().parse_args(arguments[1:])
        return
    command, options = parse_command_line(arguments)
    if command != "completion":
        settings = load_settings(
            {name: value for name, value in options.items() if name != "config"}, variables, command
        )
        assert settings.without_effect == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the lines run, with the files that they name."""
    path = tmp_path_factory.mktemp("shell")
    (path / "rules.txt").write_text("Rule 1: be kind.")
    return path


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """The address of the service with the simulated engine, without delays, and with a store."""
    command = [sys.executable, "-m", "anthro_asgi", "serve", "--simulate", "--port", "0"]
    command += ["--simulate-ttft", "0", "--simulate-itl", "0", "--batch-store", str(folder / "batches.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
        process.terminate()


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.startswith("curl ") and SERVICE in line and MOUNTED not in line]
)
def test_a_curl_line_gets_an_answer(line: str, served: str, folder: Path) -> None:
    shown = subprocess.run(
        ["bash", "-c", line.replace("curl ", "curl --fail ", 1).replace(SERVICE, served)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=folder,
    )
    assert shown.stdout


def test_every_block_has_a_language_and_every_mark_a_test() -> None:
    for name, text in TEXTS.items():
        for mark, language, _ in blocks(text):
            assert language in {"sh", "python", "text", "toml", "yaml", "json", "ini", "dockerfile"}, name
            assert mark is None or mark in MARKED, (name, mark)


@pytest.mark.parametrize("name", TEXTS)
def test_the_python_of_a_page_is_run(name: str) -> None:
    for mark, language, code in blocks(TEXTS[name]):
        if language == "python" and mark is None and name != TEST_FILES:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", TEXTS)
def test_the_data_of_a_page_can_be_parsed(name: str) -> None:
    for _, language, code in blocks(TEXTS[name]):
        if language == "toml":
            tomllib.loads(code)
        elif language == "yaml":
            assert list(yaml.safe_load_all(code))
        elif language == "json":
            json.loads(code)


def test_every_extra_that_a_page_installs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = "\n".join(TEXTS.values())
    named = {name for names in re.findall(r"'\.\[([\w,-]+)\]", text) for name in names.split(",")}
    assert len(named) > 2
    assert named <= set(extras)
