"""A value that satisfies a JSON Schema: the input that the simulated engine gives to a tool.

Theory: generate and test. `_flat` joins a schema with what it refers to (`$ref`, `allOf`, one branch of each `anyOf`
and `oneOf`) into one dict of keywords, `_make` makes a value for them, and `_fits` checks the value against the schema
as it was sent. A value that does not fit is made again with other random choices, `_TRIES` times at most.

Interpreted: `type`, `nullable`, `enum`, `const`, `default`, `properties`, `required`, `additionalProperties`, `items`,
`prefixItems`, `format`, and the bounds of numbers, texts, arrays and objects. Everything else is not, `pattern` among
it: a client's regular expression is never run.

Rules. Nothing raises: a client's schema is passed on and never judged (contract section 3), so a keyword of the wrong
type counts as absent, and where nothing fits the last value made is given. Work, depth and sizes are bounded, so a
hostile schema costs little. Below `_SHALLOW` levels only required properties are made, and of several branches the one
with the fewest parts, which ends recursive schemas. The same schema and random state give the same value.
"""

from collections.abc import Callable
from math import ceil, floor, inf
from random import Random
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

import orjson

Schema = dict[str, Any]

_WORK: Final = 3_000  # schemas looked at for one value
_TRIES: Final = 24
_DEPTH: Final = 24  # levels of a value, and of references
_SHALLOW: Final = 3
_MOST: Final = 64  # branches, items, optional properties
_LONGEST: Final = 4_096  # characters of one text
_LARGEST: Final = 2**53
_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper")


class _Exhausted(Exception):
    """The schema needs more work or depth than it gets."""


def example(schema: Any, rng: Random, root: Any = None) -> Any:
    """A value that satisfies `schema` (JSON Schema 2020-12 or an older draft), as parsed JSON. Never raises.

    References are looked up in `root`, by default in `schema` itself.
    """
    maker = _Maker(schema if root is None else root, rng)
    value: Any = None
    for _ in range(_TRIES):
        try:
            value = maker.value(schema, 0)
            if maker.fits(value, schema, 0):
                break
        except (_Exhausted, RecursionError):
            break
    return value


def tool_input(schema: Any, rng: Random) -> dict[str, Any]:
    """Like `example`, but always an object, as a tool's input is; `{}` where the schema allows no object."""
    value = example({"allOf": [schema, {"type": "object"}]}, rng, schema)
    return value if isinstance(value, dict) else {}


