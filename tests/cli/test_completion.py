"""The completion scripts. bash runs its own; those of the other shells are read."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from anthro_asgi.cli.main import main
from anthro_asgi.settings.options import OPTIONS
from anthro_asgi.settings.presets import PRESETS
from anthro_asgi.settings.values import SWITCH
from tests.docs.pages import PAGES
from tests.support.service import ROOT

COMMANDS = ("serve", "check", "health", "simulate-openai", "conformance", "batch", "bench", "completion")
ACTIONS = {"bench": ("load", "report", "record"), "batch": ("submit", "status", "results")}
PLACES = (
    "serve",
    "check",
    "health",
    "simulate-openai",
    "conformance",
    *(f"{command} {action}" for command, actions in ACTIONS.items() for action in actions),
)
"""The words after `anthro-asgi` that options may follow."""


@pytest.fixture
def script(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", request.param]) == 0
    return capsys.readouterr().out


def names(place: str) -> set[str]:
    """The options in the help of a command."""
    command = place.split()
    rows = {f"--{one.name}" for one in OPTIONS if command[0] in one.commands and "line" in one.channels}
    if rows:
        return {*rows, "--help", "--help-all"}
    words = [sys.executable, "-m", "anthro_asgi", *command, "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20, cwd=ROOT).stdout
    return set(re.findall(r"^  (?:-h, )?(--[\w-]+)", shown, re.MULTILINE))


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of each place."""
    return {place: names(place) for place in PLACES}


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    state = f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}"
    program = f'{script}\n{state}; _anthro_asgi; printf "%s\\n" "${{COMPREPLY[@]}}"'
    bash = shutil.which("bash")
    assert bash is not None
    shown = subprocess.run([bash, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert not shown.stderr
    return shown.stdout.split()


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_commands_options_and_values(script: str, options: dict[str, set[str]]) -> None:
    assert set(completed(script, "anthro-asgi", "")) == {*COMMANDS, "--help", "--version"}
    assert completed(script, "anthro-asgi", "se") == ["serve"]
    for place in PLACES:
        assert set(completed(script, "anthro-asgi", *place.split(), "")) == options[place]
    for command, actions in ACTIONS.items():
        assert set(completed(script, "anthro-asgi", command, "")) == {*actions, "--help"}
    assert completed(script, "anthro-asgi", "bench", "load", "--api", "") == ["messages", "chat"]
    assert completed(script, "anthro-asgi", "bench", "load", "--dataset", "") == []
    assert completed(script, "anthro-asgi", "bench", "load", "--no-s") == ["--no-stream"]
    assert "--timeout" not in completed(script, "anthro-asgi", "bench", "report", "")
    assert completed(script, "anthro-asgi", "serve", "--simulate-pro") == ["--simulate-profile"]
    assert completed(script, "anthro-asgi", "serve", "--log-level", "") == ["debug", "info", "warning", "error"]
    assert completed(script, "anthro-asgi", "serve", "--log-level", "=", "w") == ["warning"]
    assert completed(script, "anthro-asgi", "serve", "--log-level", "=") == ["debug", "info", "warning", "error"]
    assert set(completed(script, "anthro-asgi", "serve", "--simulate-profile", "")) == set(PRESETS)
    assert completed(script, "anthro-asgi", "serve", "--port", "") == []
    assert completed(script, "anthro-asgi", "completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_the_script_for_zsh_has_every_option_with_its_values(script: str, options: dict[str, set[str]]) -> None:
    assert script.startswith("#compdef anthro-asgi\n")
    for place in PLACES:
        part = script.split(f"        '{place}')\n", 1)[1].split(";;", 1)[0]
        assert set(re.findall(r"'\*?(--[\w-]+)", part)) == options[place]
    for actions in ACTIONS.values():
        assert f"_values action {' '.join(actions)};" in script
    assert ":debug|info|warning|error:(debug info warning error)'" in script
    assert re.search(r"'--config=\[[^\]]*\]:FILE:_files'", script)
    assert re.search(r"'\*--model-alias=\[[^\]]*\]:NAME=MODEL: '", script)
    assert "(bash zsh fish)" in script or "_values shell bash zsh fish" in script


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_the_script_for_fish_has_every_option_with_its_values(script: str, options: dict[str, set[str]]) -> None:
    lines = [shlex.split(line) for line in script.splitlines() if line.startswith("complete ")]
    for place in PLACES:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in place.split())
        own = [line for line in lines if line[4] == seen]
        assert {f"--{line[line.index('-l') + 1]}" for line in own} == options[place]
    for command, actions in ACTIONS.items():
        words = " ".join(actions)
        seen = f"__fish_seen_subcommand_from {command}; and not __fish_seen_subcommand_from {words}"
        assert [line[-1] for line in lines if line[4] == seen] == [words]
    tables = [f"__fish_seen_subcommand_from {command}" for command in ("serve", "check", "health")]
    serve = [line for line in lines if line[4] in tables]
    by_name = {line[line.index("-l") + 1]: line for line in serve if "-l" in line}
    assert "debug info warning error" in by_name["log-level"]
    for option in OPTIONS:
        if "line" in option.channels:
            takes_value = "-x" in by_name[option.name] or "-r" in by_name[option.name]
            assert takes_value is (option.type is not SWITCH), option.name


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "ksh"]) == 2
    assert "'ksh' is not one of bash|zsh|fish" in capsys.readouterr().err


def test_the_docs_name_the_lines_that_load_the_scripts() -> None:
    page = PAGES["reference/cli.md"]
    for line in ("source <(anthro-asgi completion bash)", "anthro-asgi completion fish | source"):
        assert line in page
