"""Mutations of JSON values and of bytes. Every choice comes from the given `Random`.

A value is changed at a place: a container and a key or an index in it. The new value comes from a `Stock`: values that
cause trouble anywhere, and parts of other values of the same kind, so that many results are almost valid.
"""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from random import Random
from typing import Any

import orjson

Place = tuple[Any, Any]

TROUBLE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30)),
    *(float("inf"), float("nan")),
    *(
        "",
        " ",
        "a",
        "\x00",
        "\n",
        '"',
        "\\",
        "é",
        "漢字",
        "🙂",
        "\ud83d",
        "\ude00\ud83d",
        "\u2028",
        "x" * 300,
        "null",
        "{}",
    ),
    *([], {}, [[]], [{}], [None], {"": None}, {"type": None}, {"type": []}, [0] * 40),
)
_DEEP = (2, 30, 99, 100, 101, 102, 260)  # levels, around the limit and beyond what orjson writes


_CHARACTERS = 'ab \n\r\t"\\/{}[],:0é漢🙂\u2028\u0085\x00\x1f\ufeff\ud83d\ude00'


def _text(rng: Random) -> str:
    return "".join(rng.choices(_CHARACTERS, k=rng.randrange(9)))


def _value(rng: Random, levels: int = 3) -> Any:
    match rng.randrange(6 if levels else 4):
        case 0 | 1:
            return _text(rng)
        case 2:
            return rng.choice((rng.randrange(-(2**63), 2**64), rng.randrange(100), rng.uniform(-9, 9)))
        case 3:
            return rng.choice((None, True, False))
        case 4:
            return [_value(rng, levels - 1) for _ in range(rng.randrange(4))]
        case _:
            return {_text(rng): _value(rng, levels - 1) for _ in range(rng.randrange(4))}


@cache
def drawn() -> tuple[Any, ...]:
    """JSON values, and texts that break naive parsers."""
    rng = Random(0)
    return tuple(draw(rng) for _ in range(150) for draw in (_value, _text))


def places(value: Any) -> list[Place]:
    """Every position in a value, from the outside in."""
    found: list[Place] = []
    level = [value]
    while level:
        inner = []
        for holder in level:
            keys: Iterable[Any] = holder if type(holder) is dict else range(len(holder))
            for key in keys:
                found.append((holder, key))
                if type(holder[key]) in (dict, list):
                    inner.append(holder[key])
        level = inner
    return found


class Stock:
    """Values to insert: parts of `examples` by their key, and troublesome values."""

    def __init__(self, examples: Iterable[Any], more: Sequence[Any] = ()) -> None:
        self._by_key: dict[str, list[Any]] = {}
        for holder, key in (place for example in examples for place in places(example)):
            if type(key) is str and len(json.dumps(holder[key])) < 600:
                self._by_key.setdefault(key, []).append(holder[key])
        self._keys = list(self._by_key)
        self._anything = [*more, *TROUBLE, *drawn()]

    def key(self, rng: Random) -> str:
        return rng.choice(self._keys)

    def under(self, key: Any, rng: Random) -> Any:
        """A value that some example has under this key."""
        return copy.deepcopy(rng.choice(self._by_key.get(key) or self._anything))

    def anything(self, rng: Random) -> Any:
        return copy.deepcopy(rng.choice(self._anything))


