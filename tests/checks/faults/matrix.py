"""Plays cells: each against the service in its kits, one after the other in a house, the houses side by side.

When a cell is over the house must be as it was: nothing held, nothing running, no complaint of the event loop, a line
in the log for each request and in no line a secret. And the next client must be served.
"""

import asyncio
import gc
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.checks.faults import places
from tests.checks.faults.acting import Engine
from tests.checks.faults.cells import HOUSES, IN_A_PROCESS, USUAL, Cell
from tests.checks.faults.command import Command
from tests.checks.faults.guest import PATIENCE, Answer
from tests.checks.faults.house import KITS, House, Kit
from tests.checks.faults.speech import SAID, TEXT, TOKENS, Json, content
from tests.checks.faults.visit import Visit

_CROWD: Final = {"usual": 5, "hurried": 3, "patient": 4, "pinging": 2}  # houses of a kind; else one
_REST: Final = 2.5  # seconds to come to rest: a connection may be read to its end for one
_LOOK: Final = 0.005  # seconds between looks at what changes elsewhere
_Stage = tuple[House | Command, Engine]


@dataclass(slots=True)
class Result:
    """What a cell came to, by kit, and what is wrong with it."""

    told: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """What all kits told."""
        return " or ".join(dict.fromkeys(self.told.values()))


def play(cells: Iterable[Cell]) -> dict[Cell, Result]:
    """Play these cells."""
    with _attentive():
        return asyncio.run(_play(cells))


