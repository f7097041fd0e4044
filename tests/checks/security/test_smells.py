"""The linter's security rules hold for the whole tree, and each exception gives its reason."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
SOURCES = [path for folder in ("anthro_asgi", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_line_breaks_a_security_rule() -> None:
    command = (sys.executable, "-m", "ruff", "check", "--select", "S", "--no-cache", "--output-format", "concise")
    done = subprocess.run([*command, "."], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_security_rule_is_disabled_for_the_whole_tree() -> None:
    assert "S" in CONFIG["select"]
    off = {*CONFIG["ignore"], *(rule for rules in CONFIG["per-file-ignores"].values() for rule in rules)}
    assert not [rule for rule in off if re.fullmatch(r"S\d{0,2}|ALL", rule)]
    inside = [files for files in CONFIG["per-file-ignores"] if files.startswith("anthro_asgi")]
    assert not inside, "what is served has its exceptions line by line"


def test_each_exception_gives_its_reason() -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        if ".cache" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# noqa(?!: [A-Z0-9, ]+\b\W+\w+)", line)
    ]
    assert not lines, "\n".join(lines)
