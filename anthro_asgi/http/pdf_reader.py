"""Reads the PDFs of a request, so that engines get their text or their pages as images (contract 3.53).

    document block ──► digest ──► kept from an earlier request, or read by a child process (`pdf_child`) ──► its pages

A conversation sends its PDFs again with every request, so the results of the last ones are kept. What reads a PDF is a
process of its own, with limits of time and memory: a file can neither block the event loop nor crash the service.
"""

import asyncio
import os
import sys
from collections import OrderedDict
from contextlib import suppress
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from ..wire.errors import InvalidRequest, Overloaded
from ..wire.large.cuts import is_mark
from ..wire.request import MessagesRequest

PdfMode = Literal["refuse", "text", "images", "both"]
Json = dict[str, Any]
_CHILD: Final = Path(__file__).with_name("pdf_child.py")
_MAX_PDFS: Final = 20  # in one request
_MAX_PAGES: Final = 100
_MAX_TEXT: Final = 4 << 20  # bytes
_MAX_IMAGES: Final = 32 << 20  # bytes of base64
_MAX_MEMORY: Final = 2 << 30  # bytes of a child's address space
_TIMEOUT: Final = 30.0  # seconds for one PDF
_CHILDREN: Final = 2  # that run at the same time
_MAX_WAIT: Final = 60.0  # seconds that a PDF waits for its turn
_MAX_KEPT: Final = 64 << 20  # bytes
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""What a child gets of the environment: no keys."""
_DECODED_AT_ONCE: Final = 512 * 1024  # characters that are hashed before other tasks run


def can_read_pdfs() -> bool:
    """Whether the extra `pdf` is installed."""
    return find_spec("pypdfium2") is not None


class PdfReader:
    """Replaces the PDFs of requests by their pages: as text, as images for engines that see, or both."""

    def __init__(self, mode: PdfMode, *, timeout: float = _TIMEOUT) -> None:
        self._mode = mode
        self._timeout = timeout
        self._turns = asyncio.Semaphore(_CHILDREN)
        self._kept: OrderedDict[bytes, list[Json]] = OrderedDict()
        self._kept_size = 0

    def __repr__(self) -> str:
        return f"<PdfReader {self._mode} {len(self._kept)} kept, {self._kept_size} bytes>"

    async def read(self, request: MessagesRequest) -> None:
        """Replace the PDFs in `request.messages`. Raises InvalidRequest for one that cannot be read, and Overloaded.

        The messages of the body stay as they are, because a relayed upstream receives them.
        """
        pdfs = [block for message in request.messages for block in _pdfs_in(message["content"])]
        if len(pdfs) > _MAX_PDFS:
            raise InvalidRequest(f"messages: too much media: {len(pdfs)} PDFs; the maximum is {_MAX_PDFS}")
        read: dict[int, Json] = {}
        for block in pdfs:
            data = block["source"]["data"]
            if request.cuts is not None and is_mark(data):
                data = request.cuts.text(data)
            try:
                pages = await self._pages(data)
            except _Unreadable as unreadable:
                path = _path_of(block, request.raw.get("messages"))
                raise InvalidRequest(f"{path}: {unreadable}") from None
            read[id(block)] = {**block, "source": {"type": "content", "content": pages}}
        request.messages = [
            {**message, "content": _replaced(message["content"], read)}
            if isinstance(message["content"], list)
            else message
            for message in request.messages
        ]

    async def _pages(self, data: str) -> list[Json]:
        """The pages of a PDF as content blocks. Raises _Unreadable and Overloaded."""
        digest = blake2b(digest_size=16)
        for at in range(0, len(data), _DECODED_AT_ONCE):
            digest.update(data[at : at + _DECODED_AT_ONCE].encode())
            await asyncio.sleep(0)
        key = digest.digest()
        if (kept := self._find(key)) is not None:
            return kept
        try:
            async with asyncio.timeout(_MAX_WAIT):
                await self._turns.acquire()
        except TimeoutError:
            raise Overloaded("overloaded: too many PDFs are waiting", reason="queue_timeout") from None
        try:
            if (kept := self._find(key)) is not None:  # another request has read it meanwhile
                return kept
            result = await self._run(data)
        finally:
            self._turns.release()
        if "error" in result:
            raise _Unreadable(result["error"])
        blocks = _blocks(result["pages"])
        self._keep(key, blocks)
        return blocks

    def _find(self, key: bytes) -> list[Json] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    async def _run(self, data: str) -> Json:
        """The result of the child for this PDF. Raises _Unreadable."""
        limits = [_MAX_PAGES, _MAX_TEXT, _MAX_IMAGES, _MAX_MEMORY]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the folder of the script is no place to import from
            str(_CHILD),
            self._mode,
            *map(str, limits),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for the service, whose drain needs the child
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        try:
            async with asyncio.timeout(self._timeout):
                output, _ = await child.communicate(data.encode())
        except TimeoutError:
            raise _Unreadable(f"could not process PDF: it took longer than {self._timeout:g} s") from None
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        try:
            result: Json = orjson.loads(output)
        except orjson.JSONDecodeError:
            raise _Unreadable("could not process PDF: the library that reads it failed") from None
        return result

    def _keep(self, key: bytes, blocks: list[Json]) -> None:
        self._kept_size += _size(blocks) - _size(self._kept.pop(key, []))
        self._kept[key] = blocks
        while self._kept_size > _MAX_KEPT:
            _, gone = self._kept.popitem(last=False)
            self._kept_size -= _size(gone)


class _Unreadable(Exception):
    """A PDF cannot be read. The text contains words on which clients remove the block (contract, appendix A)."""


def _pdfs_in(content: Any) -> list[Json]:
    """The blocks with a PDF, also those inside results."""
    found: list[Json] = []
    for block in content if isinstance(content, list) else ():
        if block["type"] == "document" and block["source"]["type"] == "base64":
            found.append(block)
        elif block["type"] == "tool_result":
            found += _pdfs_in(block.get("content"))
    return found


def _replaced(content: list[Json], read: dict[int, Json]) -> list[Json]:
    """The content with the blocks that were read, by the id of the block."""
    replaced = []
    for block in content:
        if block["type"] == "tool_result" and isinstance(block.get("content"), list):
            replaced.append({**block, "content": _replaced(block["content"], read)})
        else:
            replaced.append(read.get(id(block), block))
    return replaced


def _path_of(block: Json, messages: Any) -> str:
    """Where a block is in the body, as an error names it."""
    for index, message in enumerate(messages):
        content = message.get("content")
        for at, outer in enumerate(content if isinstance(content, list) else ()):
            if outer is block:
                return f"messages.{index}.content.{at}.document.source.data"
            inner = outer.get("content") if outer.get("type") == "tool_result" else None
            for place, one in enumerate(inner if isinstance(inner, list) else ()):
                if one is block:
                    return f"messages.{index}.content.{at}.tool_result.content.{place}.document.source.data"
    return "messages"


def _blocks(pages: list[dict[str, str]]) -> list[Json]:
    """The pages as the content of a document: each with a mark, then its text, its image or both."""
    blocks: list[Json] = []
    for number, page in enumerate(pages, 1):
        mark = f"[Page {number} of {len(pages)}]"
        text = page.get("text")
        if text == "" and "image" not in page:
            text = "(There is no text on this page. It may be a picture.)"
        blocks.append({"type": "text", "text": f"{mark}\n{text}" if text else mark})
        if "image" in page:
            source = {"type": "base64", "media_type": "image/png", "data": page["image"]}
            blocks.append({"type": "image", "source": source})
    return blocks


def _size(blocks: list[Json]) -> int:
    return sum(len(block["text"]) if block["type"] == "text" else len(block["source"]["data"]) for block in blocks)
