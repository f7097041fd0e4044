"""The pump: what it converts, what it hands back, and what it reports. The Python path is the oracle."""

import asyncio
import gc
import json
import random
import socket
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from anthro_asgi._native import new_pump
from tests.engines.openai.test_fast_path import STYLES
from tests.support.pump_owner import (
    AFTER,
    BEFORE,
    CLOSING,
    COUNTED,
    LARGE,
    NUMBERLESS,
    OPENING,
    Owner,
    converted,
    event,
)
from tests.support.pumped import Relay, chunks, framed, relayed

# ---- strings


def test_each_escape_of_json_is_read() -> None:
    for code in [*range(0xD800), *range(0xE000, 0x10000, 7)]:
        data = framed(event(b'"\\u%04X"' % code))
        assert Owner().pump.convert(data)[1] == converted(orjson.dumps(chr(code))), code
    data = framed(event(rb'"\ud83d\ude42\/\uDBFF\uDFFF"'))
    assert Owner().pump.convert(data)[1] == converted(orjson.dumps("🙂/\U0010ffff"))


def test_a_string_is_converted_exactly_if_orjson_reads_it_and_it_is_not_empty() -> None:
    alphabet = [b'"', b"\\", b"u", b"0", b"d83d", b"de42", b"\\ud83d", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\x1f", b"a"]
    alphabet += [
        b"\xf0\x9f\x99\x82",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\\n",
        b" ",
    ]
    rng = random.Random(1)
    both = {True: 0, False: 0}
    pump = Owner().pump
    for _ in range(30_000):
        literal = b'"' + b"".join(rng.choices(alphabet, k=rng.randint(0, 5))) + b'"'
        consumed, chunk, _, _, _ = pump.convert(framed(event(literal)))
        try:
            text = orjson.loads(literal)
        except orjson.JSONDecodeError:
            text = ""
        assert chunk == (converted(orjson.dumps(text)) if text else b""), literal
        assert bool(consumed) is bool(text)
        both[bool(text)] += 1
    assert min(both.values()) > 3000


# ---- events and chunks


def test_the_events_of_a_read_become_one_chunk() -> None:
    data = framed(event(b'"a"') + event(b'"b"'), event(b'"c"'))
    assert Owner().pump.convert(data) == (len(data), converted(b'"a"', b'"b"', b'"c"'), 3, b"", True)


@pytest.mark.parametrize(
    "odd",
    [
        b"0\r\n\r\n",
        framed(b"data: [DONE]\n\n"),
        framed(event(b'"x"') + b"data: [DONE]\n\n"),
        framed(event(b"null")),
        framed(event(b'""')),
        framed(event(b' "x"')),
        framed(event(b'"x"')[:-1]),
        framed(event(b'"x"'), event(b'"y"')).replace(b"\n\n\r\n", b"\n\n\r\r", 1),
        b"1e;ext=1\r\n" + event(b'"x"') + b"\r\n",
        b"\r\n",
        b"x",
        b"000000000001\r\n",
        b"ffffffff\r\n",
        b"10001\r\ndata",
        b"40\r\n" + event(b'"x"'),
    ],
)
def test_anything_else_is_left_from_the_beginning_of_its_chunk_on(odd: bytes) -> None:
    good = framed(event(b'"a"'))
    assert Owner().pump.convert(good + odd) == (len(good), converted(b'"a"'), 1, b"", False)
    owner = Owner()
    owner.pump.data_received(good + odd + good)
    assert (owner.written, owner.back) == ([converted(b'"a"')], [odd + good])


def test_an_incomplete_chunk_waits_unless_an_event_in_it_is_complete() -> None:
    whole = framed(event(b'"a"'))
    for size in range(1, len(whole)):
        owner = Owner()
        owner.pump.data_received(whole[:size])
        complete = b"\n\n" in whole[:size]
        assert owner.back == ([whole[:size]] if complete else [])
        if not complete:
            owner.pump.data_received(whole[size:])
            assert (owner.written, owner.back) == ([converted(b'"a"')], [])


def test_an_incomplete_chunk_of_more_than_4_kib_does_not_wait() -> None:
    owner = Owner()
    long = framed(event(b'"%b"' % (b"x" * 9000)))
    for at in range(0, 5000, 1000):
        owner.pump.data_received(long[at : at + 1000])
    assert owner.back == [long[:5000]]


def test_an_event_that_is_too_large_is_handed_back() -> None:
    for limit, consumed in ((len(event(b'"abc"')), True), (len(event(b'"abc"')) - 1, False)):
        pump = Owner().pump
        pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, limit)
        assert bool(pump.convert(framed(event(b'"abc"')))[0]) is consumed


