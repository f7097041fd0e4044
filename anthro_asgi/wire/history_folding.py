"""The messages of a request as the engine receives them, without settings, tool changes and marks (contract 3.32-3.34).

The messages of the body stay as they are, because a relayed upstream receives them. What an engine has no message for
is collected in a `History`: the changes of the tool list, and the effort that a system message sets.

    compaction              a summary: it replaces everything before it
    tool_addition,          changes of the tool list
    tool_removal
    tool_reference          in a tool result: loads a deferred tool (contract 3.13); stays in the result as its text
    fallback,               marks for Anthropic's API: left out
    mcp_tool_listing
    connector_text,         become text
    browser_state
"""

from typing import Any, Final, NamedTuple

from .compaction import summary_message
from .large.cooperative import Steps

Json = dict[str, Any]

_MESSAGES_PER_STEP: Final = 64
_BLOCKS_PER_STEP: Final = 256
TOOL_CHANGES: Final = frozenset({"tool_addition", "tool_removal"})
FOLDED_BLOCKS: Final = frozenset(
    {"compaction", "connector_text", "fallback", "mcp_tool_listing", "tool_search_tool_result"}
)
"""Types of blocks in user and assistant messages for which a request is folded."""
FOLDED_IN_RESULTS: Final = frozenset({"browser_state", "tool_reference"})
"""Types of blocks in a tool result for which a request is folded."""


class ToolChange(NamedTuple):
    """A block that loads, adds or removes a tool.

    `kind` is the type of the block; `tool` its value: `{"type": "tool_reference", "name": …}`, a definition, or a
    reference to a tool of an MCP server. `path` leads to that value.
    """

    kind: str
    tool: Json
    path: str


class History:
    """What the messages of a request hold.

    Args:
        messages: the messages for the engine.
        has_citations: whether a search result asks for citations.

    Attributes:
        tool_changes: in the order of the messages.
        effort: the effort that a system message sets for the turn which the answer belongs to.
    """

    __slots__ = ("effort", "has_citations", "messages", "tool_changes")

    def __init__(self, messages: list[Json], *, has_citations: bool = False) -> None:
        self.messages = messages
        self.tool_changes: list[ToolChange] = []
        self.effort: str | None = None
        self.has_citations = has_citations


def fold_history(messages: list[Json], *, has_citations: bool = False) -> Steps[History]:
    """The history in checked `messages`, in steps. The messages are not changed."""
    history = History([], has_citations=has_citations)
    last_user = next((index for index in reversed(range(len(messages))) if messages[index]["role"] == "user"), -1)
    for index, message in enumerate(messages):
        if message["role"] == "system":
            yield from _fold_system(message, index, history, has_later_user=index < last_user)
        else:
            yield from _fold_turn(message, index, history)
        if index % _MESSAGES_PER_STEP == 0:
            yield
    return history


def _fold_system(message: Json, index: int, history: History, *, has_later_user: bool) -> Steps[None]:
    config = message.get("output_config")
    if config is not None and config.get("effort") is not None:
        history.effort = config["effort"]
    content = message.get("content") or []
    if type(content) is list:
        texts: list[Json] = []
        for number, block in enumerate(content):
            if block["type"] in TOOL_CHANGES:
                history.tool_changes.append(_tool_change(block, f"messages.{index}.content.{number}"))
            elif block["type"] == "text":
                texts.append(block)
            if number % _BLOCKS_PER_STEP == _BLOCKS_PER_STEP - 1:
                yield
        content = texts
    if content and not (has_later_user and message.get("clear_at") == "next_user_message"):
        history.messages.append({"role": "system", "content": content})


def _tool_change(block: Json, path: str) -> ToolChange:
    return ToolChange(block["type"], block["tool"], f"{path}.{block['type']}.tool")


