"""Values for schemas: held against a checker of their own, on schemas as agents send them, made up, and hostile."""

import math
import re
import time
from datetime import date, datetime
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.simulator.schema_example import example, tool_input

# A checker that shares nothing with the maker: raises AssertionError with the path at fault.

_PYTHON = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def check(value: Any, schema: Any, root: Any = None, path: str = "$") -> None:
    root = schema if root is None else root
    if isinstance(schema, bool):
        assert schema, path
        return
    if "$ref" in schema:
        place = root
        for step in schema["$ref"].split("/")[1:]:
            place = place[step.replace("~1", "/").replace("~0", "~")]
        check(value, place, root, path)
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(is_a(value, name) for name in types) or (value is None and schema.get("nullable")), (path, value)
    if "enum" in schema:
        assert value in schema["enum"], (path, value)
    if "const" in schema:
        assert value == schema["const"], (path, value)
    check_branches(value, schema, root, path)
    if isinstance(value, dict):
        check_object(value, schema, root, path)
    elif isinstance(value, list):
        check_array(value, schema, root, path)
    elif isinstance(value, str):
        assert schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf), (path, value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        check_number(value, schema, path)


def check_branches(value: Any, schema: dict[str, Any], root: Any, path: str) -> None:
    for part in schema.get("allOf", ()):
        check(value, part, root, path)
    if "anyOf" in schema:
        assert count_fitting(value, schema["anyOf"], root) >= 1, (path, value)
    if "oneOf" in schema:
        assert count_fitting(value, schema["oneOf"], root) == 1, (path, value)


def is_a(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (name == "number" or value == int(value))
    return isinstance(value, _PYTHON[name])


def count_fitting(value: Any, branches: list[Any], root: Any) -> int:
    count = 0
    for branch in branches:
        try:
            check(value, branch, root)
        except AssertionError:
            continue
        count += 1
    return count


def check_object(value: dict[str, Any], schema: dict[str, Any], root: Any, path: str) -> None:
    for name in schema.get("required", ()):
        assert name in value, f"{path} lacks {name}"
    assert schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf), (path, value)
    for name, item in value.items():
        rule = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
        check(item, rule, root, f"{path}.{name}")


def check_array(value: list[Any], schema: dict[str, Any], root: Any, path: str) -> None:
    assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf), (path, value)
    prefix = schema.get("prefixItems", [])
    for index, item in enumerate(value):
        rule = prefix[index] if index < len(prefix) else schema.get("items", True)
        check(item, rule, root, f"{path}[{index}]")


def check_number(value: float, schema: dict[str, Any], path: str) -> None:
    assert schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf), (path, value)
    assert schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf), (path, value)
    if "multipleOf" in schema:
        quotient = value / schema["multipleOf"]
        assert math.isclose(quotient, round(quotient), abs_tol=1e-6), (path, value)


# Schemas as agents and their frameworks send them.

_STR = {"type": "string"}


