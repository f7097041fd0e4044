"""The thread that relays streams: what it sends, what it returns, and when. The Python path is the oracle."""

import gc
import itertools
import json
import os
import random
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi._native import Pump, Thread, new_pump, new_thread
from tests.engines.openai.test_fast_path import STREAMS, STYLES, cut, events, stream
from tests.replay import Case
from tests.support.pump_owner import AFTER, BEFORE, CLOSING, COUNTED, LARGE, NUMBERLESS, OPENING, converted, event
from tests.support.pumped import HEAD, framed, relayed
from tests.support.threaded import ThreadRelay, relayed_by

PATIENCE = 20.0  # seconds


@pytest.fixture(name="thread")
def fixture_thread() -> Iterator[Thread]:
    assert new_thread is not None
    descriptors = _descriptors()
    thread = new_thread()
    yield thread
    if thread.pumps:
        gc.collect()
    assert thread.pumps == 0
    thread.close()
    assert _descriptors() == descriptors


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Stream:
    """The owner of a pump, and its two connections. Notes what the pump calls."""

    def __init__(self, thread: Thread, *, counted: bool = False) -> None:
        self.thread = thread
        self.up, self.engine = socket.socketpair()
        self.down, self.client = socket.socketpair()
        self.down.setblocking(False)
        for sock in (self.engine, self.client):
            sock.settimeout(PATIENCE)
        self.written: list[bytes] = []
        self.returned = 0
        self.rest = b""
        self.taken: list[tuple[int, bytes, list[float]]] = []
        self.closing = False
        assert new_pump is not None
        self.pump: Pump = new_pump(self, None, self.written.append, lambda: 0, lambda: self.closing, self.down.fileno())
        template = (COUNTED, NUMBERLESS) if counted else (AFTER, b"")
        self.pump.arm(BEFORE, *template, OPENING, CLOSING, LARGE)
        assert self.pump.leave_to(thread, self.up.fileno())

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.pump.disarm()
        for sock in (self.up, self.engine, self.down, self.client):
            sock.close()

    def receive(self, size: int) -> bytes:
        """So many bytes of those that the client got."""
        data = b""
        while len(data) < size:
            data += self.client.recv(size - len(data))
        return data

    def until_returned(self) -> bytes:
        """The bytes that Python has to read, when the thread has returned the stream."""
        while not self.returned:
            self.collect()
        return self.rest

    def collect(self) -> None:
        """Wait for something to collect."""
        readable, _, _ = select.select([self.thread], [], [], PATIENCE)
        assert readable
        self.thread.collect()

    def hand_back(self, data: bytes) -> None:
        assert not data
        self.returned += 1
        self.rest = self.pump.disarm()

    def sync(self) -> None:
        self.taken.append(self.pump.take())

    def slow_down(self) -> None:
        raise AssertionError("a thread slows itself down")

    def pause_writing(self) -> None:
        raise AssertionError("a thread has no transport")

    resume_writing = eof_received = pause_writing

    def connection_lost(self, error: Exception | None) -> None:
        raise AssertionError("a thread has no transport")


# ---- whole streams against the Python path


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_every_recording_gives_the_client_the_same_bytes_as_python(case: Case, thread: Thread) -> None:
    rng = random.Random(case.file)
    one_each = [framed(one) for one in events(case.content)]
    body = b"".join(one_each) + b"0\r\n\r\n"
    for reads, narrow in ((one_each, False), (one_each, True), (cut(body, rng, 400), rng.random() < 0.5)):
        assert relayed_by(thread, reads, rng, narrow=narrow) == relayed(reads, pumped=False)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_random_streams_give_the_client_the_same_bytes_as_python(style: Callable[..., Any], thread: Thread) -> None:
    for seed in range(20):
        rng = random.Random(f"{style.__name__} {seed}")
        form = [framed(one) for one in stream(style, rng)]
        body = b"".join(form)
        for reads in (form, [body], cut(body, rng, rng.choice([30, 300, 3000]))):
            assert relayed_by(thread, reads, rng, narrow=rng.random() < 0.5) == relayed(reads, pumped=False), seed


