"""Large JSON in pieces: for every document, the result is that of the parser for the whole."""

import gc
import json
import random
import time
from collections.abc import Callable, Generator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.errors import ApiError, RequestTooLarge
from anthro_asgi.wire.json_codec import depth_and_rounding, dumps, loads_exactly
from anthro_asgi.wire.large import json_reader, json_writer
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.large.json_reader import loads_in_steps
from anthro_asgi.wire.large.json_writer import JoinedText, dumps_in_steps
from anthro_asgi.wire.request import parse_request, parse_request_in_steps
from anthro_asgi.wire.request_policy import Rules
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
    monkeypatch.setattr(json_reader, "_MIN_STRETCH", 16)
    monkeypatch.setattr(json_reader, "_MIN_RUN", 200)
    monkeypatch.setattr(json_writer, "_PIECE", 96)
    monkeypatch.setattr(json_writer, "_SMALL", 4)


@pytest.fixture
def wholes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The documents that were parsed whole after all."""
    seen: list[bytes] = []

    def noted(document: bytes) -> Any:
        seen.append(document)
        return loads_exactly(document)

    monkeypatch.setattr(json_reader, "loads_exactly", noted)
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
    assert len(document) > 3 * json_reader._WHOLE
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
    assert max(parsed) < 3 * (json_reader._MIN_RUN + 2 * json_reader._WINDOW) < len(document) / 10


def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the size of everything that is given to the parser, in bytes."""
    parsed: list[int] = []

    def watched(document: bytes) -> Any:
        parsed.append(len(document))
        return orjson.loads(document)

    monkeypatch.setattr(json_reader, "loads", watched)
    return parsed


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("write", [orjson.dumps, lambda body: json.dumps(body, indent=1).encode()], ids=["", "pretty"])
@pytest.mark.parametrize("length", [180, 250, 320])
def test_images_smaller_than_a_window_are_cut_out(
    length: int, write: Callable[[Json], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_reader, "_WINDOW", 2 * length)
    parsed = lengths(monkeypatch)
    body = {"messages": [user([{"data": DATA[:length]} for _ in range(50)])]}
    document = write(body)
    assert read_in_pieces(document) == body
    assert max(parsed) < len(document) - 50 * length * 3 / 4


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
    for seed in range(12):
        document = write(conversation(random.Random(seed), turns=4))
        for _ in range(60):
            what = same(mutated(document, chance))
            seen["read" if what[0] == "read" else "wrong"] += 1
    assert min(seen.values()) > 50


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
        patched.setattr(json_reader, "_MIN_STRETCH", 9)
        patched.setattr(json_reader, "_MIN_RUN", 100)
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
def test_a_mark_that_is_swallowed_is_noticed(wholes: list[bytes]) -> None:
    swallowed = b'{"a":"' + b"x" * 500 + b'","a":"short"}'
    assert same(swallowed) == ("read", repr({"a": "short"}))
    assert wholes[0] == swallowed


@pytest.mark.usefixtures("small")
def test_a_document_that_contains_the_mark_is_read_correctly() -> None:
    """A client cannot know the mark; if it did, the mark would occur twice, which is noticed."""
    guess = json_reader._MARK_JSON + b"0;"
    document = b'{"b":"' + guess + b'","a":"' + b"x" * 500 + b'"}'
    assert same(document) == ("read", repr({"b": json.loads(b'"' + guess + b'"'), "a": "x" * 500}))
    run = json_reader._MARK_JSON + b"run;"
    for where in (b'{"b":["%b"],"a":"' % run, b'{"b":"%b","a":"' % run, b'{"b":[1,"%b"],"a":"' % run):
        document = where + b"x" * 500 + b'","messages":[' + b",".join([b'{"role":"user"}'] * 40) + b"]}"
        assert json.loads(b'"' + run + b'"') in str(same(document)[1]).encode().decode("unicode_escape")


@pytest.mark.usefixtures("small")
def test_little_is_parsed_in_vain_where_message_ends_cannot_be_found(
    wholes: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = lengths(monkeypatch)
    inner = ",".join('{"role":"user","n":[' + f'"{number}"' + "]}" for number in range(2_000))
    document = b'{"messages":[{"content":[' + inner.encode() + b"]}]}"
    value, _ = run_to_end(loads_in_steps(cut(document)))
    assert value == orjson.loads(document)
    assert wholes == []  # what is not cut out stays in the skeleton
    assert 3 * len(document) < sum(parsed) < 12 * len(document)


@pytest.mark.parametrize(
    ("element", "count"), [(b"[]", 400_000), (b'{"a":0}', 250_000), (b'"ab"', 700_000), (b"0", 700_000)], ids=repr
)
def test_values_that_would_take_much_memory_are_refused_before_they_are_parsed(element: bytes, count: int) -> None:
    document = b'{"a":[' + (element + b",") * count + element + b"]}"
    with pytest.raises(RequestTooLarge, match=r"^body: more than 500000 JSON values in one part or 2000000 in all, or"):
        run_to_end(loads_in_steps([document]))


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
        assert min(longest_step(dumps_in_steps(value)) for _ in range(3)) < 0.005
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


def test_a_value_that_json_cannot_hold_is_refused_in_pieces_too() -> None:
    with pytest.raises(TypeError):
        run_to_end(dumps_in_steps({"a": object()}))
    with pytest.raises(TypeError):
        dumps({"a": JoinedText("x")})  # only `dumps_in_steps` can write it


def test_integers_beyond_64_bit_are_written_in_full() -> None:
    huge = {"a": 2**70, "b": ["x" * 300_000, 2**70]}
    assert json.loads(b"".join(run_to_end(dumps_in_steps(huge)))) == huge
