"""How validators say where a request is wrong: `messages.0.content.1.source.media_type: …` (contract section 7).

A validator raises `FieldError` with the last step of the path; whoever called it adds the step before with `within`.
So a path costs nothing unless something is wrong.
"""

from collections.abc import Collection
from typing import Any

from .json_codec import is_shallow

_TOO_LARGE = 2**64  # beyond what JSON libraries take for an integer
_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}


class FieldError(Exception):
    """Something is wrong at `path`, for `reason`. Internal to the validators: clients see InvalidRequest."""

    def __init__(self, path: str, reason: str, error_code: str | None = None) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.error_code = error_code

    def within(self, step: str) -> "FieldError":
        return FieldError(f"{step}.{self.path}" if self.path else step, self.reason, self.error_code)


def required(container: dict[str, Any], key: str, kind: type) -> Any:
    """The value at `key`, which must be there and of exactly this kind (a bool is no integer)."""
    value = container.get(key)
    if type(value) is not kind:
        raise FieldError(key, "required" if value is None else f"must be {_NAMES[kind]}")
    return value


def optional(container: dict[str, Any], key: str, kind: type) -> Any:
    """The value at `key`, or None when it is absent or null."""
    value = container.get(key)
    if value is not None and type(value) is not kind:
        raise FieldError(key, f"must be {_NAMES[kind]}")
    return value


def check_depth(container: dict[str, Any], key: str, most: int) -> None:
    """Refuses at `key` a value of the client's own making that would be too deep to write or walk later."""
    if not is_shallow(container[key], most):
        raise FieldError(key, f"must not be nested deeper than {most} levels")


def optional_array(container: dict[str, Any], key: str, most: int) -> list[Any]:
    """The array at `key`, which may be absent or null, with no more than `most` elements."""
    elements = optional(container, key, list) or []
    if len(elements) > most:
        raise FieldError(key, f"must hold at most {most}")
    return elements


def optional_number(container: dict[str, Any], key: str, low: float, high: float) -> float | None:
    value = container.get(key)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise FieldError(key, "must be a number")
    if not low <= value <= high:
        raise FieldError(key, f"must be between {low} and {high}")
    return float(value)


def optional_integer(container: dict[str, Any], key: str, low: int) -> int | None:
    value = container.get(key)
    if value is None:
        return None
    if type(value) is not int or value >= _TOO_LARGE:
        raise FieldError(key, "must be an integer")
    if value < low:
        raise FieldError(key, f"must be {low} or more")
    return value


def one_of(container: dict[str, Any], key: str, allowed: Collection[str]) -> str:
    value = container.get(key)
    if type(value) is not str or value not in allowed:
        raise FieldError(key, "required" if value is None else f"must be one of {', '.join(sorted(allowed))}")
    return value