@pytest.mark.parametrize(
    ("counts", "matches"),
    [
        (b'{"prompt_tokens":9,"completion_tokens":4}}\n\n', True),
        (b'{"prompt_tokens":123456789012345,"completion_tokens":0}}\n\n', True),
        (b'{"prompt_tokens":1234567890123456,"completion_tokens":0}}\n\n', False),
        (b'{"prompt_tokens":9,"completion_tokens":04}}\n\n', False),
        (b'{"prompt_tokens":9,"completion_tokens":00}}\n\n', False),
        (b'{"prompt_tokens":,"completion_tokens":4}}\n\n', False),
        (b'{"prompt_tokens":9,"completion_tokens":4.5}}\n\n', False),
        (b'{"prompt_tokens":9,"completion_tokens":4e1}}\n\n', False),
        (b'{"prompt_tokens":-9,"completion_tokens":4}}\n\n', False),
        (b'{"prompt_tokens":9,"completion_tokens":4}}\n', False),
        (b'{"prompt_tokens":9', False),
        (b"", False),
    ],
)
def test_counts_match_if_only_their_numbers_differ(counts: bytes, matches: bool) -> None:
    pump = Owner().pump
    pump.arm(BEFORE, COUNTED, NUMBERLESS, OPENING, CLOSING, LARGE)
    data = framed(BEFORE + b'"a"' + COUNTED + counts)
    found = pump.convert(data)
    assert found == ((len(data), converted(b'"a"'), 1, counts, True) if matches else (0, b"", 0, b"", False))


def test_the_latest_counts_are_kept_until_they_are_taken() -> None:
    owner = Owner()
    owner.pump.arm(BEFORE, COUNTED, NUMBERLESS, OPENING, CLOSING, LARGE)
    for number in (1, 2):
        counts = NUMBERLESS.replace(b"0", b"%d" % number)
        owner.pump.data_received(framed(BEFORE + b'"a"' + COUNTED + counts))
    assert owner.pump.take() == (2, NUMBERLESS.replace(b"0", b"2"), [100.0, 100.0])
    assert owner.pump.take() == (0, b"", [])


