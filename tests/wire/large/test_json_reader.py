"""Large JSON in pieces: for every document, the result is that of the parser for the whole."""

import gc
import json
import random
import time
from collections.abc import Callable, Generator
from math import inf
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.engines.openai.chat_request import encode, to_chat, to_chat_in_steps
from anthro_asgi.engines.openai.dialects import PLAIN
from anthro_asgi.wire.errors import ApiError, InvalidRequest, RequestTooLarge
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.json_codec import depth_and_rounding, dumps, loads_exactly
from anthro_asgi.wire.large import json_reader, json_writer
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.large.cuts import MARK, Cuts, is_value_mark, whole_marks_until, with_properties
from anthro_asgi.wire.large.json_reader import loads_in_steps
from anthro_asgi.wire.large.json_writer import JoinedText, dumps_in_steps
from anthro_asgi.wire.request import Tool, parse_request, parse_request_in_steps
from anthro_asgi.wire.request_policy import Rules
from anthro_asgi.wire.tool_search import SearchKind, search_tools
from tests.wire.strategies import VALUES, Json, examples

pytestmark = pytest.mark.slow

Outcome = tuple[Any, ...]
LONG = 'A long text, with "quotes", \\backslashes\\, \n lines, ümläuts, 漢字 and 🙂 emoji. '
DATA = "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0" * 9


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small documents count as large."""
    monkeypatch.setattr(json_reader, "_WHOLE", 0)
    monkeypatch.setattr(json_reader, "_WINDOW", 96)
    monkeypatch.setattr(json_reader, "_DENSE_WINDOW", 48)
    monkeypatch.setattr(json_reader, "_DENSE", 12)
    monkeypatch.setattr(json_reader, "_CHUNK", 60)
    monkeypatch.setattr(json_reader, "_LONG", 16)
    monkeypatch.setattr(json_reader, "_LARGE", 32)
    monkeypatch.setattr(json_reader, "_LONG_IF_WIDE", 8)
    monkeypatch.setattr(json_writer, "_PIECE", 96)
    monkeypatch.setattr(json_writer, "_SMALL", 4)


@pytest.fixture
def wholes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The documents that were parsed whole after all."""
    seen: list[bytes] = []
    whole = json_reader._loads_whole

    def noted(pieces: list[bytes], size: int, end: int) -> Any:
        seen.append(b"".join(pieces))
        return whole(pieces, size, end)

    monkeypatch.setattr(json_reader, "_loads_whole", noted)
    return seen


def cut(document: bytes, size: int = 50) -> list[bytes]:
    return [document[start : start + size] for start in range(0, len(document), size)]


def outcome(read: Callable[[], Any]) -> Outcome:
    """The value, with the order of keys and the types of numbers; or the error."""
    try:
        return "read", repr(read())
    except (orjson.JSONDecodeError, ApiError) as exc:
        return type(exc), str(exc), getattr(exc, "pos", None), getattr(exc, "error_code", None)


def read_in_pieces(document: bytes, size: int = 50) -> Any:
    """The value; asserts that it has no more levels than were reported."""
    value, levels = run_to_end(loads_in_steps(cut(document, size)))
    assert depth_and_rounding(value)[0] <= levels
    return value


def same(document: bytes) -> Outcome:
    """The result for the document; asserts that it is the same in pieces and at once."""
    whole = outcome(lambda: loads_exactly(document)[0])
    assert outcome(lambda: read_in_pieces(document)) == whole

    request = outcome(lambda: _with_raw(parse_request(document)))
    assert outcome(lambda: _with_raw(run_to_end(parse_request_in_steps(cut(document))))) == request
    return whole


def _with_raw(request: Any) -> Any:
    return request, request.raw, request.body_size


