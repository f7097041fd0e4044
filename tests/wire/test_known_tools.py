"""The cache of tools: with it and without it, each body gives the same request or the same error."""

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.engines.openai.chat_request import encode, encode_body, encode_in_steps, to_chat
from anthro_asgi.engines.openai.dialects import DIALECTS, Dialect
from anthro_asgi.wire import known_tools
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.known_tools import LIMIT, SharedTools, ToolCache
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import MessagesRequest, Tool, parse_request
from anthro_asgi.wire.request_policy import Rules
from tests.support.chat_requests import every_dialect
from tests.wire.strategies import VALUES, Json, examples

HELLO: Json = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
LONG = "It does what its name says. " * 50


def tool(name: str = "look", **more: Any) -> Json:
    return {"name": name, "description": LONG, "input_schema": {"type": "object", "properties": {}}, **more}


def outcome(body: bytes, **options: Any) -> Any:
    """The request with its body, or the error."""
    try:
        request = parse_request(body, **options)
    except ApiError as exc:
        return type(exc), exc.message
    return request, request.raw, request.ignored, request.relay_only, request.body_size


def shared(request: MessagesRequest) -> bool:
    return isinstance(request.tools, SharedTools)


def twice(body: bytes, **options: Any) -> MessagesRequest:
    cache: ToolCache[Tool] = ToolCache("a mark")
    parse_request(body, cache=cache, **options)
    return parse_request(body, cache=cache, **options)


def test_the_tools_of_the_second_request_are_those_of_the_first() -> None:
    cache: ToolCache[Tool] = ToolCache("a mark")
    bodies = [orjson.dumps({**HELLO, "temperature": number, "tools": [tool()]}) for number in (0.1, 0.2, 0.3)]
    requests = [parse_request(body, cache=cache) for body in bodies]
    assert [shared(request) for request in requests] == [False, True, True]
    assert requests[1].tools is requests[2].tools
    assert [request.temperature for request in requests] == [0.1, 0.2, 0.3]
    assert requests[2].raw == orjson.loads(bodies[2])
    assert shared(parse_request(bodies[0], counting=True, cache=cache))


ENTRIES = st.sampled_from(
    [
        tool(),
        tool("other", strict=True, defer_loading=False),
        tool("later", defer_loading=True),
        tool("bad name"),
        tool("big", input_schema={"type": "object", "maximum": 2**70}),
        tool("deep", input_schema={"type": "object", "a": {"b": {"c": {"d": [[]]}}}}),
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "tool_search_tool_regex", "name": "tool_search_tool_regex"},
        {"type": "unknown_20250124", "name": "unknown"},
        {"name": "small"},
        7,
    ]
)
TOOLS = st.lists(ENTRIES, min_size=1, max_size=3) | VALUES
FIELDS = st.sampled_from(["tools", "messages", "system", "metadata", "model", "max_tokens", "tool_choice", "junk"])
RULES = st.sampled_from(
    [
        Rules(),
        Rules(max_depth=4),
        Rules(drop_server_tools=True, client_tools_as_functions=True, max_tools=2),
        Rules(pass_server_tools=True),
    ]
)


def written(fields: list[tuple[str, Any]], between: tuple[str, str]) -> bytes:
    """A JSON object with these fields, of which some may have the same name."""
    comma, colon = between
    pairs = (f"{orjson.dumps(key).decode()}{colon}{encode(value).decode()}" for key, value in fields)
    return ("{" + comma.join(pairs) + "}").encode()