@pytest.mark.parametrize("style", STYLES[:3], ids=lambda style: style.__name__)
@pytest.mark.parametrize("key", ["content", "reasoning_content"])
def test_a_steady_stream_is_relayed_by_the_thread(style: Callable[..., Any], key: str, thread: Thread) -> None:
    relay = ThreadRelay(thread, random.Random(1))
    reads = [framed(b"data: %b\n\n" % json.dumps(style({key: f" {n}"}, n)).encode()) for n in range(400)]
    for data in (HEAD, *reads):
        relay.receive(data)
    relay.end()
    relay.close()
    assert relay.pumped >= 380
    assert relay.returned <= 8  # with another `created` the template is learned again


# ---- what is returned


@pytest.mark.parametrize(
    "odd",
    [
        b"0\r\n\r\n",
        framed(b"data: [DONE]\n\n"),
        framed(event(b'"x"') + b"data: [DONE]\n\n"),
        framed(event(b"null")),
        b"1e;ext=1\r\n" + event(b'"x"') + b"\r\n",
        b"x",
        b"10001\r\ndata",
        b"40\r\n" + event(b'"x"'),
        framed(event(b'"%b"' % (b"x" * 9000)))[:5000],
    ],
)
def test_anything_else_is_returned_from_the_beginning_of_its_chunk_on(odd: bytes, thread: Thread) -> None:
    good, sent = framed(event(b'"a"')), converted(b'"a"')
    for before in (b"", good, good * 3):
        with Stream(thread) as stream:
            stream.engine.sendall(before + odd)
            assert stream.until_returned() == odd
            if before:
                assert stream.receive(len(framed((OPENING + b'"a"' + CLOSING) * before.count(good)))) == framed(
                    (OPENING + b'"a"' + CLOSING) * before.count(good)
                )
            assert stream.pump.take()[0] == before.count(good)
            stream.engine.sendall(good)  # nothing reads it
            assert stream.up.recv(1000) == good
    with Stream(thread) as stream:
        stream.engine.sendall(good)
        assert stream.receive(len(sent)) == sent
        stream.engine.sendall(odd)
        assert stream.until_returned() == odd


@pytest.mark.parametrize("tail", [b"", b"1f\r\nda"])
def test_a_stream_is_returned_at_its_end(tail: bytes, thread: Thread) -> None:
    with Stream(thread) as stream:
        stream.engine.sendall(framed(event(b'"a"')) + tail)
        assert stream.receive(len(converted(b'"a"'))) == converted(b'"a"')
        stream.engine.close()
        assert stream.until_returned() == tail
        assert stream.up.recv(1000) == b""


def test_a_reset_is_left_to_the_event_loop_with_what_arrived_before_it(thread: Thread) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for before in (b"", framed(event(b'"a"'))):
            with Stream(thread) as stream:
                rest, taken = stream.pump.disarm(), stream.pump.take()
                assert (rest, taken) == (b"", (0, b"", []))
                up = socket.create_connection(server.getsockname())
                engine, _ = server.accept()
                assert new_pump is not None
                stream.pump = new_pump(
                    stream, None, stream.written.append, lambda: 0, lambda: False, stream.down.fileno()
                )
                stream.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
                assert stream.pump.leave_to(thread, up.fileno())
                engine.sendall(before)
                if before:
                    assert stream.receive(len(converted(b'"a"'))) == converted(b'"a"')
                engine.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                engine.close()
                assert stream.until_returned() == b""
                with up, pytest.raises(ConnectionResetError):
                    up.recv(1000)


def test_a_full_client_gets_the_rest_of_a_write_from_its_transport(thread: Thread) -> None:
    with Stream(thread) as stream:
        stream.down.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        piece = b"x" * 1000
        sent = 0
        stream.engine.settimeout(0.001)
        while not stream.returned:
            try:
                stream.engine.sendall(framed(event(b'"%b"' % piece)))
                sent += 1
            except TimeoutError:
                break
            if select.select([thread], [], [], 0)[0]:
                thread.collect()
        stream.until_returned()
        deltas = stream.pump.take()[0] + sum(taken[0] for taken in stream.taken)
        stream.client.setblocking(False)
        received = b""
        while True:
            try:
                received += stream.client.recv(1 << 20)
            except BlockingIOError:
                break
        data = received + b"".join(stream.written)
        assert len(stream.written) == 1
        assert data.count(OPENING + b'"' + piece + b'"' + CLOSING) == deltas
        assert data.count(OPENING) == deltas


