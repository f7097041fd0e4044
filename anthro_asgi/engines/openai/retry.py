"""Which field of a chat request an engine does not accept, if the words of its refusal say so. Pure.

A field is left out if the answer without it is still the requested answer.
"""

import re
from typing import Any, Final

from ...wire.lazy_regex import lazy_regex
from ...wire.request import REQUEST_FIELDS, Nature

Json = dict[str, Any]

_RENAMED: Final = lazy_regex(r"\bmax_tokens\b.*\buse\b.*\bmax_completion_tokens\b", re.DOTALL | re.IGNORECASE)  # OpenAI
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
_NO_THINKING: Final = lazy_regex(r"does not support thinking|invalid reasoning value|invalid think value")  # Ollama

# Fields whose value a client chooses: an engine that refuses one value may accept the others.
_CHOSEN: Final = ("user", "reasoning_effort", "thinking_budget_tokens", "thinking_token_budget", "top_k")
_UNKNOWN: Final = lazy_regex(
    r"\bun(?:supported|known|expected|recogni[sz]ed)\b"
    r"|\bnot (?:be )?(?:supported|permitted|allowed|accepted|configured)\b"
    r"|\b(?:does not|doesn't) (?:support|accept|exist)\b|\b(?:extra|additional|forbidden)\b",
    re.IGNORECASE,
)
_VALUE: Final = lazy_regex(
    r"\bvalues?\b|\b(?:must|should) be\b|\btoo (?:long|short|large|small|high|low|big|many)\b"
    r"|\b(?:at (?:most|least)|(?:less|greater|longer|more) than|(?:max|min)imum|between|range|exceeds?|one of)\b",
    re.IGNORECASE,
)


def wants_new_length_field(body: Json, refusal: str) -> bool:
    """Whether the engine knows the length of the answer only as `max_completion_tokens`."""
    return "max_tokens" in body and _RENAMED.search(refusal) is not None


def length_field(body: Json) -> str:
    """The field of `body` that holds the longest answer."""
    return "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"


def rejected_field(body: Json, refusal: str) -> str | None:
    """The field of `body` that the engine does not accept, if it may be left out."""
    for field in _COMFORTS:
        if field in body and re.search(_NAMED[field], refusal):
            return field
    if "reasoning_effort" in body and _NO_THINKING.search(refusal):
        return "reasoning_effort"
    return None


def is_about_a_value(body: Json, field: str, refusal: str) -> bool:
    """Whether the engine refused the value of `field` in `body`, and may accept the field with another value.

    True if the words do not say that the engine does not know the field. What the engine quotes of the value is not
    among the words that are read.
    """
    if field not in _CHOSEN:
        return False
    value = body.get(field)
    words = refusal.replace(value, "") if isinstance(value, str) and value else refusal
    return _UNKNOWN.search(words) is None or _VALUE.search(words) is not None