# conversations, as clients write them


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def conversation(chance: random.Random, turns: int = 12) -> Json:
    """A request of some kilobytes, with long texts and short ones, inputs that look like messages, and images."""
    messages: list[Json] = []
    for number in range(turns):
        text = chance.choice(
            ["Hi", LONG * chance.randrange(12), '{"role":"user"},{"role":', '\\"role\\": \\u0000 \\ud83d']
        )
        source = {"type": "base64", "media_type": "image/png", "data": DATA * chance.randrange(1, 4)}
        said: list[Any] = [text, [{"type": "text", "text": text}], [{"type": "image", "source": source}] * 2]
        messages.append(user(chance.choice(said)))
        inputs: list[Json] = [{}, {"todos": [user("x" * number), {"content": "y", "role": "user"}] * 3}, {"text": text}]
        call = {"type": "tool_use", "id": f"t{number}", "name": "w", "input": chance.choice(inputs)}
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}, call]})
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": chance.choice(["", text, None])}
        messages.append(user([result]))
    tools = [{"name": "w", "input_schema": {"type": "object", "properties": {"messages": {"type": "array"}}}}]
    body = {"model": "m", "max_tokens": 5, "system": LONG, "messages": messages, "tools": tools, "stream": True}
    keys = list(body)
    chance.shuffle(keys)
    return {key: body[key] for key in keys}


def role_last(body: Json) -> Json:
    return {**body, "messages": [{"content": turn["content"], "role": turn["role"]} for turn in body["messages"]]}


