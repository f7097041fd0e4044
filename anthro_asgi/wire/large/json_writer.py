"""Writes JSON that is too large to write in one slice of the event loop. Pure."""

from typing import Any, Final

from ..json_codec import dumps
from .cooperative import Steps

_WINDOW: Final = 256 * 1024  # characters of a string written in a step


class JoinedText:
    """A long string in parts, which `dumps_in_steps` writes as one string without joining them first."""

    __slots__ = ("parts",)

    def __init__(self, *parts: str) -> None:
        self.parts = parts


def dumps_in_steps(value: Any) -> Steps[list[bytes]]:
    """`json_codec.dumps` of `value`, in steps and in pieces; `JoinedText` is allowed in it. Raises as `dumps`."""
    written: list[bytes] = []
    yield from _write(value, written)
    return written


def _write(value: Any, written: list[bytes]) -> Steps[None]:
    kind = type(value)
    if kind is JoinedText or (kind is str and len(value) > _WINDOW):
        written.append(b'"')
        for part in value.parts if kind is JoinedText else (value,):
            for start in range(0, len(part), _WINDOW):
                written.append(dumps(part[start : start + _WINDOW])[1:-1])
                yield
        written.append(b'"')
    elif _is_light(value) or (kind is not dict and kind is not list):
        written.append(dumps(value))
        yield
    elif kind is list:
        written.append(b"[")
        yield from _write_elements(value, written)
        written.append(b"]")
    else:
        opening = b"{"
        for key, inner in value.items():
            written.append(opening + dumps(key) + b":")
            yield from _write(inner, written)
            opening = b","
        written.append(b"}")


def _write_elements(elements: list[Any], written: list[bytes]) -> Steps[None]:
    """Writes what is between the brackets of an array that is not empty."""
    if len(elements) == 1:
        yield from _write(elements[0], written)
    elif _is_light(elements):
        written.append(dumps(elements)[1:-1])
        yield
    else:
        middle = len(elements) // 2
        yield from _write_elements(elements[:middle], written)
        written.append(b",")
        yield from _write_elements(elements[middle:], written)


def _is_light(value: Any) -> bool:
    """Whether `value` can be written in one step, judged by the length of its strings and the number of its values."""
    weight = 0
    level = [value]
    while level:
        outer = [inner for inner in level if type(inner) is dict or type(inner) is list]
        weight += sum(map(_length, level)) + 64 * sum(map(len, outer))
        if weight > _WINDOW:
            return False
        level = [inner for held in outer for inner in (held.values() if type(held) is dict else held)]
    return True


def _length(value: Any) -> int:
    """Characters of a string; a whole window for a `JoinedText`, so that it is never light; 0 for other values."""
    kind = type(value)
    if kind is str:
        return len(value)
    return _WINDOW if kind is JoinedText else 0
