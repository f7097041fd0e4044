"""The routes of message batches (contract section 11), over a store and the worker that works them off.

A body and the results are streamed, so that memory does not grow with the batch.
"""

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from hashlib import sha256
from time import perf_counter
from typing import Final
from urllib.parse import parse_qs

import orjson

from ..batches.store import BatchStore, DuplicateCustomId, Result, StoreUnavailable
from ..batches.worker import BatchWorker
from ..observability.logs import log_event
from ..wire import defaults
from ..wire.batch_body import MAX_REQUESTS, BatchBodyReader, BatchEntry
from ..wire.errors import InvalidRequest, NotFound, Overloaded, quoted
from ..wire.large.cooperative import run_with_yields
from ..wire.message_batch import MessageBatch, batch_json, result_line
from .body import stream_body
from .body_memory import BodyShare
from .disconnect import DisconnectWatch
from .http_request import HttpRequest
from .models import page_limit

_APPEND: Final = 256 * 1024  # bytes of params that are stored at a time
_APPENDED_REQUESTS: Final = 1000  # requests that are stored at a time
_JSONL: Final = "application/x-jsonl"
_BINARY: Final = "application/binary"
FINISHED_HEADER: Final = "anthro-asgi-finished"
"""How many requests of a batch have an outcome: the counts of the batch tell that only once it has ended."""
_NO_KEY: Final = b""


def owner_of(key: bytes | None) -> bytes:
    """The owner of what is created with an API key, given as the digest of the key; None: there are no keys."""
    return _NO_KEY if key is None else sha256(b"anthro-asgi batches\0" + key).digest()


