"""The tools that this service runs itself inside an answer: how requests declare them, and what engines see. Pure.

    in `tools` of the body                   to the engine                 in the answer
    tool_search_tool_regex_20251119          a function with one text      server_tool_use, tool_search_tool_result
    tool_search_tool_bm25_20251119
    web_search_20250305, with a search engine      the same                      server_tool_use, web_search_tool_result

`http.answer_loop` runs the calls. In the history of the next request, calls and results stand in one assistant message;
`with_calls` turns them into the calls and tool results that the engine saw in the first place.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from .field_checks import FieldError
from .large.cooperative import Steps
from .large.json_writer import dumps_in_steps
from .tool_search import MAX_FOUND, SearchKind
from .web_search import WebSearch, read_web_search, web_search_text

Json = dict[str, Any]

_WEB_SEARCH: Final = re.compile(r"web_search_\d{8}")
_MESSAGES_PER_STEP: Final = 128
_BLOCKS_PER_STEP: Final = 512
_QUERY: Final = {"type": "string", "description": "What to search for."}


@dataclass(frozen=True, slots=True)
class ToolSearch:
    """Searches the deferred tools of the request. `name` is that of the tool in the request."""

    name: str
    kind: SearchKind

    @property
    def description(self) -> str:
        how = (
            "The query is a regular expression, such as 'weather|forecast'; case is ignored."
            if self.kind == "regex"
            else "The query is a few words that describe what the tool does."
        )
        return (
            "Searches tools that exist but are not listed here, by their names, descriptions and arguments. "
            f"Use it when no listed tool fits. {how} "
            f"Up to {MAX_FOUND} tools are returned, and can be called from then on."
        )

    @property
    def input_schema(self) -> Json:
        return {"type": "object", "properties": {"query": _QUERY}, "required": ["query"]}


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool that the request declares, and that a function of the embedding application runs."""

    name: str


DeclaredTool = ToolSearch | WebSearch
"""A tool of Anthropic's API, which the service offers to the engine as a function of its own."""
ServerTool = DeclaredTool | FunctionTool

_TOOL_SEARCHES: Final[dict[str, ToolSearch]] = {
    **dict.fromkeys(
        ("tool_search_tool_regex_20251119", "tool_search_tool_regex"), ToolSearch("tool_search_tool_regex", "regex")
    ),
    **dict.fromkeys(
        ("tool_search_tool_bm25_20251119", "tool_search_tool_bm25"), ToolSearch("tool_search_tool_bm25", "bm25")
    ),
}
SERVER_TOOL_TYPES: Final = frozenset(_TOOL_SEARCHES)
"""Types of tools that the service runs without a setting."""


def block_type(tool: ServerTool) -> str:
    """The type of the block that shows a call of this tool.

    The API knows `server_tool_use` for its own tools only. `mcp_tool_use` takes any name.
    """
    return "mcp_tool_use" if isinstance(tool, FunctionTool) else "server_tool_use"


def read_server_tool(entry: Json, *, web_search: bool = False) -> DeclaredTool | None:
    """The server tool that an entry of `tools` declares; None for any other tool. Raises FieldError.

    `web_search`: whether the service has a search engine.
    """
    kind = entry.get("type")
    if web_search and type(kind) is str and _WEB_SEARCH.fullmatch(kind):
        return read_web_search(entry)
    search = _TOOL_SEARCHES.get(kind) if type(kind) is str else None
    if search is None:
        return None
    if entry.get("name", search.name) != search.name:
        raise FieldError("name", f"must be {search.name!r}")
    return search


# Results


def tool_search_result(call_id: str, names: Iterable[str]) -> Json:
    """The result of a tool search that has found these tools."""
    references = [{"type": "tool_reference", "tool_name": name} for name in names]
    content = {"type": "tool_search_tool_search_result", "tool_references": references}
    return {"type": "tool_search_tool_result", "tool_use_id": call_id, "content": content}


def tool_search_error(call_id: str, error_code: str, reason: str) -> Json:
    """The result of a tool search that failed."""
    content = {"type": "tool_search_tool_result_error", "error_code": error_code, "error_message": reason}
    return {"type": "tool_search_tool_result", "tool_use_id": call_id, "content": content}


