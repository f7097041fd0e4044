"""The completion scripts. bash runs its own; those of the other shells are read."""

import re
import shlex
import shutil
import subprocess

import pytest

from anthro_asgi.cli.main import main
from anthro_asgi.settings.options import OPTIONS
from anthro_asgi.settings.presets import PRESETS
from anthro_asgi.settings.values import SWITCH
from tests.docs.pages import PAGES

COMMANDS = ("serve", "check", "health", "simulate-openai", "conformance", "batch", "bench", "completion")


@pytest.fixture
def script(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", request.param]) == 0
    return capsys.readouterr().out


def names(command: str) -> set[str]:
    return {f"--{one.name}" for one in OPTIONS if command in one.commands and "line" in one.channels}


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
def test_bash_completes_commands_options_and_values(script: str) -> None:
    assert set(completed(script, "anthro-asgi", "")) == {*COMMANDS, "--help", "--version"}
    assert completed(script, "anthro-asgi", "se") == ["serve"]
    for command in COMMANDS[:-1]:
        assert set(completed(script, "anthro-asgi", command, "")) == {*names(command), "--help", "--help-all"}
    assert completed(script, "anthro-asgi", "serve", "--simulate-pro") == ["--simulate-profile"]
    assert completed(script, "anthro-asgi", "serve", "--log-level", "") == ["debug", "info", "warning", "error"]
    assert completed(script, "anthro-asgi", "serve", "--log-level", "=", "w") == ["warning"]
    assert completed(script, "anthro-asgi", "serve", "--log-level", "=") == ["debug", "info", "warning", "error"]
    assert set(completed(script, "anthro-asgi", "serve", "--simulate-profile", "")) == set(PRESETS)
    assert completed(script, "anthro-asgi", "serve", "--port", "") == []
    assert completed(script, "anthro-asgi", "completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_the_script_for_zsh_has_every_option_with_its_values(script: str) -> None:
    assert script.startswith("#compdef anthro-asgi\n")
    for command in COMMANDS[:-1]:
        part = script.split(f"        {command})\n", 1)[1].split(";;", 1)[0]
        assert set(re.findall(r"'\*?(--[\w-]+)", part)) == {*names(command), "--help", "--help-all"}
    assert ":debug|info|warning|error:(debug info warning error)'" in script
    assert re.search(r"'--config=\[[^\]]*\]:FILE:_files'", script)
    assert re.search(r"'\*--model-alias=\[[^\]]*\]:NAME=MODEL: '", script)
    assert "(bash zsh fish)" in script or "_values shell bash zsh fish" in script


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_the_script_for_fish_has_every_option_with_its_values(script: str) -> None:
    lines = [shlex.split(line) for line in script.splitlines() if line.startswith("complete ")]
    for command in COMMANDS[:-1]:
        own = [line for line in lines if line[4] == f"__fish_seen_subcommand_from {command}"]
        assert {f"--{line[line.index('-l') + 1]}" for line in own} == {*names(command), "--help", "--help-all"}
    by_name = {line[line.index("-l") + 1]: line for line in lines if "-l" in line}
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
