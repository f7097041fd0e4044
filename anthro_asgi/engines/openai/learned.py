"""What an engine's own behaviour says about its dialect: remembered per model, for a while. Pure.

A gateway may serve models that differ, so each model has its own memory. The number of models is limited, because the
client chooses the name; the model whose changes were learned first is dropped first. What was learned expires, because
the engine may be updated.
"""

from dataclasses import replace
from typing import Final

from .dialects import Dialect
from .refusals import Changes

_MAX_MODELS: Final = 64
_MAX_AGE: Final = 3600.0  # seconds


class LearnedDialects:
    """The changes to the dialect of each model. Times are in seconds on any one clock."""

    def __init__(self) -> None:
        self._changes: dict[str, Changes] = {}
        self._learned_at: dict[str, float] = {}

    def changes(self, model: str) -> Changes:
        """The fields of a Dialect, and the values that this model's engine has shown to need."""
        return self._changes.get(model, {})

    def apply(self, model: str, dialect: Dialect, now: float) -> Dialect:
        """`dialect` with the changes for `model`. Forgets changes that have expired."""
        if model not in self._changes:
            return dialect
        if now - self._learned_at[model] >= _MAX_AGE:
            del self._changes[model], self._learned_at[model]
            return dialect
        return replace(dialect, **self._changes[model])

    def learn(self, model: str, changes: Changes, now: float) -> list[str]:
        """Remember `changes` for `model`. Returns the names of the fields whose value is new."""
        known = self._changes.get(model, {})
        new = [name for name, value in changes.items() if name not in known or known[name] != value]
        if not new:
            return []
        if model not in self._changes and len(self._changes) >= _MAX_MODELS:
            first = next(iter(self._changes))
            del self._changes[first], self._learned_at[first]
        self._changes[model] = known | changes
        self._learned_at[model] = now
        return new

    def forget(self) -> None:
        """Another engine may have taken the place of this one."""
        self._changes.clear()
        self._learned_at.clear()
