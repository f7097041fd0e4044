"""The store of files over an SQL database, in the transactions of `sql_store`. Each method is one transaction."""

from collections.abc import Callable, Sequence
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from ..wire.file_metadata import FileMetadata
from .database import Row, Statements
from .file_store import LEAST_SIZE, TooManyFiles

T = TypeVar("T")
P = ParamSpec("P")
_PIECES_AT_ONCE: Final = 4
_UPLOAD_GIVEN_UP: Final = 600.0  # seconds without new content after which an incomplete file is removed
_COLUMNS: Final = "id, created, expires, filename, mime_type, size"
_IS_THERE: Final = "is_complete = 1 AND (expires IS NULL OR expires > ?)"


class Transact(Protocol):
    """Runs `work` in a transaction."""

    async def __call__(
        self, work: Callable[Concatenate[Statements, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


class SqlFileStore:
    """Implements `file_store.FileStore`; see there."""

    def __init__(self, transact: Transact) -> None:
        self._transact = transact

    async def create(self, owner: bytes, file_id: str, now: float, *, max_total: int) -> None:
        await self._transact(_create, owner, file_id, now, max_total)

    async def append(self, file_id: str, piece: bytes, now: float) -> None:
        await self._transact(_append, file_id, piece, now)

    async def complete(
        self, file_id: str, filename: str, mime_type: str, now: float, *, expires_at: float | None, max_total: int
    ) -> FileMetadata:
        return await self._transact(_complete, file_id, filename, mime_type, now, expires_at, max_total)

    async def discard(self, file_id: str) -> None:
        await self._transact(_discard, file_id)

    async def get(self, owner: bytes, file_id: str, now: float) -> FileMetadata | None:
        found = await self.some(owner, [file_id], now)
        return found[0] if found else None

    async def page(
        self, owner: bytes, now: float, *, after_id: str | None, before_id: str | None, limit: int
    ) -> tuple[list[FileMetadata], bool]:
        return await self._transact(_page, owner, now, after_id, before_id, limit)

    async def some(self, owner: bytes, file_ids: Sequence[str], now: float) -> list[FileMetadata]:
        return await self._transact(_some, owner, file_ids, now)

    async def delete(self, owner: bytes, file_id: str) -> bool:
        return await self._transact(_delete, owner, file_id)

    async def content(self, owner: bytes, file_id: str, start: int) -> list[bytes]:
        return await self._transact(_content, owner, file_id, start)


def settle_files(statements: Statements, now: float) -> None:
    """Remove the files that have expired, and uploads that were given up."""
    due = statements.rows(
        "SELECT number FROM files WHERE expires <= ?"
        " UNION SELECT number FROM files WHERE is_complete = 0 AND touched < ? ORDER BY 1",
        now,
        now - _UPLOAD_GIVEN_UP,
    )
    for (number,) in due:
        _remove(statements, number)


def _create(statements: Statements, owner: bytes, file_id: str, now: float, max_total: int) -> None:
    if _total(statements, owner) >= max_total:
        raise TooManyFiles
    statements.run("INSERT INTO files (id, owner, created, touched) VALUES (?, ?, ?, ?)", file_id, owner, now, now)


def _total(statements: Statements, owner: bytes) -> int:
    """The bytes of the complete files of an owner."""
    (total,) = statements.rows(
        "SELECT COALESCE(SUM(CASE WHEN size > ? THEN size ELSE ? END), 0) FROM files"
        " WHERE owner = ? AND is_complete = 1",
        LEAST_SIZE,
        LEAST_SIZE,
        owner,
    )[0]
    return int(total)


def _append(statements: Statements, file_id: str, piece: bytes, now: float) -> None:
    number, pieces, _ = _incomplete(statements, file_id)
    statements.run("INSERT INTO file_pieces (file, position, body) VALUES (?, ?, ?)", number, pieces, piece)
    statements.run(
        "UPDATE files SET size = size + ?, pieces = pieces + 1, touched = ? WHERE number = ?", len(piece), now, number
    )


def _incomplete(statements: Statements, file_id: str) -> tuple[int, int, bytes]:
    """The number, the count of pieces and the owner of a file that is not complete."""
    row = statements.row("SELECT number, pieces, owner FROM files WHERE id = ? AND is_complete = 0", file_id)
    if row is None:
        raise LookupError(f"{file_id} is not there, or complete")
    number, pieces, owner = row
    return number, pieces, bytes(owner)


def _complete(
    statements: Statements,
    file_id: str,
    filename: str,
    mime_type: str,
    now: float,
    expires_at: float | None,
    max_total: int,
) -> FileMetadata:
    number, _, owner = _incomplete(statements, file_id)
    statements.run(
        "UPDATE files SET is_complete = 1, created = ?, expires = ?, filename = ?, mime_type = ? WHERE number = ?",
        now,
        expires_at,
        filename,
        mime_type,
        number,
    )
    if _total(statements, owner) > max_total:
        raise TooManyFiles  # the transaction is undone, and the caller discards the file
    return _from_row(statements.rows(f"SELECT {_COLUMNS} FROM files WHERE number = ?", number)[0])  # noqa: S608 - put together from constants


def _discard(statements: Statements, file_id: str) -> None:
    row = statements.row("SELECT number FROM files WHERE id = ? AND is_complete = 0", file_id)
    if row is not None:
        _remove(statements, row[0])


def _page(
    statements: Statements, owner: bytes, now: float, after_id: str | None, before_id: str | None, limit: int
) -> tuple[list[FileMetadata], bool]:
    rows, has_more = statements.page(
        "files", _COLUMNS, _IS_THERE, now, owner=owner, after_id=after_id, before_id=before_id, limit=limit
    )
    return [_from_row(row) for row in rows], has_more


def _some(statements: Statements, owner: bytes, file_ids: Sequence[str], now: float) -> list[FileMetadata]:
    if not file_ids:
        return []
    marks = ", ".join("?" * len(file_ids))
    rows = statements.rows(
        f"SELECT {_COLUMNS} FROM files WHERE owner = ? AND {_IS_THERE} AND id IN ({marks}) ORDER BY number DESC",  # noqa: S608 - put together from constants
        owner,
        now,
        *file_ids,
    )
    return [_from_row(row) for row in rows]


def _delete(statements: Statements, owner: bytes, file_id: str) -> bool:
    row = statements.row("SELECT number FROM files WHERE id = ? AND owner = ? AND is_complete = 1", file_id, owner)
    if row is None:
        return False
    _remove(statements, row[0])
    return True


def _remove(statements: Statements, number: int) -> None:
    statements.run("DELETE FROM file_pieces WHERE file = ?", number)
    statements.run("DELETE FROM files WHERE number = ?", number)


def _content(statements: Statements, owner: bytes, file_id: str, start: int) -> list[bytes]:
    rows = statements.rows(
        "SELECT body FROM file_pieces JOIN files ON files.number = file_pieces.file"
        " WHERE files.id = ? AND files.owner = ? AND files.is_complete = 1 AND position >= ? AND position < ?"
        " ORDER BY position",
        file_id,
        owner,
        start,
        start + _PIECES_AT_ONCE,
    )
    return [bytes(body) for (body,) in rows]


def _from_row(row: Row) -> FileMetadata:
    identity, created, expires, filename, mime_type, size = row
    return FileMetadata(identity, created, expires, filename, mime_type, size)
