"""A chat request that an engine refused → one that it will take, when its own words say what is wrong. Pure.

Two refusals can be mended, neither at the client's cost. The answer asked for was too long: engines differ in what they
cut by themselves, so that nothing is cut here before an engine has refused, and then to what it says is left. A field
was not to its liking: those that only ask for more comfort are left out.
"""

import re
from typing import Any, Final

from ...wire.errors import ContextTooLong
from ...wire.request import REQUEST_FIELDS, Nature

Json = dict[str, Any]

# What each engine says when the answer asked for is longer than its model may give, whatever the prompt.
_LONGEST: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"max_tokens=\d+ cannot be greater than max_model_len=(?P<longest>\d+)",  # vLLM
        r"supports at most (?P<longest>\d+) completion tokens",  # SGLang, OpenAI
        r"valid range of max_tokens is \[1, ?(?P<longest>\d+)\]",  # DeepSeek
        r"max_(?:completion_)?tokens\W+(?:must|should) be (?:less than or equal to|<=|at most)\W+(?P<longest>\d+)",
    )
)
# And when prompt and answer do not fit together. SGLang leaves the last token of its window to nobody.
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
# What is written with an underscore is a name; `user` and `verbose` have to be marked as one.
_NAMED: Final = {
    field: rf"\b{field}\b"
    if "_" in field
    else rf"['\"`.]{field}['\"`:]|\b(?:argument|parameter|field)s?(?: supplied)?\W+{field}\b"
    for field in _COMFORTS
}
_NO_THINKING: Final = re.compile(r"does not support thinking|invalid reasoning value|invalid think value")  # Ollama


def shorten_answer(body: Json, refusal: str) -> Json | None:
    """The same request for as long an answer as fits; None when the refusal is about something else.

    Raises ContextTooLong when nothing fits.
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
                raise ContextTooLong(prompt, prompt + room - 1)  # what would have left room for one token
            return room
    return None


def rejected_field(body: Json, refusal: str) -> str | None:
    """The field of `body` that the engine complains of, if it is one that may be left out."""
    for field in _COMFORTS:
        if field in body and re.search(_NAMED[field], refusal):
            return field
    if "reasoning_effort" in body and _NO_THINKING.search(refusal):
        return "reasoning_effort"
    return None
