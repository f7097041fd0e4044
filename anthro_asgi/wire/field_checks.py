"""Checks of single fields. Errors name the path: `messages.0.content.1.image.source.media_type: …` (contract 7).

A check raises `FieldError` with the last step of the path. Each caller adds the step before it with `within`, so that
paths cost nothing as long as the request is valid.
"""

from collections.abc import Collection
from typing import Any

from .json_codec import is_shallow
from .large.cooperative import Steps

_TOO_LARGE = 2**64  # JSON libraries do not read larger integers
_CONTAINERS = frozenset({dict, list})
_VALUES_PER_STEP = 4096
_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}


class FieldError(Exception):
    """The value at `path` is invalid, for `reason`. Internal to the validators: clients get InvalidRequest."""

    def __init__(self, path: str, reason: str, error_code: str | None = None) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.error_code = error_code

    def within(self, step: str) -> "FieldError":
        """The same error with `step` in front of its path."""
        return FieldError(f"{step}.{self.path}" if self.path else step, self.reason, self.error_code)

    def copy(self) -> "FieldError":
        """The same error without a traceback and a context, whose frames hold the request: to keep, and to raise later.

        An error that is raised while the frame that raises it holds it would form a reference cycle.
        """
        return FieldError(self.path, self.reason, self.error_code)


def required(container: dict[str, Any], key: str, kind: type) -> Any:
    """The value at `key`, which must be present and of exactly the type `kind` (a bool is not an int)."""
    value = container.get(key)
    if type(value) is not kind:
        raise FieldError(key, "required" if value is None else f"must be {_NAMES[kind]}")
    return value


def optional(container: dict[str, Any], key: str, kind: type) -> Any:
    """The value at `key`, of exactly the type `kind`; None if it is absent or null."""
    value = container.get(key)
    if value is not None and type(value) is not kind:
        raise FieldError(key, f"must be {_NAMES[kind]}")
    return value


def check_depth(container: dict[str, Any], key: str, most: int) -> None:
    """Refuses a value at `key` with more than `most` levels of arrays and objects: it could not be written later."""
    if not is_shallow(container[key], most):
        raise too_deep(key, most)


def check_depth_in_steps(container: dict[str, Any], key: str, most: int) -> Steps[None]:
    """`check_depth` in steps."""
    if not (yield from is_shallow_in_steps(container[key], most)):
        raise too_deep(key, most)


def is_shallow_in_steps(value: Any, most: int) -> Steps[bool]:
    """`json_codec.is_shallow` in steps."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(most + 1):
        if not level:
            return True
        inner: list[Any] = []
        seen = 0
        for outer in level:
            inner += [one for one in (outer.values() if type(outer) is dict else outer) if type(one) in _CONTAINERS]
            seen += 1 + len(outer)
            if seen >= _VALUES_PER_STEP:
                seen = 0
                yield
        level = inner
    return False


def too_deep(key: str, most: int) -> FieldError:
    """The error for a value with more than `most` levels."""
    return FieldError(key, f"must not be nested deeper than {most} levels")


def optional_array(container: dict[str, Any], key: str, most: int) -> list[Any]:
    """The array at `key`, with at most `most` elements; empty if it is absent or null."""
    elements = optional(container, key, list) or []
    if len(elements) > most:
        raise FieldError(key, f"must hold at most {most} elements")
    return elements


def optional_number(container: dict[str, Any], key: str, low: float, high: float) -> float | None:
    """The number at `key`, from `low` to `high`; None if it is absent or null."""
    value = container.get(key)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise FieldError(key, "must be a number")
    if not low <= value <= high:
        raise FieldError(key, f"must be between {low} and {high}")
    return float(value)


def optional_integer(container: dict[str, Any], key: str, low: int) -> int | None:
    """The integer at `key`, from `low` up; None if it is absent or null."""
    value = container.get(key)
    if value is None:
        return None
    if type(value) is not int or value >= _TOO_LARGE:
        raise FieldError(key, "must be an integer")
    if value < low:
        raise FieldError(key, f"must be {low} or more")
    return value


def one_of(container: dict[str, Any], key: str, allowed: Collection[str]) -> str:
    """The string at `key`, which must be one of `allowed`."""
    value = container.get(key)
    if type(value) is not str or value not in allowed:
        raise FieldError(key, "required" if value is None else f"must be one of {', '.join(sorted(allowed))}")
    return value