def tool(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


_TREE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {
        "Node": tool(
            {"name": _STR, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}, "name", "children"
        )
    },
    **tool({"root": {"$ref": "#/$defs/Node"}}, "root"),
}
_EXPRESSION = {
    "definitions": {
        "expr": {"oneOf": [{"$ref": "#/definitions/binary"}, {"$ref": "#/definitions/leaf"}]},
        "binary": tool(
            {
                "op": {"enum": ["and", "or"]},
                "left": {"$ref": "#/definitions/expr"},
                "right": {"$ref": "#/definitions/expr"},
            },
            "op",
            "left",
            "right",
            additionalProperties=False,
        ),
        "leaf": tool({"field": _STR, "value": {"type": ["string", "number", "boolean"]}}, "field", "value"),
    },
    **tool({"where": {"$ref": "#/definitions/expr"}, "limit": {"type": "integer", "default": 50}}, "where"),
}
TOOLS: dict[str, dict[str, Any]] = {
    "bash": tool(
        {"command": _STR, "timeout": {"type": "number", "maximum": 600000}, "run_in_background": {"type": "boolean"}},
        "command",
        additionalProperties=False,
    ),
    "read": tool(
        {
            "file_path": {"type": "string", "description": "absolute"},
            "offset": {"type": "integer", "minimum": 0, "maximum": 9007199254740991},
            "limit": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991},
        },
        "file_path",
        additionalProperties=False,
    ),
    "edit": tool(
        {"path": _STR, "old": _STR, "new": _STR, "replace_all": {"type": "boolean", "default": False}},
        "path",
        "old",
        "new",
    ),
    "todo": tool(
        {
            "todos": {
                "type": "array",
                "items": tool(
                    {
                        "content": {"type": "string", "minLength": 1},
                        "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
                        "activeForm": {"type": "string", "minLength": 1},
                    },
                    "content",
                    "status",
                    "activeForm",
                    additionalProperties=False,
                ),
            }
        },
        "todos",
    ),
    "ask": tool(
        {
            "questions": {
                "type": "array",
                "minItems": 1,
                "maxItems": 4,
                "items": tool(
                    {
                        "question": _STR,
                        "header": {"type": "string", "maxLength": 12},
                        "options": {
                            "type": "array",
                            "minItems": 2,
                            "maxItems": 4,
                            "items": tool({"label": _STR, "description": _STR}, "label", "description"),
                        },
                        "multiSelect": {"type": "boolean", "default": False},
                    },
                    "question",
                    "header",
                    "options",
                    "multiSelect",
                ),
            },
            "answers": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": _STR},
        },
        "questions",
    ),
    "fetch": tool({"url": {"type": "string", "format": "uri"}, "prompt": _STR}, "url", "prompt"),
    "search": tool(
        {
            "query": {"type": "string", "minLength": 2},
            "allowed_domains": {"type": "array", "items": _STR},
            "blocked_domains": {"type": "array", "items": _STR},
        },
        "query",
    ),
    "weather": tool({"location": _STR, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, "location"),
    "no_arguments": {"type": "object", "properties": {}},
    "bare": {"type": "object"},
    "closed": {"type": "object", "properties": {}, "additionalProperties": False},
    "untyped": {"properties": {"q": {}, "n": {"minimum": 3}}, "required": ["q", "n"]},
    "pydantic_optional": tool(
        {
            "name": {"title": "Name", "type": "string"},
            "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None, "title": "Age"},
            "tags": {"items": {"type": "string"}, "type": "array", "uniqueItems": True, "default": []},
        },
        "name",
        title="Person",
    ),
    "pydantic_nested": {
        "$defs": {
            "Address": tool({"street": _STR, "zip": {"type": "string"}}, "street", "zip"),
            "Kind": {"enum": ["home", "work"], "type": "string", "title": "Kind"},
        },
        **tool(
            {
                "address": {"$ref": "#/$defs/Address"},
                "kind": {"allOf": [{"$ref": "#/$defs/Kind"}], "default": "home"},
                "others": {"type": "array", "items": {"$ref": "#/$defs/Address"}, "maxItems": 3},
            },
            "address",
            "kind",
        ),
    },
    "discriminated": tool(
        {
            "action": {
                "oneOf": [
                    tool(
                        {"type": {"const": "click"}, "x": {"type": "integer"}, "y": {"type": "integer"}},
                        "type",
                        "x",
                        "y",
                    ),
                    tool({"type": {"const": "type"}, "text": _STR}, "type", "text"),
                    tool({"type": {"const": "wait"}, "seconds": {"type": "number", "minimum": 0.1}}, "type"),
                ]
            }
        },
        "action",
    ),
    "computer": tool(
        {
            "action": {"type": "string", "enum": ["key", "type", "mouse_move", "screenshot"]},
            "coordinate": {
                "type": "array",
                "prefixItems": [{"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 0}],
                "items": False,
                "minItems": 2,
                "maxItems": 2,
            },
        },
        "action",
        "coordinate",
    ),
    "calendar": tool(
        {
            "day": {"type": "string", "format": "date"},
            "start": {"type": "string", "format": "date-time"},
            "attendees": {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 1},
            "id": {"type": "string", "format": "uuid"},
        },
        "day",
        "start",
        "attendees",
        "id",
    ),
    "payment": tool(
        {
            "amount": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.01, "maximum": 99.99},
            "currency": {"type": "string"},
            "quantity": {"type": "integer", "minimum": 1, "maximum": 3},
        },
        "amount",
        "currency",
        "quantity",
    ),
    "free_map": tool({"env": {"type": "object", "additionalProperties": {"type": "string"}}}, "env"),
    "enum_map": tool(
        {
            "scores": {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "minProperties": 2,
            }
        },
        "scores",
    ),
    "either_path_or_url": tool({"path": _STR, "url": _STR}, oneOf=[{"required": ["path"]}, {"required": ["url"]}]),
    "any_of_top": {
        "anyOf": [{"type": "string"}, tool({"id": {"type": "integer"}}, "id"), tool({"name": _STR}, "name")],
    },
    "all_of_top": {
        "allOf": [tool({"a": {"type": "integer", "minimum": 5}}, "a"), tool({"a": {"maximum": 6}, "b": _STR}, "b")],
    },
    "openapi": tool(
        {"note": {"type": "string", "nullable": True, "default": None}, "size": {"type": "integer", "format": "int32"}},
        "note",
        "size",
    ),
    "sql": tool({"statement": {"type": "string", "examples": ["SELECT 1"]}, "params": {"type": "array"}}, "statement"),
    "type_list": tool(
        {"value": {"type": ["string", "integer", "null"]}, "flag": {"type": ["boolean"]}}, "value", "flag"
    ),
    "anything": tool({"payload": True, "other": {}}, "payload", "other", minProperties=2),
    "tree": _TREE,
    "expression": _EXPRESSION,
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_gets_an_input_that_its_schema_allows(name: str) -> None:
    for seed in range(40):
        value = tool_input(TOOLS[name], Random(seed))
        assert isinstance(value, dict)
        check(value, TOOLS[name])
        assert orjson.loads(orjson.dumps(value)) == value


def test_the_same_random_state_gives_the_same_value_and_others_vary() -> None:
    for schema in TOOLS.values():
        assert example(schema, Random(3)) == example(schema, Random(3))
    assert len({orjson.dumps(example(TOOLS["weather"], Random(seed))) for seed in range(20)}) > 5


def test_what_is_required_is_always_there_and_what_is_optional_sometimes() -> None:
    inputs = [tool_input(TOOLS["bash"], Random(seed)) for seed in range(40)]
    assert all("command" in value for value in inputs)
    assert {"timeout" in value for value in inputs} == {True, False}


def test_an_authors_own_value_is_preferred_only_where_it_fits() -> None:
    assert example({"type": "integer", "default": 50}, Random(0)) == 50
    assert isinstance(example({"type": "string", "default": 7}, Random(0)), str)
    assert example({"type": "integer", "minimum": 10, "default": 3}, Random(0)) >= 10
    assert example({"type": "array", "items": {"type": "integer"}, "default": ["a"]}, Random(0)) != ["a"]


def test_formats_give_what_they_are_called() -> None:
    for seed in range(20):
        made = {
            name: example({"type": "string", "format": name}, Random(seed)) for name in ("date", "date-time", "uuid")
        }
        assert date.fromisoformat(made["date"])
        assert datetime.fromisoformat(made["date-time"]).tzinfo is not None
        assert UUID(made["uuid"]).version == 4
        assert re.fullmatch(r"[\w.]+@[\w.]+", example({"format": "email", "type": "string"}, Random(seed)))
        assert example({"format": "uri", "type": "string"}, Random(seed)).startswith("https://example.com/")


# Made up: schemas that can be satisfied, by construction.

_NAMES = st.sampled_from(["a", "b", "c", "d/e", "f~g"])


@st.composite
def integers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-1000, 1000))
    schema: dict[str, Any] = {"type": "integer", "minimum": low, "exclusiveMaximum": low + draw(st.integers(8, 50))}
    return schema | draw(st.sampled_from([{}, {"multipleOf": 3}, {"multipleOf": 0.5}, {"exclusiveMinimum": low}]))


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.floats(-1e6, 1e6))
    return {"type": "number", "minimum": low, "maximum": low + draw(st.floats(0, 10))}


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(0, 40))
    return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 10))}