def _fold_turn(message: Json, index: int, history: History) -> Steps[None]:
    """Add a user or assistant message to the history, in steps."""
    content = message["content"]
    if message["role"] == "user" and history.effort is not None and (yield from _begins_turn(content)):
        history.effort = None  # it was set for the turn before
    if type(content) is str:
        history.messages.append(message)
        return
    blocks: list[Json] = []
    is_changed = False
    for number, block in enumerate(content):
        if number % _BLOCKS_PER_STEP == _BLOCKS_PER_STEP - 1:
            yield
        if block["type"] == "compaction" and block.get("content"):
            history.messages.clear()
            history.messages.append(summary_message(block["content"]))
            blocks.clear()
        folded = yield from _fold_block(block, f"messages.{index}.content.{number}", history)
        if folded is not None:
            blocks.append(folded)
        is_changed = is_changed or folded is not block
    if blocks or not content:
        history.messages.append({**message, "content": blocks} if is_changed else message)


def _begins_turn(content: Any) -> Steps[bool]:
    """Whether a user message holds anything but tool results."""
    if type(content) is str:
        return True
    for number, block in enumerate(content, 1):
        if block["type"] != "tool_result":
            return True
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return False


def _fold_block(block: Json, path: str, history: History) -> Steps[Json | None]:
    """The block as the engine receives it; None if it is left out. Notes in the history what it changes."""
    kind = block["type"]
    if kind == "compaction":
        for number, change in enumerate(block.get("tool_changes") or (), 1):
            history.tool_changes.append(_tool_change(change, f"{path}.compaction.tool_changes.{number - 1}"))
            if number % _BLOCKS_PER_STEP == 0:
                yield
    elif kind == "connector_text":
        return {"type": "text", "text": connector_text(block)}
    elif kind == "tool_result" and type(block.get("content")) is list:
        yield from _load_referenced(block["content"], history)
        return (yield from _with_readable_state(block))
    elif kind == "tool_search_tool_result":
        found = block["content"]
        yield from _load_referenced(found.get("tool_references") if type(found) is dict else None, history)
        return block
    return None if kind in FOLDED_BLOCKS else block


def _load_referenced(blocks: Any, history: History) -> Steps[None]:
    """Note the tools that the `tool_reference` blocks among `blocks` load."""
    for number, block in enumerate(blocks if type(blocks) is list else (), 1):
        if type(block) is dict and block.get("type") == "tool_reference" and type(block.get("tool_name")) is str:
            tool = {"type": "tool_reference", "name": block["tool_name"]}
            history.tool_changes.append(ToolChange("tool_reference", tool, ""))
        if number % _BLOCKS_PER_STEP == 0:
            yield


def connector_text(block: Json) -> str:
    """The text of a `connector_text` block; empty if it holds none."""
    text = block.get("connector_text", block.get("text"))
    return text if type(text) is str else ""


def _with_readable_state(result: Json) -> Steps[Json]:
    """A tool result with the state of a browser as text. One without such a state stays the same object."""
    if not (yield from _has_kind(result["content"], "browser_state")):
        return result
    content: list[Json] = []
    for number, block in enumerate(result["content"], 1):
        if block["type"] == "browser_state":
            content.append({"type": "text", "text": (yield from _browser_state(block))})
        else:
            content.append(block)
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return {**result, "content": content}


def _has_kind(blocks: list[Json], kind: str) -> Steps[bool]:
    """Whether one of the blocks has this type."""
    for number, block in enumerate(blocks, 1):
        if block["type"] == kind:
            return True
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return False


def _browser_state(block: Json) -> Steps[str]:
    """The open tabs and what the call changed, one per line."""
    lines = ["Open browser tabs:"]
    for number, tab in enumerate(block["tabs"], 1):
        place = f"{tab.get('title') or ''} {tab.get('url') or ''}"
        lines.append(f"{tab['tab_id']}{' (active)' if tab.get('active') else ''}: {place}".rstrip())
        if number % _BLOCKS_PER_STEP == 0:
            yield
    for number, change in enumerate(block.get("state_changes") or (), 1):
        values = (change.get(key) for key in ("tab_id", "download_id", "url", "path", "error"))
        lines.append(" ".join([f"{change['type']}:", *(value for value in values if type(value) is str)]).rstrip())
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return "\n".join(lines)
