"""A value that satisfies a JSON Schema: what a simulated engine hands to a tool.

Theory. A value is made in three steps:

1. *flatten*: a schema and all it leans on (`$ref`, `allOf`, one branch of each `anyOf` and `oneOf`) become one dict of
   plain keywords, each in one form and of the right type. A branch that contradicts the rest gives way to the next;
2. *wish*: a value that the author wrote down (`const`, `enum`, `default`, `examples`) is taken if it fits;
3. *make*: else one is made for the type that was said, or that the keywords imply.

Rules. Nothing raises: a client's schema is passed on and never judged (contract section 3), so a keyword of the wrong
type says nothing, and where nothing fits something of the right kind is given. Work, depth and sizes are bounded, so a
hostile schema costs little: below `_SHALLOW` levels only what is required is made, and of several branches the one that
ends soonest, which is what makes recursive schemas end. The same schema and random state give the same value.

Not interpreted: `if`, `contains`, `dependent…`, `patternProperties`, `unevaluated…`, references to other documents.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import zip_longest
from random import Random
from typing import Any
from urllib.parse import unquote

from .schema_keywords import IMPLIED, MOST, Schema, exact, fits_plainly, has_keywords, merge, nonempty, read, same
from .schema_texts import FORMATS, LONGEST, WORDS, matching

_WORK = 20_000  # keywords looked at, per value asked for
_DEPTH = 32
_SHALLOW = 4
_TRIES = 8
_ENDLESS = 1_000
_SCALARS = ("null", "boolean", "integer", "number", "string")


def example(schema: Any, rng: Random) -> Any:
    """A value that satisfies `schema` (JSON Schema 2020-12 or an older draft), as parsed JSON. Never raises."""
    return _Maker(schema, rng).value(schema)


def tool_input(schema: Any, rng: Random) -> dict[str, Any]:
    """Like `example`, but always an object, as a tool's input is; `{}` where the schema allows no object."""
    value = _Maker(schema, rng).value({"allOf": [schema, {"type": "object"}]})
    return value if isinstance(value, dict) else {}


