"""Works off the requests of batches, in one event loop.

    store ── claim ──► ready ──► running ── outcome ──► unwritten ── finish ──► store
                         ▲          │
                         └──────────┴─ it gave its slot to a waiting client, or the engine cannot take requests now

A request runs only in a slot that no client needs (`Slots`), and it gives the slot back at once when a client waits for
one; the request then starts again later. Outcomes are written in groups: while one group is written, the next one
collects, so that a commit is shared by many requests.

Each engine has a lane of its own: its requests that are ready and that run, and its pause. While a lane has enough
ready requests, the worker claims none from the batches that filled this lane. So the requests of a busy engine do not
take the places of those for another engine.

What a failure of a request leads to:

    the engine cannot take requests (429, 529, unreachable)   pause its lane, for longer each time; counts no attempt
    any other 5xx                                             try again later, at most ATTEMPTS times in all
    4xx                                                       the outcome is `errored`

Three tasks run while the worker does. `_feed` claims, starts and writes. `_keep` renews the leases and settles batches
that are canceled or have expired. `_measure_lateness` sees whether the process is short of CPU (`throttle`). When the
store fails, the first two try again after a while: outcomes wait in memory.
"""

import asyncio
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

from ..observability.logs import log_event, log_failure
from ..wire.defaults import BATCH_CONCURRENCY, BATCH_LATENESS, BATCH_LEASE
from ..wire.errors import NO_SPARE_SLOT, ApiError, InternalError
from ..wire.large.cooperative import drop_in_steps, run_with_yields
from ..wire.message_batch import MessageBatch
from .store import BatchStore, Claimed, Finished, Released, StoreUnavailable
from .throttle import PERIOD, Throttle

ATTEMPTS: Final = 5
"""Attempts of a request that fail with a 5xx, before its outcome is `errored`."""
_RETRY: Final = 2.0  # seconds before the second attempt
_RETRY_GROWTH: Final = 4.0  # factor for each further one
_PAUSE: Final = 0.5  # seconds of the first pause, when the engine cannot take requests
_LONGEST_PAUSE: Final = 30.0
_POLL: Final = 1.0  # seconds after which other processes' batches are looked for
_STORE_RETRY: Final = 1.0  # seconds after which a store that failed is asked again
_SETTLE: Final = 5.0  # seconds, at most, after which batches that are canceled or have expired are settled
_GROUP: Final = 256  # most outcomes of one commit
_UNAVAILABLE: Final = frozenset({429, 529})
_UNREACHABLE: Final = frozenset({"connect", "timeout_connect"})  # reasons of errors


class Slot(Protocol):
    def release(self) -> None: ...


class Slots(Protocol):
    """The slots that clients leave. `when_free` is called when one may be free."""

    when_free: Callable[[], None] | None

    @property
    def clients_running(self) -> int:
        """Requests of clients that run."""

    def take_spare(self, give_up: Callable[[], object]) -> Slot | None:
        """A slot, if one is free and no client waits. `give_up` is called when a client waits for it."""


Run = Callable[[Claimed, str, list[Any]], Awaitable[bytes]]
"""Answers a request. The second argument is the id of the attempt, for logs. Returns the Message as JSON. The list
receives the values of a large request, which the worker frees in steps.

Raises ApiError.
"""
EngineOf = Callable[[Claimed], Awaitable[str]]
"""The name of the engine that is to answer a request."""
Note = Callable[[str, str], object]


async def _single_engine(claimed: Claimed) -> str:
    return ""