@st.composite
def arrays(draw: st.DrawFn, items: st.SearchStrategy[Any]) -> dict[str, Any]:
    least = draw(st.integers(0, 4))
    schema = {"type": "array", "minItems": least, "maxItems": least + draw(st.integers(0, 2)), "items": draw(items)}
    return schema | ({"prefixItems": [draw(items)]} if draw(st.booleans()) else {})


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(_NAMES, inner, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    return schema | draw(
        st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "null"}}])
    )


SCALARS = st.one_of(
    integers(),
    numbers(),
    strings(),
    st.just({"type": "boolean"}),
    st.just({"type": ["null", "string"]}),
    st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=3), st.none()), min_size=1).map(
        lambda some: {"enum": some}
    ),
    st.sampled_from([{}, True, {"const": None}, {"const": {"a": [1]}}]),
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        arrays(inner),
        objects(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
        inner.map(lambda one: {"allOf": [one, {}, True]}),
        inner.map(lambda one: {"anyOf": [False, one]}),
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(SCHEMAS, st.integers(0, 1000))
def test_whatever_can_be_satisfied_is(schema: Any, seed: int) -> None:
    check(example(schema, Random(seed)), schema)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(SCHEMAS, min_size=1, max_size=3), st.integers(0, 1000))
def test_references_lead_where_they_point(parts: list[Any], seed: int) -> None:
    schema = {
        "$defs": {f"p/{index}": part for index, part in enumerate(parts)},
        "type": "object",
        "properties": {f"p{index}": {"$ref": f"#/$defs/p~1{index}"} for index in range(len(parts))},
        "required": [f"p{index}" for index in range(len(parts))],
    }
    check(example(schema, Random(seed)), schema)