@pytest.mark.parametrize(
    "template",
    [
        (b"", AFTER, b"", OPENING, CLOSING, LARGE),
        (BEFORE, b"", b"", OPENING, CLOSING, LARGE),
        (BEFORE, COUNTED, b'{"\\u0041":0}', OPENING, CLOSING, LARGE),
        (b"x" * 70_000, AFTER, b"", OPENING, CLOSING, LARGE),
        (BEFORE, AFTER, b"", OPENING, CLOSING, -1),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="template"):
        Owner().pump.arm(*template)


# ---- reports


def test_reads_are_made_less_frequent_above_500_per_second() -> None:
    for gap, slowed in ((0.0021, 0), (0.0019, 48 - 15)):
        owner = Owner()
        for _ in range(48):
            owner.now += gap
            owner.pump.data_received(framed(event(b'"a"')))
        assert owner.calls.count("slow_down") == slowed


def test_the_other_events_of_the_transport_are_the_owners() -> None:
    owner = Owner()
    transport_calls: Any = owner.pump
    transport_calls.pause_writing()
    transport_calls.resume_writing()
    transport_calls.data_received(b"1f")
    transport_calls.eof_received()
    transport_calls.data_received(b"20")
    error = OSError()
    transport_calls.connection_lost(error)
    assert owner.calls == ["pause", "resume", "eof", error]
    assert owner.back == [b"1f", b"20"]


# ---- misuse and memory


def test_an_error_of_python_code_is_passed_on_and_leaves_the_pump_usable() -> None:
    def failing(*_: object) -> Any:
        raise KeyError("a bug")

    data = framed(event(b'"a"'))
    for name in ("hand_back", "sync", "slow_down"):
        owner = Owner()
        setattr(owner, name, failing)
        received = [b"x"] if name == "hand_back" else [data] * 40
        with pytest.raises(KeyError):
            deque(map(owner.pump.data_received, received), 0)
    assert new_pump is not None
    clock: list[Callable[[], Any]] = [lambda: 1.0]
    works: tuple[Callable[..., Any], ...] = (lambda _: None, lambda: 0, lambda: False)
    for place in range(3):
        broken = [*works[:place], failing, *works[place + 1 :]]
        pump = new_pump(Owner(), lambda: clock[0](), broken[0], broken[1], broken[2], -1)
        pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
        with pytest.raises(KeyError):
            pump.data_received(data)
    pump = new_pump(Owner(), lambda: clock[0](), works[0], works[1], works[2], -1)
    pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
    clock[0] = failing
    with pytest.raises(KeyError):
        pump.data_received(data)


def test_a_pump_that_is_disarmed_in_the_middle_of_a_read_loses_nothing_silently() -> None:
    owner = Owner()
    owner.pump.data_received(framed(event(b'"a"')) * 1)
    for rest, is_error in ((b"", False), (b"x", True)):
        owner = Owner()

        class Disarming:
            def __call__(self, data: bytes, owner: Owner = owner) -> None:
                owner.pump.disarm()

        assert new_pump is not None
        owner.pump = new_pump(owner, lambda: 1.0, Disarming(), lambda: 0, lambda: False, -1)
        owner.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
        if is_error:
            with pytest.raises(RuntimeError, match="not armed"):
                owner.pump.data_received(framed(event(b'"a"')) + rest)
        else:
            owner.pump.data_received(framed(event(b'"a"')))


def test_a_pump_that_is_disarmed_returns_the_incomplete_chunk() -> None:
    owner = Owner()
    owner.pump.data_received(framed(event(b'"a"')) + b"1f\r\nda")
    assert (owner.written, owner.back) == ([converted(b'"a"')], [])
    assert (owner.pump.disarm(), owner.pump.disarm()) == (b"1f\r\nda", b"")


def test_wrong_arguments_raise() -> None:
    pump: Any = Owner().pump
    for method, argument in ((pump.data_received, "text"), (pump.convert, bytearray(b"x")), (pump.arm, b"")):
        with pytest.raises(TypeError):
            method(argument)
    pump.disarm()
    pump.disarm()
    with pytest.raises(RuntimeError, match="not armed"):
        pump.data_received(b"x")
    assert new_pump is not None
    with pytest.raises(RuntimeError, match="no template"):
        new_pump(Owner(), lambda: 1.0, print, lambda: 0, lambda: False, -1).convert(b"x")


def test_a_pump_and_its_owner_are_freed_with_and_without_the_collector() -> None:
    owner = Owner()
    gone = weakref.ref(owner)
    owner.pump.disarm()
    gc.disable()
    try:
        del owner
        assert gone() is None
    finally:
        gc.enable()
    cycle = Owner()
    gone = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert gone() is None


# ---- whole streams against the Python path


@pytest.mark.parametrize("style", STYLES[:3], ids=lambda style: style.__name__)
@pytest.mark.parametrize("key", ["content", "reasoning_content"])
def test_a_steady_stream_is_relayed_by_a_pump(style: Callable[..., Any], key: str) -> None:
    relay = Relay(pumped=True)
    reads = [framed(b"data: %b\n\n" % json.dumps(style({key: f" {n}"}, n)).encode()) for n in range(400)]
    for data in (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *reads):
        relay.receive(data)
    relay.end()
    assert relay.pumped >= 380


@pytest.mark.parametrize("pumped", [True, False])
def test_bytes_after_the_body_are_read_by_nobody(pumped: bool) -> None:
    steady = [framed(b"data: %b\n\n" % json.dumps(STYLES[0]({"content": f" {n}"}, n)).encode()) for n in range(9)]
    ended = relayed([*steady, b"0\r\n\r\n"], pumped=pumped)
    assert relayed([*steady, b"0\r\n\r\n", *steady], pumped=pumped) == ended
    assert b'" 8"' in ended.sent


def test_the_chunks_of_the_service_are_read_back() -> None:
    assert chunks(framed(b"ab", b"c" * 300)) == [b"ab", b"c" * 300]
    with pytest.raises(ValueError, match="chunk"):
        chunks(b"02\r\nab\r\n")


async def test_a_pump_is_accepted_by_a_transport() -> None:
    ours, engine = socket.socketpair()
    owner = Owner()
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: asyncio.Protocol(), sock=ours)
    transport.set_protocol(owner.pump)  # type: ignore[arg-type]  # it has the methods but not the base class
    with engine:
        engine.send(framed(event(b'"a"')) + b"x")
        await owner.happened.wait()
    assert (owner.written, owner.back) == ([converted(b'"a"')], [b"x"])
    owner.happened.clear()
    await owner.happened.wait()
    assert owner.calls == ["eof"]
    owner.happened.clear()
    transport.abort()
    await owner.happened.wait()
    assert owner.calls == ["eof", None]
