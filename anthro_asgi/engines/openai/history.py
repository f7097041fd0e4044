"""Server-tool blocks in the history of a conversation → text for an engine without server tools (contract section 3).

A web search becomes its titles and URLs; a code execution its stdout, stderr and return code; a fetched page or a file
its text; a tool search becomes nothing. Pure.
"""

from collections.abc import Iterable
from typing import Any, Final

from ...wire.blocks import SERVER_RESULTS
from ...wire.json_codec import dumps

Json = dict[str, Any]


def server_tool_texts(block: Json) -> list[str]:
    """The texts that replace `block` in an assistant turn."""
    kind = block["type"]
    if kind in ("server_tool_use", "mcp_tool_use"):
        return [f"\n[{block['name']} {dumps(block['input']).decode()}]\n"]
    if kind not in SERVER_RESULTS or kind == "tool_search_tool_result":
        return []
    content = block.get("content")
    text = _web_search(content) if kind == "web_search_tool_result" else _result_text(content)
    return [f"\n{text}\n"] if text else []


def _web_search(content: Any) -> str:
    if not isinstance(content, list):
        return _result_text(content)
    found = [entry for entry in content if isinstance(entry, dict)]
    return "\n".join(f"{entry.get('title') or ''} ({entry.get('url') or ''})" for entry in found)


def _result_text(content: Any) -> str:
    """The text in a result: output and return code of an execution, text of a page, a file or a list of blocks."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return join_texts(map(_result_text, content))
    if not isinstance(content, dict) or content.get("type") == "base64":  # a PDF's bytes are not text
        return ""
    lines = [content[key] for key in _TEXT_KEYS if isinstance(content.get(key), str)]
    if isinstance(content.get("return_code"), int):
        lines.append(f"return code {content['return_code']}")
    if isinstance(content.get("error_code"), str):
        lines.append(f"error: {content['error_code']}")
    return join_texts(lines + [_result_text(content.get(key)) for key in ("lines", "content", "source")])


_TEXT_KEYS: Final = ("title", "stdout", "stderr", "text", "data", "error_message")


def join_texts(texts: Iterable[str | None]) -> str:
    """The texts that are not empty, one per line."""
    return "\n".join(text for text in texts if text)
