"""Which tools of a request are offered to the model: deferred tools, and tools that change in mid-conversation. Pure.

A tool with `defer_loading` is offered once a `tool_reference` in a tool result or a `tool_addition` names it, or if
nothing in the request could ever load a deferred tool (contract 3.13). `tool_addition` and `tool_removal` change the
list in the order of the messages; the engine receives the list as it is at the end (contract 3.33).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from .errors import quoted
from .field_checks import FieldError
from .history_folding import ToolChange
from .large.cooperative import Steps

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
_READ: Final = 16 * 1024  # characters of a name or description in which these words are searched
_CHANGES_PER_STEP: Final = 256


class ToolEntries(NamedTuple):
    """What the definitions in the body say about deferred tools, by name."""

    deferred: set[str]
    placeholders: set[str]
    can_load: bool
    """Whether one of them is a tool that can load deferred tools."""


def has_deferred(entries: Iterable[Json]) -> bool:
    """Whether one of the definitions in the body is that of a deferred tool."""
    return any(entry.get("defer_loading") is True for entry in entries)


def read_entries(entries: Sequence[Json]) -> Steps[ToolEntries]:
    """Reads the definitions in the body, in steps. They may be of any kind."""
    deferred: set[str] = set()
    placeholders: set[str] = set()
    for entry in entries:
        if entry.get("defer_loading") is True:
            deferred.add(_text(entry, "name"))
            if _is_placeholder(entry):
                placeholders.add(_text(entry, "name"))
            yield
    can_load = False
    for entry in entries if deferred else ():
        if entry.get("defer_loading") is not True:
            can_load = _can_load(entry)
            if can_load:
                break
            yield
    return ToolEntries(deferred, placeholders, can_load)


def offered_tools(
    tools: Mapping[str, ToolT],
    entries: ToolEntries,
    changes: Sequence[ToolChange],
    define: Callable[[Json, str], Steps[tuple[str, ToolT] | None]],
    *,
    forced: str | None = None,
    relay_only: list[str] | None = None,
) -> Steps[list[ToolT]]:
    """The tools to offer, in the order in which they are declared. They are found in steps.

    Args:
        tools: the declared tools by name.
        entries: what their definitions in the body say.
        changes: of the tool list, in the order of the messages.
        define: reads a definition in a `tool_addition`, at a path, in steps: its name and tool, or None to leave it
            out. Raises FieldError.
        relay_only: collects the references to tools of MCP servers, as `path: reason`. If it is None, they are refused.
        forced: the tool that `tool_choice` names. It is offered even if it is deferred.

    Raises FieldError with the whole path for a reference to an unknown tool and for an invalid definition.
    """
    if not entries.deferred and not changes:
        return list(tools.values())
    placeholders = entries.placeholders
    known = {name: tool for name, tool in tools.items() if name not in placeholders}
    is_loaded = entries.can_load or (bool(entries.deferred) and any(_loads(change) for change in changes))
    hidden = (entries.deferred if is_loaded else set()) - {forced}
    for number, change in enumerate(changes, 1):
        if change.kind == "tool_reference":
            hidden.discard(change.tool["name"])
        elif change.tool["type"] == "tool_definition":
            defined = yield from _define(change, define)
            if defined is not None:
                known[defined[0]] = defined[1]
                hidden.discard(defined[0])
        elif change.tool["type"] != "tool_reference":
            if relay_only is None:
                raise _no_server(change)
            error = _no_server(change)
            relay_only.append(f"{error.path}: {error.reason}")
        else:
            name: str = change.tool["name"]
            if name not in known and name not in placeholders:
                raise FieldError(f"{change.path}.name", f"no tool is named {quoted(name, 150)}")
            hidden.discard(name) if change.kind == "tool_addition" else hidden.add(name)
        if number % _CHANGES_PER_STEP == 0:
            yield
    return [tool for name, tool in known.items() if name not in hidden]


def searchable_tools(
    tools: Mapping[str, ToolT], entries: ToolEntries, changes: Iterable[ToolChange]
) -> Steps[list[ToolT]]:
    """The deferred tools that a tool search may find: all but placeholders and removed ones. Arguments as above."""
    removed: set[str] = set()
    for number, change in enumerate(changes, 1):
        if change.tool["type"] == "tool_reference":
            name = change.tool["name"]
            removed.add(name) if change.kind == "tool_removal" else removed.discard(name)
        if number % _CHANGES_PER_STEP == 0:
            yield
    found = entries.deferred - entries.placeholders - removed
    return [tool for name, tool in tools.items() if name in found]


def net_changes(entries: Iterable[Json], changes: Iterable[ToolChange]) -> Steps[list[Json]]:
    """The `tool_addition` and `tool_removal` blocks that have the effect of all `changes` together, found in steps.

    A `compaction` block names them, because it takes the place of the messages that hold the changes. A tool that is
    deferred or was removed is named by a reference. A tool that a message defines is given by its definition.

    Args:
        entries: the definitions in the field `tools` of the body.
        changes: of the tool list, in the order of the messages. References to tools of MCP servers have no effect.
    """
    deferred = {_text(entry, "name"): entry.get("defer_loading") is True for entry in entries}
    defined: dict[str, Json] = {}
    effects: dict[str, Json] = {}
    for number, change in enumerate(changes, 1):
        if number % _CHANGES_PER_STEP == 0:
            yield
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
    """Whether a deferred tool is only a placeholder."""
    description = _text(entry, "description")[:_READ].lower()
    return all(words.search(description) is not None for words in _PLACEHOLDER)


def _can_load(entry: Json) -> bool:
    """Whether a tool that is not deferred can load deferred ones."""
    return (
        str(entry.get("type")).startswith("tool_search_tool_")
        or _SEARCH_NAME.search(_text(entry, "name")[:_READ]) is not None
        or _SEARCH_DESCRIPTION.search(_text(entry, "description")[:_READ]) is not None
    )


def _loads(change: ToolChange) -> bool:
    """Whether a change loads a tool."""
    return change.kind != "tool_removal"


def _define(
    change: ToolChange, define: Callable[[Json, str], Steps[tuple[str, ToolT] | None]]
) -> Steps[tuple[str, ToolT] | None]:
    path = f"{change.path}.definition"
    try:
        return (yield from define(change.tool["definition"], path))
    except FieldError as error:
        raise error.within(path) from None


def _no_server(change: ToolChange) -> FieldError:
    """The error for a reference to a tool of an MCP server."""
    reason = f"{change.tool['type']!r} is not supported: no MCP server is connected here"
    return FieldError(f"{change.path}.type", reason)