class _Maker:
    """Makes and checks values for parts of one schema, `root`."""

    def __init__(self, root: Any, rng: Random) -> None:
        self._root = root
        self._rng = rng
        self._left = _WORK

    def value(self, schema: Any, depth: int) -> Any:
        """Raises _Exhausted."""
        flat = self._flat(schema, depth)
        authored = [flat[key] for key in ("const", "default") if key in flat]
        choices = _list(flat, "enum")
        for value in authored + self._rng.sample(choices, len(choices)):
            if _writable(value) and self.fits(value, flat, depth):
                return value
        types = [name for name in _types(flat) if name in _MAKERS] or [_implied(flat)]
        return _MAKERS[self._rng.choice(types)](self, flat, depth)

    # several schemas as one

    def _flat(self, schema: Any, depth: int) -> Schema:
        """The keywords of `schema`, of what it refers to and of one branch of each choice. Raises _Exhausted."""
        self._spend(depth)
        if not isinstance(schema, dict):
            return {}
        flat = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
        parts = _list(schema, "allOf") + ([self._target(schema)] if "$ref" in schema else [])
        parts += [self._branch(_list(schema, key), depth) for key in ("anyOf", "oneOf") if _list(schema, key)]
        for part in parts:
            for key, value in self._flat(part, depth + 1).items():
                flat[key] = _joined(key, flat[key], value) if key in flat else value
        return flat

    def _spend(self, depth: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH:
            raise _Exhausted

    def _target(self, schema: Schema) -> Any:
        """What a reference within the document points to; True, which allows anything, for one that leads nowhere."""
        place: Any = self._root
        for step in str(schema["$ref"]).split("/")[1:] if str(schema["$ref"]).startswith("#") else [""]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            place = place.get(name, True) if isinstance(place, dict) else True
        return place

    def _branch(self, branches: list[Any], depth: int) -> Any:
        allowed = [branch for branch in branches if branch is not False] or [True]
        return self._rng.choice(allowed) if depth <= _SHALLOW else min(allowed, key=self._size)

    def _size(self, branch: Any) -> int:
        """The number of required properties: the branch with the fewest ends a recursion soonest."""
        branch = self._target(branch) if isinstance(branch, dict) and "$ref" in branch else branch
        return len(_names(branch)) if isinstance(branch, dict) else 0

    # one value of one type

    def _object(self, flat: Schema, depth: int) -> dict[str, Any]:
        properties, extra = _dict(flat, "properties"), flat.get("additionalProperties", True)
        names = dict.fromkeys(_names(flat))
        if depth <= _SHALLOW:
            names |= {name: None for name in list(properties)[:_MOST] if self._rng.random() < 0.5}
        for name in [*list(properties)[:_MOST], *_WORDS]:
            if len(names) < _whole(flat, "minProperties", 0):
                names[name] = None
        return {name: self.value(properties.get(name, extra), depth + 1) for name in names}

    def _array(self, flat: Schema, depth: int) -> list[Any]:
        prefix, rest = _list(flat, "prefixItems"), flat.get("items", True)
        least = _whole(flat, "minItems", 0)
        room = 0 if depth > _SHALLOW or rest is False else 2
        most = min(_whole(flat, "maxItems", max(least, len(prefix)) + room), _MOST)
        size = min(most, self._rng.randint(least, least + room))
        return [self.value(part, depth + 1) for part in (*prefix[:size], *[rest] * (size - len(prefix)))]

    def _string(self, flat: Schema, _: int) -> str:
        text = _FORMATS.get(str(flat.get("format")), _word)(self._rng)
        while len(text) < min(_whole(flat, "minLength", 0), _LONGEST):
            text += f" {_word(self._rng)}"
        return text[: _whole(flat, "maxLength", _LONGEST)]

    def _fraction(self, flat: Schema, _: int) -> float:
        """A multiple of `multipleOf`, or of a hundredth, within the bounds; their middle where there is none."""
        low, high = _bounds(flat)
        low = min(1, high) if low == -inf else low
        high = low + 99 if high == inf else high
        step = _number(flat.get("multipleOf"))
        for unit in [step] if step and step > 1e-9 else [0.01, 1e-6, 1e-12]:
            first = ceil(low / unit)
            last = max(first, min(floor(high / unit), first + 9_999))
            value = round(self._rng.randint(first, last) * unit, 12)
            if _within(value, flat):
                return value
        return (low + high) / 2

    def _integer(self, flat: Schema, _: int) -> int:
        step = flat.get("multipleOf")
        return int(self._fraction(flat | {"multipleOf": step if isinstance(step, int) and step > 0 else 1}, 0))

    # a value held against its schema

    def fits(self, value: Any, schema: Any, depth: int) -> bool:
        """Whether `value` satisfies `schema`, as far as it is interpreted. Raises _Exhausted."""
        self._spend(depth)
        if not isinstance(schema, dict):
            return schema is not False
        parts = _list(schema, "allOf") + ([self._target(schema)] if "$ref" in schema else [])
        if not all(self.fits(value, part, depth + 1) for part in parts):
            return False
        for key in ("anyOf", "oneOf"):
            count = sum(self.fits(value, part, depth + 1) for part in _list(schema, key))
            if _list(schema, key) and (count == 0 or (key == "oneOf" and count > 1)):
                return False
        types, choices = _types(schema), _list(schema, "enum") + ([schema["const"]] if "const" in schema else [])
        if (types and not any(_is_a(value, name) for name in types)) or (choices and value not in choices):
            return False
        if isinstance(value, dict):
            properties, extra = _dict(schema, "properties"), schema.get("additionalProperties", True)
            within = _sized(value, schema, "Properties") and set(_names(schema)) <= set(value)
            return within and all(self.fits(value[name], properties.get(name, extra), depth + 1) for name in value)
        if isinstance(value, list):
            prefix, rest = _list(schema, "prefixItems"), schema.get("items", True)
            pairs = zip(value, [*prefix, *[rest] * len(value)], strict=False)
            return _sized(value, schema, "Items") and all(self.fits(item, part, depth + 1) for item, part in pairs)
        return _sized(value, schema, "Length") if isinstance(value, str) else _within(value, schema)


# keywords, each absent where it is of the wrong type


def _list(schema: Schema, key: str) -> list[Any]:
    value = schema.get(key)
    return value[:_MOST] if isinstance(value, list) else []


def _dict(schema: Schema, key: str) -> dict[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, dict) else {}


def _whole(schema: Schema, key: str, default: int) -> int:
    value = _number(schema.get(key))
    return default if value is None or value < 0 else int(value)


def _number(value: Any) -> float | None:
    """`value` if it is a JSON number of a size that bounds something."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return value if number else None


def _names(schema: Schema) -> list[str]:
    return [name for name in _list(schema, "required") if isinstance(name, str)]


def _types(schema: Schema) -> list[str]:
    value = schema.get("type")
    names = [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    return [*names, "null"] if names and schema.get("nullable") is True else names


def _implied(flat: Schema) -> str:
    """The type that the keywords of a schema without `type` are about."""
    return next((name for name, keys in _ABOUT.items() if keys & set(flat)), "string")


def _joined(key: str, one: Any, other: Any) -> Any:
    """One value for a keyword that two schemas have."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
        return one | other | both if key in ("properties", "$defs", "definitions") else {"allOf": [one, other]}
    if isinstance(one, list) and isinstance(other, list):
        one, other = one[:_MOST], other[:_MOST]
        return [*one, *other] if key == "required" else [value for value in one if value in other] or one
    if isinstance(one, int | float) and isinstance(other, int | float):
        return max(one, other) if "min" in key.lower() else min(one, other)
    return one


def _bounds(schema: Schema) -> tuple[float, float]:
    lows = [number for key in ("minimum", "exclusiveMinimum") if (number := _number(schema.get(key))) is not None]
    highs = [number for key in ("maximum", "exclusiveMaximum") if (number := _number(schema.get(key))) is not None]
    return max(lows, default=-inf), min(highs, default=inf)


def _within(value: Any, schema: Schema) -> bool:
    number, step = _number(value), _number(schema.get("multipleOf"))
    if number is None:
        return True
    low, high = _bounds(schema)
    on_step = not step or step <= 1e-9 or abs(number / step - round(number / step)) < 1e-9
    excluded = (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
    return low <= number <= high and number not in excluded and on_step


def _sized(value: Any, schema: Schema, what: str) -> bool:
    return _whole(schema, f"min{what}", 0) <= len(value) <= _whole(schema, f"max{what}", _LARGEST)


def _is_a(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        number = _number(value)
        return number is not None and (name == "number" or number == int(number))
    return isinstance(value, _PYTHON.get(name, ()))


def _writable(value: Any) -> bool:
    """Whether the service can write an author's own value as JSON: it may be nested too deeply."""
    try:
        return bool(orjson.dumps(value))
    except TypeError:
        return False


def _word(rng: Random) -> str:
    return rng.choice(_WORDS)


def _date(rng: Random) -> str:
    return f"20{rng.randint(20, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}Z"


_PYTHON: Final = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_ABOUT: Final = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_FORMATS: Final[dict[str, Callable[[Random], str]]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda rng: f"{_date(rng)}T{_time(rng)}",
    "email": lambda rng: f"{_word(rng)}@example.com",
    "hostname": lambda rng: f"{_word(rng)}.example.com",
    "uri": lambda rng: f"https://example.com/{_word(rng)}",
    "url": lambda rng: f"https://example.com/{_word(rng)}",
    "uuid": lambda rng: str(UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 65_535):x}",
}
_MAKERS: Final[dict[str, Callable[[_Maker, Schema, int], Any]]] = {
    "object": _Maker._object,
    "array": _Maker._array,
    "string": _Maker._string,
    "integer": _Maker._integer,
    "number": _Maker._fraction,
    "boolean": lambda maker, _, __: maker._rng.random() < 0.5,
    "null": lambda _, __, ___: None,
}
