"""What an engine is like: how fast, how many at once, how long its answers are, how often it fails. Pure."""

from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, Final

from .distributions import Spread
from .failures import Faults
from .recordings import Recorded

TEXTS: Final = ("seeded", "echo")
_TTFT: Final = Spread("constant", 0.02)
_ITL: Final = Spread("constant", 0.005)
_OUTPUT: Final = Spread("uniform", 24, 96)
_THINKING: Final = Spread("uniform", 8, 24)
_NEVER: Final = Faults()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times in seconds, lengths in tokens, rates as a part of 1. Raises ValueError for what cannot be.

    The first token of an answer is due `ttft` and `ttft_per_token` for each prompt token that was not cached after its
    turn has come, the next ones `itl` apart; each further answer that runs at the time makes that longer by the part
    `load_factor`. `max_running` answers run at one time, the next `max_waiting` wait, first come, first served; None is
    no limit. `cache_tokens` of prompts are remembered, in blocks of `cache_block`. `output_tokens` is the length of a
    text; a call and JSON are as long as they are, and thinking comes on top. `thinking_rate` and `tool_rate` are for
    requests that leave it open. `stall` is the silence of the failure of that name. Recorded answers, if there are any,
    are given in turn, with their own timing.
    """

    ttft: Spread = _TTFT
    ttft_per_token: float = 0.0
    itl: Spread = _ITL
    load_factor: float = 0.0
    max_running: int | None = None
    max_waiting: int | None = None
    cache_tokens: int = 0
    cache_block: int = 16
    text: str = "seeded"
    output_tokens: Spread = _OUTPUT
    thinking_tokens: Spread = _THINKING
    thinking_rate: float = 0.0
    tool_rate: float = 0.0
    fail: Faults = _NEVER
    stall: float = 60.0
    trace: tuple[Recorded, ...] = ()
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
        """The same, but for the `changes`. A number may stand for a spread, pairs of a kind and a rate for `fail`."""
        for field in fields(self):
            if field.name in changes and field.type is Spread:
                changes[field.name] = Spread.of(changes[field.name])
        if "fail" in changes and not isinstance(changes["fail"], Faults):
            changes["fail"] = Faults(changes["fail"])
        return replace(self, **changes)


_MOST: Final = float(2**53)
_BOUNDS: Final = (
    *((name, 0, _MOST) for name in ("ttft_per_token", "load_factor", "max_waiting", "cache_tokens", "stall")),
    *((name, 1, inf) for name in ("max_running", "cache_block")),
    *((name, 0, 1) for name in ("thinking_rate", "tool_rate")),
)
