"""Puts the content of uploaded files into the requests that refer to them by `file_id` (contract 12.6).

    {"type": "file", "file_id": "file_…"}  ──►  {"type": "base64", "media_type": …, "data": …}    an image, or a PDF
                                           ──►  {"type": "text", "media_type": …, "data": …}      a text

The sources are changed in place, so the body that a relayed upstream receives has the content, too.
"""

import asyncio
import time
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ..batches.file_store import FileStore
from ..batches.store import StoreUnavailable
from ..wire.blocks import NO_PDFS
from ..wire.errors import ApiError, InvalidRequest, NotFound, RequestTooLarge, quoted
from ..wire.file_metadata import FileMetadata, is_image, is_pdf, is_text
from ..wire.large.cooperative import LARGE_BODY
from ..wire.request import MessagesRequest
from ..wire.request_policy import PdfSupport
from .admission import Note
from .batches import store_unavailable
from .body_memory import BodyShare

Json = dict[str, Any]
_MAX_FILES: Final = 100  # different ones in a request


class _Reference(NamedTuple):
    """A block that refers to a file, and the path of its `file_id` in the body."""

    path: str
    block: Json
    file_id: str


class FileSources:
    """Reads files for requests.

    Args:
        store: an open store.
        max_size: most bytes of one request: its body and its files, each reference counted.
        pdfs: whether the service reads PDFs.
        note: is called with ("file", "read" or "not_found").
    """

    def __init__(
        self,
        store: FileStore,
        *,
        max_size: int,
        pdfs: PdfSupport,
        note: Note = lambda what, kind: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._max_size = max_size
        self._pdfs = pdfs
        self._note = note
        self._clock = clock

    async def read(self, request: MessagesRequest, owner: bytes, share: BodyShare | None = None) -> None:
        """Replace the file sources of `request`. `share` counts what they add to the memory of the body.

        Raises NotFound for a file that the owner does not have, InvalidRequest for one that does not fit its block,
        RequestTooLarge and Overloaded.
        """
        references = list(_references(request.raw["messages"]))
        ids = list(dict.fromkeys(reference.file_id for reference in references))
        if len(ids) > _MAX_FILES:
            raise InvalidRequest(f"messages: refer to {len(ids)} files; the maximum is {_MAX_FILES}")
        try:
            known = {file.id: file for file in await self._store.some(owner, ids, self._clock())}
            self._check(references, known, request.body_size)
            sources: dict[str, Json] = {}
            for reference in references:
                if reference.file_id not in sources:
                    sources[reference.file_id] = await self._source(owner, known[reference.file_id], reference, share)
        except StoreUnavailable as exc:
            raise store_unavailable(exc) from exc
        for reference in references:
            content = sources[reference.file_id]
            source = reference.block["source"]
            source.clear()
            source.update(content)
        added = sum(known[reference.file_id].size for reference in references)
        request.has_pdfs |= any(is_pdf(file.mime_type) for file in known.values())
        request.body_size += added
        request.is_large |= added > LARGE_BODY
        self._note("file", "read")

    def _check(self, references: list[_Reference], known: dict[str, FileMetadata], body_size: int) -> None:
        """Check what can be known before a file is read. Raises as `read`."""
        size = body_size
        for reference in references:
            file = known.get(reference.file_id)
            if file is None:
                raise self._unknown(reference)
            if reference.block["type"] == "image":
                if not is_image(file.mime_type):
                    kind = f"the file is {file.mime_type}, and an image must be JPEG, PNG, WebP or GIF"
                    raise _invalid(reference, f"could not process image: {kind}")
            elif is_pdf(file.mime_type):
                if self._pdfs != "read":
                    raise _invalid(reference, NO_PDFS[self._pdfs])
            elif not is_text(file.mime_type):
                raise _invalid(reference, f"the file is {file.mime_type}, and a document must be a PDF or a text")
            size += file.size
            if size > self._max_size:
                reason = f"with its files, the request is larger than {self._max_size} bytes (--max-decompressed)"
                raise RequestTooLarge(f"{reference.path}: {reason}")

    async def _source(self, owner: bytes, file: FileMetadata, reference: _Reference, share: BodyShare | None) -> Json:
        """The source that takes the place of a reference. Raises as `read`, and StoreUnavailable."""
        as_text = getincrementaldecoder("utf-8-sig")().decode if is_text(file.mime_type) else None
        pieces: list[str] = []
        size = 0
        try:
            while found := await self._store.content(owner, file.id, len(pieces)):
                for piece in found:
                    size += len(piece)
                    pieces.append(b64encode(piece).decode("ascii") if as_text is None else as_text(piece))
                    if share is not None:
                        share.take(len(pieces[-1]))
                    await asyncio.sleep(0)
            if as_text is not None:
                pieces.append(as_text(b"", final=True))
        except UnicodeDecodeError:
            raise _invalid(reference, "the file is not UTF-8") from None
        if size != file.size:  # it was deleted meanwhile
            raise self._unknown(reference)
        if as_text is None:
            return {"type": "base64", "media_type": file.mime_type, "data": "".join(pieces)}
        return {"type": "text", "media_type": "text/plain", "data": "".join(pieces)}

    def _unknown(self, reference: _Reference) -> ApiError:
        self._note("file", "not_found")
        return NotFound(f"{reference.path}: file {quoted(reference.file_id, 200)} does not exist")


def _invalid(reference: _Reference, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{reference.path}: {reason}")


def _references(messages: list[Json]) -> Iterator[_Reference]:
    for index, message in enumerate(messages):
        yield from _within(message.get("content"), f"messages.{index}")


def _within(content: Any, path: str) -> Iterator[_Reference]:
    """The blocks with a file in `content`, also those inside results and documents."""
    for index, block in enumerate(content if isinstance(content, list) else ()):
        kind = block["type"]
        here = f"{path}.content.{index}.{kind}"
        if kind == "tool_result":
            yield from _within(block.get("content"), here)
        elif kind in ("image", "document"):
            source = block["source"]
            if source["type"] == "file":
                yield _Reference(f"{here}.source.file_id", block, source["file_id"])
            elif source["type"] == "content":
                yield from _within(source.get("content"), f"{here}.source")
