"""Tool arguments as engines write them → the object that a tool_use block must hold (contract sections 4 and 6)."""

import ast
import re
from typing import Any, Final

from .json_codec import dumps, is_shallow, loads_exactly, replace_lone_surrogates
from .repairs import Repairs

_CLOSERS = {"{": "}", "[": "]"}
# The tokens that give JSON its structure. A string ends at its closing quote, or before an incomplete escape.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+(?P<quote>"?)|[][{},]', re.DOTALL)

_MAX_ENCODINGS: Final = 3
_PYTHON_DICT: Final = re.compile(r"\s*\{\s*'")
# a string escape that Python and JSON do not share
_OTHER_ESCAPE: Final = re.compile(r"""\\(?:\\|(?P<other>(?!['"bfnrt]|u[0-9a-fA-F]{4})))""")
_MAX_PYTHON: Final = 16 * 1024  # characters of a Python dict: Python's parser holds the event loop


def parse_tool_input(text: str, repairs: Repairs | None = None) -> dict[str, Any] | None:
    """The object in `text`; {} for "". Input that broke off is closed at the last place where the result is JSON.

    A JSON string that holds an object is decoded again (some engines encode twice, or more often). A dict in Python's
    syntax (`{'a': True}`), which small models write, is read as one. Any other value becomes `{"value": …}`, so that
    nothing is lost. None if `text` cannot be read or is nested too deeply.
    Counts what was repaired in `repairs`.
    """
    if not text.strip():
        return {}
    text = replace_lone_surrogates(text)
    value = _loads(text)
    if value is None:
        if _PYTHON_DICT.match(text):
            value = _python_dict(text)
        else:
            value = next((value for value in map(_loads, _closings(text)) if value is not None), None)
        is_repaired = True
    else:
        is_repaired = not text.lstrip().startswith("{")
    if value is not None and not is_shallow(value):
        value = None
    if repairs is not None and (is_repaired or value is None):
        repairs["call_input" if value is not None else "call_dropped"] += 1
    return value


def _loads(text: str) -> dict[str, Any] | None:
    try:
        value, _ = loads_exactly(text.encode())
    except ValueError:
        return None
    inner = value
    for _ in range(_MAX_ENCODINGS):
        if not isinstance(inner, str):
            break
        try:
            inner, _ = loads_exactly(inner.encode())
        except ValueError:
            break
    if isinstance(inner, dict):
        return inner
    return value if isinstance(value, dict) else {"value": value}


def _python_dict(text: str) -> dict[str, Any] | None:
    """The JSON object that a dict in Python's syntax stands for."""
    if len(text) > _MAX_PYTHON:
        return None
    if any(escape["other"] is not None for escape in _OTHER_ESCAPE.finditer(text)):
        return None
    try:
        value = loads_exactly(dumps(ast.literal_eval(text.strip())))[0]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _closings(text: str) -> list[str]:
    """Ways to complete `text`, best first: all of it closed; or cut after its last complete value, then closed.

    Anything after a complete top-level value, such as an extra bracket, is dropped.
    """
    cut = depth = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            depth += 1
            cut = token.end()
        elif mark in "}]":
            depth -= 1
            cut = token.end()
            if depth <= 0:
                break
        elif mark == ",":
            cut = token.start()
        elif not token["quote"]:
            text = text[: token.end()] + '"'
            break
    return [text + _closers(text), text[:cut] + _closers(text[:cut])]


def _closers(text: str) -> str:
    """The brackets that close those still open at the end of `text`."""
    opened: list[str] = []
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            opened.append(_CLOSERS[mark])
        elif mark in "}]" and opened:
            opened.pop()
    return "".join(reversed(opened))