class BatchWorker:
    """Args:
        store: an open store. It stays open when the worker stops.
        run: answers a request.
        slots: where a request gets its slot.
        concurrency: requests that run at the same time on one engine, at most.
        lease: seconds after which other workers may claim what this one has claimed, if it dies.
        lateness: seconds by which the event loop may be late, before fewer requests run beside clients; 0 is no limit.
        note: is called with ("batch_request", outcome or "retried" or "yielded").
        engine_of: tells the engine of a request; by default, there is one engine. It raises nothing.
        engines: the names that `engine_of` returns. The first is that of requests without one of these.

    Attributes:
        running: requests that run.
        throttle: limits them while the process is short of CPU.
    """

    def __init__(
        self,
        store: BatchStore,
        run: Run,
        slots: Slots,
        *,
        concurrency: int = BATCH_CONCURRENCY,
        lease: float = BATCH_LEASE,
        lateness: float = BATCH_LATENESS,
        note: Note = lambda what, kind: None,
        clock: Callable[[], float] = time.time,
        engine_of: EngineOf = _single_engine,
        engines: Iterable[str] = ("",),
    ) -> None:
        self._store = store
        self._answer = run
        self._slots = slots
        self._concurrency = concurrency
        self._lease = lease
        self.throttle = Throttle(concurrency, lateness)
        self._note = note
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._engine_of = engine_of
        self._lanes = {name: _Lane() for name in engines}
        self._unwritten: list[Finished | Released] = []
        self._wake = asyncio.Event()
        self._attempt_started = asyncio.Event()
        self._look = True  # whether the store may hold requests to claim
        self._loops: list[asyncio.Task[None]] = []
        self._canceled: set[str] = set()  # batches whose ready requests are to be given back
        self._store_failed = False
        self._stopped = False

    def __repr__(self) -> str:
        return f"<BatchWorker {self._holder} running={self.running} ready={self._ready}>"

    @property
    def running(self) -> int:
        return sum(len(lane.attempts) for lane in self._lanes.values())

    @property
    def _ready(self) -> int:
        return sum(len(lane.ready) for lane in self._lanes.values())

    def start(self) -> None:
        """Begin to work. Needs a running event loop."""
        self._slots.when_free = self._wake.set
        self._loops = [asyncio.create_task(self._feed()), asyncio.create_task(self._keep())]
        if self.throttle.is_on:
            self._loops.append(asyncio.create_task(self._measure_lateness()))

    async def stop(self) -> None:
        """Stop at once. Outcomes are written; requests that run or are ready go back to the store."""
        self._stopped = True
        self._slots.when_free = None
        for task in self._loops:
            task.cancel()
        attempts = [attempt for lane in self._lanes.values() for attempt in lane.attempts]
        for attempt in attempts:
            attempt.give_up()
        tasks = [attempt.task for attempt in attempts if attempt.task is not None]
        await asyncio.gather(*self._loops, *tasks, return_exceptions=True)
        self._loops = []
        for lane in self._lanes.values():
            lane.ready.clear()
        try:
            while await self._write():
                pass
            await self._store.release_all(self._holder, self._clock())
        except StoreUnavailable as exc:
            log_event("batch_store_failed", logging.ERROR, reason=str(exc))

    def look(self) -> None:
        """A batch has begun or was canceled: look at the store at once."""
        self._look = True
        self._wake.set()

    def canceled(self, batch_id: str) -> None:
        """A batch was canceled: what is ready of it goes back to the store, which cancels it. What runs may end."""
        self._canceled.add(batch_id)
        self._wake.set()

    def make_room(self, engine: str) -> None:
        """A client waits for a slot of this engine: stop the request that started last there."""
        lane = self._lanes[engine]
        youngest = next((attempt for attempt in reversed(lane.attempts) if not attempt.given_up), None)
        if youngest is not None:
            youngest.give_up()

    # the three loops

    async def _feed(self) -> None:
        while True:
            self._wake.clear()
            try:
                busy = await self._write()
                busy = await self._claim() or busy
                if self._canceled:
                    await self._give_back_canceled()
                self._store_answers()
            except Exception as exc:
                self._store_refuses(exc)
                self._start_ready()
                await asyncio.sleep(_STORE_RETRY)
                continue
            self._start_ready()
            if not busy:
                await self._wait()

    async def _wait(self) -> None:
        """Wait for an outcome, a free slot or a new batch, or until it is time to look for other work."""
        now = asyncio.get_running_loop().time()
        pauses = (lane.paused_until - now for lane in self._lanes.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(min((_POLL, *(pause for pause in pauses if pause > 0)))):
                await self._wake.wait()
                return
        self._look = True

    async def _keep(self) -> None:
        while True:
            try:
                for batch_id in await self._store.renew(self._holder, self._clock() + self._lease):
                    self.canceled(batch_id)  # by a client of another process
                self._ended(await self._store.settle(self._clock()))
            except Exception as exc:
                self._store_refuses(exc)
            await asyncio.sleep(min(self._lease / 3, _SETTLE))

    async def _measure_lateness(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            self._attempt_started.clear()
            if not self.running:
                await self._attempt_started.wait()
            due = time() + PERIOD
            await asyncio.sleep(PERIOD)
            before = self.throttle.limit
            self.throttle.measured(time() - due, clients=self._slots.clients_running > 0)
            if self.throttle.limit > before:
                self._start_ready()

    # claim, start, write

    async def _give_back_canceled(self) -> None:
        """Call this after `_claim`, so that a claim that had begun before the cancellation has finished."""
        canceled, self._canceled = self._canceled, set()
        for lane in self._lanes.values():
            ready, lane.ready = lane.ready, deque()
            for claimed in ready:
                if claimed.batch_id in canceled:
                    self._unwritten.append(Released(claimed.number, self._clock(), claimed.failures))
                else:
                    lane.ready.append(claimed)
        while await self._write():
            pass
        self._ended(await self._store.settle(self._clock()))

    async def _claim(self) -> bool:
        """Claim requests when a lane has few that are ready. Whether there may be more to claim."""
        stocked = [lane for lane in self._lanes.values() if self._is_stocked(lane)]
        if not self._look or len(stocked) == len(self._lanes):
            return False
        now = self._clock()
        ready = sum(len(lane.ready) for lane in self._lanes.values() if lane not in stocked)
        skipped = {batch_id for lane in stocked for batch_id in lane.batches}
        limit = self._concurrency * (len(self._lanes) - len(stocked)) - ready
        claimed = await self._store.claim(self._holder, limit, now, now + self._lease, skipped)
        for one in claimed:
            await self._put_ready(one)
        self._look = bool(claimed)
        return bool(claimed)

    def _is_stocked(self, lane: "_Lane") -> bool:
        """Whether it needs no more requests now. If it does, all batches may be claimed from again."""
        if lane.is_paused() or self._concurrency - len(lane.ready) < max(1, self._concurrency // 2):
            return True
        lane.batches.clear()
        return False

    async def _put_ready(self, claimed: Claimed) -> None:
        """Put it into its lane, or back into the store if the lane has more than enough."""
        lane = self._lanes.get(await self._engine_of(claimed)) or next(iter(self._lanes.values()))
        if len(self._lanes) > 1:
            lane.batches.add(claimed.batch_id)
            if len(lane.ready) >= 2 * self._concurrency:
                self._unwritten.append(Released(claimed.number, self._clock(), claimed.failures))
                return
        lane.ready.append(claimed)

    def _start_ready(self) -> None:
        for lane in self._lanes.values():
            while lane.ready and len(lane.attempts) < self._concurrency and not lane.is_paused():
                if self.running >= self.throttle.limit * len(self._lanes):
                    return
                attempt = _Attempt(lane.ready[0])
                slot = self._slots.take_spare(attempt.give_up)
                if slot is None:
                    return
                lane.ready.popleft()
                attempt.task = asyncio.get_running_loop().create_task(self._run_one(attempt, lane))
                attempt.task.add_done_callback(partial(self._done, attempt, lane, slot))
                lane.attempts[attempt] = None
                self._attempt_started.set()

    def _done(self, attempt: "_Attempt", lane: "_Lane", slot: Slot, task: asyncio.Task[None]) -> None:
        """An attempt has ended. This is no part of its coroutine: a task may be cancelled before its first step."""
        del lane.attempts[attempt]
        if task.cancelled():  # a client waits for the slot, or the worker stops
            self._note("batch_request", "yielded")
            lane.ready.appendleft(attempt.claimed)
        slot.release()
        if not self._stopped:
            self._start_ready()
            if lane.batches and not self._is_stocked(lane):
                self._look = True  # the lane needs requests of batches that were skipped
            self._wake.set()

    async def _run_one(self, attempt: "_Attempt", lane: "_Lane") -> None:
        held: list[Any] = []
        is_given_up = await self._try(attempt, lane, held)
        if held:  # no exception refers to these values any more
            await run_with_yields(drop_in_steps(held), perf_counter)
        if is_given_up:
            raise asyncio.CancelledError

    async def _try(self, attempt: "_Attempt", lane: "_Lane", held: list[Any]) -> bool:
        """Get the outcome of an attempt. Returns whether the attempt was given up instead."""
        claimed = attempt.claimed
        try:
            body = await self._answer(claimed, attempt.id, held)
        except ApiError as exc:
            return self._failed(attempt, lane, exc)
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as exc:
            # An engine in this process must neither stop the service nor pass for a client that waits.
            if isinstance(exc, asyncio.CancelledError) and attempt.given_up:
                return True
            log_failure(attempt.id, exc)
            return self._failed(attempt, lane, InternalError("internal error", reason=type(exc).__name__))
        lane.pause = 0.0
        self._finish(Finished(claimed.number, "succeeded", body))
        return False

    def _failed(self, attempt: "_Attempt", lane: "_Lane", error: ApiError) -> bool:
        """Note the failure of an attempt. Returns whether the attempt was given up instead."""
        if attempt.given_up:  # the engine reports its cancellation as a failure
            return True
        claimed = attempt.claimed
        if error.reason == NO_SPARE_SLOT:
            lane.paused_until = asyncio.get_running_loop().time() + _PAUSE
            lane.ready.append(claimed)
            return False
        unavailable = error.status in _UNAVAILABLE or error.reason in _UNREACHABLE
        failures = claimed.failures + 1
        retried = unavailable or (error.status >= 500 and failures < ATTEMPTS)
        log_event(
            "batch_request_failed",
            logging.INFO if retried else logging.WARNING,
            batch_id=claimed.batch_id,
            custom_id=claimed.custom_id,
            request_id=attempt.id,
            status=error.status,
            error_type=error.type,
            reason=error.reason or None,
            attempts=None if unavailable else failures,
            retried=retried,
        )
        if unavailable:
            self._pause(lane, error)
            self._note("batch_request", "retried")
            lane.ready.append(claimed)
        elif retried:
            self._note("batch_request", "retried")
            delay = _RETRY * _RETRY_GROWTH ** (failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            self._unwritten.append(Released(claimed.number, self._clock() + delay, failures))
        else:
            self._finish(Finished(claimed.number, "errored", error.body(attempt.id)))
        return False

    def _finish(self, finished: Finished) -> None:
        self._note("batch_request", finished.outcome)
        self._unwritten.append(finished)

    async def _write(self) -> bool:
        """Store one group of outcomes. Whether there were any."""
        group = self._unwritten[:_GROUP]
        released = [one for one in group if isinstance(one, Released)]
        finished = [one for one in group if isinstance(one, Finished)]
        if released:
            await self._store.release(released)
        ended = await self._store.finish(finished, self._clock()) if finished else []
        del self._unwritten[: len(group)]
        self._ended(ended)
        return bool(group)

    # pauses

    def _pause(self, lane: "_Lane", error: ApiError) -> None:
        """Start nothing in a lane for a while. Requests that fail in the same pause do not make the next one longer."""
        if lane.is_paused():
            return
        lane.pause = min(_LONGEST_PAUSE, lane.pause * 2 or _PAUSE)
        advised = next((value for name, value in error.headers if name == "retry-after"), "")
        seconds = max(lane.pause, float(advised) if advised.isascii() and advised.isdigit() else 0.0)
        seconds = min(seconds, _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        lane.paused_until = asyncio.get_running_loop().time() + seconds

    # reports

    def _ended(self, batches: list[MessageBatch]) -> None:
        for batch in batches:
            succeeded, errored, canceled, expired = batch.outcomes
            log_event(
                "batch_ended",
                batch_id=batch.id,
                requests=batch.total,
                succeeded=succeeded,
                errored=errored,
                canceled=canceled,
                expired=expired,
                duration=(batch.ended_at or batch.created_at) - batch.created_at,
            )

    def _store_refuses(self, exc: Exception) -> None:
        if not isinstance(exc, StoreUnavailable):
            log_failure("batches", exc)
        elif not self._store_failed:
            log_event("batch_store_failed", logging.ERROR, reason=str(exc))
        self._store_failed = True

    def _store_answers(self) -> None:
        if self._store_failed:
            log_event("batch_store_recovered")
        self._store_failed = False


class _Lane:
    """The requests of one engine.

    Attributes:
        ready: claimed, and not started.
        attempts: those that run, the one that started last at the end.
        batches: batches with requests for this lane. While the lane has enough of them, the worker does not claim from
            these batches.
        pause: seconds of the last pause; 0 after a success.
        paused_until: on the loop's clock.
    """

    __slots__ = ("attempts", "batches", "pause", "paused_until", "ready")

    def __init__(self) -> None:
        self.ready: deque[Claimed] = deque()
        self.attempts: dict[_Attempt, None] = {}
        self.batches: set[str] = set()
        self.pause = 0.0
        self.paused_until = 0.0

    def is_paused(self) -> bool:
        return asyncio.get_running_loop().time() < self.paused_until


class _Attempt:
    """One run of a request."""

    __slots__ = ("claimed", "given_up", "id", "task")

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.id = f"req_{secrets.token_urlsafe(18)}"
        self.task: asyncio.Task[None] | None = None
        self.given_up = False

    def give_up(self) -> None:
        """Stop, so that the slot becomes free."""
        self.given_up = True
        if self.task is not None:
            self.task.cancel()
