"""How long each client of the fault matrix holds the event loop, and how late the tokens of another client are.

The clients are those of `tests.checks.faults`: they leave, send slowly, read slowly, break the framing, and send bodies
that are wrong or expand without end. The service is the one of the matrix, with its engine. Another client's stream
runs in its event loop, with a token every 20 ms.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from tests.checks.faults.bad_engine import BadEngine
from tests.checks.faults.cells import CELLS, SETUPS, USUAL, Cell
from tests.checks.faults.client import PATIENCE
from tests.checks.faults.matrix import full_logging
from tests.checks.faults.service import INSTALLATIONS, ServiceThread
from tests.checks.faults.session import ClientSession
from tests.checks.hold import Held, Ticker, no_collection, paced_stream, usual_gap
from tests.checks.hold.application import scale

CLIENTS: Final = tuple(cell for cell in CELLS if cell.group == "clients" and cell.streams)
_WAITING: Final = ("leaves", "resets", "half-closes", "sends", "content-length", "expects")
QUICK: Final = tuple(cell for cell in CLIENTS if cell.setup == "usual" and not cell.fault.startswith(_WAITING))
"""The clients that send their bytes at once, and wait for the response only."""
PARSERS: Final = tuple(installation for installation in INSTALLATIONS if installation.api == "chat")
_REPETITIONS: Final = 25  # of a cell beyond the bounds: noise only adds to a hold and to a gap
_SWITCH: Final = 0.0002  # seconds; the ticker never waits, so each switch to another thread takes an interval
_AFTER: Final = 0.02  # seconds after the client, in which the other client has a token
Report = Callable[[str, Cell, Held], object]


def holds(cells: Iterable[Cell], report: Report) -> Mapping[tuple[str, Cell], Held]:
    """The hold of each cell with each HTTP parser. `report` is called after each."""
    with full_logging(), no_collection(), _quick_switches():
        return asyncio.run(_holds(list(cells), report))


def is_within_bounds(held: Held) -> bool:
    """Whether the event loop was held shortly enough, and the other client's tokens were in time."""
    return held.is_within_bounds(scale())


async def _holds(cells: list[Cell], report: Report) -> Mapping[tuple[str, Cell], Held]:
    found: dict[tuple[str, Cell], Held] = {}
    for installation in PARSERS:
        for setup in dict.fromkeys(cell.setup for cell in cells):
            async with AsyncExitStack() as stack:
                engine = await stack.enter_async_context(BadEngine(None))
                service = ServiceThread(installation, engine.url, {**USUAL, **SETUPS[setup]})
                await stack.enter_async_context(service)
                for cell in cells:
                    if cell.setup == setup:
                        held = found[installation.name, cell] = await _best(cell, service, engine)
                        report(installation.name, cell, held)
    return found


async def _best(cell: Cell, service: ServiceThread, engine: BadEngine) -> Held:
    best = await _hold(cell, service, engine)
    for _ in range(_REPETITIONS - 1):
        if is_within_bounds(best):
            break
        best = best.or_better(await _hold(cell, service, engine))
    return best


async def _hold(cell: Cell, service: ServiceThread, engine: BadEngine) -> Held:
    session = ClientSession(service, engine, cell.engine_model, cell.streams)
    gaps: list[float] = []
    other = await service.inside(lambda: asyncio.ensure_future(paced_stream(gaps)))
    ticker = await service.inside(lambda: Ticker(asyncio.get_running_loop()))
    try:
        async with asyncio.timeout(PATIENCE):
            await cell.behaviour(session)
        await asyncio.sleep(_AFTER)
    finally:
        session.close()
        await service.inside(ticker.stop)
        await service.inside(other.cancel)
        engine.failures.clear()
    return Held(ticker.longest, usual_gap(gaps))


@contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
