"""What ran on somebody's server, in the history of a conversation → text, as the seed's types say (contract section 3).

Titles and addresses of a web search; stdout, stderr and return code of an execution; the words of a page or a file;
nothing of a tool search. Pure.
"""

from collections.abc import Iterable
from typing import Any, Final

from ...wire.blocks import SERVER_RESULTS
from ...wire.json_codec import dumps

Json = dict[str, Any]


def server_tool_texts(block: Json) -> list[str]:
    """What an assistant turn says in place of the block."""
    kind = block["type"]
    if kind in ("server_tool_use", "mcp_tool_use"):
        return [f"\n[{block['name']} {dumps(block['input']).decode()}]\n"]
    if kind not in SERVER_RESULTS or kind == "tool_search_tool_result":
        return []
    content = block.get("content")
    text = _web_search(content) if kind == "web_search_tool_result" else _told(content)
    return [f"\n{text}\n"] if text else []


def _web_search(content: Any) -> str:
    if not isinstance(content, list):
        return _told(content)
    found = [entry for entry in content if isinstance(entry, dict)]
    return "\n".join(f"{entry.get('title') or ''} ({entry.get('url') or ''})" for entry in found)


def _told(content: Any) -> str:
    """The words in a result: output and return code of an execution, text of a page, a file or a list of blocks."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return join_texts(map(_told, content))
    if not isinstance(content, dict) or content.get("type") == "base64":  # the bytes of a PDF are no words
        return ""
    lines = [content[key] for key in _WORDS if isinstance(content.get(key), str)]
    if isinstance(content.get("return_code"), int):
        lines.append(f"return code {content['return_code']}")
    if isinstance(content.get("error_code"), str):
        lines.append(f"error: {content['error_code']}")
    return join_texts(lines + [_told(content.get(key)) for key in ("lines", "content", "source")])


_WORDS: Final = ("title", "stdout", "stderr", "text", "data", "error_message")


def join_texts(texts: Iterable[str | None]) -> str:
    return "\n".join(text for text in texts if text)
