"""The tools of Anthropic that the client runs itself, as functions with a schema.

In a request such a tool is only a type and a name: its schema is built into Anthropic's models, and other models do not
know it. Names, commands and fields follow the SDK's types and Anthropic's tool documentation. `insert` takes its text
as `new_str` in older editors and as `insert_text` since `text_editor_20250728`. The descriptions are our own.
"""

import re
from typing import Any, Final, NamedTuple

Schema = dict[str, Any]


class ClientTool(NamedTuple):
    """The name of a tool type, and its description for an engine."""

    name: str
    description: str
    input_schema: Schema


def _string(description: str) -> Schema:
    return {"type": "string", "description": description}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _commands(*names: str) -> Schema:
    return {"type": "string", "enum": list(names), "description": "What to do."}


_PATH: Final = _string("Absolute path of the file or directory.")
_RANGE: Final[Schema] = {
    "type": "array",
    "items": {"type": "integer"},
    "minItems": 2,
    "maxItems": 2,
    "description": "For view: the first and the last line to show, counted from 1; -1 is the end of the file.",
}
_INSERT_LINE: Final[Schema] = {
    "type": "integer",
    "description": "For insert: the line after which the text goes; 0 is the beginning of the file.",
}
_FILE_TEXT: Final = _string("For create: the content of the file.")
_OLD: Final = _string("For str_replace: the text to replace. It must occur exactly once in the file.")
_NEW: Final = _string("For str_replace: the text to put in its place.")
_NEW_OR_INSERTED: Final = _string("For str_replace: the text to put in its place. For insert: the text to insert.")
_INSERT_TEXT: Final = _string("For insert: the text to insert.")
_EDITING: Final = ("view", "create", "str_replace", "insert")


def _editor(name: str, *commands: str, inserts: bool) -> ClientTool:
    """A text editor. `inserts`: the command insert has its own field `insert_text`."""
    fields = {"file_text": _FILE_TEXT, "old_str": _OLD, "new_str": _NEW if inserts else _NEW_OR_INSERTED}
    if inserts:
        fields["insert_text"] = _INSERT_TEXT
    schema = _object(
        ["command", "path"],
        command=_commands(*commands),
        path=_PATH,
        **fields,
        insert_line=_INSERT_LINE,
        view_range=_RANGE,
    )
    return ClientTool(name, "View, create and edit text files.", schema)


_BASH: Final = ClientTool(
    "bash",
    "Run a command in a bash session, which keeps its state from one command to the next.",
    _object(
        [],
        command=_string("The command to run. Required unless the session is restarted."),
        restart={"type": "boolean", "description": "True to restart the session."},
    ),
)
_MEMORY: Final = ClientTool(
    "memory",
    "Keep notes between conversations, as files in the directory /memories. Look there before you begin.",
    _object(
        ["command"],
        command=_commands(*_EDITING, "delete", "rename"),
        path=_string("Path of the file or directory, below /memories. Every command but rename needs it."),
        view_range=_RANGE,
        file_text=_FILE_TEXT,
        old_str=_OLD,
        new_str=_NEW,
        insert_line=_INSERT_LINE,
        insert_text=_INSERT_TEXT,
        old_path=_string("For rename: the current path."),
        new_path=_string("For rename: the new path."),
    ),
)
_OLD_EDITOR: Final = _editor("str_replace_editor", *_EDITING, "undo_edit", inserts=False)

RUN_BY_CLIENTS: Final = re.compile(r"(?:bash|browser|computer|memory|text_editor)_")
"""How the types of all tools that clients run begin, also of those without a schema here."""
CLIENT_TOOLS: Final = {
    "bash_20241022": _BASH,
    "bash_20250124": _BASH,
    "text_editor_20241022": _OLD_EDITOR,
    "text_editor_20250124": _OLD_EDITOR,
    "text_editor_20250429": _editor("str_replace_based_edit_tool", *_EDITING, inserts=False),
    "text_editor_20250728": _editor("str_replace_based_edit_tool", *_EDITING, inserts=True),
    "memory_20250818": _MEMORY,
}
