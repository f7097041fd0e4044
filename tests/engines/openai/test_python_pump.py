"""The pump in Python: what it relays, what it hands back, and what it reports. The general way is the oracle."""

import gc
import json
import random
import re
import weakref
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from anthro_asgi.engines.openai.chunk_template import learn_template
from anthro_asgi.engines.openai.python_pump import PythonPump
from tests.engines.openai.test_fast_path import STYLES, cut
from tests.support.pump_owner import AFTER, BEFORE, CLOSING, COUNTED, LARGE, OPENING, Owner, converted, event
from tests.support.pumped import HEAD, Relay, framed, relayed
from tests.support.tool_pieces import stream as calls

SIZE = b"%x" % len(event(b'"x"'))


def owner_of(**options: Any) -> Owner:
    return Owner(PythonPump, **options)


# ---- whole streams against the general way


@pytest.mark.parametrize("together", [1, 8])
@pytest.mark.parametrize("style", STYLES[:3], ids=lambda style: style.__name__)
@pytest.mark.parametrize("key", ["content", "reasoning_content"])
def test_a_steady_stream_is_relayed_by_the_pump(style: Callable[..., Any], key: str, together: int) -> None:
    relay = Relay(pumped=True, new_pump=PythonPump)
    reads = [framed(b"data: %b\n\n" % json.dumps(style({key: f" {n}"}, n)).encode()) for n in range(400)]
    joined = [b"".join(reads[at : at + together]) for at in range(0, len(reads), together)]
    for data in (HEAD, *joined):
        relay.receive(data)
    relay.end()
    assert relay.pumped >= 320  # the first chunk with a new shape of its counts is read in the general way


def test_random_calls_give_the_client_the_same_bytes_with_and_without_a_pump() -> None:
    relayed_pieces = 0
    for seed in range(300):
        rng = random.Random(seed)
        form = [framed(one) for one in calls(rng)]
        body = b"".join(form)
        few = [b"".join(form[at : at + 3]) for at in range(0, len(form), 3)]
        for reads in (form, few, [body], cut(body, rng, rng.choice([30, 300, 3000]))):
            relay = Relay(pumped=True, new_pump=PythonPump)
            for data in (HEAD, *reads):
                relay.receive(data)
            assert relay.end() == relayed(reads, pumped=False), seed
            relayed_pieces += relay.pumped_input
    assert relayed_pieces > 3_000


@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_strings_of_a_call_are_relayed_by_the_pump(ascii_only: bool) -> None:
    text = json.dumps({"code": 'if größer:\n    print("🙂")\n' * 40, "n": 1}, ensure_ascii=ascii_only)
    parts = re.findall(" ?[^ ]+| ", text)
    first = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    entries = [first, *({"index": 0, "function": {"arguments": part}} for part in parts)]
    relay = Relay(pumped=True, new_pump=PythonPump)
    relay.receive(HEAD)
    for entry in entries:
        chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [entry]}, "finish_reason": None}]}
        relay.receive(framed(b"data: %b\n\n" % json.dumps(chunk).encode()))
    relay.end()
    assert relay.pumped_input >= len(parts) - 12


# ---- one read


def test_a_few_events_of_a_read_become_one_chunk_and_more_are_handed_back() -> None:
    owner = owner_of()
    letters = [b'"%c"' % letter for letter in b"abcdefgh"]
    data = framed(*map(event, letters))
    owner.pump.data_received(data)
    assert (owner.written, owner.back) == ([converted(*letters)], [])
    assert owner.pump.take() == (8, b"", [100.0])
    owner.pump.data_received(data + framed(event(b'"i"')))
    assert (len(owner.written), owner.back) == (1, [data + framed(event(b'"i"'))])


@pytest.mark.parametrize(
    "odd",
    [
        b"0\r\n\r\n",
        framed(b"data: [DONE]\n\n"),
        framed(event(b'"x"') + b"data: [DONE]\n\n"),
        framed(event(b'"x"') + event(b'"y"')),
        framed(event(b"null")),
        framed(event(b'""')),
        framed(event(b'"\\ud800"')),
        framed(event(b'"x"')[:-1]),
        framed(event(b'"x"'), event(b'"y"')).replace(b"\n\n\r\n", b"\n\n\r\r", 1),
        framed(event(b'"x"'))[:-1],
        framed(event(b'"x"'))[:-1] + b"\r",
        framed(event(b'"x"')) + b"2",
        SIZE + b";ext=1\r\n" + event(b'"x"') + b"\r\n",
        b"0x" + SIZE + b"\r\n" + event(b'"x"') + b"\r\n",
        b"0" + SIZE + b"\r\n" + event(b'"x"') + b"\r\n",
        b"25\r\n" + event(b'"x"') + b"\r\n",
        b"+" + SIZE + b"\r\n" + event(b'"x"') + b"\r\n",
        b"\r\n",
        b"x",
        b"",
    ],
)
def test_anything_else_is_handed_back_whole(odd: bytes) -> None:
    good = framed(event(b'"a"'))
    for data in (odd, good + odd) if odd else (odd,):
        owner = owner_of()
        owner.pump.data_received(data)
        assert (owner.written, owner.back) == ([], [data])
        assert owner.pump.take() == (0, b"", [])


def test_the_size_of_a_chunk_may_be_in_capitals() -> None:
    owner = owner_of()
    data = framed(event(b'"%b"' % (b"x" * 0x8B)))
    assert data.partition(b"\r\n")[0] == b"ab"
    owner.pump.data_received(b"AB" + data[2:])
    assert owner.written == [converted(b'"%b"' % (b"x" * 0x8B))]