class _Maker:
    """One value's making: where references lead, and how much work is left."""

    def __init__(self, root: Any, rng: Random) -> None:
        self.root = root
        self.rng = rng
        self.work = _WORK
        self.heights: dict[int, tuple[Schema, int]] = {}  # by id; the schema is kept so that its id stays its own

    def value(self, schema: Any, depth: int = 0, *, wishes: bool = True) -> Any:
        """A value for `schema`. Without `wishes` the author's own are passed over, where different ones are needed."""
        if depth > _DEPTH or not self._afford(schema):
            return None
        value = None
        for attempt in range(_TRIES):  # again only when `not` or `oneOf` refuses what was made
            level = depth if attempt == 0 else max(depth, _SHALLOW)  # fewer properties match fewer branches
            said = self._flatten(schema, level)
            if said is None:
                continue
            value = self._made(said, level, wishes)
            if not self._refused(value, said):
                break
        return value

    def _afford(self, schema: Any) -> bool:
        size = (
            sum(len(value) for value in schema.values() if isinstance(value, dict | list))
            if has_keywords(schema)
            else 0
        )
        self.work -= 1 + size
        return self.work > 0

    # flatten

    def _flatten(self, schema: Any, depth: int, said: Schema | None = None) -> Schema | None:
        """`schema` and what was already `said` as one dict of plain keywords; None when they contradict each other."""
        said = dict(said or {})
        pending, seen, choices = [schema], dict[int, Schema](), list[list[Any]]()
        while pending:
            part = pending.pop()
            if part is False:
                return None
            if not has_keywords(part) or id(part) in seen or not self._afford(part):
                continue
            seen[id(part)] = part
            pending += self._leans_on(part)
            choices += [part[key] for key in ("anyOf", "oneOf") if nonempty(part.get(key))]
            merge(said, read(part))
            if one := nonempty(part.get("oneOf")):
                said["exclusive"] = [*said.get("exclusive", ()), one]
        return self._choose(said, choices, depth) if self._possible(said) else None

    def _choose(self, said: Schema, choices: list[list[Any]], depth: int) -> Schema | None:
        """One branch of each of `choices` that agrees with `said` and with the others; None when none do."""
        if not choices or depth > _DEPTH:
            return said
        for branch in self._ordered(choices[0], depth):
            chosen = self._flatten(branch, depth + 1, said)
            if chosen is not None and (chosen := self._choose(chosen, choices[1:], depth + 1)) is not None:
                return chosen
        return None

    def _ordered(self, branches: list[Any], depth: int) -> list[Any]:
        order = self.rng.sample(branches, len(branches))
        return order if depth < _SHALLOW else sorted(order, key=lambda branch: self._height(branch))

    def _leans_on(self, part: Schema) -> list[Any]:
        target = [self._resolve(part["$ref"])] if isinstance(part.get("$ref"), str) else []
        return target + (nonempty(part.get("allOf")) or [])

    def _resolve(self, reference: str) -> Any:
        """What a JSON pointer into this schema means (RFC 6901, as a URI fragment); elsewhere anything goes: `{}`."""
        place = self.root
        document, _, pointer = reference.partition("#")
        for step in pointer.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if has_keywords(place):
                place = place.get(step)
            elif isinstance(place, list) and step.isdecimal() and len(step) < 6:
                place = place[int(step)] if int(step) < len(place) else None
        return {} if document or place is None else place

    def _possible(self, said: Schema) -> bool:
        """Whether anything can be all that `said` says; leaves in it only the `enum` values that can."""
        if said.get("type") == []:
            return False
        if "enum" in said:
            others = {key: rule for key, rule in said.items() if key != "enum"}
            said["enum"] = [value for value in said["enum"] if self.fits(value, others)]
        return said.get("enum") != []

    def _height(self, schema: Any, depth: int = 0) -> int:
        """How many levels of value `schema` forces at the least; `_ENDLESS` for one that never ends."""
        if not has_keywords(schema) or not self._afford(schema):
            return 0
        if depth > _DEPTH:
            return _ENDLESS
        if id(schema) not in self.heights:
            self.heights[id(schema)] = schema, _ENDLESS  # for whoever comes back here from inside
            self.heights[id(schema)] = schema, self._forced(schema, depth + 1)
        return self.heights[id(schema)][1]

    def _forced(self, schema: Schema, depth: int) -> int:
        said = read(schema)
        inner = [said.get("properties", {}).get(name) for name in said.get("required", ())]
        inner += [said.get("items")] if said.get("minItems") else []
        heights = [1 + self._height(part, depth) for part in inner]
        heights += [self._height(part, depth) for part in self._leans_on(schema)]
        for key in ("anyOf", "oneOf"):
            heights += [min(self._height(part, depth) for part in schema[key])] if nonempty(schema.get(key)) else []
        return min(max(heights, default=0), _ENDLESS)

    def _refused(self, value: Any, said: Schema) -> bool:
        if "not" in said and self.fits(value, said["not"]):
            return True
        return any(sum(self.fits(value, branch) for branch in branches) > 1 for branches in said.get("exclusive", ()))

    # make

    def _made(self, said: Schema, depth: int, wishes: bool) -> Any:
        for wish in said.get("examples", ()) if wishes else ():
            if self.fits(wish, said):
                return wish
        if "enum" in said:
            return self.rng.choice(said["enum"])
        return _MAKERS[self._kind(said, depth)](self, said, depth)

    def _kind(self, said: Schema, depth: int) -> str:
        if "type" not in said:
            return next((kind for kind, keys in IMPLIED.items() if any(key in said for key in keys)), "string")
        kinds: list[str] = said["type"]
        if depth >= _SHALLOW:
            return next((kind for kind in _SCALARS if kind in kinds), kinds[0])
        return self.rng.choice([kind for kind in kinds if kind != "null"] or kinds)

    def _object(self, said: Schema, depth: int) -> dict[str, Any]:
        known: Schema = said.get("properties", {})
        extra = said.get("additionalProperties", True)
        wanted = set(said.get("required", ())[:MOST])
        least, most = min(said.get("minProperties", 0), MOST), min(said.get("maxProperties", MOST), MOST)
        optional = [name for name, schema in known.items() if name not in wanted and schema is not False][:MOST]
        chosen = [name for name in optional if depth < _SHALLOW and self.rng.random() < 0.5]
        chosen += [name for name in optional if name not in chosen][: max(0, least - len(wanted) - len(chosen))]
        wanted.update(chosen[: max(0, most - len(wanted))])
        if not known and has_keywords(extra) and depth < _SHALLOW:
            least = max(least, self.rng.randint(1, 2))
        names = [name for name in known if name in wanted] + sorted(wanted - known.keys())
        names += self._new_names(said.get("propertyNames", True), names, min(least, most)) if extra is not False else []
        return {name: self.value(known.get(name, extra), depth + 1) for name in names}

    def _new_names(self, rule: Any, taken: list[str], least: int) -> list[str]:
        names: list[str] = []
        for _ in range(_TRIES * least):
            if len(taken) + len(names) >= least:
                break
            name = self.value(rule, _SHALLOW, wishes=False) if rule is not True else f"{self._word()}_{len(names)}"
            if isinstance(name, str) and name not in taken and name not in names:
                names.append(name)
        return names

    def _array(self, said: Schema, depth: int) -> list[Any]:
        prefix, rest = said.get("prefixItems", []), said.get("items", True)
        least, most = min(said.get("minItems", 0), MOST), min(said.get("maxItems", MOST), MOST)
        most = min(most, len(prefix)) if rest is False else most
        usual = (len(prefix) or self.rng.randint(1, 3)) if depth < _SHALLOW else 0
        unique, items = said.get("uniqueItems", False), list[Any]()
        for index in range(max(least, min(usual, most))):
            schema = prefix[index] if index < len(prefix) else rest
            item = self.value(schema, depth + 1, wishes=not unique)
            for _ in range(_TRIES * _TRIES if unique else 0):
                if not any(same(item, other) for other in items):
                    break
                item = self.value(schema, depth + 1, wishes=False)
            items.append(item)
        return items

    def _string(self, said: Schema, _: int) -> str:
        least, most = min(said.get("minLength", 0), LONGEST), min(said.get("maxLength", LONGEST), LONGEST)
        if "pattern" in said and (text := matching(said["pattern"], self.rng, least, most)) is not None:
            return text
        formatted = FORMATS.get(said.get("format", ""))
        text = formatted(self.rng) if formatted else f"{self._word()} {self._word()}"
        while len(text) < least:
            text += f" {self._word()}"
        return text[:most]

    def _word(self) -> str:
        return self.rng.choice(WORDS)

    def _number(self, said: Schema, steps: Sequence[Fraction]) -> int | float:
        """A multiple of `multipleOf`, or else of the coarsest of `steps` that has one within the bounds."""
        if "multipleOf" in said:
            step = exact(said["multipleOf"])
            steps = [Fraction(step.numerator) if steps is _WHOLE else step]
        for step in steps:
            low, high = _bounds(said, step)
            if low <= high:
                break
        else:
            if steps is _FRACTIONS:  # the bounds are closer to each other than any of them
                return _middle(said)
        number = self.rng.randint(low, max(low, min(high, low + 9_999))) * step
        return int(number) if number.denominator == 1 and abs(number) < 2**53 else float(number)

    # check

    def fits(self, value: Any, schema: Any, depth: int = 0) -> bool:
        """Whether `value` surely satisfies `schema`: False too where that would take long or needs a pattern."""
        if not has_keywords(schema):
            return schema is not False
        if depth > _DEPTH or not self._afford(schema):
            return False
        if value is None and schema.get("nullable") is True:
            return True
        if not all(self.fits(value, part, depth + 1) for part in self._leans_on(schema)):
            return False
        if (some := nonempty(schema.get("anyOf"))) and not any(self.fits(value, part, depth + 1) for part in some):
            return False
        if (one := nonempty(schema.get("oneOf"))) and sum(self.fits(value, part, depth + 1) for part in one) != 1:
            return False
        said = read(schema)
        if "not" in said and self.fits(value, said["not"], depth + 1):
            return False
        return fits_plainly(value, said) and self._fits_inside(value, said, depth + 1)

    def _fits_inside(self, value: Any, said: Schema, depth: int) -> bool:
        if isinstance(value, list):
            prefix, rest = said.get("prefixItems", []), said.get("items", True)
            return all(self.fits(*pair, depth) for pair in zip_longest(value, prefix[: len(value)], fillvalue=rest))
        if isinstance(value, dict):
            known, extra = said.get("properties", {}), said.get("additionalProperties", True)
            return all(self.fits(item, known.get(name, extra), depth) for name, item in value.items()) and all(
                self.fits(name, said.get("propertyNames", True), depth) for name in value
            )
        return True


