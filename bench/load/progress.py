"""How a run is getting on, on standard error: a bar that is drawn over on a terminal, else a line every few seconds."""

import sys
from time import monotonic
from typing import Final, TextIO

from .runner import Flow, Plan
from .tally import Tally

_WIDTH: Final = 30
_EVERY: Final = 5.0  # seconds between lines


class Progress:
    """A Watch. `end` before anything else is written to the terminal."""

    def __init__(self, plan: Plan, out: TextIO = sys.stderr) -> None:
        self._plan = plan
        self._out = out
        self._live = out.isatty()
        self._due = monotonic() + _EVERY
        self._tokens = 0
        self._at = monotonic()
        self._drawn = False

    def __call__(self, part: str, flow: Flow, tally: Tally) -> None:
        now = monotonic()
        if not self._live and now < self._due:
            return
        self._due = now + _EVERY
        rate = (tally.tokens - self._tokens) / max(now - self._at, 1e-9)
        self._tokens, self._at = tally.tokens, now
        text = f"{flow.done} done, {len(flow.open)} open, {tally.errors.total()} errors, {rate:,.0f} tokens/s"
        share = self._share(part, flow, tally)
        if self._live:
            full = round(share * _WIDTH)
            self._drawn = True
            self._out.write(f"\r\x1b[2K{part:<8}[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%}  {text}")
        else:
            self._out.write(f"{part}: {share:.0%}, {text}\n")
        self._out.flush()

    def _share(self, part: str, flow: Flow, tally: Tally) -> float:
        plan = self._plan
        if part == "warm-up":
            return min(1.0, flow.done / plan.warmup)
        if part == "drain":
            return 1.0
        parts = [0.0]
        if plan.requests:
            parts.append(tally.requests / plan.requests)
        if plan.duration:
            parts.append((self._at - tally.began / 1e9) / plan.duration)
        return min(1.0, max(parts))

    def end(self) -> None:
        """Leave the terminal clean."""
        if self._drawn:
            self._out.write("\r\x1b[2K")
            self._out.flush()
