"""Recognises a prompt that is too long for the model, in the words of each engine. Pure.

The result is the error whose wording makes clients compact their history. It contains both numbers if the engine
reports them. When the reported prompt would have fitted, the engine complains about the length of the answer: that is
not an overflow (see `openai.retry`).
"""

import re
from typing import Final

from ...wire.errors import ContextTooLong


def _worded(pattern: str) -> re.Pattern[str]:
    """Compile `pattern` with bounded repetitions, so that a search takes time linear in the text.

    The text may repeat what a client wrote. A number has at most 18 digits, and two numbers that belong together are
    at most 400 characters apart.
    """
    return re.compile(pattern.replace(r"\d+", r"\d{1,18}").replace(".*?", ".{0,400}?"), re.DOTALL)


# `more` is a number of further tokens of the prompt.
_NUMBERS: Final = tuple(
    _worded(pattern)
    for pattern in (
        # llama.cpp
        r"request \((?P<tokens>\d+) tokens\) exceeds the available context size \((?P<maximum>\d+) tokens\)",
        # SGLang
        r"The input \((?P<tokens>\d+) tokens\) is longer than the model's context length \((?P<maximum>\d+) tokens\)",
        r"maximum context length of (?P<maximum>\d+) tokens.*?(?P<tokens>\d+) tokens from the input messages",
        r"Input length \(?(?P<tokens>\d+)\)? exceeds (?:the |model's )?maximum (?:allowed input|context) length"
        r"\D+(?P<maximum>\d+)",
        # vLLM, llama-cpp-python, OpenAI, TensorRT-LLM
        r"maximum context length is (?P<maximum>\d+) tokens.*?(?P<tokens>\d+) (?:input tokens|in the messages)",
        r"maximum context length is (?P<maximum>\d+) tokens.*?messages resulted in (?P<tokens>\d+) tokens",
        r"exceed the configured limit of (?P<maximum>\d+) tokens.*?messages resulted in (?P<tokens>\d+) tokens",
        # TensorRT-LLM
        r"max_seq_len \((?P<maximum>\d+)\) - `splited_prompt_len` \((?P<tokens>\d+)\)"
        r"(?: - `query_token_len` \((?P<more>\d+)\))?",
        r"prompt length \((?P<tokens>\d+)[\d.]*\).*?(?:should not exceed|exceeds) max_num_tokens \((?P<maximum>\d+)\)",
        r"`prompt_token_ids` length \((?P<tokens>\d+)\) is greater than `max_seq_len` \((?P<maximum>\d+)\)",
        # SambaNova
        r"provided prompt is (?P<tokens>\d+) tokens long.*?maximum supported sequence length is\D+(?P<maximum>\d+)",
        # TGI, Mistral
        r"`inputs` must have less than (?P<maximum>\d+) tokens\. Given: (?P<tokens>\d+)",
        r"Prompt contains (?P<tokens>\d+) tokens.*?too large for model with (?P<maximum>\d+) maximum context length",
        # MAX
        r"Prompt is too long: (?P<tokens>\d+) tokens exceeds the configured maximum context length of (?P<maximum>\d+)",
        # services that use the wording of the Messages API
        r"prompt is too long: (?P<tokens>\d+) tokens > (?P<maximum>\d+) maximum",
    )
)
# Ollama reports only the difference. fastllm, LM Studio and older versions of llama.cpp report no numbers. The words of
# fastllm end in a full-width bracket.
_WITHOUT_NUMBERS: Final = re.compile(
    r"prompt too long(?:; exceeded (?:max )?context length|\uff09)|exceeds the available context size"
    r"|initial prompt is greater than the context length|input length exceeds the context length"
)
_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})


def find_overflow(message: str, code: str) -> ContextTooLong | None:
    """The overflow that an error with this message and code (or type) reports; None if it reports something else."""
    for pattern in _NUMBERS:
        found = pattern.search(message)
        if found is not None:
            numbers = found.groupdict()
            tokens, maximum = int(numbers["tokens"]) + int(numbers.get("more") or 0), int(numbers["maximum"])
            # a prompt that fills the context leaves no room for an answer, and is rejected too
            return ContextTooLong(tokens, maximum) if tokens >= maximum else None
    if code in _CODES or _WITHOUT_NUMBERS.search(message):
        return ContextTooLong(None, None)
    return None
