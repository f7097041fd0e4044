"""Messages checked in steps: the same errors in the same order, and little base64 decoded in one step."""

import base64
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire import blocks, messages_checks
from anthro_asgi.wire.blocks import block_checks, decode_base64
from anthro_asgi.wire.errors import ApiError, InvalidRequest, RequestTooLarge
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.field_checks import FieldError, is_shallow_in_steps
from anthro_asgi.wire.json_codec import dumps, is_shallow
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.large.cuts import Cuts, is_value_mark
from anthro_asgi.wire.messages_checks import (
    Findings,
    check_messages,
    check_messages_in_steps,
    is_base64_in_steps,
)
from anthro_asgi.wire.request import MessagesRequest, parse_request, parse_request_in_steps
from anthro_asgi.wire.request_policy import Rules
from tests.wire.strategies import Json, examples

GOOD = base64.b64encode(bytes(range(252))).decode()  # without padding


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a few characters too many for one step."""
    monkeypatch.setattr(messages_checks, "_DECODED", 64)
    monkeypatch.setattr(messages_checks, "_SLICE", 32)
    monkeypatch.setattr(messages_checks, "_PARSED", 24)
    monkeypatch.setattr(messages_checks, "_BLOCKS_PER_STEP", 3)
    monkeypatch.setattr(blocks, "_BLOCKS_PER_STEP", 8)


def image(data: Any, media_type: str = "image/png") -> Json:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def user(*blocks: Any) -> Json:
    return {"role": "user", "content": list(blocks)}


def fault(messages: list[Any], *, in_steps: bool, deep: bool = False) -> tuple[Any, ...]:
    raw = {"messages": messages}
    try:
        if in_steps:
            return (run_to_end(check_messages_in_steps(raw, deep=deep)) is messages,)
        return (check_messages(raw, block_checks(deep=deep)) is messages,)
    except FieldError as fault:
        return fault.path, fault.reason, fault.error_code


BLOCKS: list[Any] = [
    image(GOOD),
    image(GOOD[:-1]),
    image(GOOD[:100] + "!" + GOOD[101:]),
    image(GOOD + GOOD[:50]),
    image(""),
    image("QUJD"),
    image("QUJ"),
    image("é" * 300),
    image(GOOD, "image/tiff"),
    image(None),
    {"type": "text", "text": "Hi"},
    {"type": "text"},
    {"type": "video", "source": {"type": "base64", "media_type": "video/mp4", "data": GOOD}},
    {"type": "tool_result", "tool_use_id": "t0", "content": [image(GOOD), image(GOOD[:77])]},
    {"type": "tool_result", "tool_use_id": "t0", "content": [image(GOOD), image(GOOD)]},
    {"type": "document", "source": {"type": "content", "content": [image(GOOD * 3)]}},
    {"type": "nothing"},
    7,
]


@pytest.mark.parametrize("deep", [False, True])
def test_errors_are_found_in_the_same_order_in_steps(deep: bool) -> None:
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t0", "name": "w", "input": {}}]}
    found = set()
    for seed in range(400):
        chance = random.Random(seed)
        bad = chance.random() < 0.7
        choice = BLOCKS if bad else [BLOCKS[0], BLOCKS[5], BLOCKS[10], BLOCKS[12], BLOCKS[15]]
        messages = [call, *(user(*chance.choices(choice, k=chance.randrange(4))) for _ in range(chance.randrange(24)))]
        whole = fault(messages, in_steps=False, deep=deep)
        assert fault(messages, in_steps=True, deep=deep) == whole
        found.add(whole[1:2])
    assert len(found) == 9


@pytest.mark.parametrize("messages", [None, [], "x", [7], [{"role": "nobody"}]], ids=repr)
def test_invalid_messages_are_refused_in_steps_too(messages: Any) -> None:
    assert fault(messages, in_steps=True) == fault(messages, in_steps=False)


TEXT: Json = {"type": "text", "text": "Hi"}
CALL: Json = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
HOLDERS: dict[str, Any] = {
    "a message": lambda inner: [user(*inner)],
    "a message of the system": lambda inner: [user(TEXT), {"role": "system", "content": inner}],
    "a tool result": lambda inner: [CALL, user(TEXT, {"type": "tool_result", "tool_use_id": "t", "content": inner})],
    "a document": lambda inner: [user(TEXT, {"type": "document", "source": {"type": "content", "content": inner}})],
    "a search result": lambda inner: [user({"type": "search_result", "content": inner}, TEXT)],
    "a document in a tool result": lambda inner: [
        CALL,
        user(
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [TEXT, {"type": "document", "source": {"type": "content", "content": inner}}],
            }
        ),
    ],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_long_arrays_of_blocks_are_checked_in_steps_with_the_same_errors(holder: str) -> None:
    assert len(list(check_messages_in_steps({"messages": HOLDERS[holder]([TEXT] * 200)}, deep=False))) >= 200 // 8
    for wrong in (
        TEXT,
        {"type": "text"},
        {"type": "other"},
        {},
        7,
        None,
        image("!"),
        image(GOOD * 9),
        image(GOOD * 9 + "!"),
    ):
        for place in (0, 6, 7, 8, 9, 30):
            inner: list[Any] = [TEXT] * 31
            inner[place] = wrong
            messages = HOLDERS[holder](inner)
            assert fault(messages, in_steps=True) == fault(messages, in_steps=False)


CHANGES: dict[str, Any] = {
    "tabs": lambda entries: {"type": "browser_state", "tabs": entries},
    "state changes": lambda entries: {"type": "browser_state", "tabs": [{"tab_id": "a"}], "state_changes": entries},
    "tool changes": lambda entries: {"type": "compaction", "content": "So far.", "tool_changes": entries},
}
ENTRIES: dict[str, Json] = {
    "tabs": {"tab_id": "a"},
    "state changes": {"type": "navigated"},
    "tool changes": {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_long_arrays_inside_a_block_are_checked_in_steps_with_the_same_errors(kind: str) -> None:
    def messages(entries: list[Any]) -> list[Any]:
        block = CHANGES[kind](entries)
        if kind == "tool changes":
            return [user(TEXT), {"role": "assistant", "content": [TEXT, block, TEXT]}]
        return [CALL, user({"type": "tool_result", "tool_use_id": "t", "content": [TEXT, block, TEXT]})]

    entry = ENTRIES[kind]
    assert len(list(check_messages_in_steps({"messages": messages([entry] * 200)}, deep=False))) >= 200 // 8
    for wrong in (entry, {}, 7, None):
        for place in (0, 6, 7, 8, 9, 30):
            entries: list[Any] = [entry] * 31
            entries[place] = wrong
            assert fault(messages(entries), in_steps=True) == fault(messages(entries), in_steps=False)


INPUTS: list[Any] = [
    "{}",
    "   ",
    '{"a":1,"b":[1,2,3],"c":{"d":"a text of some length"}}',
    orjson.dumps('{"a":1,"b":"a text that is encoded twice"}').decode(),
    orjson.dumps(orjson.dumps('{"a":"three times"}').decode()).decode(),
    '["an array", "of some length", 1, 2, 3]',
    '"a text, which is no object at all"',
    "12345678901234567890123456789012345",
    '{"a":"a large number","b":12345678901234567890123}',
    '{"a":"half of a character: \\ud83d"}',
    '{"a":"half of a character: \ud83d"}',
    '{"a":"first object"},{"b":"second object"}',
    '{"a":"first object"}],[{"b":"second object"}',
    '{"a":"an object that does not end"',
    '{"a":' + "[" * 40 + "]" * 40 + "}",
    '{"a":' + "[" * 3000 + "]" * 3000 + "}",
    '{"a":"a key that occurs twice","a":"its second value"}',
]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "with cuts"])
@pytest.mark.parametrize("text", INPUTS, ids=lambda text: text[:40])
def test_an_input_that_is_json_in_a_string_is_read_in_steps_with_the_same_result(text: str, cut: bool) -> None:
    def messages() -> list[Any]:
        call = {"type": "tool_use", "id": "u", "name": "f", "input": text}
        return [{"role": "assistant", "content": [TEXT, call, {**call, "id": "v"}]}]

    at_once, in_steps, cuts = messages(), messages(), Cuts() if cut else None
    rules = Rules(max_depth=36)

    def refusal(check: Callable[[], object]) -> tuple[str, str] | None:
        try:
            check()
        except FieldError as error:
            return error.path, error.reason
        return None

    refused = refusal(lambda: check_messages({"messages": at_once}, block_checks(rules, deep=False)))
    steps = check_messages_in_steps({"messages": in_steps}, rules, deep=False, cuts=cuts)
    assert refusal(lambda: run_to_end(steps)) == refused
    if refused is not None:
        return
    pieces = [dumps(in_steps)]
    assert orjson.loads(b"".join(pieces if cuts is None else run_to_end(cuts.fill(pieces)))) == orjson.loads(
        dumps(at_once)
    )
    if cuts is not None and len(text) > 40:
        assert len(cuts) == 2


def test_what_is_in_inputs_that_are_strings_is_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(cuts: Cuts | None) -> list[Any]:
        call = {"type": "tool_use", "id": "u", "name": "f", "input": '{"a":[' + "[]," * 300 + "0]}"}
        content = [{**call, "id": f"t{number}"} for number in range(200)]
        run_to_end(
            check_messages_in_steps({"messages": [{"role": "assistant", "content": content}]}, deep=False, cuts=cuts)
        )
        return content

    monkeypatch.setattr(messages_checks, "_PARSED", 8192)
    cuts = Cuts()
    assert all(is_value_mark(block["input"]) for block in read(cuts))
    assert len(read(None)) == 200
    monkeypatch.setattr(messages_checks, "_ALWAYS", 1 << 20)
    with pytest.raises(
        RequestTooLarge, match=r"^body: the JSON in the inputs of tool calls would take more than 7 times"
    ):
        read(None)
    monkeypatch.setattr(messages_checks, "_PARSED", 256)
    with pytest.raises(RequestTooLarge):
        read(None)
    assert len(read(cuts)) == 200


def test_no_step_parses_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = [0]

    def watched(value: Any, max_depth: int) -> Any:
        parsed[-1] += len(value)
        return blocks.read_input(value, max_depth)

    monkeypatch.setattr(messages_checks, "read_input", watched)
    calls = [{"type": "tool_use", "id": f"t{number}", "name": "f", "input": '{"a":0}'} for number in range(100)]
    steps = check_messages_in_steps({"messages": [{"role": "assistant", "content": calls}]}, deep=False)
    parsed.extend(0 for _ in steps)
    assert sum(parsed) == 700
    assert max(parsed) <= 24


@pytest.mark.parametrize("in_steps", [False, True], ids=["at once", "in steps"])
def test_a_file_inside_a_document_is_found(in_steps: bool) -> None:
    source = {"type": "content", "content": [TEXT, {"type": "image", "source": {"type": "file", "file_id": "f"}}]}
    raw = {"messages": [user({"type": "document", "source": source})]}
    findings, rules = Findings(), Rules(files=True)
    if in_steps:
        run_to_end(check_messages_in_steps(raw, rules, deep=False, findings=findings))
    else:
        check_messages(raw, block_checks(rules, deep=False), rules, findings)
    assert findings.has_files


MISPLACED: list[tuple[str, Json, str | None]] = [
    ("assistant", {"type": "image"}, "image.source: required"),
    ("assistant", {"type": "document", "source": 3}, "document.source: must be an object"),
    (
        "assistant",
        {"type": "document", "source": {"type": "content", "content": [9]}},
        "document.source.content.0: must",
    ),
    ("assistant", {"type": "search_result", "content": [{}]}, "search_result.content.0.type: required"),
    ("assistant", {"type": "tool_reference"}, "tool_reference.tool_name: required"),
    ("user", {"type": "thinking"}, "thinking.thinking: required"),
    ("user", {"type": "mcp_tool_use", "id": "t"}, "mcp_tool_use.name: required"),
    ("system", {"type": "document"}, "document.source: required"),
    ("assistant", {"type": "document", "source": {"type": "file"}, "citations": {"enabled": True}}, None),
    ("user", {"type": "thinking", "thinking": "Hm"}, None),
    ("user", {"type": "unknown", "source": 3}, None),
]


@pytest.mark.parametrize("in_steps", [False, True], ids=["at once", "in steps"])
@pytest.mark.parametrize(("role", "block", "refused"), MISPLACED, ids=repr)
def test_a_block_in_an_unusual_place_is_checked_for_a_relayed_upstream(
    role: str, block: Json, refused: str | None, in_steps: bool
) -> None:
    body = orjson.dumps({"model": "m", "max_tokens": 1, "messages": [user(TEXT), {"role": role, "content": [block]}]})
    rules = Rules(pass_server_tools=True)

    def read() -> MessagesRequest:
        return run_to_end(parse_request_in_steps([body], rules=rules)) if in_steps else parse_request(body, rules=rules)

    if refused is not None:
        with pytest.raises(InvalidRequest, match=rf"^messages\.1\.content\.0\.{refused}"):
            read()
        return
    request = read()
    assert [reason.partition(": ")[0] for reason in request.relay_only] == ["messages.1.content.0.type"]
    assert estimate_tokens(request) > 0


@pytest.mark.parametrize("levels", [0, 1, 2, 99, 100, 101, 300])
@pytest.mark.parametrize("most", [1, 100])
def test_the_depth_of_a_value_is_found_in_steps(levels: int, most: int) -> None:
    value: Any = 0
    for level in range(levels):
        value = {"a": value, "b": [], "c": 1} if level % 2 else [1, value, {}]
    in_steps = run_to_end(is_shallow_in_steps({"wide": value}, most))
    assert in_steps is is_shallow({"wide": value}, most)


def test_the_depth_of_a_wide_value_is_found_in_short_steps() -> None:
    wide = {"a": [[number] for number in range(20_000)]}
    assert sum(1 for _ in is_shallow_in_steps(wide, 100)) >= 2 * 20_000 // 4096


def test_a_deep_value_at_any_place_is_refused_with_the_same_error_in_steps() -> None:
    deep: Any = {"a": 0}
    for _ in range(120):
        deep = {"a": deep}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": deep}
    result = {"type": "web_search_tool_result", "tool_use_id": "t", "content": [deep]}
    shallow = {"type": "tool_use", "id": "u", "name": "f", "input": {"a": [1]}}
    for content in ([call], [shallow, TEXT, call], [result], [shallow, {**result, "content": []}, result]):
        messages = [{"role": "assistant", "content": content}]
        refused = fault(messages, in_steps=False, deep=True)
        assert "nested deeper" in refused[1]
        assert fault(messages, in_steps=True, deep=True) == refused
    fine = [{"role": "assistant", "content": [shallow, {**result, "content": []}]}]
    assert fault(fine, in_steps=True, deep=True) == (True,)


def test_no_step_decodes_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = [0]

    def watched(data: str, *, strict_mode: bool = True) -> object:
        decoded[-1] += len(data)
        return decode_base64(data)

    monkeypatch.setattr(messages_checks, "decode_base64", watched)
    monkeypatch.setattr(messages_checks, "a2b_base64", watched)
    messages = [user(*[image(GOOD[:32])] * 7, image(GOOD * 9)) for _ in range(40)]
    decoded.extend(0 for _ in check_messages_in_steps({"messages": messages}, deep=False))
    assert len(decoded) > 40
    assert max(decoded) <= 2 * messages_checks._DECODED
    assert sum(decoded) >= len(GOOD) * 9


def test_an_error_in_the_messages_is_raised_after_those_of_earlier_fields() -> None:
    good: Json = {"model": "m", "max_tokens": 1, "messages": [user(image(GOOD))]}
    wrong: Json = {"model": "", "max_tokens": 0, "tools": 7, "output_config": 7, "messages": [user(image("!" * 99))]}
    wrong |= {"system": 7, "temperature": 7, "thread": {"type": "continue"}, "tool_choice": {"type": "any"}}
    keys = list(wrong)
    for bits in range(1 << len(keys)):
        body = orjson.dumps(good | {key: wrong[key] for number, key in enumerate(keys) if bits >> number & 1})
        assert told(body, in_steps=True) == told(body, in_steps=False)


def told(body: bytes, *, in_steps: bool) -> tuple[Any, ...]:
    rules = Rules()
    try:
        if in_steps:
            return (repr(run_to_end(parse_request_in_steps([body], rules=rules))),)
        return (repr(parse_request(body, rules=rules)),)
    except ApiError as exc:
        return type(exc), exc.message, exc.error_code


# base64


@pytest.mark.slow
@given(st.text("AQz0+/=- \nü", max_size=300))
@examples(500)
def test_base64_is_checked_in_steps_as_by_the_decoder(text: str) -> None:
    for data in (text, GOOD + text, GOOD[:64] + text + GOOD[:64], text + GOOD):
        if data:
            assert run_to_end(is_base64_in_steps([data])) is _is_base64(data)
            cut = len(data) // 3
            assert run_to_end(is_base64_in_steps([data[:cut], "", data[cut:]])) is _is_base64(data)


def _is_base64(data: str) -> bool:
    try:
        return bool(decode_base64(data))
    except ValueError:
        return False


@pytest.mark.parametrize("length", [*range(1, 12), *range(180, 200), 4096])
def test_padding_is_accepted_where_the_decoder_accepts_it(length: int) -> None:
    whole = base64.b64encode(random.Random(length).randbytes(length)).decode()
    for data in (whole, whole[:-1], whole + "=", whole[:64] + "=" + whole[65:], whole[:63] + "=" + whole[64:]):
        for size in (1, 3, 64, 4096):
            parts = [data[start : start + size] for start in range(0, len(data), size)]
            assert run_to_end(is_base64_in_steps(parts)) is _is_base64(data)