def _bounds(said: Schema, step: Fraction) -> tuple[int, int]:
    """The first and last multiple of `step` that the bounds of `said` allow."""
    lows = [math.ceil(exact(said["minimum"]) / step)] if "minimum" in said else []
    lows += [math.floor(exact(said["exclusiveMinimum"]) / step) + 1] if "exclusiveMinimum" in said else []
    highs = [math.floor(exact(said["maximum"]) / step)] if "maximum" in said else []
    highs += [math.ceil(exact(said["exclusiveMaximum"]) / step) - 1] if "exclusiveMaximum" in said else []
    low = max(lows, default=min([1, *highs]))
    return low, min(highs, default=low + 99)


def _middle(said: Schema) -> float:
    low = max(exact(said[key]) for key in ("minimum", "exclusiveMinimum") if key in said)
    high = min(exact(said[key]) for key in ("maximum", "exclusiveMaximum") if key in said)
    return float((low + high) / 2)


_WHOLE = (Fraction(1),)
_FRACTIONS = tuple(Fraction(1, 10**digits) for digits in (2, 6, 12, 18))

_MAKERS: dict[str, Callable[[_Maker, Schema, int], Any]] = {
    "object": _Maker._object,
    "array": _Maker._array,
    "string": _Maker._string,
    "integer": lambda maker, said, _: maker._number(said, _WHOLE),
    "number": lambda maker, said, _: maker._number(said, _FRACTIONS),
    "boolean": lambda maker, _, __: maker.rng.random() < 0.5,
    "null": lambda _, __, ___: None,
}
