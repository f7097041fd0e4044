"""Shared counters: counts of several processes add up exactly and outlive the processes."""

import os
from itertools import pairwise

import pytest

from anthro_asgi.observability.shared_counters import CounterLayout, SharedCounters

FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the children only count


def layout() -> CounterLayout:
    made = CounterLayout("a_")
    made.add("gauge", "open", "")
    made.add("gauge", "state", "", ("state",), [("idle",), ("busy",)])
    made.add("counter", "seen_total", "", ("kind",), [(str(number),) for number in range(20)])
    made.add("histogram", "took_seconds", "", ("route",), [("x",), ("y",)], edges=(1.0, 2.0))
    return made


def in_a_child(work: object) -> int:
    """The number of a process that does this work and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()  # type: ignore[operator]
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_every_label_set_has_a_place_of_its_own() -> None:
    made = layout()
    widths = [(place, len(one.edges) + 2 if one.edges else 1) for one in made.families for place in one.places.values()]
    assert all(place + width == next_place for (place, width), (next_place, _) in pairwise(sorted(widths)))
    assert sum(width for _, width in widths) == made.size
    assert made.gauges == 3


def test_gauges_come_first_so_that_they_can_be_cleared() -> None:
    made = layout()
    with pytest.raises(AssertionError, match="gauges come first"):
        made.add("gauge", "late", "")


@FORKS
def test_concurrent_counts_of_several_processes_add_up_exactly() -> None:
    counters = SharedCounters(layout(), 4)

    def count(worker: int) -> None:
        cells = counters.slots[worker]
        for number in range(50_000):
            cells[3 + number % 20] += 1.0

    children = [in_a_child(lambda worker=worker: count(worker)) for worker in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
    assert counters.totals()[3:23] == [10_000.0] * 20


@FORKS
def test_a_read_during_a_write_never_sees_a_partial_value() -> None:
    counters = SharedCounters(layout(), 2)
    told, tell = os.pipe()

    def write() -> None:
        cells = counters.slots[1]
        os.write(tell, b"!")
        while os.getppid() == parent and not counters.slots[0][0]:
            cells[0] = -1.5
            cells[0] = 1e300

    parent = os.getpid()
    child = in_a_child(write)
    os.read(told, 1)
    seen = {counters.slots[1][0] for _ in range(200_000)}
    counters.slots[0][0] = 1.0  # enough
    assert os.waitpid(child, 0)[1] == 0
    assert seen <= {0.0, -1.5, 1e300}
    os.close(told)
    os.close(tell)


@FORKS
def test_clearing_a_dead_workers_gauges_keeps_its_counters() -> None:
    counters = SharedCounters(layout(), 2)

    def count() -> None:
        for place in range(counters.slots[1].nbytes // 8):
            counters.slots[1][place] = 7.0

    os.waitpid(in_a_child(count), 0)
    counters.slots[0][0] = 1.0
    counters.clear_gauges(1)
    assert counters.totals()[:3] == [1.0, 0.0, 0.0]
    assert set(counters.totals()[3:]) == {7.0}


def test_the_totals_of_one_slot_are_its_values() -> None:
    counters = SharedCounters(layout(), 1)
    counters.slots[0][5] = 2.5
    assert counters.totals() == [0.0] * 5 + [2.5] + [0.0] * (len(counters.slots[0]) - 6)
