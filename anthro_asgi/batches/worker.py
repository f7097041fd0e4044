"""Works off the requests of batches, in one event loop.

    store ── claim ──► ready ──► running ── outcome ──► unwritten ── finish ──► store
                         ▲          │
                         └──────────┴─ it gave its slot to a waiting client, or the engine cannot take requests now

A request runs only in a slot that no client needs (`Slots`), and it gives the slot back at once when a client waits for
one; the request then starts again later. Outcomes are written in groups: while one group is written, the next one
collects, so that a commit is shared by many requests.

What a failure of a request leads to:

    the engine cannot take requests (429, 529, unreachable)   pause all, for longer each time; it counts as no attempt
    any other 5xx                                             try again later, at most ATTEMPTS times in all
    4xx                                                       the outcome is `errored`

Two tasks run while the worker does: `_feed` claims, starts and writes; `_keep` renews the leases and settles batches
that are canceled or have expired. When the store fails, both try again after a while: outcomes wait in memory.
"""

import asyncio
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from ..observability.logs import log_event, log_failure
from ..wire.defaults import BATCH_CONCURRENCY, BATCH_LEASE
from ..wire.errors import ApiError, InternalError
from ..wire.message_batch import MessageBatch
from .store import BatchStore, Claimed, Finished, Released, StoreUnavailable

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

    def take_spare(self, give_up: Callable[[], object]) -> Slot | None:
        """A slot, if one is free and no client waits. `give_up` is called when a client waits for it."""


Run = Callable[[Claimed, str], Awaitable[bytes]]
"""Answers a request. The second argument is the id of the attempt, for logs. Returns the Message as JSON.

Raises ApiError.
"""
Note = Callable[[str, str], object]