@given(
    st.lists(st.tuples(TOOLS, st.lists(st.tuples(FIELDS, VALUES | TOOLS), max_size=2), st.permutations(range(4)))),
    st.sampled_from([(",", ":"), (", ", ": "), (",\n", " : ")]),
    RULES,
    st.booleans(),
)
@examples(400)
def test_each_body_gives_the_same_as_without_the_cache(
    cases: list[tuple[Any, list[tuple[str, Any]], list[int]]], between: tuple[str, str], rules: Rules, counting: bool
) -> None:
    cache: ToolCache[Tool] = ToolCache("a mark")
    for tools, more, order in cases:
        use = {"type": "tool_use", "id": "a", "name": "look", "input": {"tools": tools}}
        fields = [*HELLO.items(), ("tools", tools)]
        turns = [*HELLO["messages"], {"role": "assistant", "content": [use]}]
        shuffled = [fields[place] for place in order]
        for body in (written(shuffled, between), written([*shuffled, ("messages", turns), *more], between)):
            for cut in (body, body.replace(b"look", b"l\\ud800k"), body[:-1], body[: len(body) // 2]):
                options = {"rules": rules, "counting": counting}
                for _ in range(2):
                    assert outcome(cut, cache=cache, **options) == outcome(cut, **options)


@pytest.mark.parametrize(
    "body",
    [
        b'{"tools":%(b)s,"tools":%(a)s,%(hello)s}',
        b'{"tools":%(a)s,"tools":%(b)s,%(hello)s}',
        b'{"junk":{"tools":%(a)s},"tools":%(b)s,%(hello)s}',
        b'{"junk":{"tools":%(a)s},%(hello)s}',
        b'{"x\\"tools":%(a)s,"tools":%(b)s,%(hello)s}',
        b'{"tools":%(a)s ,%(hello)s}',
        b'{"tools":%(a)s]%(hello)s}',
        b'{"tools":%(a)s7,%(hello)s}',
        b'{"tools":%(a)s',
        b'[{"tools":%(a)s}]',
    ],
)
def test_known_bytes_in_another_place_are_not_taken_for_the_tools(body: bytes) -> None:
    a, b = orjson.dumps([tool("a")]), orjson.dumps([tool("b")])
    hello = orjson.dumps(HELLO)[1:-1]
    cache: ToolCache[Tool] = ToolCache("a mark")
    parse_request(b'{"tools":%b,%b}' % (a, hello), cache=cache)
    assert shared(parse_request(b'{"tools":%b,%b}' % (a, hello), cache=cache))
    for _ in range(2):
        text = body % {b"a": a, b"b": b, b"hello": hello}
        assert outcome(text, cache=cache) == outcome(text)


@pytest.mark.parametrize("place", ["name", "description", "input_schema", "strict"])
def test_definitions_of_the_same_length_that_differ_in_one_place_are_not_taken_for_known_ones(place: str) -> None:
    one = tool("a", input_schema={"type": "object", "x": 1}, strict=True)
    other = {
        "name": {**one, "name": "b"},
        "description": {**one, "description": LONG[:-2] + "!" + LONG[-1:]},
        "input_schema": {**one, "input_schema": {"type": "object", "x": 2}},
        "strict": {**one, "strict": None},
    }[place]
    bodies = [orjson.dumps({**HELLO, "tools": [entry]}) for entry in (one, other)]
    assert len(bodies[0]) == len(bodies[1])
    cache: ToolCache[Tool] = ToolCache("the mark")
    parse_request(bodies[0], cache=cache)
    assert outcome(bodies[1], cache=cache) == outcome(bodies[1])


def test_what_is_kept_of_a_nested_field_has_its_own_values() -> None:
    """Python finds `1 == true`: the definitions of one client must not become those of another."""
    one, true = tool(input_schema={"type": "object", "x": 1}), tool(input_schema={"type": "object", "x": True})
    cache: ToolCache[Tool] = ToolCache("a mark")
    for body in ({"junk": {"tools": [true]}, **HELLO, "tools": [one]}, {**HELLO, "tools": [true]}):
        request = parse_request(orjson.dumps(body), cache=cache)
    assert request.tools[0].input_schema is not None
    assert request.tools[0].input_schema["x"] is True


@pytest.mark.parametrize(
    ("tools", "rules"),
    [
        ([{"name": "small"}], Rules()),
        ([tool(), {"type": "web_search_20250305", "name": "w"}], Rules(pass_server_tools=True)),
        ([tool(), {"type": "code_execution_20250522", "name": "c"}], Rules(drop_server_tools=True)),
        ([tool(), {"type": "tool_search_tool_regex", "name": "tool_search_tool_regex"}], Rules()),
        ([tool(input_schema={"type": "object", "a": {"b": [[]]}})], Rules(max_depth=5)),
    ],
)
def test_tools_that_the_rules_change_or_that_are_small_or_deep_are_not_kept(tools: list[Any], rules: Rules) -> None:
    assert not shared(twice(orjson.dumps({**HELLO, "tools": tools}), rules=rules))


def test_the_cache_has_a_limit_in_bytes_and_forgets_the_oldest() -> None:
    names = [f"t{number}" for number in range(known_tools._MOST + 1)]
    bodies = [orjson.dumps({**HELLO, "tools": [tool(name)]}) for name in names]
    cache: ToolCache[Tool] = ToolCache("a mark")
    for body in (*bodies[:-1], bodies[0], bodies[-1]):
        parse_request(body, cache=cache)
    assert shared(parse_request(bodies[0], cache=cache))
    assert not shared(parse_request(bodies[1], cache=cache))
    small: ToolCache[Tool] = ToolCache("a mark", 4 * len(bodies[0]))
    for _ in range(2):
        assert not shared(parse_request(bodies[0], cache=small))


@pytest.mark.parametrize("value", ['{"a":[{}]}', '"漢字"', "[1.5,2]", '{"p%d":""}'])
def test_a_full_cache_takes_no_more_memory_than_its_limit(value: str) -> None:
    def body(number: int) -> bytes:
        values = ",".join([value] * 4000).encode()
        entry = b'{"name":"t%d","input_schema":{"type":"object","x":[%b]}}' % (number, values)
        return b'{"tools":[%b],%b' % (entry, orjson.dumps(HELLO)[1:])

    cache: ToolCache[Tool] = ToolCache("a mark")
    parse_request(body(0))
    tracemalloc.start()
    for number in range(known_tools._MOST):
        parse_request(body(number), cache=cache)
        request = parse_request(body(number), cache=cache)
        encode_body(to_chat(request, DIALECTS["vllm"]))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert shared(request)
    assert kept <= LIMIT


@every_dialect
@pytest.mark.parametrize("text", ["Hi", "\ud800"])
def test_the_engine_gets_the_same_bytes(dialect: Dialect, text: str) -> None:
    tools = [tool(strict=True), tool("a" * 80 if dialect.longest_tool_name is None else "a"), {"name": "b"}]
    messages = [{"role": "user", "content": "TEXT"}]
    body = orjson.dumps({**HELLO, "messages": messages, "tools": tools})
    request = twice(body)
    assert shared(request)
    other = parse_request(body)
    for one in (request, other):
        one.messages[0]["content"] = text
    for _ in range(2):
        chat = to_chat(request, dialect)
        assert chat == to_chat(other, dialect)
        assert encode_body(chat) == encode(to_chat(other, dialect))
        assert b"".join(run_to_end(encode_in_steps(chat))) == encode(to_chat(other, dialect))