def mutate(value: Any, stock: Stock, rng: Random) -> None:
    """Change an object or an array in one or a few places."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4))):
        known = places(value)
        if not known:
            return
        holder, key = rng.choice(known)
        rng.choice(_CHANGES)(holder, key, known, stock, rng)


def _replace(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    holder[key] = stock.anything(rng)


def _replace_likely(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    holder[key] = stock.under(key, rng)


def _replace_by_another(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    other, its = rng.choice(known)
    holder[key] = copy.deepcopy(other[its])


def _delete(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    del holder[key]


def _insert(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    new = stock.key(rng)
    if type(holder) is dict:
        holder[new] = stock.under(new, rng)
    else:
        value = rng.choice((holder[key], stock.anything(rng), stock.under(new, rng)))
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(value))


def _rename(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    if type(holder) is dict:
        holder[stock.key(rng)] = holder.pop(key)
    else:
        rng.shuffle(holder)


def _wrap(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    levels = rng.choice(_DEEP) if rng.random() < 0.2 else 1
    name = stock.key(rng) if rng.random() < 0.5 else None
    for _ in range(levels):
        holder[key] = [holder[key]] if name is None else {name: holder[key]}


def _unwrap(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    inner = holder[key]
    values = list(inner.values()) if type(inner) is dict else inner if type(inner) is list else None
    holder[key] = rng.choice(values) if values else [inner]


def _repeat(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    if type(holder) is list:
        holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(rng.choice((1, 2, 9)))]
    else:
        holder[f"{key}{rng.choice(('', '_', '2'))}"] = copy.deepcopy(holder[key])


def _nudge(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    """A similar value of the same type."""
    old = holder[key]
    if type(old) is bool:
        holder[key] = not old
    elif type(old) in (int, float):
        holder[key] = old + rng.choice((1, -1, 0.5, 10**19, -(10**19)))
    elif type(old) is str:
        at = rng.randrange(len(old) + 1)
        scrap = stock.anything(rng)
        holder[key] = old[:at] + (scrap if type(scrap) is str else str(scrap)[:20]) + old[at + rng.randrange(3) :]
    else:
        holder[key] = stock.under(key, rng)


def _swap(holder: Any, key: Any, known: list[Place], stock: Stock, rng: Random) -> None:
    other, its = rng.choice(known)
    holder[key], other[its] = copy.deepcopy(other[its]), copy.deepcopy(holder[key])


_CHANGES: tuple[Callable[[Any, Any, list[Place], Stock, Random], None], ...] = (
    *(_replace, _replace_likely, _replace_likely, _replace_likely, _replace_by_another, _delete, _insert, _insert),
    *(_insert, _rename, _wrap, _unwrap, _repeat, _repeat, _nudge, _nudge, _nudge, _swap),
)


# values → bytes


def written(value: Any, rng: Random) -> bytes:
    """`value` as JSON, in one of the styles of clients and engines."""
    style = rng.random()
    if style < 0.6:
        try:
            return orjson.dumps(value)
        except TypeError:
            pass
    if style < 0.75:
        return json.dumps(value).encode()
    if style < 0.9:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return json.dumps(value, separators=(" ,", " : ")).encode()


# bytes

SCRAPS = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\x00",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\xe6\xbc",
        b" ",
        b"\n",
        b"\r\n",
    ),
    *(
        b"0",
        b"e",
        b"-",
        b".",
        b"1e400",
        b"-0",
        b"184467440737095516160",
        b"9" * 400,
        b"true",
        b"NaN",
        b"-Infinity",
        b"null",
    ),
    *(b"\\u0000", b"\\ud83d", b"\\ude00", b"\\ud83d\\ude00", b"\\\\", b'\\"', b"\\u12", b"\xed\xa0\xbd", b"\xc0\x80"),
    *(b'"model":"n",', b'"type":"text",', b'"role":"user"},{', b'"":', b"/**/", b"'", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
)


def mangle(data: bytes, rng: Random) -> bytes:
    """Replace or insert something somewhere in the bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 1, 2, 8, 60)))
        data = rng.choice(_MANGLINGS)(data, at, to, rng)
    return data


def _flip(data: bytes, at: int, to: int, rng: Random) -> bytes:
    return data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def _move(data: bytes, at: int, to: int, rng: Random) -> bytes:
    other = rng.randrange(len(data) + 1)
    return data[:at] + data[other : other + 90] + data[at:]


def _as_utf16(data: bytes, at: int, to: int, rng: Random) -> bytes:
    if rng.random() < 0.9:  # such input is refused at once, so few trials are enough
        return _move(data, at, to, rng)
    return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-32")))


def _deep(data: bytes, at: int, to: int, rng: Random) -> bytes:
    return data[:at] + rng.choice((b"[", b'{"a":')) * rng.choice((3, 110, 1100)) + data[at:]


_MANGLINGS: tuple[Callable[[bytes, int, int, Random], bytes], ...] = (
    lambda data, at, to, rng: data[:at],
    lambda data, at, to, rng: data[:at] + data[to:],
    lambda data, at, to, rng: data[:at] + rng.choice(SCRAPS) + data[at:],
    lambda data, at, to, rng: data[:at] + rng.choice(SCRAPS) + data[at + 1 :],
    lambda data, at, to, rng: data[:at] + rng.choice(SCRAPS) + data[to:],
    lambda data, at, to, rng: data[:at] + data[at:to] * 2 + data[to:],
    lambda data, at, to, rng: data + rng.choice(SCRAPS),
    *(_flip, _flip, _move, _as_utf16, _deep),
)


def cut(data: bytes, rng: Random) -> list[bytes]:
    """The same bytes in pieces: whole, almost byte by byte, or anything between."""
    longest = 3 if rng.random() < 0.03 else rng.choice((30, 200, 1000, len(data)))
    if longest >= len(data):
        return [data]
    pieces = []
    at = 0
    while at < len(data):
        size = 1 + int(rng.random() * longest)
        pieces.append(data[at : at + size])
        at += size
    return pieces
