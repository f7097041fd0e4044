"""The prompt of a request as bytes, four of which are one token. Pure.

Tools come first, then the system prompt, then the messages, as in chat templates, so that two requests of one
conversation share a prefix. Each part begins with a token of its own. Ids, signatures, cache marks and the order of
keys have no effect.
"""

import json
from hashlib import blake2b
from typing import Any, Final

import orjson

from ..wire.errors import InvalidRequest
from ..wire.request import MessagesRequest

TOKEN: Final = 4  # bytes
_PICTURE: Final = 1_500  # tokens of an image or a video, whatever its size
_BEGIN: Final = b"<begin>".ljust(3 * TOKEN)
_TOOL: Final = b"<tool>".ljust(8 * TOKEN)
_READ: Final = ("text", "thinking", "title", "context", "name", "tool_name", "source", "data", "content")


def prompt(request: MessagesRequest) -> bytes:
    """Everything an engine would read. Raises InvalidRequest for content that is nested too deeply."""
    pieces = [_BEGIN]
    for tool in request.tools:
        pieces += (_TOOL, _padded(canonical([tool.name, tool.description, tool.input_schema])))
    if request.output_schema is not None:
        pieces.append(_padded(canonical(request.output_schema)))
    pieces += map(_text, request.system)
    try:
        for message in request.messages:
            pieces.append(f"<{message['role']}>".encode().ljust(4 * TOKEN))
            _add(message["content"], pieces)
    except RecursionError as exc:
        raise InvalidRequest("messages: nested too deeply") from exc
    return b"".join(pieces)


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // TOKEN) * TOKEN)


def _text(text: str) -> bytes:
    return _padded(text.encode("utf-8", "surrogatepass"))


def _add(content: Any, pieces: list[bytes]) -> None:
    if isinstance(content, str):
        pieces.append(_text(content))
    elif isinstance(content, list):
        for block in content:
            _add(block, pieces)
    elif isinstance(content, dict):
        _add_block(content, pieces)


def _add_block(block: dict[str, Any], pieces: list[bytes]) -> None:
    if block.get("type") in ("image", "video"):
        digest = blake2b(canonical(block.get("source")), digest_size=TOKEN).digest()
        pieces.append(digest * _PICTURE)
        return
    for key in _READ:
        if key in block:
            _add(block[key], pieces)
    if "input" in block:
        pieces.append(_padded(canonical(block["input"])))


def canonical(value: Any) -> bytes:
    """JSON that is equal for equal values. Raises InvalidRequest for a value that is nested too deeply."""
    return as_json(value, orjson.OPT_SORT_KEYS)


def as_json(value: Any, option: int = 0) -> bytes:
    """`value` as JSON. Raises InvalidRequest for a value that is nested too deeply."""
    try:
        return orjson.dumps(value, option=option)
    except TypeError:  # orjson writes no integer beyond 64 bit and no more than 254 levels
        pass
    try:
        return json.dumps(value, sort_keys=bool(option)).encode()
    except RecursionError as exc:
        raise InvalidRequest("body: nested too deeply") from exc
