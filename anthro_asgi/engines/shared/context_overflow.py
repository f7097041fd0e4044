"""What an engine's refusal says about the lengths of a prompt, an answer and a context window. Pure.

    the prompt does not fit                      find_overflow   → ContextTooLong: clients compact their history
    prompt and answer together do not fit        find_room       → the tokens that are left for the answer
    the same, with only a bound for the prompt   find_bound      → the prompt has to be counted
    the answer alone is too long                 longest_answer  → the limit that the words name

Engines change their sentences, so the rules read numbers and nouns. A number belongs to the prompt, to the answer or to
the limit: the nouns around it say which. A sentence is about the context only if it has a noun of the context and a
word that says that something is too much. Limits of characters, of rates and of other fields are not of the context.
"""

import re
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ...wire.errors import ContextTooLong
from ...wire.lazy_regex import lazy_regex

_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "model_max_prompt_tokens_exceeded", "1261"}
)
# The text may repeat what a client wrote, so repetitions are bounded: a search takes time linear in the text.
_NUMBER: Final = lazy_regex(r"(?<![\w.])\d{1,18}(?=(?:\.\d{1,3})?(?![\w]|\.\d))")
_MAX_NUMBERS: Final = 24  # that are read in one refusal

# Words before a number. The last one of them says what the number is.
_BEFORE: Final = lazy_regex(
    r"(?P<answer>max_(?:completion_|new_|output_)?tokens|generation length|requires a sequence|sum of)"
    r"|(?P<limit>max(?:imum)?(?: [a-z]{1,12}){0,4}|max_(?:seq_len|model_len|num_tokens|length|input_tokens)"
    r"|limit(?:ed)?|context (?:length|size|window)|n_ctx|allowed|window|less than|must be <=|model with)"
    r"|(?P<total>requested|request exceed)"
    r"|(?P<prompt>prompt|inputs?\b|given|n_prompt_tokens|n_keep|splited_prompt_len|keep the first|passed"
    r"|request contains|request has|resulted in|request \(|prompt_token_ids)",
    re.IGNORECASE,
)
# Words directly after a number, which are stronger than those before it.
_AFTER: Final = lazy_regex(
    r"[`)\]]{0,2}(?:(?P<limit> max(?:imum)\b)"
    r"|(?P<prompt> input tokens| tokens? (?:from|in) the (?:input|messages|prompt)| in the messages| of text input"
    r"| `inputs` tokens)"
    r"|(?P<answer> (?:output|completion|new|draft) tokens| in the completion| tokens? (?:for|in) the completion"
    r"| `max_new_tokens`| of tool input)"
    r"|(?P<other> (?:input )?characters| chars\b| images?\b| tokens? requires))",
    re.IGNORECASE,
)
_CONTEXT: Final = lazy_regex(
    r"context (?:length|size|window|limit)|context the overflows|contextwindow"
    r"|(?:prompt|input)(?: \w{1,12}){0,2} (?:length|tokens?|token count)\b|(?:token count|tokens) (?:of|exceed)"
    r"|max_seq_len|max_model_len|n_ctx|model token limit|length of the (?:messages|prompt)|sequence length"
    r"|^prompt exceeds max length|^input is too long|prompt(?: is)? too long|`inputs` must have|prompt contains \d"
    r"|max_num_tokens|prompt length|prompt_token_ids|splited_prompt_len|tokens from the input",
    re.IGNORECASE,
)
_TOO_MUCH: Final = lazy_regex(
    r"exceed|too (?:long|large)|(?:greater|longer|more) than|\bis only\b|of only|must have less than|request contains"
    r"|maximum context length|should be \[\d|reduce the length|should not|must be greater|must be <=|overflows"
    r"|is just|prompt contains",
    re.IGNORECASE,
)
# A limit of something else: a rate, a text's characters, another field.
_OF_SOMETHING_ELSE: Final = lazy_regex(
    r"per[ -](?:min|day|hour|second)|\bTPM\b|rate limit|string too long|array too long|at most \d+ (?:characters|items)"
    r"|string_too_long|string_above_max_length|array_above_max_length|max(?:imum)? length (?:of )?\d+, but got"
    r"|invalid '(?!max_|prompt|input|messages')[\w.\[\]]+'|\bstop sequences?\b|\bstop strings?\b"
    r"|\bloc\"?:\[\"body\",\"(?!max_)",
    re.IGNORECASE,
)
# Ollama reports only the difference. The words of fastllm end in a full-width bracket.
_DIFFERENCE: Final = lazy_regex(r"prompt too long(?:; exceeded (?:max )?context length|\uff09)", re.IGNORECASE)
_SUM: Final = lazy_regex(r"context limit: (?P<prompt>\d{1,18}) \+ (?P<answer>\d{1,18}) > (?P<window>\d{1,18})")
_TENSORRT: Final = lazy_regex(
    r"max_seq_len \((?P<window>\d{1,18})\) - `splited_prompt_len` \((?P<prompt>\d{1,18})\)"
    r"(?: - `query_token_len` \((?P<more>\d{1,18})\))?"
)
_SGLANG: Final = lazy_regex(r"tokens from the input messages")  # it does not use the last token of its context

