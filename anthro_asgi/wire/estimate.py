"""Estimates the tokens of a prompt when no engine has counted them.

Everything in the prompt counts, tools and their results too. A token is taken as four characters, the usual figure for
English and JSON. An image has a fixed price, since its base64 says nothing about its tokens. Content that never reaches
an engine, such as redacted thinking, costs nothing.
"""

from collections.abc import Callable
from typing import Any, Final

from .blocks import SERVER_RESULTS
from .json_codec import dumps
from .large.cooperative import Steps
from .large.json_writer import length_in_steps
from .request import Estimate, MessagesRequest, Tool

CHARACTERS: Final = 4
"""Characters of a token."""
_BLOCKS_PER_STEP: Final = 64
_IMAGE: Final = 1500 * CHARACTERS
_FILE: Final = 4 * _IMAGE  # a document that only a relayed upstream can read
_MESSAGE: Final = 4 * CHARACTERS  # what a chat template adds around a turn
_WORDS_PER_STEP: Final = 512
_SERVER_RESULTS: Final = frozenset(SERVER_RESULTS) - {"tool_search_tool_result"}
_CALLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
# Keys under which results of server tools hold readable text. Encrypted content is never sent to an engine.
_WORDS: Final = ("text", "content", "title", "source", "data", "url", "stdout", "stderr")


def estimate_tokens(request: MessagesRequest) -> int:
    """The estimate in tokens. It is never 0, because the template around each turn counts, too."""
    known = request.estimate
    if known is not None and known.messages is request.messages and known.tools is request.tools:
        return known.tokens
    characters = sum(map(len, request.system)) + _MESSAGE
    for message in request.messages:
        characters += _MESSAGE + _content(message["content"])
    for tool in request.tools:
        characters += _tool(tool)
    if request.cuts is not None:
        characters += request.cuts.size
    return characters // CHARACTERS


def estimate_in_steps(request: MessagesRequest) -> Steps[int]:
    """`estimate_tokens` in steps, for a large request. Later calls of `estimate_tokens` return the same at once."""
    characters = sum(map(len, request.system)) + _MESSAGE
    blocks = 0
    for message in request.messages:
        content = message["content"]
        characters += _MESSAGE + (yield from content_in_steps(content))
        blocks += 1 + len(content) if isinstance(content, list) else 1
        if blocks >= _BLOCKS_PER_STEP:
            blocks = 0
            yield
    for number, tool in enumerate(request.tools, 1):
        characters += len(tool.name) + len(tool.description or "") + (yield from length_in_steps(tool.input_schema))
        if number % _BLOCKS_PER_STEP == 0:
            yield
    if request.cuts is not None:
        characters += request.cuts.size
    request.estimate = Estimate(characters // CHARACTERS, request.messages, request.tools)
    return request.estimate.tokens


def content_in_steps(content: str | list[dict[str, Any]] | None) -> Steps[int]:
    """The characters that the content of a message counts for, in steps."""
    if not isinstance(content, list):
        return len(content or "")
    characters = 0
    for number, block in enumerate(content, 1):
        if block["type"] == "tool_result":
            characters += yield from content_in_steps(block.get("content"))
        elif block["type"] == "document" and block["source"]["type"] == "content":
            characters += _content(block.get("title")) + _content(block.get("context"))
            characters += yield from content_in_steps(block["source"]["content"])
        elif block["type"] == "search_result":
            characters += _content(block.get("title")) + _content(block.get("source"))
            characters += yield from content_in_steps(block.get("content"))
        elif block["type"] in _CALLS:
            characters += len(block["name"]) + (yield from length_in_steps(block["input"]))
        elif block["type"] in _SERVER_RESULTS:
            characters += yield from _words_in_steps(block.get("content"))
        else:
            characters += _COUNTS.get(block["type"], _nothing)(block)
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return characters


def _tool(tool: Tool) -> int:
    return len(tool.name) + len(tool.description or "") + len(dumps(tool.input_schema))


def _content(content: str | list[dict[str, Any]] | None) -> int:
    if isinstance(content, list):
        return sum(_COUNTS.get(block["type"], _nothing)(block) for block in content)
    return len(content or "")


def _call(block: dict[str, Any]) -> int:
    return len(block["name"]) + len(dumps(block["input"]))


def _search_result(block: dict[str, Any]) -> int:
    return _content(block.get("title")) + _content(block.get("source")) + _content(block.get("content"))


def _document(block: dict[str, Any]) -> int:
    source = block["source"]
    if source["type"] not in ("text", "content"):
        return _FILE
    held = source["data"] if source["type"] == "text" else source["content"]
    return _content(block.get("title")) + _content(block.get("context")) + _content(held)


def _words(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(map(_words, content))
    return sum(_words(content[key]) for key in _WORDS if key in content) if isinstance(content, dict) else 0


def _words_in_steps(content: Any) -> Steps[int]:
    """`_words` in steps."""
    characters = number = 0
    waiting = [content]
    while waiting:
        number += 1
        if number % _WORDS_PER_STEP == 0:
            yield
        content = waiting.pop()
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            waiting += content
        elif isinstance(content, dict):
            waiting += [content[key] for key in _WORDS if key in content]
    return characters


def _nothing(block: dict[str, Any]) -> int:
    return 0


_COUNTS: Final[dict[str, Callable[[dict[str, Any]], int]]] = {
    "text": lambda block: len(block["text"]),
    "thinking": lambda block: len(block["thinking"]),
    "image": lambda block: _IMAGE,
    "video": lambda block: _IMAGE,
    "document": _document,
    "search_result": _search_result,
    "tool_reference": lambda block: len(block["tool_name"]),
    "tool_result": lambda block: _content(block.get("content")),
    **dict.fromkeys(_CALLS, _call),
    **dict.fromkeys(_SERVER_RESULTS, lambda block: _words(block.get("content"))),
}
