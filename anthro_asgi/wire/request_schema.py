"""JSON Schemas of the request bodies, from the table of fields and the checks of blocks. Pure.

A schema says what the validators of `request`, `blocks` and `messages_checks` say of one value. Rules between values,
such as that a tool result needs an earlier call, are not in it: a body that fits the schema may still get a 400. A body
that does not fit gets a 400 in every case; `tests/end_to_end/test_openapi.py` compares the two.

The schemas are those of the default rules. `null` counts as absent where a field is optional.
"""

from functools import partial
from typing import Any, Final

from .blocks import DEFAULT_BLOCK_CHECKS, IMAGE_TYPES, SYSTEM_PROMPT_CHECKS, VIDEO_TYPES, Check
from .context_edits import CLEAR_THINKING, CLEAR_TOOL_USES, MAX_EDITS, MAX_NAMES
from .history_folding import TOOL_CHANGES
from .request import REQUEST_FIELDS, Nature, RequestField
from .request_policy import DEFAULT_RULES

Schema = dict[str, Any]

_LARGEST: Final = 2**64 - 1  # JSON libraries read no larger integers
_TEXT: Final[Schema] = {"type": "string"}
_NON_EMPTY: Final[Schema] = {"type": "string", "minLength": 1}
_ANY: Final[Schema] = {}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _object(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def _array(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


# fields

_FORMAT: Final = _or_null(_object(("type", "schema"), type={"const": "json_schema"}, schema={"type": "object"}))
_BUDGET: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": _LARGEST}
_DISPLAY: Final = _or_null(_TEXT)
_FIELDS: Final[dict[str, Schema]] = {
    "thread": {"description": "`{type: continue}` gets a 404 with the error code `thread_not_found`."},
    "model": _NON_EMPTY,
    "max_tokens": {"type": "integer", "minimum": 0, "maximum": _LARGEST},
    "tools": _or_null(_array(_ref("Tool"), maxItems=DEFAULT_RULES.max_tools)),
    "output_config.effort": _or_null(_TEXT),
    "output_config.format": _FORMAT,
    "output_format": _FORMAT,
    "messages": _array(_ref("RequestMessage"), minItems=1, maxItems=DEFAULT_RULES.max_messages),
    "system": {"anyOf": [_TEXT, _array(_ref("TextBlock")), {"type": "null"}]},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "top_k": {"type": ["integer", "null"], "minimum": 0, "maximum": _LARGEST},
    "stop_sequences": _or_null(_array(_NON_EMPTY, maxItems=DEFAULT_RULES.max_stop_sequences)),
    "stream": _or_null({"type": "boolean"}),
    "metadata.user_id": _or_null(_TEXT),
    "thinking": {
        "anyOf": [
            {"type": "null"},
            _object(("type",), type={"const": "disabled"}, display=_DISPLAY),
            _object(("type", "budget_tokens"), type={"const": "enabled"}, budget_tokens=_BUDGET, display=_DISPLAY),
            _object(
                ("type",),
                type={"enum": ["adaptive", "between_tools"]},
                budget_tokens=_or_null(_BUDGET),
                display=_DISPLAY,
            ),
        ]
    },
    "tool_choice": {
        "anyOf": [
            {"type": "null"},
            _object(("type",), type={"enum": ["any", "auto", "none"]}),
            _object(("type", "name"), type={"const": "tool"}, name=_TEXT),
        ]
    },
    "tool_choice.disable_parallel_tool_use": _or_null({"type": "boolean"}),
    "cache_control": _ANY,
    "container": _ANY,
    "compaction": _or_null(_object(("type",), type={"const": "summarize"}, instructions=_or_null(_TEXT))),
    "context_management": _or_null(_object(edits=_or_null(_array(_ref("ContextEdit"), maxItems=MAX_EDITS)))),
    "diagnostics": _ANY,
    "fallbacks": _ANY,
    "inference_geo": _ANY,
    "mcp_servers": _ANY,
    "service_tier": _ANY,
    "speed": _ANY,
}


def _amount(least: int, *kinds: str) -> Schema:
    value = {"type": "integer", "minimum": least, "maximum": _LARGEST}
    return _or_null(_object(("type", "value"), type={"enum": list(kinds)}, value=value))


_NAMES: Final = _array(_TEXT, maxItems=MAX_NAMES)
_CONTEXT_EDIT: Final[Schema] = {
    "description": "An edit of another type is ignored, or refused if it compacts the conversation.",
    "anyOf": [
        _object(
            ("type",),
            type={"const": CLEAR_TOOL_USES},
            trigger=_amount(1, "input_tokens", "tool_uses"),
            keep=_amount(0, "tool_uses"),
            clear_at_least=_amount(0, "input_tokens"),
            exclude_tools=_or_null(_NAMES),
            clear_tool_inputs={"anyOf": [_NAMES, {"type": ["boolean", "null"]}]},
        ),
        _object(
            ("type",),
            type={"const": CLEAR_THINKING},
            keep={"anyOf": [{"const": "all"}, _object(("type",), type={"const": "all"}), _amount(1, "thinking_turns")]},
        ),
        _object(("type",), type={"type": "string", "not": {"enum": [CLEAR_TOOL_USES, CLEAR_THINKING]}}),
    ],
}
_NATURES: Final = {
    Nature.PROMPT: "",
    Nature.GENERATION: "",
    Nature.COMFORT: "Left out when the engine refuses it.",
    Nature.IGNORED: "Accepted, and without effect.",
    Nature.REFUSED: "Refused unless it is empty, or a relayed upstream is configured.",
}
_NAME_PATTERN: Final = "^[a-zA-Z0-9_-]{1,128}$"
_TOOL: Final[Schema] = {
    "description": "A tool. Types other than `custom` run here, or are refused, dropped or passed as configured.",
    "anyOf": [
        _object(
            ("name",),
            type={"enum": ["custom", None]},
            name={"type": "string", "pattern": _NAME_PATTERN},
            description=_or_null(_TEXT),
            input_schema=_or_null({"type": "object"}),
            strict=_or_null({"type": "boolean"}),
            defer_loading=_or_null({"type": "boolean"}),
        ),
        _object(("type",), type={"type": "string", "not": {"const": "custom"}}),
    ],
}


def request_schema(*, counting: bool) -> Schema:
    """The schema of a body; `counting` is for `count_tokens`, which does not look at fields of nature GENERATION."""
    rows = [row for row in REQUEST_FIELDS if not (counting and row.nature is Nature.GENERATION)]
    properties: dict[str, Schema] = {}
    for row in rows:
        schema = _field_schema(row)
        if row.path == row.key:
            properties[row.key] = schema
        else:
            inner = {"type": "object", "properties": {row.path.partition(".")[2]: schema}}
            properties[row.key] = _merged(properties.get(row.key), inner)
    return {"type": "object", "properties": properties, "required": [row.key for row in rows if row.is_required]}


def _field_schema(row: RequestField) -> Schema:
    schema, note = _FIELDS[row.path], _NATURES[row.nature]
    description = " ".join(filter(None, [schema.get("description"), note]))
    return {**schema, "description": description} if description else schema


def _merged(outer: Schema | None, inner: Schema) -> Schema:
    """The schema of an object of which one more field is known. The object may be null."""
    if outer is None:
        return _or_null(inner)
    if "anyOf" in outer:
        return {
            **outer,
            "anyOf": [_merged(option, inner) if "properties" in option else option for option in outer["anyOf"]],
        }
    return {**outer, "properties": outer["properties"] | inner["properties"]}


# blocks


def block_name(kind: str) -> str:
    """The name of the schema of a block: `tool_use` → `ToolUseBlock`."""
    return f"{kind.title().replace('_', '')}Block"


def _inner_types(check: Check) -> list[str]:
    """The types of blocks that a block with this check may hold."""
    if not isinstance(check, partial):
        raise TypeError("this check does not know inner blocks")
    return list(check.args[0])


_USER: Final = DEFAULT_BLOCK_CHECKS["user"]
_IN_RESULT: Final = _inner_types(_USER["tool_result"])
_IN_DOCUMENT: Final = _inner_types(_USER["document"])


def _content(types: list[str]) -> Schema:
    """A text, or an array of blocks of these types."""
    return {"anyOf": [_TEXT, _array({"anyOf": [_ref(block_name(kind)) for kind in types]})]}


def _or_absent(schema: Schema) -> Schema:
    return {"anyOf": [*schema["anyOf"], {"type": "null"}]}


def _base64(media_types: frozenset[str]) -> Schema:
    data = {**_NON_EMPTY, "contentEncoding": "base64"}
    return _object(
        ("type", "media_type", "data"), type={"const": "base64"}, media_type={"enum": sorted(media_types)}, data=data
    )


_UPLOADED: Final = _object(
    ("type", "file_id"),
    type={"const": "file"},
    file_id={**_NON_EMPTY, "description": "The id of an uploaded file (`/v1/files`)."},
)
_CALL: Final = _object(
    ("id", "name", "input"),
    id=_NON_EMPTY,
    name=_NON_EMPTY,
    input={"type": ["object", "string", "null"], "description": "An object; as a string, it is JSON of an object."},
)
_SERVER_RESULT: Final = _object(("tool_use_id", "content"), tool_use_id=_TEXT, content={"type": ["object", "array"]})
_MCP_RESULT: Final = _object(
    ("tool_use_id",), tool_use_id=_TEXT, content={"type": ["object", "array", "string", "null"]}
)
_TOOL_REFERENCES: Final = [
    _object(("type", "name"), type={"const": "tool_reference"}, name=_TEXT),
    _object(("type", "server_name", "name"), type={"const": "mcp_tool_reference"}, server_name=_TEXT, name=_TEXT),
    _object(("type", "server_name"), type={"const": "mcp_toolset_reference"}, server_name=_TEXT),
]
_REMOVAL: Final = _object(("tool",), tool={"anyOf": _TOOL_REFERENCES})
_ADDITION: Final = _object(
    ("tool",),
    tool={
        "anyOf": [
            *_TOOL_REFERENCES,
            _object(("type", "definition"), type={"const": "tool_definition"}, definition={"type": "object"}),
        ]
    },
)
_CHANGES: Final = [_ref(block_name(kind)) for kind in sorted(TOOL_CHANGES)]
_BLOCKS: Final[dict[str, Schema]] = {
    "text": _object(("text",), text=_TEXT),
    "image": _object(("source",), source={"anyOf": [_base64(IMAGE_TYPES), _UPLOADED]}),
    "video": _object(("source",), source=_base64(VIDEO_TYPES)),
    "document": _object(
        ("source",),
        title=_or_null(_TEXT),
        context=_or_null(_TEXT),
        source={
            "anyOf": [
                _object(("type", "data"), type={"const": "text"}, data=_TEXT),
                _object(("type", "content"), type={"const": "content"}, content=_content(_IN_DOCUMENT)),
                _UPLOADED,
            ]
        },
    ),
    "search_result": _object(title=_or_null(_TEXT), source=_or_null(_TEXT), content=_or_absent(_content(["text"]))),
    "tool_result": _object(
        ("tool_use_id",),
        tool_use_id=_TEXT,
        is_error=_or_null({"type": "boolean"}),
        content=_or_absent(_content(_IN_RESULT)),
    ),
    "tool_reference": _object(("tool_name",), tool_name=_TEXT),
    "browser_state": _object(
        ("tabs",),
        tabs=_array(_object(("tab_id",), tab_id=_TEXT)),
        state_changes=_or_null(_array(_object(("type",), type=_TEXT))),
    ),
    "container_upload": _object(),
    "tool_use": _CALL,
    "server_tool_use": _CALL,
    "mcp_tool_use": _CALL,
    "thinking": _object(("thinking",), thinking=_TEXT, signature=_or_null(_TEXT)),
    "redacted_thinking": _object(),
    "web_search_tool_result": _SERVER_RESULT,
    "web_fetch_tool_result": _SERVER_RESULT,
    "code_execution_tool_result": _SERVER_RESULT,
    "bash_code_execution_tool_result": _SERVER_RESULT,
    "text_editor_code_execution_tool_result": _SERVER_RESULT,
    "tool_search_tool_result": _SERVER_RESULT,
    "advisor_tool_result": _SERVER_RESULT,
    "mcp_tool_result": _MCP_RESULT,
    "compaction": _object(content=_or_null(_TEXT), tool_changes=_or_null(_array({"anyOf": _CHANGES}))),
    "connector_text": {
        "anyOf": [
            _object(("text", "connector_text")),
            _object(("text",), text=_TEXT),
            _object(("connector_text",), connector_text=_TEXT),
        ]
    },
    "fallback": _object(),
    "mcp_tool_listing": _object(),
    "tool_addition": _ADDITION,
    "tool_removal": _REMOVAL,
}


def block_types() -> list[str]:
    """The types of blocks that are accepted anywhere in a request, each once."""
    roles = [kind for checks in DEFAULT_BLOCK_CHECKS.values() for kind in checks]
    return list(dict.fromkeys([*roles, *SYSTEM_PROMPT_CHECKS, *_IN_RESULT, *_IN_DOCUMENT]))


def _block_schema(kind: str) -> Schema:
    schema = _BLOCKS[kind]
    typed = {"type": "object", "properties": {"type": {"const": kind}}, "required": ["type"]}
    if "anyOf" in schema:
        return {**typed, **schema}
    return {
        **typed,
        "properties": typed["properties"] | schema["properties"],
        "required": [*typed["required"], *schema.get("required", ())],
    }


def _message_schema(role: str) -> Schema:
    types = list(DEFAULT_BLOCK_CHECKS[role])
    if role != "system":
        return _object(("role", "content"), role={"const": role}, content=_content(types))
    clearing = {"enum": ["never", "next_user_message", None]}
    config = _object(effort=_or_null(_TEXT))
    settings = _object(
        ("role", "output_config"),
        role={"const": role},
        content=_or_absent(_content(types)),
        output_config={**config, "minProperties": 1},
        clear_at=clearing,
    )
    text = _object(
        ("role", "content"),
        role={"const": role},
        content=_content(types),
        output_config=_or_null(config),
        clear_at=clearing,
    )
    return {"anyOf": [text, settings]}


def component_schemas() -> dict[str, Schema]:
    """The schemas to which those of the bodies refer, by name. Raises KeyError for a block without a schema."""
    messages = {f"{role.title()}Message": _message_schema(role) for role in DEFAULT_BLOCK_CHECKS}
    return {
        "CreateMessage": request_schema(counting=False),
        "CountTokens": request_schema(counting=True),
        "Tool": _TOOL,
        "ContextEdit": _CONTEXT_EDIT,
        "RequestMessage": {"anyOf": [_ref(name) for name in messages]},
        **messages,
        **{block_name(kind): _block_schema(kind) for kind in block_types()},
    }
