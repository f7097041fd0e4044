"""Which tools of a request are offered to the model: deferred tools, and tools that change in mid-conversation. Pure.

A tool with `defer_loading` is offered once a `tool_reference` in a tool result or a `tool_addition` names it, or if
nothing in the request could ever load a deferred tool (contract 3.13). `tool_addition` and `tool_removal` change the
list in the order of the messages; the engine receives the list as it is at the end (contract 3.33).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from .field_checks import FieldError
from .history_folding import ToolChange

Json = dict[str, Any]
ToolT = TypeVar("ToolT")

# What a client's own search tool is called, or says about itself.
_SEARCH_NAME: Final = re.compile(r"tool.?search", re.IGNORECASE)
_SEARCH_DESCRIPTION: Final = re.compile(r"\bdeferred tools?\b|\btool_references?\b", re.IGNORECASE)
# Claude Code declares a deferred tool that exists only to switch deferred loading on.
# Each begins with its letters, which Python searches for quickly. The lookbehind makes them whole words.
_PLACEHOLDER: Final = (
    re.compile(r"placeholder(?<=\bplaceholder)\b"),
    re.compile(r"never call this tool(?<=\bnever call this tool)\b"),
)


def offered_tools(
    tools: Mapping[str, ToolT],
    entries: Iterable[Json],
    changes: Iterable[ToolChange],
    define: Callable[[Json, str], tuple[str, ToolT] | None],
    *,
    forced: str | None = None,
    relay_only: list[str] | None = None,
) -> list[ToolT]:
    """The tools to offer, in the order in which they are declared.

    Args:
        tools: the declared tools by name.
        entries: their definitions in the body, which may hold others too.
        changes: of the tool list, in the order of the messages.
        define: reads a definition in a `tool_addition`, at a path: its name and tool, or None to leave it out. Raises
            FieldError.
        relay_only: collects the references to tools of MCP servers, as `path: reason`. If it is None, they are refused.
        forced: the tool that `tool_choice` names. It is offered even if it is deferred.

    Raises FieldError with the whole path for a reference to an unknown tool and for an invalid definition.
    """
    entries, changes = list(entries), list(changes)
    deferred = {_text(entry, "name") for entry in entries if entry.get("defer_loading") is True}
    if not deferred and not changes:
        return list(tools.values())
    placeholders = {_text(entry, "name") for entry in entries if _is_placeholder(entry)}
    known = {name: tool for name, tool in tools.items() if name not in placeholders}
    hidden = deferred if _may_load(entries, changes) else set()
    hidden = hidden - {forced}
    for change in changes:
        if change.kind == "tool_reference":
            hidden.discard(change.tool["name"])
        elif change.tool["type"] == "tool_definition":
            defined = _define(change, define)
            if defined is not None:
                known[defined[0]] = defined[1]
                hidden.discard(defined[0])
        elif change.tool["type"] != "tool_reference":
            if relay_only is None:
                raise _no_server(change)
            error = _no_server(change)
            relay_only.append(f"{error.path}: {error.reason}")
        else:
            name = _referenced(change, known.keys() | placeholders)
            hidden.discard(name) if change.kind == "tool_addition" else hidden.add(name)
    return [tool for name, tool in known.items() if name not in hidden]


def searchable_tools(tools: Mapping[str, ToolT], entries: Iterable[Json], changes: Iterable[ToolChange]) -> list[ToolT]:
    """The deferred tools that a tool search may find: all but placeholders and removed ones. Arguments as above."""
    entries = list(entries)
    deferred = {_text(entry, "name") for entry in entries if entry.get("defer_loading") is True}
    deferred -= {_text(entry, "name") for entry in entries if _is_placeholder(entry)}
    removed: set[str] = set()
    for change in changes:
        if change.tool["type"] == "tool_reference":
            name = change.tool["name"]
            removed.add(name) if change.kind == "tool_removal" else removed.discard(name)
    found = deferred - removed
    return [tool for name, tool in tools.items() if name in found]


def net_changes(entries: Iterable[Json], changes: Iterable[ToolChange]) -> list[Json]:
    """The `tool_addition` and `tool_removal` blocks that have the effect of all `changes` together.

    A `compaction` block names them, because it takes the place of the messages that hold the changes. A tool that is
    deferred or was removed is named by a reference. A tool that a message defines is given by its definition.

    Args:
        entries: the definitions in the field `tools` of the body.
        changes: of the tool list, in the order of the messages. References to tools of MCP servers have no effect.
    """
    deferred = {_text(entry, "name"): entry.get("defer_loading") is True for entry in entries}
    defined: dict[str, Json] = {}
    effects: dict[str, Json] = {}
    for change in changes:
        if change.tool["type"] == "tool_definition":
            definition = {key: value for key, value in change.tool["definition"].items() if key != "cache_control"}
            name = _text(definition, "name")
            defined[name] = {"type": "tool_definition", "definition": definition}
        elif change.tool["type"] == "tool_reference":
            name = change.tool["name"]
        else:
            continue
        effects.pop(name, None)
        if change.kind == "tool_removal":
            if name in deferred:
                effects[name] = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": name}}
        elif name in defined:
            effects[name] = {"type": "tool_addition", "tool": defined[name]}
        elif deferred.get(name):
            effects[name] = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": name}}
    return list(effects.values())


def _text(entry: Json, key: str) -> str:
    """The text at `key`; empty for anything else. A tool that is only passed to a relayed upstream is not checked."""
    value = entry.get(key)
    return value if type(value) is str else ""


def _is_placeholder(entry: Json) -> bool:
    if entry.get("defer_loading") is not True:
        return False
    description = _text(entry, "description").lower()
    return all(words.search(description) is not None for words in _PLACEHOLDER)


def _may_load(entries: Iterable[Json], changes: Iterable[ToolChange]) -> bool:
    """Whether something in the request can load a deferred tool, or has loaded one."""
    return any(change.kind != "tool_removal" for change in changes) or any(
        entry.get("defer_loading") is not True
        and (
            str(entry.get("type")).startswith("tool_search_tool_")
            or _SEARCH_NAME.search(_text(entry, "name"))
            or _SEARCH_DESCRIPTION.search(_text(entry, "description"))
        )
        for entry in entries
    )


def _define(change: ToolChange, define: Callable[[Json, str], tuple[str, ToolT] | None]) -> tuple[str, ToolT] | None:
    path = f"{change.path}.definition"
    try:
        return define(change.tool["definition"], path)
    except FieldError as error:
        raise error.within(path) from None


def _no_server(change: ToolChange) -> FieldError:
    """The error for a reference to a tool of an MCP server."""
    reason = f"{change.tool['type']!r} is not supported: no MCP server is connected here"
    return FieldError(f"{change.path}.type", reason)


def _referenced(change: ToolChange, known: Iterable[str | None]) -> str:
    """The name of the tool that the change refers to. Raises FieldError for an unknown one."""
    name: str = change.tool["name"]
    if name not in known:
        raise FieldError(f"{change.path}.name", f"no tool is named {name!r:.150}")
    return name
