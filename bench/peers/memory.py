"""Resident memory of an open proxied stream: both its sockets, all its buffers and tasks, and what the allocator keeps.

Many streams that hardly say anything are opened, not all in one moment but at a rate, so that it is the open stream
that is seen and not a crowd at the door; while all are open, memory is compared with that of the idle server. All must
end well.
"""

from typing import Any, Final

from ..process import family, resident
from .bench import Bench, Prepared
from .driving import Client, Load, Server, driving
from .peer import Missing
from .serving import engine
from .steady import Gauge, await_open, pause

_FEW: Final = 500
_OPENED_PER_SECOND: Final = 400
_TOGETHER_SECONDS: Final = 10.0  # how long all are open
_TOKENS: Final = 9
_SAMPLES_SECONDS: Final = 0.5


def memory(bench: Bench) -> None:
    """For us, with few and with many streams."""
    print("\nmemory: KiB resident per open stream")
    for prepared in bench.named("ours-fast"):
        for number in sorted({min(_FEW, bench.memory_streams), bench.memory_streams}):
            try:
                kib, summary = _weigh(bench, prepared, number)
            except Missing as exc:
                bench.records.missing(prepared.peer.name, f"memory, {number} streams: {exc}")
                continue
            name, errors = prepared.peer.name, _errors(number, summary)
            bench.records.write("memory", server=name, streams=number, rss_kib_per_stream=kib, errors=errors)
            print(f"{name}: {kib:.1f} at {number} streams, errors: {errors or 'none'}", flush=True)


def _errors(number: int, summary: dict[str, Any]) -> dict[str, int]:
    """Kinds of failures and how many streams they ended, of `number`."""
    errors: dict[str, int] = dict(summary["errors"])
    left = number - summary["ok"] - sum(errors.values())
    return errors | ({"unfinished": left} if left else {})


def _weigh(bench: Bench, prepared: Prepared, number: int) -> tuple[float, dict[str, Any]]:
    """KiB a stream, and how the streams ended. Raises Missing."""
    opening = number / _OPENED_PER_SECOND
    rate = (_TOKENS - 1) / (opening + _TOGETHER_SECONDS)
    load = Load(requests=number, tokens=_TOKENS, rate=_OPENED_PER_SECOND)
    with engine(rate, bench.folder) as upstream, bench.serving(prepared, upstream, tokens=1) as server:
        gauge, idle = Gauge(upstream), sum(map(resident, family(server.pid)))
        with driving(server, load, bench.folder) as client:
            await_open(gauge, number, client, 2 * opening + _TOGETHER_SECONDS)
            most = _most(server, gauge, number, client)
            summary = client.summary(2 * opening + 2 * _TOGETHER_SECONDS)
    if not most:
        raise Missing("the streams ended before they were weighed")
    return (most - idle) / 1024 / number, summary


def _most(server: Server, gauge: Gauge, number: int, client: Client) -> int:
    """The most bytes that were resident while all streams were open."""
    most = 0
    while client.at_work and gauge.open() >= number:
        most = max(most, sum(map(resident, family(server.pid))))
        pause(_SAMPLES_SECONDS)
    return most