# vLLM cuts the prompt where prompt and answer no longer fit, and counts no further.
_BOUND: Final = lazy_regex(
    r"at least (?P<tokens>\d{1,18}) input tokens"
    r"|passed (?P<cut>\d{1,18}) input tokens and requested"
    r"|(?:contains|passed) (?P<characters>\d{1,18}) (?:input )?characters",
)
_WINDOW: Final = lazy_regex(r"context length is (?:only )?(?P<window>\d{1,18}) tokens")
_CHARACTERS_PER_TOKEN: Final = lazy_regex(
    r"more than (?P<most>\d{1,18}) characters, which is the upper bound for (?P<of>\d{1,18}) input tokens"
    r"|maximum input length of (?P<of_room>\d{1,18}) tokens \(at most (?P<most_room>\d{1,18}) characters"
)

_ANSWER: Final = r"max_(?:completion_|new_|output_)?tokens"
_LONGEST: Final = tuple(
    lazy_regex(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"supports at most (?P<longest>\d{1,18}) (?:completion|output) tokens",
        r"max_tokens=\d{1,18} cannot be greater than max_model_len=(?P<longest>\d{1,18})",
        rf"range of `?{_ANSWER}`?(?: is| should be)? \[\d, ?(?P<longest>\d{{1,18}})\]",
        rf"{_ANSWER}: \d{{1,18}} > (?P<longest>\d{{1,18}}), which is the maximum",
        # no other field's name and no other number stands between the field and its limit
        rf"{_ANSWER}\b(?:(?!\w_\w|\band\b)\D){{0,160}}?(?:<=|at most|less than or equal to|not exceed|maximum of|up to)"
        r"[ `'\"]{0,3}(?P<longest>\d{1,18})",
        # pydantic names the field beside the words, if at all; a limit this large belongs to no other field
        r"^Input should be less than or equal to (?P<longest>\d{3,18})$",
    )
)


@dataclass(frozen=True, slots=True)
class PromptBound:
    """The engine measured the prompt only so far. All in tokens.

    Args:
        at_least: a lower bound of the prompt's length.
        window: the context window.
        tokens: the number of tokens that the engine has counted; None when it counted characters.
    """

    at_least: int
    window: int
    tokens: int | None

    @property
    def too_long(self) -> bool:
        """Whether the prompt fits beside no answer at all."""
        return self.at_least >= self.window


@dataclass(slots=True)
class _Lengths:
    """The numbers that a refusal names, in tokens. `total` is of prompt and answer together."""

    prompt: int | None = None
    answer: int | None = None
    total: int | None = None
    limit: int | None = None