class BatchWorker:
    """Args:
        store: an open store. It stays open when the worker stops.
        run: answers a request.
        slots: where a request gets its slot.
        concurrency: requests that run at the same time, at most.
        lease: seconds after which other workers may claim what this one has claimed, if it dies.
        note: is called with ("batch_request", outcome or "retried" or "yielded").

    Attributes:
        running: requests that run.
    """

    def __init__(
        self,
        store: BatchStore,
        run: Run,
        slots: Slots,
        *,
        concurrency: int = BATCH_CONCURRENCY,
        lease: float = BATCH_LEASE,
        note: Note = lambda what, kind: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._answer = run
        self._slots = slots
        self._concurrency = concurrency
        self._lease = lease
        self._note = note
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._ready: deque[Claimed] = deque()
        self._attempts: set[_Attempt] = set()
        self._unwritten: list[Finished | Released] = []
        self._wake = asyncio.Event()
        self._look = True  # whether the store may hold requests to claim
        self._paused_until = 0.0  # on the loop's clock
        self._pause = 0.0
        self._loops: list[asyncio.Task[None]] = []
        self._canceled: set[str] = set()  # batches whose ready requests are to be given back
        self._store_failed = False
        self._stopped = False

    def __repr__(self) -> str:
        return f"<BatchWorker {self._holder} running={self.running} ready={len(self._ready)}>"

    @property
    def running(self) -> int:
        return len(self._attempts)

    def start(self) -> None:
        """Begin to work. Needs a running event loop."""
        self._slots.when_free = self._wake.set
        self._loops = [asyncio.create_task(self._feed()), asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """Stop at once. Outcomes are written; requests that run or are ready go back to the store."""
        self._stopped = True
        self._slots.when_free = None
        for task in self._loops:
            task.cancel()
        attempts = [attempt.task for attempt in self._attempts if attempt.task is not None]
        for attempt in tuple(self._attempts):
            attempt.give_up()
        await asyncio.gather(*self._loops, *attempts, return_exceptions=True)
        self._loops = []
        self._ready.clear()
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

    # the two loops

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
        pause = self._paused_until - asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_POLL, pause) if pause > 0 else _POLL):
                await self._wake.wait()
                return
        self._look = True

    async def _keep(self) -> None:
        while True:
            try:
                await self._store.renew(self._holder, self._clock() + self._lease)
                self._ended(await self._store.settle(self._clock()))
            except Exception as exc:
                self._store_refuses(exc)
            await asyncio.sleep(min(self._lease / 3, _SETTLE))

    # claim, start, write

    async def _give_back_canceled(self) -> None:
        """Call it after a claim: one that was on its way when the batch was canceled has returned then."""
        canceled, self._canceled = self._canceled, set()
        ready, self._ready = self._ready, deque()
        for claimed in ready:
            if claimed.batch_id in canceled:
                self._unwritten.append(Released(claimed.number, self._clock(), claimed.failures))
            else:
                self._ready.append(claimed)
        while await self._write():
            pass
        self._ended(await self._store.settle(self._clock()))

    async def _claim(self) -> bool:
        """Claim requests when few are ready. Whether there may be more to claim."""
        lacking = self._concurrency - len(self._ready)
        if not self._look or self._is_paused() or lacking < max(1, self._concurrency // 2):
            return False
        now = self._clock()
        claimed = await self._store.claim(self._holder, lacking, now, now + self._lease)
        self._ready.extend(claimed)
        self._look = bool(claimed)
        return bool(claimed)

    def _start_ready(self) -> None:
        while self._ready and len(self._attempts) < self._concurrency and not self._is_paused():
            attempt = _Attempt(self._ready[0])
            slot = self._slots.take_spare(attempt.give_up)
            if slot is None:
                return
            self._ready.popleft()
            attempt.task = asyncio.get_running_loop().create_task(self._run_one(attempt))
            attempt.task.add_done_callback(partial(self._done, attempt, slot))
            self._attempts.add(attempt)

    def _done(self, attempt: "_Attempt", slot: Slot, task: asyncio.Task[None]) -> None:
        """An attempt has ended. This is no part of its coroutine: a task may be cancelled before its first step."""
        self._attempts.discard(attempt)
        if task.cancelled():  # a client waits for the slot, or the worker stops
            self._note("batch_request", "yielded")
            self._ready.appendleft(attempt.claimed)
        slot.release()
        if not self._stopped:
            self._start_ready()
            self._wake.set()

    async def _run_one(self, attempt: "_Attempt") -> None:
        claimed = attempt.claimed
        try:
            body = await self._answer(claimed, attempt.id)
        except ApiError as exc:
            self._failed(attempt, exc)
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as exc:
            # An engine in this process must neither stop the service nor pass for a client that waits.
            if isinstance(exc, asyncio.CancelledError) and attempt.given_up:
                raise
            log_failure(attempt.id, exc)
            self._failed(attempt, InternalError("internal error", reason=type(exc).__name__))
        else:
            self._pause = 0.0
            self._finish(Finished(claimed.number, "succeeded", body))

    def _failed(self, attempt: "_Attempt", error: ApiError) -> None:
        if attempt.given_up:  # the engine reports its cancellation as a failure
            raise asyncio.CancelledError
        claimed = attempt.claimed
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
            self._pause_all(error)
            self._note("batch_request", "retried")
            self._ready.append(claimed)
        elif retried:
            self._note("batch_request", "retried")
            delay = _RETRY * _RETRY_GROWTH ** (failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            self._unwritten.append(Released(claimed.number, self._clock() + delay, failures))
        else:
            self._finish(Finished(claimed.number, "errored", error.body(attempt.id)))

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

    def _is_paused(self) -> bool:
        return asyncio.get_running_loop().time() < self._paused_until

    def _pause_all(self, error: ApiError) -> None:
        """Start nothing for a while. Requests that fail in the same pause do not make the next one longer."""
        if self._is_paused():
            return
        self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _PAUSE)
        advised = next((value for name, value in error.headers if name == "retry-after"), "")
        seconds = max(self._pause, float(advised) if advised.isascii() and advised.isdigit() else 0.0)
        seconds = min(seconds, _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        self._paused_until = asyncio.get_running_loop().time() + seconds

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
