"""JSON too large for one turn of an event loop, written in pieces. Pure."""

from typing import Any, Final

from ..json_codec import dumps
from .cooperative import Steps

_WINDOW: Final = 256 * 1024  # bytes of a text that are written in a step


class JoinedText:
    """A text in parts, so long that it is not worth while to put them together; `dumps_in_steps` writes it as one."""

    __slots__ = ("parts",)

    def __init__(self, *parts: str) -> None:
        self.parts = parts


def dumps_in_steps(value: Any) -> Steps[list[bytes]]:
    """`value` as JSON, as `lenient.dumps` writes it, in steps and in pieces. Raises as that does."""
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
    """What stands between the brackets of an array, of which there is something."""
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
    """Whether it is written in a step, judged by its texts and the number of its values; so are all that are empty."""
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
    """Of a text, more for one in parts."""
    kind = type(value)
    if kind is str:
        return len(value)
    return _WINDOW if kind is JoinedText else 0
