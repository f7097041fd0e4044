"""The store of uploaded files, as a protocol. It is part of the store of batches, and shares its database.

    create ──► incomplete ── append … ──► complete ──► the file exists until it is deleted or expires
                  └── discard, or nothing was appended for ten minutes ──► removed

`owner` is as in `store`: a key sees its own files only. Times are Unix times in seconds, which the caller tells. Every
method raises StoreUnavailable when the database fails.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from ..wire.file_metadata import FileMetadata

PIECE: Final = 192 * 1024
"""Bytes of a piece of a file. It is a multiple of 3, so that the base64 of the pieces can be joined."""
LEAST_SIZE: Final = 4096
"""Bytes that a smaller file counts as, where the sizes of files are added."""


class TooManyFiles(Exception):
    """The files of an owner would take more than the limit."""


class FileStore(Protocol):
    async def create(self, owner: bytes, file_id: str, now: float, *, max_total: int) -> None:
        """A file without content, which is hidden before `complete`.

        Raises TooManyFiles if the files of the owner take `max_total` bytes or more.
        """

    async def append(self, file_id: str, piece: bytes, now: float) -> None:
        """Add content to a file that is not complete. Each piece but the last has PIECE bytes."""

    async def complete(
        self, file_id: str, filename: str, mime_type: str, now: float, *, expires_at: float | None, max_total: int
    ) -> FileMetadata:
        """The whole content is there. Raises TooManyFiles if the files of the owner take more than `max_total`."""

    async def discard(self, file_id: str) -> None:
        """Remove a file that does not become complete."""

    async def get(self, owner: bytes, file_id: str, now: float) -> FileMetadata | None: ...

    async def page(
        self, owner: bytes, now: float, *, after_id: str | None, before_id: str | None, limit: int
    ) -> tuple[list[FileMetadata], bool]:
        """Files, the latest first: those after or before the cursor, and whether there are more of them.

        An unknown cursor selects nothing.
        """

    async def some(self, owner: bytes, file_ids: Sequence[str], now: float) -> list[FileMetadata]:
        """Those of these files that exist, the latest first."""

    async def delete(self, owner: bytes, file_id: str) -> bool:
        """Remove a file. False if it is unknown."""

    async def content(self, owner: bytes, file_id: str, start: int) -> list[bytes]:
        """The next pieces of the content, from the piece number `start`. Empty: there are no more."""
