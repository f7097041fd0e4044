"""Changes a chat request that an engine rejected, if the engine's words say what is wrong. Pure.

Two kinds of rejection can be resolved without changing what the client receives:

- The requested answer is too long. Some engines shorten it themselves, so nothing is shortened before an engine has
  rejected it; then it is shortened to the length that the engine names.
- The engine does not accept a field. A field is left out if the answer without it is still the requested answer.
"""

import re
from typing import Any, Final

from ...wire.errors import ContextTooLong
from ...wire.request import REQUEST_FIELDS, Nature

Json = dict[str, Any]

# The words of each engine when the requested answer is too long for its model, whatever the prompt is.
_LONGEST: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"max_tokens=\d+ cannot be greater than max_model_len=(?P<longest>\d+)",  # vLLM
        r"supports at most (?P<longest>\d+) completion tokens",  # SGLang, OpenAI
        r"valid range of max_tokens is \[1, ?(?P<longest>\d+)\]",  # DeepSeek
        r"max_(?:completion_)?tokens\W+(?:must|should) be (?:less than or equal to|<=|at most)\W+(?P<longest>\d+)",
    )
)
# The words when prompt and answer together do not fit. SGLang does not use the last token of its context (`spare`).
_TOGETHER: Final = tuple(
    (re.compile(pattern, re.DOTALL), spare)
    for pattern, spare in (
        (r"context length of (?P<window>\d+) tokens.*?(?P<prompt>\d+) tokens from the input messages", 1),  # SGLang
        (r"context length is (?P<window>\d+) tokens.*?(?P<prompt>\d+) input tokens", 0),  # vLLM
        (r"context length is (?P<window>\d+) tokens.*?(?P<prompt>\d+) in the messages", 0),  # OpenAI, llama-cpp-python
        (r"context length is (?P<window>\d+) tokens.*?(?P<prompt>\d+) of text input", 0),  # OpenRouter
        (r"prompt length \((?P<prompt>\d+)[\d.]*\).*?max_seq_len \((?P<window>\d+)\)", 0),  # TensorRT-LLM
        (
            r"prompt is (?P<prompt>\d+) tokens long.*?maximum supported sequence length is\D+(?P<window>\d+)",
            0,
        ),  # SambaNova
        (r"max_new_tokens` must be <= (?P<window>\d+)\. Given: (?P<prompt>\d+) `inputs` tokens", 0),  # TGI
    )
)
_RENAMED: Final = re.compile(r"\bmax_tokens\b.*\buse\b.*\bmax_completion_tokens\b", re.DOTALL | re.IGNORECASE)  # OpenAI
# The request field that each droppable field of a chat request comes from; None for what is asked for by this service
# itself (token counts and progress). A field is dropped only if its request field is of nature COMFORT.
DROPPABLE: Final[dict[str, str | None]] = {
    "stream_options": None,
    "return_progress": None,
    "verbose": None,
    "user": "metadata.user_id",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "chat_template_kwargs": "thinking",
    "reasoning_effort": "output_config.effort",
    "thinking_budget_tokens": "thinking",
    "thinking_token_budget": "thinking",
}
_COMFORT_PATHS: Final = {row.path for row in REQUEST_FIELDS if row.nature is Nature.COMFORT}
_COMFORTS: Final = tuple(field for field, path in DROPPABLE.items() if path is None or path in _COMFORT_PATHS)
# A word with an underscore is a field name. `user` and `verbose` are ordinary words unless they are marked as names.
_NAMED: Final = {
    field: rf"\b{field}\b"
    if "_" in field
    else rf"['\"`.]{field}['\"`:]|\b(?:argument|parameter|field)s?(?: supplied)?\W+{field}\b"
    for field in _COMFORTS
}
_NO_THINKING: Final = re.compile(r"does not support thinking|invalid reasoning value|invalid think value")  # Ollama


def shorten_answer(body: Json, refusal: str) -> Json | None:
    """The request with an answer length that fits; None when the rejection has another reason.

    Raises ContextTooLong when the prompt leaves no room for an answer.
    """
    asked = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    if asked == "max_tokens" and _RENAMED.search(refusal):
        longest = body["max_tokens"]
        return {key: value for key, value in body.items() if key != asked} | {"max_completion_tokens": longest}
    room = _room(refusal)
    return body | {asked: room} if room is not None and room < body[asked] else None


def _room(refusal: str) -> int | None:
    for pattern in _LONGEST:
        found = pattern.search(refusal)
        if found is not None:
            return max(1, int(found["longest"]))
    for pattern, spare in _TOGETHER:
        found = pattern.search(refusal)
        if found is not None:
            window, prompt = int(found["window"]), int(found["prompt"])
            room = window - prompt - spare
            if room < 1:
                raise ContextTooLong(prompt, prompt + room - 1)  # the longest prompt that leaves room for one token
            return room
    return None


def rejected_field(body: Json, refusal: str) -> str | None:
    """The field of `body` that the engine does not accept, if it may be left out."""
    for field in _COMFORTS:
        if field in body and re.search(_NAMED[field], refusal):
            return field
    if "reasoning_effort" in body and _NO_THINKING.search(refusal):
        return "reasoning_effort"
    return None
