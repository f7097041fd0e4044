"""Plays cells against the service. The cells of one set-up run one after the other; the set-ups run in parallel.

After a cell the service must hold nothing and run nothing, the event loop must have reported no error, the log must
have a line for each request and contain no secret, and the next client must be served.
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

from tests.checks.faults import unreachable
from tests.checks.faults.bad_engine import BadEngine
from tests.checks.faults.cells import ALSO_AS_A_PROCESS, SETUPS, USUAL, Cell
from tests.checks.faults.client import PATIENCE, Answer
from tests.checks.faults.healthy_response import SENT_TOKENS, TEXT, TOKENS, Json, content
from tests.checks.faults.service import INSTALLATIONS, Installation, ServiceThread
from tests.checks.faults.service_process import ServiceProcess
from tests.checks.faults.session import ClientSession
from tests.support.heap import freeze_heap

_COPIES: Final = {"usual": 5, "hurried": 3, "patient": 4, "pinging": 2}  # services of a set-up; one for the others
_AT_ONCE: Final = 8  # cells that are played at the same time: more would delay each other beyond their deadlines
_REST: Final = 10.0  # seconds within which a busy machine releases everything; it drains a connection for one second
_SLOWER: Final = 4  # times: how long a busy machine may take for what an idle one does in `Cell.within`
_LOOK: Final = 0.005  # seconds between two polls
_ServiceAndEngine = tuple[ServiceThread | ServiceProcess, BadEngine]


@dataclass(slots=True)
class Result:
    """The outcome of a cell by installation, and its problems."""

    outcome: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """The outcomes of all installations."""
        return " or ".join(dict.fromkeys(self.outcome.values()))


def play(cells: Iterable[Cell]) -> dict[Cell, Result]:
    """Play these cells."""
    with full_logging():
        return asyncio.run(_play(cells))


@contextmanager
def full_logging() -> Iterator[None]:
    """Logs at level debug, and freezes existing objects so that collections are short."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    freeze_heap()
    try:
        yield
    finally:
        root.setLevel(before)
        freeze_heap()


async def _play(cells: Iterable[Cell]) -> dict[Cell, Result]:
    waiting: dict[str, deque[Cell]] = {}
    for cell in cells:
        waiting.setdefault(cell.setup, deque()).append(cell)
    if not waiting:
        return {}
    copies = [(setup, min(len(queue), _COPIES.get(setup, 1))) for setup, queue in waiting.items()]
    start = _Start(sum(number for _, number in copies))
    results: dict[Cell, Result] = {}
    async with asyncio.TaskGroup() as group:
        for setup, number in copies:
            for _ in range(number):
                group.create_task(_play_in(setup, waiting[setup], start, results))
    return results


class _Start:
    """Services start one after the other, and all before the first cell is played: a busy machine delays a start.

    `cells` limits the number of cells that are played at the same time.
    """

    def __init__(self, services: int) -> None:
        self.turn = asyncio.Lock()
        self.all = asyncio.Barrier(services)
        self.cells = asyncio.Semaphore(_AT_ONCE)


async def _play_in(setup: str, queue: deque[Cell], start: _Start, results: dict[Cell, Result]) -> None:
    async with AsyncExitStack() as stack:
        services = [await _started(stack, setup, None)] if setup in ALSO_AS_A_PROCESS else []
        async with start.turn:
            services += [await _started(stack, setup, installation) for installation in INSTALLATIONS]
            gc.collect()
            gc.freeze()  # a hundred services have so many objects that a collection would block the engines for long
        await start.all.wait()
        while queue:
            cell = queue.popleft()
            result = results[cell] = Result()
            taking = [pair for pair in services if pair[0].installation.api == "chat" or cell.tries_both_apis]
            async with start.cells:
                await asyncio.gather(*(_play_cell(cell, *pair, result) for pair in taking))
            gc.collect()  # exceptions that were never retrieved are reported by the collection
            result.problems += [
                f"{served.installation.name}: {said}" for served, _ in services for said in served.loop_errors()
            ]


async def _started(stack: AsyncExitStack, setup: str, installation: Installation | None) -> _ServiceAndEngine:
    """The service in an installation, or as a process, and its engine."""
    engine, url, options = await stack.enter_async_context(unreachable.engine_at(setup))
    options = {**USUAL, **SETUPS.get(setup, {}), **options}
    served = ServiceThread(installation, url, options) if installation is not None else ServiceProcess(engine, options)
    await stack.enter_async_context(served)
    wrong = await _next_client_problems(served, engine) if setup in SETUPS else []
    assert not wrong, wrong
    await served.record_baseline()
    return served, engine


# --- one cell against one service ---