def find_overflow(message: str, code: str) -> ContextTooLong | None:
    """The overflow that an error with this message and code (or type) reports; None if it reports something else.

    When the reported prompt would have fitted, the engine complains about the length of the answer.
    """
    if (bound := find_bound(message)) is not None:
        return ContextTooLong(bound.tokens, bound.window) if bound.too_long else None
    if _OF_SOMETHING_ELSE.search(message):
        return ContextTooLong(None, None) if code in _CODES else None
    if _DIFFERENCE.search(message):
        return ContextTooLong(None, None)
    if not (_CONTEXT.search(message) and _TOO_MUCH.search(message)):
        return ContextTooLong(None, None) if code in _CODES else None
    lengths = _read(message)
    prompt = lengths.prompt
    if prompt is None and lengths.answer is None and "output" not in message and longest_answer(message) is None:
        prompt = lengths.total
    if prompt is not None and lengths.limit is not None:
        # a prompt that fills the context leaves no room for an answer, and is rejected too
        return ContextTooLong(prompt, lengths.limit) if prompt >= lengths.limit else None
    if lengths.answer is not None or longest_answer(message) is not None:
        return ContextTooLong(None, None) if code in _CODES else None
    return ContextTooLong(None, None)


def find_room(message: str) -> int | None:
    """The tokens that the context has left for an answer, if the refusal tells; less than 1 if there are none."""
    if find_bound(message) is not None or _OF_SOMETHING_ELSE.search(message) or not _TOO_MUCH.search(message):
        return None
    lengths = _read(message)
    if lengths.prompt is None or lengths.limit is None or not (_CONTEXT.search(message) or "must be <=" in message):
        return None
    return lengths.limit - lengths.prompt - (1 if _SGLANG.search(message) else 0)


def find_prompt(message: str) -> int | None:
    """The exact length of the prompt, if the refusal tells it."""
    return _read(message).prompt


def find_bound(message: str) -> PromptBound | None:
    """What a refusal tells that knows only a bound for the prompt; None for any other refusal."""
    found, window = _BOUND.search(message), _WINDOW.search(message)
    if found is None or window is None:
        return None
    size = int(window["window"])
    if found["characters"] is None:
        at_least = int(found["tokens"] or found["cut"])
        return PromptBound(at_least, size, at_least)
    ratio = _CHARACTERS_PER_TOKEN.search(message)
    if ratio is None:
        return PromptBound(1, size, None)
    most, of = int(ratio["most"] or ratio["most_room"]), int(ratio["of"] or ratio["of_room"])
    # no token has more characters than these words tell
    return PromptBound(int(found["characters"]) * of // max(1, most), size, None)


def longest_answer(message: str) -> int | None:
    """The longest answer that the model gives, whatever the prompt is, if the refusal names it."""
    for pattern in _LONGEST:
        found = pattern.search(message)
        if found is not None:
            return max(1, int(found["longest"]))
    return None


def _read(message: str) -> _Lengths:
    """The numbers of a refusal by what they measure. The first number of each sort is taken, for a prompt the exact."""
    lengths = _Lengths()
    summed = _SUM.search(message)
    if summed is not None:
        return _Lengths(int(summed["prompt"]), int(summed["answer"]), None, int(summed["window"]))
    parts = _TENSORRT.search(message)
    if parts is not None:
        return _Lengths(int(parts["prompt"]) + int(parts["more"] or 0), None, None, int(parts["window"]))
    exact = False
    start = 0
    for found in islice(_NUMBER.finditer(message), _MAX_NUMBERS):
        value = int(found[0])
        after = _AFTER.match(message, found.end())
        if after is not None:
            sort = after.lastgroup
        else:
            before = list(_BEFORE.finditer(message, max(start, found.start() - 80), found.start()))
            sort = before[-1].lastgroup if before else None
        start = found.end()
        if sort == "prompt" and (lengths.prompt is None or (after is not None and not exact)):
            lengths.prompt, exact = value, after is not None
        elif sort in ("answer", "total", "limit") and getattr(lengths, sort) is None:
            setattr(lengths, sort, value)
    return lengths
