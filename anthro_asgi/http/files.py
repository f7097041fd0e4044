"""The routes of uploaded files (contract section 12), over the store of files.

    body ──► multipart parts ──► pieces of 192 KiB ──► store        memory does not grow with the file

An upload is stored while it arrives. It becomes visible once its body has ended, with all fields checked.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Final
from urllib.parse import parse_qs

import orjson

from ..batches.file_store import PIECE, FileStore, TooManyFiles
from ..batches.store import StoreUnavailable
from ..observability.logs import log_event
from ..wire import defaults
from ..wire.errors import InvalidRequest, NotFound, RequestTooLarge, quoted
from ..wire.file_metadata import FileMetadata, file_json, lifetime_of, media_type_of, stored_name
from ..wire.multipart import MultipartReader, PartBegin, PartEnd, boundary_of
from .admission import Note
from .batches import store_unavailable
from .body import stream_body
from .body_memory import BodyShare
from .http_request import HttpRequest
from .models import page_limit

_FILE: Final = "file"
_LIFETIME: Final = "expires_in_seconds"
_BESIDE_FILE: Final = 64 * 1024  # bytes of a body beside its file
_MAX_FIELD: Final = 256  # bytes of a field that is read
_WINDOW: Final = 64 * 1024  # bytes that are parsed at a time
_MAX_IDS: Final = 100
_PAGE: Final = "page_"
_NOT_DOWNLOADABLE: Final = "only files that a tool has made can be downloaded, and this one was uploaded"


class FileRoutes:
    """The routes, each as a method that responds to a request of the owner `owner`.

    Args:
        store: an open store.
        max_file: most bytes of a file.
        max_total: most bytes of all files of an owner.
        note: is called with ("file", what has happened).
    """

    def __init__(
        self,
        store: FileStore,
        *,
        max_file: int = defaults.MAX_FILE,
        max_total: int = defaults.MAX_FILES_PER_KEY,
        note: Note = lambda what, kind: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._max_file = max_file
        self._max_total = max_total
        self._note = note
        self._clock = clock

    async def create(self, http_request: HttpRequest, owner: bytes, share: BodyShare) -> None:
        upload = _Upload(self._store, owner, self._max_file, self._max_total, self._clock, share)
        try:
            file = await upload.run(http_request)
        except TooManyFiles as exc:
            await upload.discard()
            raise InvalidRequest(
                f"file: the files of this API key may take {self._max_total} bytes in all (--max-files-per-key); "
                "delete files that are no longer needed",
                error_code="storage_quota_exceeded",
            ) from exc
        except BaseException as exc:
            await upload.discard()
            if isinstance(exc, StoreUnavailable):
                raise store_unavailable(exc) from exc
            raise
        self._note("file", "uploaded")
        log_event(
            "file_created",
            file_id=file.id,
            mime_type=file.mime_type,
            size=file.size,
            request_id=http_request.request_id,
        )
        await http_request.respond(200, orjson.dumps(file_json(file)))

    async def list_files(self, http_request: HttpRequest, owner: bytes) -> None:
        """A page by `page`, or by `after_id` and `before_id`, as older SDKs ask for it; or the files with some ids."""
        query = parse_qs(http_request.query.decode("latin-1"), keep_blank_values=True)
        ids = list(dict.fromkeys([*query.get("ids", ()), *query.get("ids[]", ())]))
        limit = page_limit(query)
        page, after_id, before_id = (query.get(name, [None])[-1] for name in ("page", "after_id", "before_id"))
        if page is not None:
            after_id = page.removeprefix(_PAGE)
        if len(ids) > _MAX_IDS:
            raise InvalidRequest(f"ids: at most {_MAX_IDS}")
        if ids and (page is not None or "limit" in query):
            raise InvalidRequest("ids: cannot be combined with page and limit")
        files: list[FileMetadata] = []
        has_more = False
        if not any(query.get("scope_id", ())):  # no file of this service belongs to a session
            now = self._clock()
            try:
                if ids:
                    files = await self._store.some(owner, ids, now)
                else:
                    files, has_more = await self._store.page(
                        owner, now, after_id=after_id, before_id=before_id, limit=limit
                    )
            except StoreUnavailable as exc:
                raise store_unavailable(exc) from exc
        listed = {
            "data": [file_json(file) for file in files],
            "first_id": files[0].id if files else None,
            "last_id": files[-1].id if files else None,
            "has_more": has_more,
            "next_page": f"{_PAGE}{files[-1].id}" if has_more else None,
        }
        await http_request.respond(200, orjson.dumps(listed))

    async def get(self, http_request: HttpRequest, owner: bytes) -> None:
        await http_request.respond(200, orjson.dumps(file_json(await self._file(http_request, owner))))

    async def content(self, http_request: HttpRequest, owner: bytes) -> None:
        """Refuses: Anthropic's API gives back no upload, and no tool of this service makes files."""
        file = await self._file(http_request, owner)
        raise InvalidRequest(f"file {file.id}: {_NOT_DOWNLOADABLE}", error_code="file_not_downloadable")

    async def delete(self, http_request: HttpRequest, owner: bytes) -> None:
        file_id = _file_id(http_request)
        try:
            is_deleted = await self._store.delete(owner, file_id)
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        if not is_deleted:
            raise _unknown(file_id)
        self._note("file", "deleted")
        log_event("file_deleted", file_id=file_id, request_id=http_request.request_id)
        await http_request.respond(200, orjson.dumps({"id": file_id, "type": "file_deleted"}))

    async def _file(self, http_request: HttpRequest, owner: bytes) -> FileMetadata:
        """The file that the path names. Raises NotFound or Overloaded."""
        file_id = _file_id(http_request)
        try:
            file = await self._store.get(owner, file_id, self._clock())
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        if file is None:
            raise _unknown(file_id)
        return file


