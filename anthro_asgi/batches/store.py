"""The store of message batches, as a protocol: what `sql_store` implements and everything else uses.

A request of a batch is open until it has an outcome. A worker claims open requests: it gets a lease on each, which it
renews while it lives. When a lease has run out, another worker may claim the request. The first outcome that is stored
for a request stays; every later one is dropped. So each request runs at least once, and has one result.

    state        event                        next state
    open         claim                        leased
    leased       finish                       succeeded or errored
    leased       release, or the lease ends   open
    open         settle                       canceled or expired, if the batch is

`owner` is a digest of the API key that created the batch. Every look-up needs it: a key sees its own batches only.
Times are Unix times in seconds; the caller passes the current one. Every method raises StoreUnavailable when the
database fails.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from ..wire.batch_body import BatchEntry
from ..wire.message_batch import MessageBatch, Outcome
from .file_store import FileStore


class StoreUnavailable(Exception):
    """The database cannot be used now: it is not reachable, locked for too long, or its disk is full."""


class DuplicateCustomId(Exception):
    """Two requests of a batch have the same custom_id, which is the argument."""


class Claimed(NamedTuple):
    """A request that this worker may run now.

    `number` names it in the store. `owner` is that of its batch. `failures` is how many attempts have failed. `params`
    is JSON.
    """

    number: int
    owner: bytes
    batch_id: str
    custom_id: str
    failures: int
    params: bytes


class Finished(NamedTuple):
    """The outcome of a request. `body` is JSON: a Message if succeeded, an error envelope if errored."""

    number: int
    outcome: Outcome
    body: bytes


class Released(NamedTuple):
    """A request that goes back to the open ones. It may be claimed again at `due`."""

    number: int
    due: float
    failures: int


class Result(NamedTuple):
    """One result. `position` is that of the request in its batch, from 0."""

    position: int
    custom_id: str
    outcome: Outcome
    body: bytes | None


class BatchStore(Protocol):
    """A store of batches, and of the files that clients upload (`files`)."""

    @property
    def files(self) -> FileStore: ...

    async def open(self) -> None:
        """Connect, and create the tables if they are missing. Call it in the process that uses the store."""

    async def close(self) -> None: ...

    # batches of one owner

    async def create(self, owner: bytes, batch_id: str, now: float) -> None:
        """A batch without requests. It is hidden, and none of its requests runs, before `complete`."""

    async def append(self, batch_id: str, entries: Sequence[BatchEntry], now: float) -> None:
        """Add requests to a batch that is not complete. Raises DuplicateCustomId."""

    async def complete(self, batch_id: str, now: float) -> MessageBatch:
        """All requests are there: the batch begins."""

    async def discard(self, batch_id: str) -> None:
        """Remove a batch that does not become complete."""

    async def get(self, owner: bytes, batch_id: str) -> MessageBatch | None: ...

    async def page(
        self, owner: bytes, *, after_id: str | None, before_id: str | None, limit: int
    ) -> tuple[list[MessageBatch], bool]:
        """Batches, the latest first: those after or before the cursor, and whether there are more of them.

        An unknown cursor selects nothing.
        """

    async def cancel(self, owner: bytes, batch_id: str, now: float) -> MessageBatch | None:
        """Cancel what no worker has claimed. A batch that has ended stays as it is."""

    async def delete(self, owner: bytes, batch_id: str) -> bool:
        """Remove a batch, its requests and results. False if it is unknown or has not ended."""

    async def results(self, owner: bytes, batch_id: str, after: int) -> list[Result]:
        """The next results behind the position `after` (-1: the first), in order. Empty: there are no more.

        How many are returned depends on their size.
        """

    # the work

    async def claim(
        self, holder: str, limit: int, now: float, lease_until: float, skipped: Collection[str] = ()
    ) -> list[Claimed]:
        """Lease up to `limit` requests to the worker `holder`, by turns from all batches but the skipped ones."""

    async def renew(self, holder: str, lease_until: float) -> list[str]:
        """Renew the leases of a worker. Returns the ids of canceled batches of which it has leases."""

    async def release(self, released: Sequence[Released]) -> None:
        """End the leases of these requests."""

    async def release_all(self, holder: str, now: float) -> None:
        """End every lease of a worker."""

    async def finish(self, finished: Sequence[Finished], now: float) -> list[MessageBatch]:
        """Store outcomes, durably. Returns the batches that have ended with them."""

    async def settle(self, now: float) -> list[MessageBatch]:
        """Cancel and expire what is due, and remove uploads that were given up. Returns the batches that have ended.

        This holds for files, too.
        """
