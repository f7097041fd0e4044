"""Token counts of a chat request from a tokenizer file (`tokenizer.json`), for engines that cannot count.

The file does not contain the model's chat template. So each message counts as four tokens more than its text, and tools
count as their JSON. This needs the package `tokenizers`, which releases Python's global lock while it counts.
"""

import importlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ...wire.request import MessagesRequest
from .chat_request import encode, to_chat
from .dialects import PLAIN, Dialect

_TURN: Final = 4  # tokens that a chat template adds to a message
_IMAGE: Final = 1500  # tokens, as in the estimate; they do not follow from the image's size in bytes
_REASONING_KEYS: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
_TEXTS_AT_ONCE: Final = 64
_CHARACTERS_AT_ONCE: Final = 32 * 1024


class TokenizerFile:
    """Counts with the file at `path`, which is read once. Raises ValueError with one line if it cannot be loaded."""

    def __init__(self, path: str, dialect: Dialect = PLAIN) -> None:
        self._path = path
        self._dialect = dialect
        try:
            tokenizers: Any = importlib.import_module("tokenizers")
        except ImportError as exc:
            raise ValueError("a tokenizer file needs a package: pip install 'anthro-asgi[tokenizer]'") from exc
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as exc:  # the package raises plain Exception
            raise ValueError(f"{path} is not a valid tokenizer.json: {exc}") from exc

    def __repr__(self) -> str:
        return f"<TokenizerFile {self._path}>"

    def __call__(self, request: MessagesRequest) -> int:
        """The approximate length of the prompt in tokens. Raises InvalidRequest if it is nested too deeply."""
        body = to_chat(request, self._dialect)
        messages = body["messages"]
        tokens = _TURN * (len(messages) + 1)  # one more for the beginning of the answer
        tokens += _IMAGE * sum(map(_images, messages))
        for group in _groups(piece for text in _texts(body) for piece in _divided(text)):
            tokens += sum(map(len, self._tokenizer.encode_batch_fast(group, add_special_tokens=False)))
        return tokens


def _groups(pieces: Iterable[str]) -> Iterator[list[str]]:
    """The pieces in small groups. What the tokenizer returns for a group is freed in one step of Python."""
    group: list[str] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece)
        if len(group) >= _TEXTS_AT_ONCE or size >= _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _divided(text: str) -> Iterator[str]:
    """A text in pieces. A long one is divided before a space, if there is one, because tokens begin there."""
    start = 0
    while len(text) - start > _CHARACTERS_AT_ONCE:
        end = text.rfind(" ", start + 1, start + _CHARACTERS_AT_ONCE)
        end = start + _CHARACTERS_AT_ONCE if end < 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _images(message: dict[str, Any]) -> int:
    """The number of images in a message."""
    content = message["content"]
    return sum(part["type"] != "text" for part in content) if isinstance(content, list) else 0


def _texts(body: dict[str, Any]) -> Iterator[str]:
    """The texts of all tools and messages. A message is removed from the body, so that it is freed soon."""
    for tool in body.get("tools", ()):
        yield encode(tool).decode()
    messages = body["messages"]
    while messages:
        message = messages.pop()
        content = message["content"] or ""
        if isinstance(content, str):
            yield content
        else:
            yield from (part["text"] for part in content if part["type"] == "text")
        for call in message.get("tool_calls", ()):
            yield from (call["function"]["name"], call["function"]["arguments"])
        yield from (message[key] for key in _REASONING_KEYS if key in message)