def function_result(call_id: str, text: str, *, is_error: bool) -> Json:
    """The result of a function of the embedding application."""
    content = [{"type": "text", "text": text}] if text else []
    return {"type": "mcp_tool_result", "tool_use_id": call_id, "is_error": is_error, "content": content}


# What the engine sees of a call in the history

_CALLS: Final = frozenset({"server_tool_use", "mcp_tool_use"})


def with_calls(messages: list[Json], names: frozenset[str]) -> Steps[list[Json]]:
    """The messages with each call of a tool in `names`, and its result, as a tool_use and a tool_result, in steps.

    Only a call whose result follows it in the same message is changed: engines refuse a call without a result. Messages
    without such calls stay the same objects.
    """
    out: list[Json] = []
    for number, message in enumerate(messages, 1):
        if number % _MESSAGES_PER_STEP == 0:
            yield
        content = message["content"]
        if message["role"] != "assistant" or type(content) is not list:
            out.append(message)
            continue
        paired = yield from _paired_calls(content, names)
        if paired:
            yield from _add_turns(out, message, paired)
        else:
            out.append(message)
    return out


def _paired_calls(content: list[Json], names: frozenset[str]) -> Steps[set[str]]:
    """The ids of the calls whose results follow them."""
    called: set[str] = set()
    paired: set[str] = set()
    for number, block in enumerate(content, 1):
        if number % _BLOCKS_PER_STEP == 0:
            yield
        if block["type"] in _CALLS:
            if block["name"] in names and block["id"] not in called:
                called.add(block["id"])
        elif block.get("tool_use_id") in called:
            paired.add(block["tool_use_id"])
    return paired


def _add_turns(out: list[Json], message: Json, paired: set[str]) -> Steps[None]:
    """Add the turns of one assistant message: calls as they came, then their results, then what followed."""
    turn: list[Json] = []
    results: list[Json] = []
    for number, block in enumerate(message["content"], 1):
        if number % _BLOCKS_PER_STEP == 0:
            yield
        if block.get("tool_use_id") in paired:
            results.append((yield from _tool_result(block)))
            continue
        if results:
            out += [{**message, "content": turn}, {"role": "user", "content": results}]
            turn, results = [], []
        if block["type"] in _CALLS and block["id"] in paired:
            block = {"type": "tool_use", "id": block["id"], "name": block["name"], "input": block["input"]}
        turn.append(block)
    if turn:
        out.append({**message, "content": turn})
    if results:
        out.append({"role": "user", "content": results})


def _tool_result(block: Json) -> Steps[Json]:
    content = block.get("content")
    match block["type"]:
        case "tool_search_tool_result":
            text, is_error = yield from _found_tools(content)
        case "web_search_tool_result":
            text, is_error = yield from web_search_text(content)
        case "mcp_tool_result":
            return {"type": "tool_result", "tool_use_id": block["tool_use_id"], "content": content or ""} | (
                {"is_error": True} if block.get("is_error") is True else {}
            )
        case _:
            text, is_error = b"".join((yield from dumps_in_steps(content))).decode(), False
    result: Json = {"type": "tool_result", "tool_use_id": block["tool_use_id"], "content": text}
    return result | {"is_error": True} if is_error else result


def _found_tools(content: Any) -> Steps[tuple[str, bool]]:
    """What the engine reads of a tool search, and whether it is an error."""
    if type(content) is not dict or type(content.get("error_code")) is str:
        code = content.get("error_code") if type(content) is dict else "unavailable"
        reason = content.get("error_message") if type(content) is dict else None
        return f"{code}: {reason}" if reason else str(code), True
    references = content.get("tool_references")
    names: list[str] = []
    for number, entry in enumerate(references if type(references) is list else (), 1):
        if type(entry) is dict and type(entry.get("tool_name")) is str:
            names.append(entry["tool_name"])
        if number % _BLOCKS_PER_STEP == 0:
            yield
    if not names:
        return "No tool matches. Try other words.", False
    return f"These tools can be called now: {', '.join(names)}", False
