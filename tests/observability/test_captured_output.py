"""Whatever reaches standard error of the command is a line of JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from anthro_asgi.observability import log_writer

ROOT = Path(log_writer.__file__).parents[2]
BEGIN = """
import gc, logging, sys, threading, warnings
from anthro_asgi.observability.logs import capture_output, configure
configure("info", "json")
capture_output()
warnings.simplefilter("always")
"""
# code → the level, and the beginning of the message, of each line
OUTPUT: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "a warning": ("warnings.warn('careful')", [("warning", "UserWarning: careful at ")]),
    "an exception in a thread": (
        "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        [("error", "exception in a thread")],
    ),
    "an unraisable exception": (
        "class A:\n def __del__(self): raise KeyError\na = A(); del a; gc.collect()",
        [("error", "exception ignored in function")],
    ),
    "an uncaught exception": ("1 / 0", [("critical", "uncaught exception")]),
    "lines of a print": (
        "print('one\\ntwo', file=sys.stderr)",
        [("warning", "one"), ("warning", "two")],
    ),
    "another logger": (
        "logging.getLogger('other').error('a\\nb %s', 'c\\x1b')",
        [("error", "a\\u000ab c\\u001b")],
    ),
    "a line that cannot be formatted": (
        "logging.getLogger('other').error('%d', 'x')",
        [("error", "a log line could not be formatted: TypeError")],
    ),
}


@pytest.mark.parametrize("kind", OUTPUT)
def test_what_reaches_standard_error_is_one_line_of_json_each(kind: str) -> None:
    code, expected = OUTPUT[kind]
    done = subprocess.run([sys.executable, "-c", BEGIN + code], cwd=ROOT, capture_output=True, check=False, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == [level for level, _ in expected]
    for line, (_, words) in zip(lines, expected, strict=True):
        assert line["message"].startswith(words)
    assert done.stdout == b""
