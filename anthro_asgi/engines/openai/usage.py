"""Token counts in the chunks of a chat-completions stream, in each engine's form. Pure.

OpenAI and most others  usage.prompt_tokens, .completion_tokens, .prompt_tokens_details.cached_tokens,
                        .completion_tokens_details.reasoning_tokens
vLLM                    usage.prompt_tokens_details.created_cache_tokens
Moonshot                choices[0].usage, usage.cached_tokens
DeepSeek                usage.prompt_cache_hit_tokens
SGLang                  usage.reasoning_tokens
Groq                    x_groq.usage
some gateways           usage.input_tokens, .output_tokens
llama.cpp               timings, if no usage was asked for; prompt_progress, while it reads the prompt
"""

from dataclasses import dataclass
from typing import Any, Final

from ...wire.deltas import Usage


@dataclass(slots=True)
class TokenCounts:
    """The counts of one answer so far; None is unknown. `prompt` includes `cached` and `created`.

    `cached` tokens were read from the prefix cache, `created` tokens were written to it.

    A zero never replaces a count: some engines send zeros in their last chunk, and no prompt is empty.
    """

    prompt: int | None = None
    output: int | None = None
    cached: int | None = None
    created: int | None = None
    thinking: int | None = None

    def note(self, chunk: dict[str, Any]) -> bool:
        """Keep the latest of each count in `chunk`. Returns whether the length of the prompt is now known first."""
        prompt, output, cached, created, thinking = _counts_in(chunk)
        first = self.prompt is None and bool(prompt)
        self.prompt = prompt or self.prompt
        self.output = output or self.output
        self.cached = cached or (cached if self.cached is None else self.cached)
        self.created = created or (created if self.created is None else self.created)
        self.thinking = thinking or self.thinking
        return first

    def usage(self, output: int | None) -> Usage:
        """The usage as the Messages API counts it: the cached tokens of a prompt apart from the others.

        `output` is None before the end. At least one token is not cached: clients read `input_tokens: 0` as unknown.
        """
        thinking = None if output is None else self.thinking
        if self.prompt is None:
            return Usage(None, output, self.cached, self.created, thinking_tokens=thinking)
        cached = None if self.cached is None else min(self.cached, self.prompt - 1)
        created = None if self.created is None else min(self.created, self.prompt - 1 - (cached or 0))
        rest = self.prompt - (cached or 0) - (created or 0)
        return Usage(rest, output, cached, created, thinking_tokens=thinking)


_Counts = tuple[int | None, int | None, int | None, int | None, int | None]  # prompt, output, cached, created, thinking
_NO_COUNTS: _Counts = (None, None, None, None, None)
_PLAIN: Final = {
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
    *("prompt_tokens_details", "completion_tokens_details"),
}
"""Keys of a usage that says nothing about caches, if the details of the prompt are null."""


def _counts_in(chunk: dict[str, Any]) -> _Counts:
    usage = chunk.get("usage") or _usage_elsewhere(chunk)
    if usage:
        if not isinstance(usage, dict):
            return _NO_COUNTS
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        prompt_details, output_details = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
        if type(prompt) is not int or type(output) is not int or prompt <= 0 or output <= 0:
            prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
            output = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
        if prompt_details is None and _PLAIN.issuperset(usage):  # as in nearly every chunk: nothing about caches
            return (
                prompt,
                output,
                None,
                None,
                None if output_details is None else _count(output_details, "reasoning_tokens"),
            )
        cached = _count(prompt_details, "cached_tokens")
        if cached is None:
            cached = _count(usage, "cached_tokens")
        if cached is None:
            cached = _count(usage, "prompt_cache_hit_tokens")
        created = _count(prompt_details, "created_cache_tokens")
        thinking = _count(output_details, "reasoning_tokens") or _count(usage, "reasoning_tokens")
        return prompt, output, cached, created, thinking
    timings = chunk.get("timings")  # llama.cpp, without a request for usage
    if timings:
        cached, fresh = _count(timings, "cache_n"), _count(timings, "prompt_n")
        prompt = None if fresh is None else fresh + (cached or 0)
        return prompt, _count(timings, "predicted_n"), cached, None, None
    progress = chunk.get("prompt_progress")  # llama.cpp, while it reads the prompt
    if progress:
        return _count(progress, "total"), None, _count(progress, "cache"), None, None
    return _NO_COUNTS


def _usage_elsewhere(chunk: dict[str, Any]) -> Any:
    groq, choices = chunk.get("x_groq"), chunk.get("choices")
    if isinstance(groq, dict) and groq.get("usage"):
        return groq["usage"]
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("usage")
    return None


def _count(counts: Any, key: str) -> int | None:
    """A count, None if it is not a count: an engine's mistake in its usage must not fail the answer."""
    value = counts.get(key) if isinstance(counts, dict) else None
    return value if type(value) is int and value >= 0 else None