class _Upload:
    """One upload, from its first byte to the complete file."""

    def __init__(
        self,
        store: FileStore,
        owner: bytes,
        max_file: int,
        max_total: int,
        clock: Callable[[], float],
        share: BodyShare,
    ) -> None:
        self._store = store
        self._owner = owner
        self._max_file = max_file
        self._max_total = max_total
        self._clock = clock
        self._share = share
        self._id = f"file_{secrets.token_urlsafe(18)}"
        self._is_created = False
        self._file: PartBegin | None = None
        self._size = 0
        self._piece = bytearray()
        self._open = ""  # the name of the open part
        self._lifetime = bytearray()

    async def run(self, http_request: HttpRequest) -> FileMetadata:
        """Raises ApiError, TooManyFiles and StoreUnavailable."""
        reader = MultipartReader(boundary_of(http_request.header(b"content-type")))
        most = self._max_file + _BESIDE_FILE
        async with aclosing(stream_body(http_request, most, most)) as pieces:
            async for piece in pieces:
                for start in range(0, len(piece), _WINDOW):
                    for event in reader.feed(piece[start : start + _WINDOW]):
                        await self._take(event)
                self._share.release()
                self._share.take(len(self._piece))
        reader.close()
        if self._file is None:
            raise InvalidRequest("file: required")
        if not self._size:
            raise InvalidRequest("file: must not be empty")
        mime_type = media_type_of(self._file.content_type)
        filename = stored_name(self._file.filename, mime_type)
        lifetime = lifetime_of(self._lifetime.decode("latin-1")) if self._lifetime else None
        await self._store_pieces(1)
        now = self._clock()
        expires_at = None if lifetime is None else now + lifetime
        return await self._store.complete(
            self._id, filename, mime_type, now, expires_at=expires_at, max_total=self._max_total
        )

    async def _take(self, event: PartBegin | bytes | PartEnd) -> None:
        if isinstance(event, PartBegin):
            await self._begin(event)
        elif isinstance(event, PartEnd):
            self._open = ""
        elif self._open == _FILE:
            self._size += len(event)
            if self._size > self._max_file:
                raise RequestTooLarge(f"file: larger than {self._max_file} bytes (--max-file)")
            self._piece += event
            await self._store_pieces(PIECE)
        elif self._open == _LIFETIME:
            self._lifetime += event[: _MAX_FIELD - len(self._lifetime)]

    async def _begin(self, part: PartBegin) -> None:
        self._open = part.name
        if part.name != _FILE:
            return
        if self._file is not None:
            raise InvalidRequest("file: given more than once")
        self._file = part
        await self._store.create(self._owner, self._id, self._clock(), max_total=self._max_total)
        self._is_created = True

    async def _store_pieces(self, least: int) -> None:
        """Store what has arrived, in pieces of `least` bytes or more."""
        while len(self._piece) >= least:
            piece = bytes(self._piece[:PIECE])
            del self._piece[:PIECE]
            await self._store.append(self._id, piece, self._clock())

    async def discard(self) -> None:
        """Remove what was stored. If the store fails, its `settle` removes the pieces later."""
        if self._is_created:
            with suppress(StoreUnavailable):
                await self._store.discard(self._id)


def _file_id(http_request: HttpRequest) -> str:
    return http_request.path.partition("/files/")[2].partition("/")[0]


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"file {quoted(file_id, 200)} does not exist")
