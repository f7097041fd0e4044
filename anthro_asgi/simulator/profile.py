"""The profile of a simulated engine: speed, concurrency, length of answers, failure rates. Pure."""

from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, Final

from .distributions import Distribution
from .failures import FailureRates
from .recordings import RecordedAnswer

TEXTS: Final = ("seeded", "echo")
_TTFT: Final = Distribution("constant", 0.02)
_ITL: Final = Distribution("constant", 0.005)
_OUTPUT: Final = Distribution("uniform", 24, 96)
_THINKING: Final = Distribution("uniform", 8, 24)
_NEVER: Final = FailureRates()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times in seconds, lengths in tokens, rates from 0 to 1. Raises ValueError for an invalid value.

    The first token of an answer is due `ttft`, plus `ttft_per_token` for each prompt token that was not cached, after
    the answer got its slot. The next tokens follow at intervals of `itl`. Each other answer that runs at the same time
    makes both longer by the factor `load_factor`. `max_running` answers run at one time, the next `max_waiting` wait in
    order of arrival; None is no limit. `cache_tokens` tokens of prompts are cached, in blocks of `cache_block`.
    `output_tokens` is the length of a text; a tool call and JSON are as long as they are, and thinking comes on top.
    `thinking_rate` and `tool_rate` apply to requests that leave the choice open. `stall` is the pause of a stalled
    answer. Answers of `trace`, if there are any, are given one after the other with their recorded timing.
    """

    ttft: Distribution = _TTFT
    ttft_per_token: float = 0.0
    itl: Distribution = _ITL
    load_factor: float = 0.0
    max_running: int | None = None
    max_waiting: int | None = None
    cache_tokens: int = 0
    cache_block: int = 16
    text: str = "seeded"
    output_tokens: Distribution = _OUTPUT
    thinking_tokens: Distribution = _THINKING
    thinking_rate: float = 0.0
    tool_rate: float = 0.0
    fail: FailureRates = _NEVER
    stall: float = 60.0
    trace: tuple[RecordedAnswer, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.text not in TEXTS:
            raise ValueError(f"text must be one of {', '.join(TEXTS)}, not {self.text}")
        if min(self.output_tokens.first, self.thinking_tokens.first) < 1:
            raise ValueError("output_tokens and thinking_tokens must be 1 or more")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {value}")

    def but(self, **changes: Any) -> "Profile":
        """A copy with `changes`. A number stands for a constant distribution, pairs of kind and rate for `fail`."""
        for field in fields(self):
            if field.name in changes and field.type is Distribution:
                changes[field.name] = Distribution.of(changes[field.name])
        if "fail" in changes and not isinstance(changes["fail"], FailureRates):
            changes["fail"] = FailureRates(changes["fail"])
        return replace(self, **changes)


_MOST: Final = float(2**53)
_BOUNDS: Final = (
    ("ttft_per_token", 0, _MOST),
    ("load_factor", 0, _MOST),
    ("max_waiting", 0, _MOST),
    ("cache_tokens", 0, _MOST),
    ("stall", 0, _MOST),
    ("max_running", 1, inf),
    ("cache_block", 1, inf),
    ("thinking_rate", 0, 1),
    ("tool_rate", 0, 1),
)
