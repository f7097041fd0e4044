"""`python -m bench`: its usage, and a command that does not exist."""

import sys

import pytest

from bench.__main__ import COMMANDS, main


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