def test_an_event_that_is_too_large_is_handed_back() -> None:
    data = framed(event(b'"abc"'))
    for limit, is_relayed in ((len(data), True), (len(data) - 1, False)):
        owner = owner_of()
        owner.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, limit)
        owner.pump.data_received(data)
        assert bool(owner.written) is is_relayed


@pytest.mark.parametrize(
    ("counts", "matches"),
    [
        (b'{"prompt_tokens":9,"my_tokens":4}}\n\n', True),
        (b'{"prompt_tokens":9,"my_tokens":40}}\n\n', False),
        (b'{"prompt_tokens":9,"my_tokens":04}}\n\n', False),
        (b'{"prompt_tokens":9,"my_tokens":4.5}}\n\n', False),
        (b'{"prompt_tokens":-9,"my_tokens":4}}\n\n', False),
        (b'{"prompt_tokens":9,"my_tokens":4}}\n', False),
        (b'{"prompt_tokens":9', False),
        (b"", False),
    ],
)
def test_counts_match_if_their_shape_is_known(counts: bytes, matches: bool) -> None:
    payload = b'{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"my_tokens":3}}'
    template = learn_template(payload, orjson.loads(payload))
    assert template is not None
    owner = owner_of()
    owner.pump.arm(template.before, template.after, template.numberless, OPENING, CLOSING, LARGE)
    data = framed(template.before + b'"a"' + template.after + counts)
    owner.pump.data_received(data)
    assert (owner.written, owner.back) == (([converted(b'"a"')], []) if matches else ([], [data]))
    assert owner.pump.take() == ((1, counts, [100.0]) if matches else (0, b"", []))


@pytest.mark.parametrize(
    "template",
    [
        (b"", AFTER, b"", OPENING, CLOSING, LARGE),
        (BEFORE, b"", b"", OPENING, CLOSING, LARGE),
        (BEFORE, AFTER, b"", OPENING, CLOSING, LARGE, b"{"),
        (BEFORE, COUNTED, b'{"\\u0041":0}', OPENING, CLOSING, LARGE),
        (b"x" * 70_000, AFTER, b"", OPENING, CLOSING, LARGE),
    ],
)
def test_a_template_or_a_place_that_cannot_be_used_is_refused(template: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="not a"):
        owner_of().pump.arm(*template)


# ---- a tool input


def calling() -> Owner:
    """A pump in a string of the arguments of a call."""
    owner = owner_of()
    owner.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE, b'{["')
    return owner


def piece(text: str) -> bytes:
    """An engine's HTTP chunk with a piece of arguments."""
    return framed(event(json.dumps(text).encode()))


@pytest.mark.parametrize(
    "text", ["a", " größer", "\\n\\t", '\\"hi\\"', "\\u00e9", "\\ud83d\\ude42", "{[1,2]}", "x" * 4096]
)
def test_a_piece_that_stays_in_the_string_is_relayed(text: str) -> None:
    owner = calling()
    owner.pump.data_received(piece(text))
    assert (owner.written, owner.back) == ([converted(orjson.dumps(text))], [])
    assert owner.pump.take_input() == (text, 0)
    assert owner.pump.take_input() == ("", 0)


@pytest.mark.parametrize("text", ['"', 'a"', '","b":"', "\\", "a\\", "\\u00", "\\x", "\n", "\x00", "x" * 4097])
def test_any_other_piece_is_handed_back(text: str) -> None:
    owner = calling()
    owner.pump.data_received(piece("a") + piece(text))
    assert (owner.written, owner.back) == ([], [piece("a") + piece(text)])
    assert owner.pump.take_input() == ("", 0)


def test_the_owner_is_told_after_2_kib_of_a_tool_input() -> None:
    owner = calling()
    for _ in range(5):
        owner.now += 1
        owner.pump.data_received(piece("x" * 1000))
        if owner.calls:
            break
    assert owner.calls == [(3, b"", [101.0, 102.0, 103.0])]
    assert owner.pump.take_input() == ("x" * 3000, 0)


# ---- reports


def test_reads_are_made_less_frequent_above_500_per_second() -> None:
    for gap, slowed in ((0.0021, 0), (0.0019, 64 - 31)):
        owner = owner_of()
        for _ in range(64):
            owner.now += gap
            owner.pump.data_received(framed(event(b'"a"')))
        assert owner.calls.count("slow_down") == slowed


def test_the_other_events_of_the_transport_are_the_owners() -> None:
    owner = owner_of()
    error = OSError()
    transport_calls: Any = owner.pump
    transport_calls.pause_writing()
    transport_calls.resume_writing()
    transport_calls.eof_received()
    transport_calls.connection_lost(error)
    assert owner.calls == ["pause", "resume", "eof", error]


def test_a_pump_that_is_disarmed_tells_nobody_and_reads_nothing() -> None:
    owner = owner_of()
    assert owner.pump.disarm() == b""
    transport_calls: Any = owner.pump
    transport_calls.pause_writing()
    transport_calls.resume_writing()
    transport_calls.eof_received()
    transport_calls.connection_lost(None)
    assert owner.calls == []
    with pytest.raises(AttributeError):
        owner.pump.data_received(framed(event(b'"a"')))


def test_a_pump_and_its_owner_are_freed_without_the_collector() -> None:
    owner = owner_of()
    gone = weakref.ref(owner)
    owner.pump.data_received(framed(event(b'"a"')))
    owner.pump.disarm()
    gc.disable()
    try:
        del owner
        assert gone() is None
    finally:
        gc.enable()
