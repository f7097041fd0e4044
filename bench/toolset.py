"""The tools of a coding agent, as such a client declares them: long descriptions, and schemas of draft 2020-12."""

from collections.abc import Callable
from typing import Any, Final

Json = dict[str, Any]

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_STEP: Final[Json] = {
    "type": "object",
    "properties": {
        "content": {"type": "string", "minLength": 1},
        "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
        "activeForm": {"type": "string", "minLength": 1},
    },
    "required": ["content", "status", "activeForm"],
    "additionalProperties": False,
}
_STRING: Final[Json] = {"type": "string"}
_NUMBER: Final[Json] = {"type": "number"}
_BOOLEAN: Final[Json] = {"type": "boolean", "default": False}
_ADDRESS: Final[Json] = {"type": "string", "format": "uri"}
_STRINGS: Final[Json] = {"type": "array", "items": {"type": "string"}}
_MODE: Final[Json] = {"type": "string", "enum": ["content", "files_with_matches", "count"]}

# Name, what must be given, what may be. Descriptions come from whoever asks for the tools.
_TOOLS: Final[tuple[tuple[str, dict[str, Json], dict[str, Json]], ...]] = (
    ("Task", {"description": _STRING, "prompt": _STRING, "subagent_type": _STRING}, {"model": _STRING}),
    ("Bash", {"command": _STRING}, {"timeout": _NUMBER, "description": _STRING, "run_in_background": _BOOLEAN}),
    ("Glob", {"pattern": _STRING}, {"path": _STRING}),
    ("Grep", {"pattern": _STRING}, {"path": _STRING, "glob": _STRING, "output_mode": _MODE, "multiline": _BOOLEAN}),
    ("Read", {"file_path": _STRING}, {"offset": _NUMBER, "limit": _NUMBER}),
    ("Edit", {"file_path": _STRING, "old_string": _STRING, "new_string": _STRING}, {"replace_all": _BOOLEAN}),
    ("Write", {"file_path": _STRING, "content": _STRING}, {}),
    ("NotebookEdit", {"notebook_path": _STRING, "new_source": _STRING}, {"cell_id": _STRING, "edit_mode": _STRING}),
    ("WebFetch", {"url": _ADDRESS, "prompt": _STRING}, {}),
    ("WebSearch", {"query": _STRING}, {"allowed_domains": _STRINGS, "blocked_domains": _STRINGS}),
    ("TodoWrite", {"todos": {"type": "array", "items": _STEP}}, {}),
    ("BashOutput", {"bash_id": _STRING}, {"filter": _STRING}),
    ("KillShell", {"shell_id": _STRING}, {}),
    ("ExitPlanMode", {"plan": _STRING}, {}),
    ("mcp__tracker__create_issue", {"title": _STRING, "body": _STRING}, {"labels": _STRINGS, "assignees": _STRINGS}),
    ("mcp__tracker__search_issues", {"query": _STRING}, {"state": _STRING, "page": _NUMBER, "limit": _NUMBER}),
    ("mcp__database__query", {"sql": _STRING}, {"parameters": {"type": "array", "items": {}}, "read_only": _BOOLEAN}),
    ("mcp__browser__open", {"url": _ADDRESS}, {"wait_for": _STRING, "timeout": _NUMBER}),
    ("mcp__browser__screenshot", {"selector": _STRING}, {"full_page": _BOOLEAN, "scale": _NUMBER}),
    ("mcp__files__search", {"paths": _STRINGS, "pattern": _STRING}, {"exclude": _STRINGS, "case": _BOOLEAN}),
)
_LONGEST: Final = 6_000  # characters of the longest description, about


def tools(count: int, prose: Callable[[int], str]) -> list[Json]:
    """`count` tools, described by `prose`, which is given a length in characters."""
    return [_tool(number, prose) for number in range(count)]


def _tool(number: int, prose: Callable[[int], str]) -> Json:
    name, required, optional = _TOOLS[number % len(_TOOLS)]
    if number >= len(_TOOLS):
        name = f"{name}_{number}"
    fields = {key: {**shape, "description": prose(90)} for key, shape in (required | optional).items()}
    schema = {
        "$schema": _DRAFT,
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"name": name, "description": prose(_LONGEST // (1 + number % 6)), "input_schema": schema}