def test_a_client_that_has_gone_is_left_to_its_transport(thread: Thread) -> None:
    with Stream(thread) as stream:
        stream.client.close()
        stream.engine.sendall(framed(event(b'"a"')))
        assert stream.until_returned() == b""
        assert stream.written == [converted(b'"a"')]
    with Stream(thread) as stream:
        stream.client.close()
        stream.closing = True  # a closed transport is not written to
        stream.engine.sendall(framed(event(b'"a"')))
        stream.until_returned()
        assert stream.written == []


# ---- disarming


def test_after_disarm_neither_socket_is_touched(thread: Thread) -> None:
    good, sent = framed(event(b'"a"')), converted(b'"a"')
    for wait in (True, False):
        for _ in range(300):
            with Stream(thread) as stream:
                stream.engine.sendall(good)
                if wait:
                    assert stream.receive(len(sent)) == sent
                rest = stream.pump.disarm()
                stream.engine.sendall(good)
                unread = rest + stream.up.recv(1000)
                relayed = 1 - (unread.count(good) - 1)
                assert unread == good * (2 - relayed)
                assert stream.pump.take()[0] == relayed
                stream.client.setblocking(False)
                if not wait and relayed:
                    assert stream.client.recv(1000) == sent
                with pytest.raises(BlockingIOError):
                    stream.client.recv(1000)
                assert stream.returned == 0
    assert select.select([thread], [], [], 0)[0] == []


def test_an_incomplete_chunk_is_returned_by_disarm(thread: Thread) -> None:
    with Stream(thread) as stream:
        whole = framed(event(b'"a"'))
        stream.engine.sendall(whole + whole[:20])
        stream.receive(len(converted(b'"a"')))
        unread = b""
        rest = stream.pump.disarm()
        if not rest:
            unread = stream.up.recv(1000)
        assert rest + unread == whole[:20]


def test_the_event_loop_may_close_its_sockets_while_the_thread_has_them(thread: Thread) -> None:
    with Stream(thread) as stream, Stream(thread) as other:
        stream.up.close()
        stream.down.close()
        first, second = socket.socketpair()  # get the same numbers
        with first, second:
            first.setblocking(False)
            second.setblocking(False)
            stream.engine.sendall(framed(event(b'"a"')))
            assert stream.receive(len(converted(b'"a"'))) == converted(b'"a"')
            stream.pump.disarm()
            assert stream.client.recv(10) == b""  # closed, and not only by the event loop
            for sock in (first, second):
                with pytest.raises(BlockingIOError):
                    sock.recv(10)
        other.engine.sendall(framed(event(b'"b"')))
        assert other.receive(len(converted(b'"b"'))) == converted(b'"b"')


def test_a_pump_that_nobody_refers_to_leaves_the_thread(thread: Thread) -> None:
    stream = Stream(thread)
    assert thread.pumps == 1
    stream.engine.sendall(b"x")  # a notice is waiting for it
    assert select.select([thread], [], [], PATIENCE)[0]
    for sock in (stream.up, stream.engine, stream.down, stream.client):
        sock.close()
    del stream
    gc.collect()
    assert thread.pumps == 0
    thread.collect()


def test_many_streams_that_come_and_go_lose_nothing(thread: Thread) -> None:
    rng = random.Random(5)
    for _ in range(20):
        streams = [Stream(thread) for _ in range(40)]
        for number in range(10):
            for at, one in enumerate(streams):
                one.engine.sendall(framed(event(b'"%d %d"' % (at, number))))
                if one.returned == 0 and rng.random() < 0.03:
                    one.returned = 1
                    one.rest = one.pump.disarm()
        for at, one in enumerate(streams):
            one.engine.shutdown(socket.SHUT_WR)
            if not one.returned:
                one.until_returned()
            unread = one.rest
            while data := one.up.recv(1 << 20):
                unread += data
            one.down.shutdown(socket.SHUT_WR)
            got = b""
            while data := one.client.recv(1 << 20):
                got += data
            got += b"".join(one.written)
            deltas = sum(taken[0] for taken in [*one.taken, one.pump.take()])
            assert got.count(OPENING) == deltas
            assert _texts(got) + _upstream_texts(unread) == [b'"%d %d"' % (at, number) for number in range(10)]
            one.__exit__()


