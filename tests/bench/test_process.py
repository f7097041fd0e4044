"""The cost of a process, read from outside: children that use a known amount and report it."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anthro_asgi.bench.processes import Meter, cpu_ns, family, resident
from bench.process import NotListening, serving

BURN = """
    import sys, time, threading, subprocess
    def burn(seconds, clock=time.process_time):
        end = clock() + seconds
        while clock() < end: pass
    def tell(word):
        print(word, time.process_time(), flush=True)
        return sys.stdin.readline()
"""
MIB = 1024 * 1024


class Child:
    """A Python child that is told to go on line by line, and answers with a word and its own CPU seconds."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def hear(self) -> tuple[str, float]:
        assert self._process.stdout is not None
        word, seconds = self._process.stdout.readline().split()
        return word, float(seconds)

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextmanager
def child(code: str) -> Iterator[Child]:
    command = [sys.executable, "-c", textwrap.dedent(BURN) + textwrap.dedent(code)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()


def test_cpu_time_includes_threads_that_have_ended() -> None:
    code = """
        thread = threading.Thread(target=burn, args=(0.05, time.thread_time))
        thread.start(); thread.join()
        tell("threaded")
        burn(0.02)
        tell("done")
    """
    with child(code) as subject:
        _, before = subject.hear()
        assert before >= 0.05
        meter = Meter([subject.pid])
        assert cpu_ns(subject.pid) / 1e9 >= before
        meter.start()
        subject.go_on()
        _, after = subject.hear()
        cost = meter.stop()
    assert 0.02 <= cost.cpu_s <= after - before + 0.01


def test_cpu_time_before_the_start_is_not_counted() -> None:
    with child("burn(0.1); tell('burnt')") as subject:
        subject.hear()
        meter = Meter([subject.pid])
        meter.start()
        assert meter.stop().cpu_s < 0.05


def test_descendants_count_including_those_that_have_ended() -> None:
    code = """
        tell("ready")
        inner = "import time; end = 0.06\\nwhile time.process_time() < end: pass\\nprint(1, flush=True); input()"
        pipe = subprocess.PIPE
        other = subprocess.Popen([sys.executable, "-c", inner], stdin=pipe, stdout=pipe)
        other.stdout.readline()
        tell("burnt")
        other.communicate(b"\\n")
        tell("gone")
    """
    with child(code) as subject:
        subject.hear()
        meter = Meter([subject.pid])
        meter.start()
        subject.go_on()
        subject.hear()
        assert len(family(subject.pid)) == 2
        meter.sample()
        subject.go_on()
        subject.hear()
        assert family(subject.pid) == [subject.pid]
        cost = meter.stop()
    assert cost.cpu_s >= 0.06
    assert cost.rss_peak_mib > cost.rss_mib > 1


def test_memory_is_the_resident_set_at_the_end_and_at_most() -> None:
    code = """
        tell("ready")
        block = bytearray(50 << 20)
        tell("large")
        del block
        tell("small")
    """
    with child(code) as subject:
        subject.hear()
        meter = Meter([subject.pid])
        before = resident(subject.pid) / MIB
        meter.start()
        subject.go_on()
        subject.hear()
        meter.sample()
        subject.go_on()
        subject.hear()
        cost = meter.stop()
    assert cost.rss_mib < before + 25
    assert cost.rss_peak_mib > before + 45


def test_a_missing_process_is_reported_at_the_start() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    with pytest.raises(ProcessLookupError, match=str(gone.pid)):
        Meter([os.getpid(), gone.pid]).start()
    assert resident(gone.pid) == 0


def test_a_server_is_ended_also_after_an_exception() -> None:
    code = "import time; print('listening on http://127.0.0.1:1', flush=True); time.sleep(600)"
    seen: list[int] = []

    def fail() -> None:
        with serving([sys.executable, "-c", code]) as (url, pid):
            assert url == "http://127.0.0.1:1"
            assert cpu_ns(pid) > 0
            seen.append(pid)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    with pytest.raises(ProcessLookupError):
        cpu_ns(seen[0])


@pytest.mark.parametrize("code", ["print('something else')", "raise SystemExit(3)"])
def test_a_server_that_does_not_listen_is_reported(code: str) -> None:
    with pytest.raises(NotListening), serving([sys.executable, "-c", code]):
        pytest.fail("entered")
