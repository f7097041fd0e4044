"""The thread as the event loop of a process uses it: when it starts, whom it serves, and when it ends."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from anthro_asgi._native import NewThread, Pump, Thread, new_pump, new_thread, pump_thread
from anthro_asgi._native.pump_thread import PumpThread
from tests.support.pump_owner import AFTER, BEFORE, CLOSING, LARGE, OPENING, converted, event
from tests.support.pumped import framed


class Owner:
    """The owner of a pump on two connections."""

    def __init__(self) -> None:
        self.up, self.engine = socket.socketpair()
        self.down, self.client = socket.socketpair()
        self.returned = asyncio.Event()
        self.rest = b""
        assert new_pump is not None
        self.pump: Pump = new_pump(self, None, self.write, lambda: 0, lambda: False, self.down.fileno())
        self.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE)

    def write(self, data: bytes) -> None:
        raise AssertionError("the socket takes everything")

    def hand_back(self, data: bytes) -> None:
        self.rest = self.pump.disarm()
        self.returned.set()

    def sync(self) -> None:
        self.pump.take()

    slow_down = eof_received = pause_writing = resume_writing = sync

    def connection_lost(self, error: Exception | None) -> None:
        raise AssertionError("a thread has no transport")

    def close(self) -> None:
        self.pump.disarm()
        for sock in (self.up, self.engine, self.down, self.client):
            sock.close()


@pytest.fixture(name="owners")
def fixture_owners() -> Iterator[Callable[[], Owner]]:
    made: list[Owner] = []

    def make() -> Owner:
        made.append(Owner())
        return made[-1]

    yield make
    for owner in made:
        owner.close()


def starting() -> NewThread:
    assert new_thread is not None
    return new_thread


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


async def test_the_thread_starts_with_the_first_stream_and_ends_when_it_is_closed(
    owners: Callable[[], Owner],
) -> None:
    before = _threads()
    thread = PumpThread(starting())
    thread.close()
    assert _threads() == before
    for _ in range(2):  # it starts again
        first, second = owners(), owners()
        assert thread.take(first.pump, first.up.fileno())
        assert thread.take(second.pump, second.up.fileno())
        assert _threads() == before + 1
        for owner in (first, second):
            owner.engine.sendall(framed(event(b'"a"')) + b"0\r\n\r\n")
            await owner.returned.wait()
            assert (owner.client.recv(1000), owner.rest) == (converted(b'"a"'), b"0\r\n\r\n")
        thread.close()
        assert _threads() == before


async def test_a_thread_with_a_stream_is_not_closed(owners: Callable[[], Owner]) -> None:
    thread = PumpThread(starting())
    owner = owners()
    assert thread.take(owner.pump, owner.up.fileno())
    thread.close()
    owner.engine.sendall(b"x")
    await owner.returned.wait()
    assert owner.rest == b"x"
    thread.close()


def test_a_second_event_loop_is_served_when_the_first_has_no_stream(owners: Callable[[], Owner]) -> None:
    thread = PumpThread(starting())
    taken: list[bool] = []

    async def one(hold: Callable[[], Any] | None) -> None:
        owner = owners()
        is_taken = thread.take(owner.pump, owner.up.fileno())
        taken.append(is_taken)
        if hold is not None:
            hold()
        if is_taken:
            owner.engine.sendall(b"x")
            await owner.returned.wait()

    def beside() -> None:
        other = threading.Thread(target=lambda: asyncio.run(one(None)))
        other.start()
        other.join()

    asyncio.run(one(beside))
    assert taken == [True, False]
    asyncio.run(one(None))
    assert taken == [True, False, True]
    thread.close()


async def test_without_another_thread_the_pump_reads_itself_and_the_log_says_so_once(
    owners: Callable[[], Owner], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    attempts = 0

    def failing() -> Thread:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            return starting()()
        raise OSError(11, "no thread left")

    monkeypatch.setattr(pump_thread, "monotonic", lambda: now)
    thread = PumpThread(failing)
    owner = owners()
    for tries in range(1, 3):
        assert not thread.take(owner.pump, owner.up.fileno())
        assert not thread.take(owner.pump, owner.up.fileno())
        assert attempts == tries
        now += 10
    assert caplog.messages == ["native_thread_unavailable reason=no thread left"] * 2
    assert thread.take(owner.pump, owner.up.fileno())
    owner.pump.disarm()
    thread.close()


def test_a_forked_process_starts_its_own_thread(owners: Callable[[], Owner]) -> None:
    thread = PumpThread(starting())

    async def relay() -> bytes:
        owner = owners()
        assert thread.take(owner.pump, owner.up.fileno())
        owner.engine.sendall(framed(event(b'"a"')) + b"x")
        await owner.returned.wait()
        return owner.client.recv(1000)

    assert asyncio.run(relay()) == converted(b'"a"')
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert asyncio.run(relay()) == converted(b'"a"')
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(relay()) == converted(b'"a"')
    thread.close()