def _texts(data: bytes) -> list[bytes]:
    return [part.partition(CLOSING)[0] for part in data.split(OPENING)[1:]]


def _upstream_texts(data: bytes) -> list[bytes]:
    return [part.partition(AFTER)[0] for part in data.split(BEFORE)[1:]]


# ---- reports


def test_python_is_told_after_128_writes_and_takes_all_that_was_written(thread: Thread) -> None:
    with Stream(thread) as stream:
        before = time.monotonic()
        for number in range(1, 301):
            stream.engine.sendall(framed(event(b'"a"'), event(b'"b"')))
            stream.receive(len(converted(b'"a"', b'"b"')))
            if number == 127:
                assert stream.pump.last_read > 0  # waits for the end of the step in which it was sent
                assert select.select([thread], [], [], 0)[0] == []
            elif number == 128:
                stream.collect()
                assert [(taken[0], len(taken[2])) for taken in stream.taken] == [(256, 128)]
        stream.sync()
        assert sum(taken[0] for taken in stream.taken) == 600
        times = [moment for taken in stream.taken for moment in taken[2]]
        assert len(times) == 300
        assert times == sorted(times)
        assert before <= times[0] <= times[-1] == stream.pump.last_read <= time.monotonic()
        stream.pump.disarm()
        assert stream.pump.last_read == times[-1]


def test_the_latest_counts_are_kept_until_they_are_taken(thread: Thread) -> None:
    with Stream(thread, counted=True) as stream:
        for number in (1, 2):
            counts = NUMBERLESS.replace(b"0", b"%d" % number)
            stream.engine.sendall(framed(BEFORE + b'"a"' + COUNTED + counts))
            stream.receive(len(converted(b'"a"')))
        stream.pump.disarm()
        deltas, found, times = stream.pump.take()
        assert (deltas, found, len(times)) == (2, NUMBERLESS.replace(b"0", b"2"), 2)
        assert stream.pump.take() == (0, b"", [])


def test_an_event_loop_that_takes_nothing_for_1024_writes_gets_the_stream_back(thread: Thread) -> None:
    with Stream(thread) as stream:
        one = framed(event(b'"a"'))
        stream.engine.settimeout(PATIENCE)
        sent = 0
        while not stream.returned:
            stream.engine.sendall(one)
            stream.receive(len(converted(b'"a"')))
            sent += 1
            if sent > 1024:
                thread.collect()
        deltas, _, times = stream.taken[0] if stream.taken else stream.pump.take()
        assert deltas == sent == len(times) + 1 == 1025