async def _play_cell(cell: Cell, service: ServiceThread | ServiceProcess, engine: BadEngine, result: Result) -> None:
    logged = len(service.log)
    began = time.monotonic()
    session = ClientSession(service, engine, cell.engine_model, cell.streams)
    problems: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            outcome = await cell.behaviour(session)
        took = time.monotonic() - began
        if took > _SLOWER * cell.within:
            problems.append(f"it took {took:.1f} s")
        problems += _content_problems(cell, session)
    except Exception as exc:
        outcome = f"failed ({type(exc).__name__})"
        problems.append(str(exc) or repr(exc))
    session.close()
    result.outcome[service.installation.name] = outcome
    if outcome != cell.expected:
        problems.append(f"the outcome was {outcome!r}, not {cell.expected!r}")
    problems += await _held_resources(service, engine)
    problems += _log_problems(cell, session, await _log(service, logged, cell.lines), service)
    if cell.group != "places":
        problems += await _next_client_problems(service, engine)
    result.problems += [f"{service.installation.name}: {problem}" for problem in problems]


async def _held_resources(service: ServiceThread | ServiceProcess, engine: BadEngine) -> list[str]:
    """What is still held after a grace period."""
    until = time.monotonic() + _REST
    while True:
        held = await service.held_resources()
        if engine.open > service.idle:
            held.append(f"{engine.open} connections to the engine, of which {service.idle} are idle")
        if not held or time.monotonic() > until:
            break
        await asyncio.sleep(_LOOK)
    problems = [f"still held: {held}"] if held else []
    problems += [f"the script failed: {failure!r}" for failure in engine.failures]
    engine.failures.clear()
    return problems


async def _log(service: ServiceThread | ServiceProcess, since: int, requests: int) -> list[Json]:
    """The log from line `since` on, once it has `requests` requests; another process may write them a little later."""
    until = time.monotonic() + _REST
    while True:
        lines = service.log[since:]
        if sum(line["event"] == "request" for line in lines) >= requests or time.monotonic() > until:
            return lines
        await asyncio.sleep(_LOOK)


async def _next_client_problems(service: ServiceThread | ServiceProcess, engine: BadEngine) -> list[str]:
    session = ClientSession(service, engine, "healthy/after headers", False)
    logged = len(service.log)
    try:
        async with asyncio.timeout(PATIENCE):
            outcome = await session.outcome_of(session.request())
            wrong = _wrong_content(session.answers[-1], "")
    except Exception as exc:
        outcome, wrong = f"failed: {exc!r}", []
    finally:
        session.close()
    await _log(service, logged, 1)
    return (
        [f"the next client got {outcome!r}"] * (outcome != "message") + wrong + await _held_resources(service, engine)
    )


# --- what was said ---


def _content_problems(cell: Cell, session: ClientSession) -> list[str]:
    """Problems with the content of answers, also of incomplete ones."""
    problems = []
    name, _, phase = cell.engine_model.rpartition("/")
    for answer in session.answers:
        if answer.outcome == "message" and name != "torrent":
            problems += _wrong_content(answer, phase)
        elif answer.outcome.startswith("event ") and phase in ("after first token", "in a tool call"):
            said = "".join(TOKENS[:SENT_TOKENS]) if phase == "after first token" else TEXT
            text = "".join(event.data["delta"].get("text", "") for event in answer.events if "delta" in event.data)
            if not text.startswith(said):
                problems.append(f"the text before the error was {text!r}")
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


def _log_problems(
    cell: Cell, session: ClientSession, log: list[Json], service: ServiceThread | ServiceProcess
) -> list[str]:
    problems = []
    for line in log:
        text = json.dumps(line)
        problems += [f"a secret in the log: {text:.300}" for secret in service.secrets if secret in text]
        if line["level"] in ("error", "critical") or "exception" in line:
            problems.append(f"an error in the log: {text:.900}")
    lines = [line for line in log if line["event"] == "request"]
    if len(lines) != cell.lines:
        problems.append(f"{len(lines)} requests in the log: {lines}")
    by_id = {line["request_id"]: line for line in lines}
    for answer in session.answers if cell.lines >= len(session.answers) else ():
        if not answer.outcome:  # the response broke the contract or did not end; its cell says so
            continue
        its = by_id.get(answer.headers.get("request-id", ""))
        problems += ["its request is not in the log"] if its is None else _wrong_line(answer.outcome, its)
    return problems


def _wrong_line(outcome: str, line: Json) -> list[str]:
    """Where the log line of a request differs from its response."""
    status, _, kind = outcome.partition(" ")
    expected: Json = {"status": 200 if status in ("message", "event", "cut") else int(status)}
    if kind:
        expected["error_type"] = kind
    if outcome == "message":
        expected["stop_reason"] = line.get("stop_reason") or "missing"
    return [] if expected.items() <= line.items() else [f"answered {outcome!r}, logged {line}"]
