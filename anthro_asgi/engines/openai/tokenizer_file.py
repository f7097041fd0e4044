"""Token counts of a chat request from a tokenizer file (`tokenizer.json`), for engines that cannot count.

The file does not contain the model's chat template. So each message counts as four tokens more than its text, and tools
count as their JSON. This needs the package `tokenizers`, which releases Python's global lock while it counts.
"""

import importlib
from collections.abc import Iterator
from typing import Any, Final

from ...wire.request import MessagesRequest
from .chat_request import encode, to_chat
from .dialects import PLAIN, Dialect

_TURN: Final = 4  # tokens that a chat template adds to a message
_IMAGE: Final = 1500  # tokens, as in the estimate; they do not follow from the image's size in bytes
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
        waiting: list[str] = [encode(tool).decode() for tool in body.get("tools", ())]
        while messages:
            tokens += _IMAGE * _collect(messages.pop(), waiting)
            if len(waiting) >= _TEXTS_AT_ONCE or sum(map(len, waiting)) >= _CHARACTERS_AT_ONCE:
                tokens += self._count(waiting)
                waiting = []
        return tokens + self._count(waiting)

    def _count(self, texts: list[str]) -> int:
        """The tokens of all texts. The tokenizer gets few at once: what it returns is freed in one step of Python."""
        tokens = 0
        group: list[str] = []
        size = 0
        for text in texts:
            for piece in _divided(text):
                group.append(piece)
                size += len(piece)
                if len(group) >= _TEXTS_AT_ONCE or size >= _CHARACTERS_AT_ONCE:
                    tokens += sum(map(len, self._tokenizer.encode_batch_fast(group, add_special_tokens=False)))
                    group, size = [], 0
        return tokens + sum(map(len, self._tokenizer.encode_batch_fast(group, add_special_tokens=False)))


def _divided(text: str) -> Iterator[str]:
    """A text in pieces. A long one is divided before a space, if there is one, because tokens begin there."""
    start = 0
    while len(text) - start > _CHARACTERS_AT_ONCE:
        end = text.rfind(" ", start + 1, start + _CHARACTERS_AT_ONCE)
        end = start + _CHARACTERS_AT_ONCE if end < 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _collect(message: dict[str, Any], texts: list[str]) -> int:
    """Add the texts of a message to `texts`; return the number of images in it."""
    images = 0
    content = message["content"] or ""
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "text":
            texts.append(part["text"])
        else:
            images += 1
    for call in message.get("tool_calls", ()):
        texts += (call["function"]["name"], call["function"]["arguments"])
    texts += (
        message[key] for key in ("reasoning_content", "reasoning", "reasoning_text", "thinking") if key in message
    )
    return images
