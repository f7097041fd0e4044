"""A tokenizer file (`tokenizer.json`), which counts the texts of a chat request for engines that do not.

What the model's chat template puts around them is not in the file: a turn is taken for four tokens more, and the tools
are counted as the JSON they go as. It needs the package `tokenizers`, which counts outside of Python's lock.
"""

import importlib
from typing import Any, Final

from ...wire.request import MessagesRequest
from .chat_request import encode, to_chat
from .dialects import PLAIN, Dialect

_TURN: Final = 4  # tokens around a message
_IMAGE: Final = 1500  # tokens, as in the estimate: the bytes of an image say nothing about them


class TokenizerFile:
    """Counts by the file at `path`, which is read once. Raises ValueError, in one line, if that cannot be done."""

    def __init__(self, path: str, dialect: Dialect = PLAIN) -> None:
        self._path = path
        self._dialect = dialect
        try:
            tokenizers: Any = importlib.import_module("tokenizers")
        except ImportError as exc:
            raise ValueError("a tokenizer file needs a package: pip install 'anthro-asgi[tokenizer]'") from exc
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as exc:  # the package has no type of its own for what it raises
            raise ValueError(f"{path} is no tokenizer.json: {exc}") from exc

    def __repr__(self) -> str:
        return f"<TokenizerFile {self._path}>"

    def __call__(self, request: MessagesRequest) -> int:
        """The tokens of the prompt, about. Raises InvalidRequest for what is nested too deeply to be a prompt."""
        body = to_chat(request, self._dialect)
        texts: list[str] = []
        images = 0
        for message in body["messages"]:
            images += _collect(message, texts)
        texts += (encode(tool).decode() for tool in body.get("tools", ()))
        around = _TURN * (len(body["messages"]) + 1)  # and the answer's head
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return around + images * _IMAGE + sum(map(len, encoded))


def _collect(message: dict[str, Any], texts: list[str]) -> int:
    """Adds the texts of a message, and returns how many images are in it."""
    images = 0
    content = message["content"] or ""
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "text":
            texts.append(part["text"])
        else:
            images += 1
    for call in message.get("tool_calls", ()):
        texts += (call["function"]["name"], call["function"]["arguments"])
    texts += (message[key] for key in ("reasoning_content", "reasoning") if key in message)
    return images
