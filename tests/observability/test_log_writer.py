"""A log reader that does not read blocks nothing: lines are dropped, counted, and the count is told."""

import os
import random
import select
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from anthro_asgi.observability.log_writer import LineStream, LogWriter

WAIT = 20.0  # seconds for a thread that only has to be scheduled


def notice(count: int) -> bytes:
    return b"dropped %d\n" % count


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):  # the test may have closed it
            os.close(end)


def read_until(reader: int, ending: bytes) -> bytes:
    """All that comes up to `ending`."""
    out = b""
    deadline = time.monotonic() + WAIT
    while not out.endswith(ending):
        assert time.monotonic() < deadline, f"{out[-80:]!r} does not end with {ending!r}"
        if select.select([reader], [], [], 0.1)[0]:
            out += os.read(reader, 1 << 20)
    return out


def test_lines_are_written_in_order_and_flush_waits_for_them(pipe: tuple[int, int]) -> None:
    log = LogWriter(pipe[1], notice)
    for number in range(500):
        log.write_line(b"%d\n" % number)
    log.flush()
    assert os.read(pipe[0], 1 << 20) == b"".join(b"%d\n" % number for number in range(500))
    assert log.dropped == 0


def test_a_line_that_a_pipe_has_room_for_is_written_at_once_without_a_thread(pipe: tuple[int, int]) -> None:
    log = LogWriter(pipe[1], notice)
    before = threading.active_count()
    for number in range(20):
        log.write_line(b"%d\n" % number)
        assert select.select([pipe[0]], [], [], 0)[0]
        assert os.read(pipe[0], 100) == b"%d\n" % number
    assert threading.active_count() == before
    assert os.get_blocking(pipe[1])  # other processes may write to the same open file


def slow_reader(kind: str, path: Path) -> tuple[int, Callable[[], bytes]]:
    """A descriptor to write to, and a function that reads a little of what was written."""
    if kind == "file":
        fd, reader = os.open(path, os.O_WRONLY | os.O_CREAT), os.open(path, os.O_RDONLY)
    elif kind == "socket":
        one, other = socket.socketpair()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        fd, reader = one.detach(), other.detach()
    elif kind == "terminal":
        reader, fd = os.openpty()
        tty.setraw(fd)
    else:
        reader, fd = os.pipe()
    return fd, lambda: os.read(reader, 700)


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal", "file"])
def test_all_lines_arrive_in_order_however_slowly_they_are_read(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    fd, read = slow_reader(kind, tmp_path / "log")
    log = LogWriter(fd, notice, limit=1 << 24)
    written, arrived = [], b""
    for number in range(3_000):
        written.append(b"%d %b\n" % (number, b"x" * chance.choice((1, 80, 300, 5_000))))
        log.write_line(written[-1])
        if kind != "file" and chance.random() < 0.3:
            arrived += read()  # there is more to read than is read here
    log.write_line(b"end\n")
    deadline = time.monotonic() + WAIT
    while not arrived.endswith(b"\nend\n"):
        assert time.monotonic() < deadline
        arrived += read()
    assert arrived == b"".join(written) + b"end\n"
    assert log.dropped == 0


def test_a_full_pipe_blocks_no_caller_and_the_number_of_lost_lines_is_told(pipe: tuple[int, int]) -> None:
    log = LogWriter(pipe[1], notice, limit=200_000)
    line = b"x" * 999 + b"\n"
    began = time.monotonic()
    for _ in range(2_000):  # 2 MB: the pipe holds 64 KiB, the queue 200 KB
        log.write_line(line)
    assert time.monotonic() - began < WAIT / 4
    assert log.dropped >= 1_700
    told = read_until(pipe[0], b"dropped %d\n" % log.dropped)
    assert told.count(line) == 2_000 - log.dropped
    log.flush()
    log.write_line(b"flows again\n")
    assert read_until(pipe[0], b"flows again\n") == b"flows again\n"


def test_flush_ends_in_time_though_the_pipe_is_full(pipe: tuple[int, int]) -> None:
    log = LogWriter(pipe[1], notice)
    log.write_line(b"x" * 500_000 + b"\n")
    began = time.monotonic()
    log.flush(timeout=0.2)
    assert 0.2 <= time.monotonic() - began < WAIT / 4


def test_a_closed_descriptor_loses_lines_without_an_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
    log = LogWriter(pipe[1], notice)
    log.write_line(b"one\n")
    log.flush()
    assert log.dropped == 1


def test_a_descriptor_that_somebody_made_non_blocking_still_gets_all_lines(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    log = LogWriter(pipe[1], notice)
    log.write_line(b"y" * 300_000 + b"\n")
    assert len(read_until(pipe[0], b"\n")) == 300_001


def test_a_forked_child_writes_its_own_lines_and_not_its_parents(pipe: tuple[int, int]) -> None:
    log = LogWriter(pipe[1], notice)
    log.write_line(b"parent\n")
    child = os.fork()
    if child == 0:
        log.write_line(b"child\n")
        log.flush()
        os._exit(0)
    os.waitpid(child, 0)
    log.flush()
    assert sorted(os.read(pipe[0], 1000).splitlines()) == [b"child", b"parent"]


def test_lines_of_many_threads_stay_whole(pipe: tuple[int, int]) -> None:
    log = LogWriter(pipe[1], notice)

    def write(name: bytes) -> None:
        for _ in range(100):
            log.write_line(name * 50 + b"\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    lines = os.read(pipe[0], 1 << 20).splitlines()
    assert sorted(lines) == [b"a" * 50] * 100 + [b"b" * 50] * 100 + [b"c" * 50] * 100


def test_a_stream_gives_whole_lines_however_they_are_written() -> None:
    lines: list[str] = []
    stream = LineStream(1, lines.append)
    print("one", 2, file=stream)
    stream.write("thr")
    stream.write("ee\nfour\n")
    assert lines == ["one 2", "three", "four"]


def test_without_a_thread_a_line_is_written_if_that_does_not_block(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    log = LogWriter(pipe[1], notice)
    line = b"x" * 999 + b"\n"
    log.write_line(line)
    assert os.read(pipe[0], 1 << 20) == line
    for _ in range(100):  # 100 KB: the pipe holds 64 KiB
        log.write_line(line)
    assert os.read(pipe[0], 1 << 20) == line * (100 - log.dropped)
    assert 30 < log.dropped < 60


def test_lines_of_several_processes_in_one_pipe_are_not_mixed(pipe: tuple[int, int]) -> None:
    """Two workers log faster than the reader reads. A write of more than PIPE_BUF bytes to a full pipe is divided."""
    children = []
    for name in (b"a", b"b"):
        pid = os.fork()
        if not pid:
            log = LogWriter(pipe[1], notice, limit=1 << 22)
            for number in range(3_000):
                log.write_line(name * (100 + number % 400) + b"\n")
            log.flush(timeout=WAIT)
            os._exit(0)
        children.append(pid)
    os.close(pipe[1])
    out = b""
    while piece := os.read(pipe[0], 1 << 13):
        out += piece
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    lines = out.splitlines()
    assert len(lines) == 6_000
    assert {bytes(set(line)) for line in lines} == {b"a", b"b"}
