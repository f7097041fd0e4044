"""What is read out of the records: figures of one server in one run, round by round, and medians of them.

A ratio or a difference of two servers is taken within a round, and then the median of the rounds.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .records import Record

Read = Callable[[Record], float | None]
ENGINE: Final = "direct"
FLOOR: Final = "relay"


def cpu(record: Record) -> float | None:
    """Microseconds of CPU time a token."""
    server = record["load"]["server"]
    return None if server is None else float(server["cpu_us_per_token"])


def memory(record: Record) -> float | None:
    """MiB resident at the most."""
    server = record["load"]["server"]
    return None if server is None else float(server["rss_peak_mib"])


def throughput(record: Record) -> float:
    """Tokens a second."""
    return float(record["load"]["tokens_per_s"])


def milliseconds(what: str, which: str) -> Read:
    """A percentile ("p50", …) of "ttft", "itl" or "transit"."""

    def read(record: Record) -> float | None:
        values = record["load"][what]
        value = None if values is None else values[which]
        return None if value is None else float(value) * 1e3

    return read


def rounds_of(records: Iterable[Record], run: str, server: str, read: Read) -> dict[int, float]:
    """The figure of each round that has it."""
    mine = (
        record
        for record in records
        if record["kind"] in ("peer", "direct") and record["run"] == run and record["server"] == server
    )
    read_out = {record["round"]: read(record) for record in mine}
    return {number: value for number, value in read_out.items() if value is not None}


def servers_of(records: Iterable[Record], run: str) -> list[str]:
    """Who took part, in the order of the first round."""
    mine = (record for record in records if record["kind"] in ("peer", "direct") and record["run"] == run)
    return list(dict.fromkeys(record["server"] for record in mine))


def median(values: dict[int, float]) -> float | None:
    return statistics.median(values.values()) if values else None


def ratio(subject: dict[int, float], floor: dict[int, float]) -> float | None:
    """The median over the rounds that both have of subject / floor."""
    return _paired(subject, floor, lambda one, other: one / other if other else None)


def added(subject: dict[int, float], floor: dict[int, float]) -> float | None:
    """The median over the rounds that both have of subject - floor."""
    return _paired(subject, floor, lambda one, other: one - other)


def _paired(
    subject: dict[int, float], floor: dict[int, float], combine: Callable[[float, float], float | None]
) -> float | None:
    pairs = [combine(subject[number], floor[number]) for number in subject.keys() & floor.keys()]
    there: Sequence[float] = [value for value in pairs if value is not None]
    return statistics.median(there) if there else None
