"""Token counts in the chunks of a chat-completions stream, in each engine's form. Pure."""

from typing import Any, Final

NO_COUNTS: Final = (None, None, None)


def token_counts(chunk: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    """The tokens of the prompt, of the output, and of the cached part of the prompt; None for each unknown count."""
    usage = chunk.get("usage")
    if usage:
        details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
        return _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), _count(details, "cached_tokens")
    timings = chunk.get("timings")  # llama.cpp, without a request for usage
    if timings:
        cached, fresh = _count(timings, "cache_n"), _count(timings, "prompt_n")
        return (None if fresh is None else fresh + (cached or 0)), _count(timings, "predicted_n"), cached
    progress = chunk.get("prompt_progress")  # llama.cpp, while it reads the prompt
    if progress:
        return _count(progress, "total"), None, _count(progress, "cache")
    return NO_COUNTS


def _count(counts: Any, key: str) -> int | None:
    """A count, None if it is not a count: an engine's mistake in its usage must not fail the answer."""
    value = counts.get(key) if isinstance(counts, dict) else None
    return value if type(value) is int and value >= 0 else None
