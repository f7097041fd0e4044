"""`python -m bench`: its usage, and a command that does not exist."""

import re
import subprocess
import sys
import tomllib

import pytest

from bench.__main__ import COMMANDS, EXTRA, main, missing_packages
from tests.support.service import ROOT


def test_without_a_command_the_usage_names_each_command_and_the_status_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench"])
    assert main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: python -m bench [-h] COMMAND ...")
    assert set(COMMANDS) <= {line.split()[0] for line in printed.err.splitlines() if line.startswith("    ")}


def test_an_unknown_command_is_an_error_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "absent"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "invalid choice: 'absent'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "package"),
    [("micro", "msgspec"), ("peers", "msgspec"), ("guard", "uvloop"), ("report", "msgspec")],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(command: str, package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['bench', {command!r}]; "
        "from bench.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"this command needs {package}: pip install 'anthro-asgi[bench]'\n"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("matplotlib.figure", "this command needs matplotlib: pip install 'anthro-asgi[bench]'"),
        ("trustme", "this command needs trustme: pip install 'anthro-asgi[test]'"),
        ("tests.checks", "this command needs a checkout of the repository: run it in the folder that has tests/"),
    ],
)
def test_a_package_that_is_imported_late_is_named_too(missing: str, words: str) -> None:
    with pytest.raises(SystemExit) as ended, missing_packages():
        raise ModuleNotFoundError(name=missing)
    assert ended.value.code == words


def test_a_module_of_our_own_that_is_missing_is_a_fault() -> None:
    with pytest.raises(ModuleNotFoundError), missing_packages():
        raise ModuleNotFoundError(name="bench.absent")


def test_the_packages_of_the_extra_are_known() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert tuple(re.match(r"[\w-]+", package)[0] for package in extras["bench"]) == EXTRA  # type: ignore[index]
