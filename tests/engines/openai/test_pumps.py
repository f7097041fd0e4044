"""What the native pump and the pump in Python have in common. The general way is the oracle."""

import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
import pytest

from anthro_asgi import _native
from anthro_asgi._native import NewPump
from anthro_asgi.engines.openai.python_pump import PythonPump
from tests.engines.openai.test_fast_path import STREAMS, STYLES, cut, events, stream
from tests.replay import Case
from tests.support.pump_owner import Owner, converted, event
from tests.support.pumped import framed, relayed

BUILT: Final = [] if _native.new_pump is None else [pytest.param(_native.new_pump, id="native")]
each_pump = pytest.mark.parametrize("new_pump", [pytest.param(PythonPump, id="python"), *BUILT])


# ---- whole streams against the general way


@each_pump
@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_every_recording_gives_the_client_the_same_bytes_with_and_without_a_pump(case: Case, new_pump: NewPump) -> None:
    rng = random.Random(case.file)
    one_each = [framed(one) for one in events(case.content)]
    many = [framed(case.content[at : at + 700]) for at in range(0, len(case.content), 700)]
    for form in (one_each, many, [framed(case.content)]):
        body = b"".join(form) + b"0\r\n\r\n"
        for reads in (form, [body], cut(body, rng, 40), cut(body, rng, 400), cut(body, rng, 4000)):
            assert relayed(reads, pumped=True, new_pump=new_pump) == relayed(reads, pumped=False)


@each_pump
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_random_streams_give_the_client_the_same_bytes_with_and_without_a_pump(
    style: Callable[..., Any], new_pump: NewPump
) -> None:
    for seed in range(150):
        rng = random.Random(f"{style.__name__} {seed}")
        form = [framed(one) for one in stream(style, rng)]
        body = b"".join(form)
        few = [b"".join(form[at : at + 4]) for at in range(0, len(form), 4)]
        for reads in (form, few, [body], cut(body, rng, rng.choice([30, 300, 3000]))):
            assert relayed(reads, pumped=True, new_pump=new_pump) == relayed(reads, pumped=False), seed


# ---- one read


@each_pump
@pytest.mark.parametrize(
    "text",
    [" the", "\n", 'say "hi"', "\\", "/", "é", "漢字", "🙂", "\u2028", "\x00", "\x1f", "\x7f", "\b\f\r\t", "x" * 999],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_text_is_written_as_orjson_writes_it(text: str, ascii_only: bool, new_pump: NewPump) -> None:
    data = framed(event(json.dumps(text, ensure_ascii=ascii_only).encode()))
    owner = Owner(new_pump)
    assert owner.pump.convert(data) == (len(data), converted(orjson.dumps(text)), 1, b"", True)
    owner.pump.data_received(data)
    assert (owner.written, owner.back) == ([converted(orjson.dumps(text))], [])


# ---- the client


@each_pump
def test_nothing_is_written_to_a_client_that_reads_slowly_or_has_left(new_pump: NewPump) -> None:
    data = framed(event(b'"a"'))
    for owner in (Owner(new_pump, backlog=16 * 1024 + 1), Owner(new_pump, closing=True)):
        owner.pump.data_received(data)
        assert (owner.written, owner.back) == ([], [data])
        assert owner.pump.take() == (0, b"", [])
    owner = Owner(new_pump, backlog=16 * 1024)
    owner.pump.data_received(data)
    assert (owner.written, owner.back) == ([converted(b'"a"')], [])


@each_pump
def test_the_socket_is_written_to_while_nothing_waits_in_the_transport(new_pump: NewPump) -> None:
    ours, client = socket.socketpair()
    with ours, client:
        data = framed(event(b'"a"'))
        owner = Owner(new_pump, fd=ours.fileno(), backlog=1)
        owner.pump.data_received(data)
        assert owner.written == [converted(b'"a"')]
        owner.backlog = 0
        for _ in range(2):
            owner.pump.data_received(data)
            assert (client.recv(1000), owner.written) == (converted(b'"a"'), [converted(b'"a"')])


@each_pump
def test_the_transport_gets_what_the_socket_does_not_take(new_pump: NewPump) -> None:
    ours, client = socket.socketpair()
    with ours, client:
        ours.setblocking(False)
        client.setblocking(False)
        owner = Owner(new_pump, fd=ours.fileno())
        text = b'"%b"' % (b"x" * 9000)
        sent = 0
        while not owner.written:
            owner.pump.data_received(framed(event(text)))
            sent += 1
        received = b""
        while len(received) < sent * len(converted(text)):
            try:
                received += client.recv(1 << 20)
            except BlockingIOError:
                break
        assert received + b"".join(owner.written) == converted(text) * sent
        client.close()
        owner.written.clear()
        owner.pump.data_received(framed(event(text)))  # the transport learns by its own write that the client has gone
        assert owner.written == [converted(text)]


# ---- reports


@each_pump
def test_sync_is_called_after_32_writes(new_pump: NewPump) -> None:
    owner = Owner(new_pump)
    for number in range(70):
        owner.now = 200.0 + number
        owner.pump.data_received(framed(event(b'"a"'), event(b'"b"')))
    assert owner.calls == [(64, b"", [200.0 + n for n in range(begin, begin + 32)]) for begin in (0, 32)]
    assert owner.pump.take() == (12, b"", [200.0 + number for number in range(64, 70)])
    assert owner.pump.last_read == 269.0


@each_pump
def test_without_a_clock_the_time_is_that_of_the_event_loops(new_pump: NewPump) -> None:
    before = time.monotonic()
    pump = new_pump(Owner(new_pump), None, print, lambda: 0, lambda: False, -1)
    assert before <= pump.last_read <= time.monotonic()