@contextmanager
def _attentive() -> Iterator[None]:
    """Everything is logged that could be, and only what is new is garbage to look at."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        root.setLevel(before)


async def _play(cells: Iterable[Cell]) -> dict[Cell, Result]:
    waiting: dict[str, deque[Cell]] = {}
    for cell in cells:
        waiting.setdefault(cell.house, deque()).append(cell)
    crowd = [(house, min(len(queue), _CROWD.get(house, 1))) for house, queue in waiting.items()]
    opening = _Opening(sum(number for _, number in crowd))
    results: dict[Cell, Result] = {}
    async with asyncio.TaskGroup() as group:
        for house, number in crowd:
            for _ in range(number):
                group.create_task(_play_in(house, waiting[house], opening, results))
    return results


class _Opening:
    """Houses open one after the other, and all before the first cell is played: a machine that is busy upsets it."""

    def __init__(self, houses: int) -> None:
        self.turn = asyncio.Lock()
        self.all = asyncio.Barrier(houses)


async def _play_in(house: str, queue: deque[Cell], opening: _Opening, results: dict[Cell, Result]) -> None:
    async with AsyncExitStack() as stack:
        stages = [await _opened(stack, house, None)] if house in IN_A_PROCESS else []
        async with opening.turn:
            stages += [await _opened(stack, house, kit) for kit in KITS]
        await opening.all.wait()
        while queue:
            cell = queue.popleft()
            result = results[cell] = Result()
            taking = [stage for stage in stages if stage[0].kit.api == "chat" or cell.is_engines]
            await asyncio.gather(*(_visit(cell, *stage, result) for stage in taking))
            gc.collect()  # what nobody asked for complains then
            result.problems += [f"{served.kit.name}: {said}" for served, _ in stages for said in served.complained()]


async def _opened(stack: AsyncExitStack, house: str, kit: Kit | None) -> _Stage:
    """The service in a kit, or by its command, and its engine."""
    engine, url, options = await stack.enter_async_context(places.at(house))
    options = {**USUAL, **HOUSES.get(house, {}), **options}
    served = House(kit, url, options) if kit is not None else Command(engine, options)
    await stack.enter_async_context(served)
    wrong = await _next(served, engine) if house in HOUSES else []
    assert not wrong, wrong
    await served.settle()
    return served, engine


# --- one cell in one house ---


async def _visit(cell: Cell, house: House | Command, engine: Engine, result: Result) -> None:
    logged = len(house.log)
    began = time.monotonic()
    visit = Visit(house, engine, cell.engine_model, cell.streams)
    problems: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            told = await cell.manner(visit)
        took = time.monotonic() - began
        if took > cell.within:
            problems.append(f"it took {took:.1f} s")
        problems += _misheard(cell, visit)
    except Exception as exc:
        told = f"failed ({type(exc).__name__})"
        problems.append(str(exc) or repr(exc))
    visit.leave()
    result.told[house.kit.name] = told
    if told != cell.due:
        problems.append(f"told {told!r}, and not {cell.due!r}")
    problems += await _unrest(house, engine)
    problems += _mislogged(cell, visit, await _log(house, logged, cell.lines), house)
    if cell.group != "places":
        problems += await _next(house, engine)
    result.problems += [f"{house.kit.name}: {problem}" for problem in problems]


async def _unrest(house: House | Command, engine: Engine) -> list[str]:
    """What is not as it was, once it had time to be."""
    until = time.monotonic() + _REST
    while True:
        held = await house.unrest()
        if engine.open > house.idle:
            held.append(f"{engine.open} connections to the engine, of which {house.idle} rest")
        if not held or time.monotonic() > until:
            break
        await asyncio.sleep(_LOOK)
    problems = [f"not at rest: {held}"] if held else []
    problems += [f"the script failed: {failure!r}" for failure in engine.failures]
    engine.failures.clear()
    return problems


async def _log(house: House | Command, since: int, requests: int) -> list[Json]:
    """The log from a line on, with so many requests in it: that of another process may come a little later."""
    until = time.monotonic() + _REST
    while True:
        lines = house.log[since:]
        if sum(line["event"] == "request" for line in lines) >= requests or time.monotonic() > until:
            return lines
        await asyncio.sleep(_LOOK)


async def _next(house: House | Command, engine: Engine) -> list[str]:
    visit = Visit(house, engine, "healthy/after headers", False)
    logged = len(house.log)
    try:
        async with asyncio.timeout(PATIENCE):
            told = await visit.say(visit.request())
            wrong = _wrong_content(visit.answers[-1], "")
    except Exception as exc:
        told, wrong = f"failed: {exc!r}", []
    finally:
        visit.leave()
    await _log(house, logged, 1)
    return [f"the next client was told {told!r}"] * (told != "message") + wrong + await _unrest(house, engine)


# --- what was said ---


def _misheard(cell: Cell, visit: Visit) -> list[str]:
    """What is wrong with the content of answers, whole or not."""
    problems = []
    name, _, phase = cell.engine_model.rpartition("/")
    for answer in visit.answers:
        if answer.told == "message" and name != "torrent":
            problems += _wrong_content(answer, phase)
        elif answer.told.startswith("event ") and phase in ("after first token", "in a tool call"):
            said = "".join(TOKENS[:SAID]) if phase == "after first token" else TEXT
            text = "".join(event.data["delta"].get("text", "") for event in answer.events if "delta" in event.data)
            if not text.startswith(said):
                problems.append(f"before the error came {text!r}")
    return problems


def _wrong_content(answer: Answer, phase: str) -> list[str]:
    message = answer.message
    blocks = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    expected = content(phase)
    problems = [] if blocks == expected else [f"the content was {blocks}"]
    if message["stop_reason"] != ("tool_use" if len(expected) > 1 else "end_turn"):
        problems.append(f"the stop reason was {message['stop_reason']}")
    return problems


# --- what was logged ---


def _mislogged(cell: Cell, visit: Visit, log: list[Json], house: House | Command) -> list[str]:
    problems = []
    for line in log:
        text = json.dumps(line)
        problems += [f"a secret in the log: {text:.300}" for secret in house.secrets if secret in text]
        if line["level"] in ("error", "critical") or "exception" in line:
            problems.append(f"an error in the log: {text:.900}")
    lines = [line for line in log if line["event"] == "request"]
    if len(lines) != cell.lines:
        problems.append(f"{len(lines)} requests in the log: {lines}")
    by_id = {line["request_id"]: line for line in lines}
    for answer in visit.answers if cell.lines >= len(visit.answers) else ():
        its = by_id.get(answer.headers.get("request-id", ""))
        problems += ["its request is not in the log"] if its is None else _wrong_line(answer.told, its)
    return problems


def _wrong_line(told: str, line: Json) -> list[str]:
    """What the line of a request says otherwise than its answer."""
    status, _, kind = told.partition(" ")
    due: Json = {"status": 200 if status in ("message", "event", "cut") else int(status)}
    if kind:
        due["error_type"] = kind
    if told == "message":
        due["stop_reason"] = line.get("stop_reason") or "missing"
    return [] if due.items() <= line.items() else [f"answered {told!r}, logged {line}"]
