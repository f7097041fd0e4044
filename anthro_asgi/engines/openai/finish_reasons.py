"""The finish reasons of engines → the stop reasons of the Messages API (contract 4.4 and 4.5). Pure.

Engines have words of their own for the reasons that OpenAI's API defines. A reason that is not in the table is decided
by the words in it, so that an answer that broke off is not taken for a complete one.
"""

import re
from typing import Any, Final

from ...wire.deltas import StopReason
from ...wire.lazy_regex import lazy_regex

_END: Final = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "finish", "completed", "complete"})
_BROKEN_OFF: Final = frozenset({"abort", "aborted", "error", "network_error", "insufficient_system_resource"})
_REASONS: Final[dict[str, StopReason]] = {
    **dict.fromkeys(_END, "end_turn"),
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "model_length": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "tool_calls": "tool_use",
    "tool_call": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "sensitive": "refusal",
    "safety": "refusal",
}
_RULES: Final[tuple[tuple[re.Pattern[str], StopReason | None], ...]] = (
    (
        lazy_regex(
            "error|abort|cancel|fail|timeout|timed_out|unavailable|overload|insufficient|interrupt"
            # Gemini's words for a call that cannot be read
            "|malformed|unexpected|too_many"
        ),
        None,
    ),
    (lazy_regex("length|max_|limit|context|window|token"), "max_tokens"),
    (lazy_regex("filter|safety|sensitive|refus|block|prohibit|policy|recitation|spii"), "refusal"),
    (lazy_regex("tool|function|call"), "tool_use"),
)


def stop_reason_of(finish_reason: Any) -> tuple[StopReason | None, bool]:
    """The stop reason, None for an answer that broke off; and whether the finish reason is a known one."""
    word = str(finish_reason).lower()
    if word in _BROKEN_OFF:
        return None, True
    known = _REASONS.get(word)
    if known is not None:
        return known, True
    return next((reason for pattern, reason in _RULES if pattern.search(word)), "end_turn"), False
