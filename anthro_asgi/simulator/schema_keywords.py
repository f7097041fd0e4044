"""The plain keywords of a JSON Schema: how each is read, how two of them are one, and what they allow.

A keyword of the wrong type says nothing. `read` gives those that say something, each in one form, older drafts' too.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import Any

Schema = dict[str, Any]

MOST = 256  # values of one enum, items of one array, properties of one object
_HUGE = 1e300  # a larger number says nothing; nor does a NaN, which compares false


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _HUGE


def _number(value: Any) -> int | float | None:
    return value if _is_number(value) else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _step(value: Any) -> int | float | None:
    number = _number(value)
    return number if number is not None and number > 1e-12 else None


def _types(value: Any) -> list[str] | None:
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str) and name in _KINDS] or None


def _names(value: Any) -> list[str] | None:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else None


def nonempty(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) and value else None


def _choices(value: Any) -> list[Any] | None:
    return (nonempty(value) or [])[:MOST] or None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _schema(value: Any) -> Schema | bool | None:
    return value if isinstance(value, dict | bool) else None


def _table(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _first(one: Any, _: Any) -> Any:
    return one


def _both(one: Any, other: Any) -> Schema:
    return {"allOf": [one, other]}


def _each(one: Schema, other: Schema) -> Schema:
    return one | {name: _both(one[name], schema) if name in one else schema for name, schema in other.items()}


def _union(one: list[Any], other: list[Any]) -> list[Any]:
    return list(dict.fromkeys([*one, *other]))


def _common(one: list[Any], other: list[Any]) -> list[Any]:
    return [value for value in one if any(same(value, choice) for choice in other)]


def _common_types(one: list[str], other: list[str]) -> list[str]:
    narrow = [name for name in one if name in other or (name == "integer" and "number" in other)]
    return narrow + [name for name in other if name == "integer" and "number" in one and name not in narrow]


def _common_step(one: float, other: float) -> float:
    return math.lcm(one, other) if isinstance(one, int) and isinstance(other, int) else max(one, other)


_KEYWORDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "type": (_types, _common_types),
    "enum": (_choices, _common),
    "examples": (nonempty, _first),
    "nullable": (_flag, _first),
    "not": (_schema, lambda one, other: {"anyOf": [one, other]}),
    "minimum": (_number, max),
    "exclusiveMinimum": (_number, max),
    "maximum": (_number, min),
    "exclusiveMaximum": (_number, min),
    "multipleOf": (_step, _common_step),
    "minLength": (_count, max),
    "maxLength": (_count, min),
    "pattern": (_text, _first),
    "format": (_text, _first),
    "properties": (_table, _each),
    "required": (_names, _union),
    "additionalProperties": (_schema, _both),
    "propertyNames": (_schema, _both),
    "minProperties": (_count, max),
    "maxProperties": (_count, min),
    "prefixItems": (nonempty, _first),
    "items": (_schema, _both),
    "minItems": (_count, max),
    "maxItems": (_count, min),
    "uniqueItems": (_flag, lambda one, other: one or other),
}

# What a schema without `type` is about, by the keywords it has.
IMPLIED = {
    "object": ("properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def read(part: Schema) -> Schema:
    """The plain keywords of one schema that mean something; older spellings become today's."""
    said: Schema = {}
    for key in part:
        if key in _KEYWORDS and (value := _KEYWORDS[key][0](part[key])) is not None:
            said[key] = value
    if "const" in part:
        said["enum"] = [part["const"]]
    if "default" in part:
        said["examples"] = [part["default"], *said.get("examples", ())]
    if isinstance(part.get("items"), list):  # draft 7: a tuple
        said |= {"prefixItems": part["items"], "items": _schema(part.get("additionalItems", True))}
    for bound in ("Minimum", "Maximum"):  # draft 4: a flag beside the bound
        if part.get(f"exclusive{bound}") is True and bound.lower() in said:
            said[f"exclusive{bound}"] = said[bound.lower()]
    return said


def merge(said: Schema, more: Schema) -> None:
    for key, value in more.items():
        said[key] = _KEYWORDS[key][1](said[key], value) if key in said else value


def has_keywords(schema: Any) -> bool:
    """Whether `schema` has keywords; True and garbage allow anything, False nothing."""
    return isinstance(schema, dict)


def same(one: Any, other: Any) -> bool:
    try:
        return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)  # in JSON, true is not 1
    except RecursionError:  # nested as deep as the JSON parser goes
        return False


def exact(number: float) -> Fraction:
    return Fraction(str(number))  # as it was written: 0.1 is a tenth


def fits_plainly(value: Any, said: Schema) -> bool:
    if "type" in said and not any(_KINDS[kind](value) for kind in said["type"]):
        return False
    if "enum" in said and not any(same(value, choice) for choice in said["enum"]):
        return False
    if isinstance(value, str):
        return "pattern" not in said and said.get("minLength", 0) <= len(value) <= said.get("maxLength", math.inf)
    if isinstance(value, list):
        if said.get("uniqueItems") and (len(value) > MOST or any(same(*pair) for pair in combinations(value, 2))):
            return False
        return bool(said.get("minItems", 0) <= len(value) <= said.get("maxItems", math.inf))
    if isinstance(value, dict):
        within = said.get("minProperties", 0) <= len(value) <= said.get("maxProperties", math.inf)
        return within and all(name in value for name in said.get("required", ()))
    return not _is_number(value) or _fits_bounds(value, said)


def _fits_bounds(value: float, said: Schema) -> bool:
    return bool(
        said.get("minimum", -math.inf) <= value <= said.get("maximum", math.inf)
        and said.get("exclusiveMinimum", -math.inf) < value < said.get("exclusiveMaximum", math.inf)
        and ("multipleOf" not in said or exact(value) % exact(said["multipleOf"]) == 0)
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == value // 1,
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