# Hostile: nothing raises, nothing takes long, everything can be written as JSON.

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
_KEYWORDS = [
    *("type", "enum", "const", "default", "examples", "nullable", "not", "allOf", "anyOf", "oneOf", "$ref", "$defs"),
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"),
    *("properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties", "format"),
    *("prefixItems", "items", "additionalItems", "minItems", "maxItems", "uniqueItems", "definitions"),
]
_TELLING = st.sampled_from(
    [
        "object",
        "array",
        "string",
        "integer",
        "number",
        "null",
        "#",
        "#/$defs/a",
        "#/properties/a",
        "date",
        10**9,
        -1,
        True,
    ]
)
GARBAGE = st.recursive(
    st.one_of(JSON, _TELLING),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from([*_KEYWORDS, "a", "b"]), st.one_of(inner, _TELLING), max_size=6),
        st.lists(inner, max_size=4),
    ),
    max_leaves=25,
)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, derandomize=True)
@given(GARBAGE)
def test_no_schema_is_so_broken_that_it_raises(schema: Any) -> None:
    example(schema, Random(0))
    orjson.dumps(tool_input(schema, Random(0)))


def nested(depth: int, key: str, *, listed: bool = False) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {key: [schema]} if listed else {key: schema}
    return schema


def deep_list(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def forever(*required: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"$ref": "#"} for name in required}, "required": list(required)}


HOSTILE: dict[str, Any] = {
    "endless arrays": {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9, "items": {}}},
    "an endless text": {"type": "string", "minLength": 10**12},
    "endless properties": {"type": "object", "minProperties": 10**9, "additionalProperties": {"type": "string"}},
    "an object that must hold itself": forever("a"),
    "an object that must hold itself often": forever(*"abcdefgh"),
    "a reference to itself": {"$ref": "#"},
    "references in a ring": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a reference to nowhere": {"$ref": "#/$defs/nobody"},
    "a reference abroad": {"$ref": "https://example.com/schema.json"},
    "branches of itself": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "all of itself": {"allOf": [{"$ref": "#"}] * 50, "oneOf": [{"$ref": "#"}] * 50},
    "deep allOf": nested(900, "allOf", listed=True),
    "deep anyOf": nested(900, "anyOf", listed=True),
    "deep not": nested(900, "not"),
    "deep items": nested(900, "items"),
    "wide": {
        "properties": {f"p{n}": {"enum": [1, 2]} for n in range(50_000)},
        "required": [f"p{n}" for n in range(50_000)],
    },
    "many choices": {"allOf": [{"anyOf": [{"minimum": n}, {"maximum": n}]} for n in range(2_000)]},
    "contradictions": {"allOf": [{"anyOf": [{"const": n}, {"const": -n}]} for n in range(1, 60)]},
    "a large enum twice": {"allOf": [{"enum": list(range(100_000))}, {"enum": list(range(100_000))}]},
    "huge bounds": {"type": "integer", "minimum": 1e299, "maximum": 1e300},
    "bounds beyond floats": {"type": "number", "minimum": 10**400},
    "a tiny step": {"type": "number", "multipleOf": 5e-324},
    "bounds the wrong way round": {"type": "integer", "minimum": 9, "maximum": 1},
    "nothing at all": {"type": "object", "properties": {"a": False}, "required": ["a"], "additionalProperties": False},
    "deep values": {
        "allOf": [{"enum": [deep_list(1000), 1]}, {"enum": [deep_list(1000), 1]}],
        "default": deep_list(900),
    },
    "many optional properties": {"properties": {f"p{n}": {"enum": [1, 2]} for n in range(50_000)}},
    "many branches": {"anyOf": [{"type": "string", "maxLength": n} for n in range(50_000)]},
    "a slow pattern": {"type": "string", "pattern": "^(a+)+$" * 20, "minLength": 4_000},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_ends_soon_in_something_that_can_be_sent(name: str) -> None:
    start = time.process_time()
    value = tool_input({"type": "object", "properties": {"it": HOSTILE[name]}, "required": ["it"]}, Random(0))
    orjson.dumps(value)
    orjson.dumps(tool_input(HOSTILE[name], Random(0)))
    assert time.process_time() - start < 5  # they take a fraction of a second each; unbounded ones would never end


@pytest.mark.parametrize(
    "schema", [None, True, False, 5, "x", [], {}, {"type": "string"}, {"type": "array"}, {"const": 3}]
)
def test_a_tool_gets_an_object_whatever_its_schema_is(schema: Any) -> None:
    assert isinstance(tool_input(schema, Random(0)), dict)