class BatchRoutes:
    """The routes, each as a method that responds to a request of the owner `owner`.

    Args:
        max_body: most bytes of a batch, as received and after decompression.
        max_params: most bytes of the params of one request.
        max_requests: most requests of a batch.
    """

    def __init__(
        self,
        store: BatchStore,
        worker: BatchWorker,
        *,
        max_body: int = defaults.MAX_BATCH,
        max_params: int = defaults.MAX_DECOMPRESSED,
        max_requests: int = MAX_REQUESTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.worker = worker
        self._store = store
        self._max_body = max_body
        self._max_params = max_params
        self._max_requests = max_requests
        self._clock = clock

    async def start(self) -> None:
        """Open the store, and begin to work. Raises StoreUnavailable."""
        await self._store.open()
        self.worker.start()

    async def stop(self) -> None:
        await self.worker.stop()
        await self._store.close()

    async def create(self, http_request: HttpRequest, owner: bytes, share: BodyShare) -> None:
        batch_id = f"msgbatch_{secrets.token_urlsafe(18)}"
        try:
            batch = await self._upload(http_request, owner, batch_id, share)
        except DuplicateCustomId as exc:
            await self._discard(batch_id)
            raise InvalidRequest(f"requests: the custom_id {exc} is used more than once") from exc
        except BaseException as exc:
            await self._discard(batch_id)
            if isinstance(exc, StoreUnavailable):
                raise store_unavailable(exc) from exc
            raise
        log_event("batch_created", batch_id=batch.id, requests=batch.total, request_id=http_request.request_id)
        self.worker.look()
        await self._respond(http_request, batch)

    async def _upload(self, http_request: HttpRequest, owner: bytes, batch_id: str, share: BodyShare) -> MessageBatch:
        """Store the requests of a body while it arrives."""
        reader = BatchBodyReader(max_requests=self._max_requests, max_params=self._max_params)
        entries: list[BatchEntry] = []
        size = 0
        is_created = False
        async with aclosing(stream_body(http_request, self._max_body, self._max_body)) as pieces:
            async for piece in pieces:
                arrived = await run_with_yields(reader.feed(piece), perf_counter)
                entries += arrived
                size += sum(len(entry.params) for entry in arrived)
                share.release()
                share.take(reader.held + size)
                if size < _APPEND and len(entries) < _APPENDED_REQUESTS:
                    continue
                if not is_created:
                    await self._store.create(owner, batch_id, self._clock())
                    is_created = True
                await self._store.append(batch_id, entries, self._clock())
                entries, size = [], 0
        await run_with_yields(reader.close(), perf_counter)
        if not is_created:
            await self._store.create(owner, batch_id, self._clock())
        if entries:
            await self._store.append(batch_id, entries, self._clock())
        return await self._store.complete(batch_id, self._clock())

    async def _discard(self, batch_id: str) -> None:
        """Remove what was stored of a batch. If that fails, `settle` removes it later."""
        with suppress(StoreUnavailable):
            await self._store.discard(batch_id)

    async def list_batches(self, http_request: HttpRequest, owner: bytes) -> None:
        parameters = parse_qs(http_request.query.decode("latin-1"), keep_blank_values=True)
        limit = page_limit(parameters)
        after_id, before_id = (parameters.get(name, [None])[-1] for name in ("after_id", "before_id"))
        try:
            batches, has_more = await self._store.page(owner, after_id=after_id, before_id=before_id, limit=limit)
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        page = {
            "data": [batch_json(batch, _results_url(http_request, batch.id)) for batch in batches],
            "first_id": batches[0].id if batches else None,
            "last_id": batches[-1].id if batches else None,
            "has_more": has_more,
        }
        await http_request.respond(200, orjson.dumps(page))

    async def get(self, http_request: HttpRequest, owner: bytes) -> None:
        await self._respond(http_request, await self._batch(http_request, owner))

    async def cancel(self, http_request: HttpRequest, owner: bytes) -> None:
        batch_id = _batch_id(http_request)
        try:
            batch = await self._store.cancel(owner, batch_id, self._clock())
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        if batch is None:
            raise _unknown(batch_id)
        if batch.cancel_initiated_at is not None:
            log_event("batch_canceled", batch_id=batch_id, request_id=http_request.request_id)
            self.worker.canceled(batch_id)
        await self._respond(http_request, batch)

    async def delete(self, http_request: HttpRequest, owner: bytes) -> None:
        batch = await self._batch(http_request, owner)
        if batch.ended_at is None:
            raise InvalidRequest(f"message batch {batch.id} has not ended; cancel it before you delete it")
        try:
            await self._store.delete(owner, batch.id)
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        log_event("batch_deleted", batch_id=batch.id, request_id=http_request.request_id)
        await http_request.respond(200, orjson.dumps({"id": batch.id, "type": "message_batch_deleted"}))

    async def results(self, http_request: HttpRequest, owner: bytes) -> None:
        batch = await self._batch(http_request, owner)
        if batch.ended_at is None:
            raise InvalidRequest(f"message batch {batch.id} has no results yet: it has not ended")
        accepts_binary = _BINARY.encode() in (http_request.header(b"accept") or b"")
        async with DisconnectWatch(http_request):
            position = -1
            page = await self._results(owner, batch.id, position)
            await http_request.start_response(200, _BINARY if accepts_binary else _JSONL)
            while page:
                lines = b"".join(result_line(custom_id, outcome, body) for _, custom_id, outcome, body in page)
                position = page[-1].position
                await http_request.send({"type": "http.response.body", "body": lines, "more_body": True})
                page = await self._results(owner, batch.id, position)
            if position + 1 != batch.total:
                raise RuntimeError("the batch was deleted while its results were read")
            await http_request.send({"type": "http.response.body", "body": b""})

    async def _results(self, owner: bytes, batch_id: str, after: int) -> list[Result]:
        try:
            return await self._store.results(owner, batch_id, after)
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc

    async def _batch(self, http_request: HttpRequest, owner: bytes) -> MessageBatch:
        """The batch that the path names. Raises NotFound or Overloaded."""
        batch_id = _batch_id(http_request)
        try:
            batch = await self._store.get(owner, batch_id)
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        if batch is None:
            raise _unknown(batch_id)
        return batch

    async def _respond(self, http_request: HttpRequest, batch: MessageBatch) -> None:
        body = orjson.dumps(batch_json(batch, _results_url(http_request, batch.id)))
        await http_request.respond(200, body, headers=((FINISHED_HEADER, str(batch.total - batch.unfinished)),))


def _batch_id(http_request: HttpRequest) -> str:
    return http_request.path.partition("/batches/")[2].partition("/")[0]


def _results_url(http_request: HttpRequest, batch_id: str) -> str:
    """The address of the results, below the base URL of the client that asks."""
    routes = http_request.path.partition("/batches")[0]
    return f"{http_request.base_url()}{routes}/batches/{batch_id}/results"


def _unknown(batch_id: str) -> NotFound:
    return NotFound(f"message batch {quoted(batch_id, 200)} does not exist")


def store_unavailable(exc: StoreUnavailable) -> Overloaded:
    """The error of a request that needs the store. It logs why the store cannot be used."""
    log_event("batch_store_failed", logging.ERROR, reason=str(exc))
    return Overloaded("the store of message batches and files cannot be used now", retry_after=5, reason="batch_store")