def test_a_fast_stream_is_read_less_often(thread: Thread) -> None:
    with Stream(thread) as stream:
        received = 0
        until = time.monotonic() + 1
        while time.monotonic() < until:
            stream.engine.sendall(framed(event(b'"a"')))
            received += len(stream.client.recv(1 << 20))
        stream.pump.disarm()
        deltas, _, times = stream.pump.take()
        assert deltas == len(times)
        gaps = sorted(after - before for before, after in itertools.pairwise(times[16:]))
        assert gaps[len(gaps) // 2] > 0.0009  # a pause of the whole machine makes the stream slow for 16 reads
        assert gaps[len(gaps) // 5] < 0.0015  # with longer pauses it would not count as fast any more
        assert received // len(converted(b'"a"')) in (deltas, deltas - 1)


def test_a_stream_that_is_far_faster_than_a_reader_is_read_even_less_often(thread: Thread) -> None:
    one = framed(event(b'"a"'))
    with Stream(thread) as stream:
        stream.client.setblocking(False)
        for events, is_long in ((40, True), (1, False)):
            until = time.monotonic() + PATIENCE
            while (_median_gap(stream) > 0.0035) is not is_long:
                assert time.monotonic() < until
                with suppress(BlockingIOError):
                    stream.client.recv(1 << 20)
                stream.engine.sendall(one * events)
                time.sleep(0.0004)


def _median_gap(stream: Stream) -> float:
    """Of the latest sixteen writes."""
    stream.sync()
    times = [moment for taken in stream.taken for moment in taken[2]][-16:]
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    return gaps[len(gaps) // 2] if gaps else 0.0


@pytest.mark.parametrize("size", [1, 40])
def test_the_end_of_a_fast_stream_is_not_delayed_by_its_pause(size: int, thread: Thread) -> None:
    delays = []
    for _ in range(20):
        with Stream(thread) as stream:
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                stream.engine.sendall(framed(event(b'"a"')) * size)
                stream.client.recv(1 << 20)
            began = time.monotonic()
            stream.engine.close()
            stream.until_returned()
            delays.append(time.monotonic() - began)
    assert min(delays) < 0.001


def test_a_slow_stream_is_not_delayed_by_a_fast_one(thread: Thread) -> None:
    with Stream(thread) as fast, Stream(thread) as slow:
        delays = []
        for _ in range(200):
            fast.engine.sendall(framed(event(b'"a"')) * 20)
            began = time.perf_counter()
            slow.engine.sendall(framed(event(b'"b"')))
            slow.receive(len(converted(b'"b"')))
            delays.append(time.perf_counter() - began)
            fast.client.recv(1 << 20)
            time.sleep(0.003)
        assert sorted(delays)[100] < 0.001


# ---- misuse


def test_an_error_of_python_code_is_passed_on_and_the_others_are_told_in_the_next_call(thread: Thread) -> None:
    with Stream(thread) as broken, Stream(thread) as good:

        def failing(data: bytes) -> None:
            broken.pump.disarm()
            raise KeyError("a bug")

        broken.hand_back = failing  # type: ignore[method-assign]
        broken.engine.sendall(b"x")
        assert select.select([thread], [], [], PATIENCE)[0]
        good.engine.sendall(b"x")
        with pytest.raises(KeyError):
            thread.collect()
        assert good.until_returned() == b"x"


def test_wrong_use_raises(thread: Thread) -> None:
    assert new_pump is not None
    assert new_thread is not None
    with Stream(thread) as stream:
        with pytest.raises(RuntimeError, match="uses the template"):
            stream.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
        with pytest.raises(RuntimeError, match="in use"):
            stream.pump.leave_to(thread, stream.up.fileno())
        with pytest.raises(RuntimeError, match="pump uses it"):
            thread.close()
        for time_, fd in ((lambda: 1.0, stream.down.fileno()), (None, -1)):
            pump = new_pump(stream, time_, print, lambda: 0, lambda: False, fd)
            with pytest.raises(RuntimeError, match="not armed"):
                pump.leave_to(thread, stream.up.fileno())
            pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
            with pytest.raises(ValueError, match="CLOCK_MONOTONIC"):
                pump.leave_to(thread, stream.up.fileno())
        pump = new_pump(stream, None, print, lambda: 0, lambda: False, stream.down.fileno())
        pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
        assert not pump.leave_to(thread, 1_000_000)
        closed = new_thread()
        closed.close()
        closed.close()
        with pytest.raises(RuntimeError, match="closed"):
            pump.leave_to(closed, stream.up.fileno())
        for method in (closed.fileno, closed.collect):
            with pytest.raises(ValueError, match="closed"):
                method()


def test_half_of_the_descriptors_are_left_to_new_connections(thread: Thread) -> None:
    assert new_thread is not None
    assert new_pump is not None
    with Stream(thread) as stream:
        pump = new_pump(stream, None, print, lambda: 0, lambda: False, stream.down.fileno())
        pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(stream.up.fileno())  # that is free; a caller may have left higher ones open
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 10, before[1]))
        try:
            other = new_thread()
            descriptors = _descriptors()
            assert not pump.leave_to(other, stream.up.fileno())
            assert _descriptors() == descriptors
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        other.close()


def test_a_forked_process_has_no_thread_and_leaves_the_parents_alone(thread: Thread) -> None:
    with Stream(thread) as stream:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert stream.pump.disarm() == b""
                assert thread.pumps == 0
                thread.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stream.engine.sendall(framed(event(b'"a"')))
        assert stream.receive(len(converted(b'"a"'))) == converted(b'"a"')