WRITERS: dict[str, Callable[[Json], bytes]] = {
    "compact": orjson.dumps,
    "spaced": lambda body: json.dumps(body, ensure_ascii=False).encode(),
    "ascii": lambda body: json.dumps(body).encode(),
    "pretty": lambda body: json.dumps(body, indent=2).encode(),
    "tabs": lambda body: json.dumps(body, indent="\t", separators=(" ,", " :  ")).encode(),
    "role last": lambda body: orjson.dumps(role_last(body)),
    "role last, spaced": lambda body: json.dumps(role_last(body)).encode(),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
def test_a_conversation_is_read_in_pieces_as_at_once(write: Callable[[Json], bytes], wholes: list[bytes]) -> None:
    for seed in range(40):
        body = conversation(random.Random(seed))
        assert same(write(body)) == ("read", repr(body if "last" not in _name(write) else role_last(body)))
    assert wholes == [], "it was never parsed as a whole"


def _name(write: Callable[[Json], bytes]) -> str:
    return next(name for name, known in WRITERS.items() if known is write)


@pytest.mark.parametrize("size", [1, 64 * 1024, 10_000_000])
def test_a_large_body_is_read_in_steps_and_never_at_once(size: int, wholes: list[bytes]) -> None:
    texts = [LONG * 9_000, LONG * 40, DATA * 4_000, "short"]
    body = {"model": "m", "max_tokens": 5, "messages": [user(texts[number % 4]) for number in range(16)]}
    document = orjson.dumps(body)
    assert len(document) > 3_000_000
    steps = loads_in_steps(cut(document, max(size, 4096)))
    count = 0

    def counted() -> Any:
        nonlocal count
        while True:
            count += 1
            try:
                next(steps)
            except StopIteration as stop:
                return stop.value

    assert counted()[0] == body
    assert count > len(document) // json_reader._WINDOW
    assert wholes == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("text", ["plain ", "漢字", "🙂", "größer\n", '"\\', "\u6f22a", "\x00\n\t "], ids=ascii)
@pytest.mark.parametrize("write", [orjson.dumps, lambda body: json.dumps(body).encode()], ids=["utf-8", "ascii"])
def test_nothing_large_is_parsed_at_once(
    text: str, write: Callable[[Json], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = lengths(monkeypatch)
    body = {
        "system": text * 900,
        "messages": [user(text * number) for number in range(1, 900, 30)],
        "model": text * 900,
    }
    document = write(body)
    assert read_in_pieces(document) == body
    assert max(parsed) < 600 < len(document) / 10


def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the size of everything that is given to the parser, in bytes."""
    parsed: list[int] = []

    def watched(document: bytes) -> Any:
        parsed.append(len(document))
        return loads_exactly(document)

    monkeypatch.setattr(json_reader, "loads_exactly", watched)
    return parsed


@pytest.mark.usefixtures("small")
def test_numbers_are_not_taken_for_a_text(wholes: list[bytes]) -> None:
    body = {"messages": [user([[number, -1.5, True, None, {}] for number in range(200)]), user("Hi")], "n": [0] * 999}
    for write in WRITERS.values():
        assert same(write(body))[0] == "read"
    assert wholes == []


@pytest.mark.usefixtures("small")
def test_text_that_looks_like_messages_inside_a_message_is_read_correctly(wholes: list[bytes]) -> None:
    call = {"type": "tool_use", "id": "t", "name": "w", "input": {"messages": [user("a" * 20)] * 30}}
    body = {"messages": [user("Hi"), {"role": "assistant", "content": [call]}, *[user("b" * 30)] * 20]}
    assert same(orjson.dumps(body)) == ("read", repr(body))
    assert wholes == []


# any document


SCRAPS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\xff", b"\xe6\xbc", b" ", b"0", b"e", b"-", b"\n"),
    *(b'{"role":', b'"role":"user"},{', b'},{"role":"user"', b'"messages":[{', b"\\u0000", b"\\ud83d", b"\\ude00"),
    *(b"184467440737095516160", b"-0", b"1e25", b"1e400", b"true", b'"data":"', b"\\\\", b'\\"', b"[" * 120),
]


def mutated(document: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(document))
    to = min(len(document), at + chance.randrange(1, 80))
    scrap = chance.choice(SCRAPS)
    other = chance.randrange(len(document))
    return chance.choice(
        [
            document[:at],
            document[:at] + document[to:],
            document[:at] + scrap + document[at:],
            document[:at] + scrap + document[at + 1 :],
            document[:at] + scrap + document[to:],
            document[:at] + document[other : other + 90] + document[at:],
            document[:at] + document[at:to] * 2 + document[to:],
            b"\xef\xbb\xbf" + document,
            document + scrap,
            document + document,
        ]
    )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
def test_a_changed_document_is_read_in_pieces_as_at_once(write: Callable[[Json], bytes]) -> None:
    chance = random.Random(7)
    seen = {"read": 0, "wrong": 0}
    for seed in range(8):
        document = write(conversation(random.Random(seed), turns=4))
        for _ in range(25):
            what = same(mutated(document, chance))
            seen["read" if what[0] == "read" else "wrong"] += 1
    assert min(seen.values()) > 20


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b'"' + b"x" * 500 + b'"',
        b"1" * 500,
        b"[" + b"1," * 500 + b"1]",
        b'{"' + b"k" * 500 + b'":1}',
        b'{"a":"' + b"x" * 500 + b'","a":1}',
        b'{"a":1,"a":"' + b"x" * 500 + b'"}',
        b'{"a":"' + b"x" * 500 + b'","b":"' + b"y" * 500 + b'","a":"' + b"z" * 500 + b'"}',
        b'{"messages":[{"role":"user","content":"' + b"x" * 500 + b'"}],"messages":[{"role":"user"}]}',
        b'{"messages":[' + b",".join([b'{"role":"user","content":"hi"}'] * 40) + b'],"messages":[1]}',
        b'{"messages":[1],"messages":[' + b",".join([b'{"role":"user","content":"hi"}'] * 40) + b"]}",
        b'{"messages":[' + b",".join([b'{"role":"user","role":"assistant","content":"hi"}'] * 40) + b"]}",
        b'{"messages":[' + b",".join([b'{"role":"user","content":18446744073709551616}'] * 40) + b"]}",
        b'{"messages":[' + b",".join([b'{"role":"user","content":-0}'] * 40) + b",1e30]}",
        b'{"messages":[' + b",".join([b'{"role":"user","content":' + b"[" * 98 + b"]" * 98 + b"}"] * 4) + b"]}",
        b'{"messages":[{"role":"user","content":' + b"[" * 98 + b"]" * 98 + b"}" + b',{"role":"user"}' * 40 + b"]}",
        b'{"messages":[{"role":"user","content":' + b"[" * 97 + b"]" * 97 + b"}" + b',{"role":"user"}' * 40 + b"]}",
        b'{"messages":[{"role":"user","content":' + b"[" * 96 + b"]" * 96 + b"}" + b',{"role":"user"}' * 40 + b"]}",
        b'{"messages":[' + b",".join([b'{"role":"user","content":' + b"[" * 1022 + b"]" * 1022 + b"}"] * 4) + b"]}",
        b'{"messages":[' + b",".join([b'{"role":"user","content":"\\u0000\\ud83d"}'] * 40) + b"]}",
        b'{"messages":[' + b",".join([b'{"role":"user"}'] * 40) + b",]}",
        b'{"messages":[' + b" , ".join([b'{"role":"user"}'] * 40) + b"}",
        b'{"a":"' + b"\\\\" * 300 + b'"}',
        b'{"a":"' + b"\\\\" * 300 + b'\\"}',
        b'{"a":"' + b"\\ud83d\\ude00" * 100 + b'"}',
        b'{"a":"' + b"\\ud83d" * 200 + b'"}',
        b'{"a":"' + b"\\ude00\\ud83d" * 100 + b'"}',
        *(b'{"a":"' + b"x" * n + b"\\\\" * 45 + b"\\ud83d\\ude00" * 9 + b"y" * 300 + b'"}' for n in range(40)),
        *(b'{"a":"' + b"\\\\" * n + b"\\ud83d\\ude00" + b"y" * 300 + b'"}' for n in range(20, 90)),
        b'{"a":"' + "漢".encode() * 300 + b'"}',
        b'{"a":"' + "漢".encode() * 300 + b"\xe6" + b'"}',
        b'{"a":"' + b"x" * 500 + b"\n" + b'"}',
        b'{"a":' + b" " * 500 + b"1}",
    ],
    ids=lambda document: repr(document[:30]) + str(len(document)),
)
def test_an_unusual_document_is_read_in_pieces_as_at_once(document: bytes) -> None:
    same(document)


@pytest.mark.usefixtures("small")
def test_escapes_and_surrogate_halves_are_read_alike_wherever_they_are_cut(wholes: list[bytes]) -> None:
    scraps = ["\\ud83d", "\\ude00", "\\\\", '\\"', "\\n", "\\u6f22", "ud83d", "u", "漢", "🙂", "a", "plain text "]
    for seed in range(80):
        chance = random.Random(seed)
        text = "".join(chance.choices(scraps, k=400))
        assert same(f'{{"a":"{text}","b":["{text}"]}}'.encode())[0] == "read"
    assert wholes == []


@given(st.lists(VALUES, max_size=12), st.integers(1, 300))
@examples(300)
def test_any_value_is_read_in_pieces_as_at_once(values: list[Any], size: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": value} for value in values] * 4, "x": values}
    document = orjson.dumps(body)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_reader, "_WHOLE", 0)
        patched.setattr(json_reader, "_WINDOW", 64)
        patched.setattr(json_reader, "_CHUNK", 30)
        patched.setattr(json_reader, "_LONG", 9)
        read = outcome(lambda: read_in_pieces(document, size))
    assert read == outcome(lambda: loads_exactly(document)[0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("most", [1, 4, 9, 60, 150])
def test_the_depth_limit_holds_in_pieces_too(most: int) -> None:
    """A run is parsed by itself, so the levels around it have to be added."""
    rules = Rules(max_depth=most)
    for levels in (most, most + 1):
        deep: Any = "x" * 300
        for _ in range(levels - 1):
            deep = [deep]
        called = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": deep}}]}
        document = orjson.dumps(
            {"model": "m", "max_tokens": 1, "messages": [user("Hi" * 99)] * 5 + [called] + [user("Ho" * 99)] * 9}
        )
        whole = outcome(lambda: parse_request(document, rules=rules))  # noqa: B023
        assert outcome(lambda: run_to_end(parse_request_in_steps(cut(document), rules=rules))) == whole  # noqa: B023
        assert (whole[0] == "read") is (levels == most)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b'{"a":"' + b"x" * 500 + b'","a":"short"}', {"a": "short"}),
        (b'{"a":1,"b":2,"a":[' + b"0," * 300 + b'0],"c":3}', {"a": [0] * 301, "b": 2, "c": 3}),
        (
            b'{"b":[' + b"0," * 300 + b'0],"b":{"c":[' + b'{"d":1,"d":2},' * 90 + b"{}]}}",
            {"b": {"c": [{"d": 2}] * 90 + [{}]}},
        ),
    ],
    ids=["a cut string", "a container that goes on", "a container twice"],
)
def test_of_a_key_that_occurs_twice_the_last_value_counts(document: bytes, value: Any, wholes: list[bytes]) -> None:
    assert same(document) == ("read", repr(value))
    assert wholes == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("end", [b",]", b",}", b"]]", b"}", b",,1]", b":1]", b" 1]", b"] ]"])
def test_no_end_of_a_chunk_hides_an_error(end: bytes) -> None:
    for count in range(1, 90):
        assert same(b'{"a":[' + b"[1]," * count + b"1" + end + b"}")[0] is orjson.JSONDecodeError


# what is cut out


def read_with_cuts(document: bytes, size: int = 50) -> tuple[Any, Cuts]:
    cuts = Cuts()
    value, _ = run_to_end(loads_in_steps(cut(document, size), cuts))
    return value, cuts


def filled(value: Any, cuts: Cuts) -> bytes:
    return b"".join(run_to_end(cuts.fill(run_to_end(dumps_in_steps(value)))))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
def test_what_was_cut_out_is_put_back(write: Callable[[Json], bytes], wholes: list[bytes]) -> None:
    for seed in range(10):
        document = write(conversation(random.Random(seed)))
        value, cuts = read_with_cuts(document)
        assert len(cuts) > 9
        assert repr(loads_exactly(filled(value, cuts))[0]) == repr(loads_exactly(document)[0])
    assert wholes == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))
def test_a_changed_document_is_cut_and_filled_as_it_is_read_at_once(write: Callable[[Json], bytes]) -> None:
    chance = random.Random(8)
    for seed in range(8):
        document = write(conversation(random.Random(seed), turns=4))
        for _ in range(20):
            changed = mutated(document, chance)
            whole = outcome(lambda: loads_exactly(changed)[0])  # noqa: B023 - called at once
            cut_out = outcome(lambda: loads_exactly(filled(*read_with_cuts(changed)))[0])  # noqa: B023
            assert cut_out == whole


@pytest.mark.usefixtures("small")
def test_tool_arguments_hold_the_text_of_an_input_that_was_cut_out() -> None:
    """Inside a string the text of a value is escaped, and that of a string inside the value too."""
    given: Json = {
        "path": '"quoted" \\ and 漢字',
        "text": LONG * 40,
        "rows": [[number, {"n": "\n\t"}] for number in range(90)],
    }
    call = {"type": "tool_use", "id": "t", "name": "w", "input": given}
    for document in (
        dumps({"messages": [{"role": "assistant", "content": [call]}]}),
        json.dumps({"messages": [{"role": "assistant", "content": [call]}]}, indent="\t").encode(),
    ):
        value, cuts = read_with_cuts(document)
        found = value["messages"][0]["content"][0]["input"]
        assert is_value_mark(found)
        arguments = dumps(found).decode()
        assert json.loads(json.loads(filled({"arguments": arguments}, cuts))["arguments"]) == given
        assert json.loads(filled([found], cuts)) == [given]


UNREAD = {"a": [{"b": number} for number in range(40)]}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"tools": [{"name": "f", "input_schema": UNREAD}]}, ("tools", 0, "input_schema")),
        ({"messages": [user([{"type": "x", "input": UNREAD}])]}, ("messages", 0, "content", 0, "input")),
        ({"output_config": {"format": {"schema": UNREAD}}}, ("output_config", "format", "schema")),
        ({"output_format": {"schema": UNREAD}}, ("output_format", "schema")),
        ({"metadata": {"junk": UNREAD}}, ("metadata", "junk")),
        ({"junk": UNREAD}, ("junk",)),
    ],
    ids=lambda value: ".".join(map(str, value)) if type(value) is tuple else "",
)
def test_a_value_that_is_not_read_never_becomes_objects(body: Json, path: tuple[Any, ...]) -> None:
    value, cuts = read_with_cuts(dumps(body))
    for step in path:
        value = value[step]
    assert is_value_mark(value)
    assert len(cuts) == 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [user([{"type": "tool_result", "content": [UNREAD]}])]},
        {"thinking": UNREAD, "tool_choice": UNREAD, "system": [UNREAD]},
    ],
)
def test_what_is_read_stays_in_the_request(body: Json) -> None:
    document = dumps(body)
    value, cuts = read_with_cuts(document, 9_000)
    assert value == orjson.loads(document) or not len(cuts)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [50, 9_000])
def test_an_object_without_properties_is_sent_with_them_although_it_was_cut_out(size: int) -> None:
    schema = {"type": "object", "$defs": [UNREAD, "x" * 99]}
    tool = {"name": "f", "input_schema": schema}
    value, cuts = read_with_cuts(dumps({"tools": [tool, {"name": "g", "input_schema": UNREAD}]}), size)
    bare, other = (entry["input_schema"] for entry in value["tools"])
    assert orjson.loads(filled([bare, with_properties(bare)], cuts)) == [schema, schema | {"properties": {}}]
    assert with_properties(other) == other


@pytest.mark.usefixtures("small")
def test_a_search_finds_the_arguments_of_a_tool_whose_schema_was_cut_out() -> None:
    schema = {"type": "object", "properties": {"latitude": {"description": LONG}, "b": UNREAD}}
    value, cuts = read_with_cuts(dumps({"tools": [{"name": "f", "input_schema": schema}]}))
    tool = Tool("f", None, value["tools"][0]["input_schema"])
    assert is_value_mark(tool.input_schema)
    queries: tuple[tuple[SearchKind, str], ...] = (("bm25", "latitude"), ("regex", "latit.de"))
    for kind, query in queries:
        assert run_to_end(search_tools(kind, {"query": query}, [tool], cuts)) == ["f"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("field", json_reader._READ)
def test_a_field_that_the_service_reads_is_not_cut_out(field: str) -> None:
    value, cuts = read_with_cuts(dumps({field: UNREAD}))
    assert value == {field: UNREAD}
    assert len(cuts) == 0


@pytest.mark.parametrize("padding", [0, 600_000], ids=["small", "large"])
@pytest.mark.parametrize("cuts", [Cuts(), None], ids=["cutting", "whole"])
def test_an_array_in_the_place_of_an_object_is_refused_though_it_is_long(cuts: Cuts | None, padding: int) -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": [1] * 9000}
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("messages.1.content.0.tool_use.input", {"messages": [user("Hi"), {"role": "assistant", "content": [call]}]}),
        ("tools.0.input_schema", {"tools": [{"name": "f", "input_schema": [[number] for number in range(2000)]}]}),
        (
            "output_config.format.schema",
            {"output_config": {"format": {"type": "json_schema", "schema": [1] * 9000}}},
        ),
    ]
    for path, fields in wrong:
        body = {"model": "m", "max_tokens": 5, "x": "a" * padding, "messages": [user("Hi")], **fields}
        with pytest.raises(InvalidRequest, match=rf"^{path}: must be an object$"):
            run_to_end(parse_request_in_steps(cut(dumps(body), 65_536), cuts=cuts))


@pytest.mark.parametrize("size", [100, 70_000, 300_000, 900_000])
def test_an_image_of_any_size_is_sent_as_it_came(size: int) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVs" * (size // 4)}}
    said = [user([{"type": "text", "text": "Hi"}, image]), {"role": "assistant", "content": "A"}, user([image])]
    document = dumps({"model": "m", "max_tokens": 5, "messages": said})
    cuts = Cuts()
    kept = run_to_end(parse_request_in_steps(cut(document, 65_536), cuts=cuts))
    sent = run_to_end(cuts.fill(run_to_end(dumps_in_steps(run_to_end(to_chat_in_steps(kept, PLAIN))))))
    assert b"".join(sent) == encode(to_chat(parse_request(document), PLAIN))


@pytest.mark.usefixtures("small")
def test_the_estimate_counts_what_was_cut_out_and_is_prompt() -> None:
    call = {"type": "tool_use", "id": "t", "name": "w", "input": {"text": LONG * 90}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
    said = [{"role": "assistant", "content": [call]}, user([{"type": "text", "text": LONG * 90}, image])]
    prompt = {"messages": said, "tools": [{"name": "f", "input_schema": UNREAD}]}
    body = {"model": "m", "max_tokens": 5, "metadata": {"a": UNREAD}, "junk": UNREAD, **prompt}
    document = dumps(body | {"messages": [user("Hi"), *said]})
    cuts = Cuts()
    kept = run_to_end(parse_request_in_steps(cut(document), cuts=cuts, expansion=100.0))
    expected = estimate_tokens(parse_request(document))
    assert len(cuts) > 4
    assert expected * 0.9 < estimate_tokens(kept) < expected * 1.1


@pytest.mark.parametrize(
    ("element", "count"), [(b"[]", 400_000), (b'{"a":0}', 250_000), (b'"ab"', 700_000), (b"0", 700_000)], ids=repr
)
@pytest.mark.parametrize("cuts", [Cuts(), None], ids=["cutting", "whole"])
def test_values_that_would_take_much_memory_are_refused(element: bytes, count: int, cuts: Cuts | None) -> None:
    document = b'{"system":[' + (element + b",") * count + element + b"]}"
    with pytest.raises(
        RequestTooLarge, match=r"^body: its values would take more than (3\.5|7) times its size in memory"
    ):
        run_to_end(loads_in_steps([document], cuts))


@pytest.mark.parametrize("cuts", [Cuts(), None], ids=["cutting", "whole"])
def test_more_than_a_million_arrays_and_objects_are_refused(cuts: Cuts | None) -> None:
    document = b'{"junk":[' + b"[]," * 1_000_000 + b"[]]}"
    with pytest.raises(RequestTooLarge, match=r"^body: (more than 1000000 arrays and objects|its values)"):
        run_to_end(loads_in_steps([document], cuts))


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [Cuts(), None], ids=["cutting", "whole"])
def test_an_object_with_more_than_a_million_members_is_refused(cuts: Cuts | None) -> None:
    document = b'{"system":{%b}}' % b",".join(b'"%d":0' % number for number in range(1_000_001))
    with pytest.raises(RequestTooLarge, match=r"^body: an object has more than 1000000 members"):
        run_to_end(loads_in_steps([document], cuts, expansion=inf))


def test_punctuation_inside_strings_does_not_count_as_values() -> None:
    text = '{"a\\":[1,2,3]},' * 70_000
    body = {"messages": [user(text)], "system": text, "n": ["\\", '"']}
    document = b"[" + orjson.dumps(body) + b"]"
    assert run_to_end(loads_in_steps([document]))[0] == [body]


# writing


@pytest.mark.usefixtures("small")
@given(VALUES)
@examples(300)
def test_any_value_is_written_in_pieces_as_at_once(value: Any) -> None:
    large = {"a": [value, {"b": value, "c": LONG * 3}, []], "k": {}, "l": [value] * 20, "d": [DATA], "e": [[], {}, ""]}
    assert b"".join(run_to_end(dumps_in_steps(large))) == dumps(large)


@pytest.mark.usefixtures("small")
def test_a_large_value_is_written_in_small_pieces() -> None:
    body = conversation(random.Random(1), turns=30)
    written = run_to_end(dumps_in_steps(body))
    assert b"".join(written) == orjson.dumps(body)
    assert max(map(len, written)) < 6 * json_writer._PIECE


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value, "b": []}
    return value


SHAPES: dict[str, Callable[[], Any]] = {
    "wide object": lambda: {f"p{number}": 0 for number in range(60_000)},
    "wide object of objects": lambda: {f"p{number}": {"type": "string"} for number in range(30_000)},
    "wide array": lambda: [0] * 200_000,
    "empty arrays": lambda: [[] for _ in range(100_000)],
    "small objects": lambda: [{"a": {"b": [{"c": 1}]}} for _ in range(20_000)],
    "deep": lambda: [nested(90)] * 2_000,
    "tiny strings": lambda: [str(number) for number in range(100_000)],
    "long keys": lambda: {f"{number}" * 20_000: number for number in range(20)},
    "one long key": lambda: {"k" * 900_000: {"k" * 300_000: ["x"]}},
    "a long string": lambda: "x" * 900_000,
    "escapes": lambda: ["\n\x00" * 50_000] * 9,
    "numbers": lambda: [number * 1.1 for number in range(60_000)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_written_in_few_pieces_of_a_bounded_size(shape: str) -> None:
    """A piece takes memory beside its bytes; a million tiny pieces once took 400 times the size of the body."""
    value = SHAPES[shape]()
    whole = dumps(value)
    written = run_to_end(dumps_in_steps(value))
    assert b"".join(written) == whole
    assert max(map(len, written)) < 14 * json_writer._PIECE  # a run next to a full piece, with all of it escaped
    assert len(written) <= len(whole) // json_writer._PIECE + 1


@pytest.mark.parametrize("shape", SHAPES)
def test_no_step_of_writing_takes_more_than_a_few_milliseconds(shape: str) -> None:
    value = SHAPES[shape]()
    gc.disable()
    try:
        assert any(longest_step(dumps_in_steps(value)) < 0.005 for _ in range(10))  # other processes only add to it
    finally:
        gc.enable()


def longest_step(steps: Generator[None, None, Any]) -> float:
    """Seconds of CPU of the longest step."""
    longest, last = 0.0, time.thread_time()
    for _ in steps:
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest


@pytest.mark.usefixtures("small")
def test_a_joined_text_is_written_as_one_string() -> None:
    value = {"url": JoinedText("data:image/png;base64,", DATA, "", '"'), "list": [JoinedText("a"), 1]}
    assert orjson.loads(b"".join(run_to_end(dumps_in_steps(value)))) == {
        "url": "data:image/png;base64," + DATA + '"',
        "list": ["a", 1],
    }


@pytest.mark.parametrize("place", [10_000, 700_000, 2_000_000])
def test_the_error_of_a_large_dense_document_says_before_which_byte_it_is(place: int) -> None:
    document = bytearray(b'{"tools":[' + b'"abcdefgh",' * 220_000 + b"0]}")
    place = document.index(b",", place)
    document[place] = ord("?")
    pieces = [bytes(document[start : start + 65536]) for start in range(0, len(document), 65536)]
    with pytest.raises(InvalidRequest, match="not valid JSON") as refused:
        run_to_end(loads_in_steps(pieces))
    found = int(refused.value.message.rpartition(" ")[2])
    assert place < found < place + 70_000


@pytest.mark.parametrize("between", ["", "\n", '"', "{"])
@pytest.mark.parametrize("is_value", [False, True])
def test_no_text_is_divided_inside_a_mark(is_value: bool, between: str) -> None:
    cuts = Cuts()
    for _ in range(1200):
        cuts.add_value([b"[]"]) if is_value else cuts.add_string([b"x"], 1)
    marks = [f'{{"{MARK}{number}\x7f":0}}' if is_value else f"{MARK}{number}\x7f" for number in range(8, 1200)]
    text = between.join(marks[:8] + marks[90:98] + marks[-8:])
    inside = {
        place for mark in marks if (start := text.find(mark)) >= 0 for place in range(start + 1, start + len(mark))
    }
    for end in range(200, len(text)):
        at = whole_marks_until(text, end)
        assert 0 < at <= end
        assert at not in inside


def test_the_parts_of_a_joined_text_have_a_separator_between_them() -> None:
    for parts in ((), ("a",), ("a", "", "b"), ("", ""), ("x" * 70_000, "b"), ("a", "x" * 70_000), ("word",) * 60_000):
        text = JoinedText(*parts, between="\n")
        assert orjson.loads(b"".join(run_to_end(dumps_in_steps([text])))) == ["\n".join(parts)]
        assert len(list(text.groups())) < 400


def test_a_value_that_json_cannot_hold_is_refused_in_pieces_too() -> None:
    with pytest.raises(TypeError):
        run_to_end(dumps_in_steps({"a": object()}))
    with pytest.raises(TypeError):
        dumps({"a": JoinedText("x")})  # only `dumps_in_steps` can write it


def test_integers_beyond_64_bit_are_written_in_full() -> None:
    huge = {"a": 2**70, "b": ["x" * 300_000, 2**70]}
    assert json.loads(b"".join(run_to_end(dumps_in_steps(huge)))) == huge
