"""Reads one PDF in a process of its own: the script that `pdf_reader` runs. pdfium may crash on a hostile file.

    stdin: base64 of the PDF ──► stdout: {"pages": [{"text": "…", "image": "base64 of a PNG"}, …]}, or {"error": "…"}

The arguments are the mode (`text`, `images` or `both`) and the limits: pages, bytes of text, bytes of images, and
bytes of memory. The script needs nothing of this package, so that it starts fast.
"""

import json
import resource
import sys
import zlib
from base64 import b64decode, b64encode
from importlib import import_module
from struct import pack
from typing import Any, Final

_PASSWORD: Final = 4  # FPDF_ERR_PASSWORD
_LONG_SIDE: Final = 1568  # pixels of a page's longer side: models that see scale larger images down
_CPU_SECONDS: Final = 60
INVALID: Final = "the PDF specified was not valid"
PROTECTED: Final = "the PDF specified is password protected"
EMPTY: Final = "PDF cannot be empty"


class _Refused(Exception):
    """The reason, in words that clients know."""


def main(mode: str, max_pages: int, max_text: int, max_images: int, max_memory: int) -> dict[str, Any]:
    """The result for the PDF on standard input."""
    _limit(max_memory)
    data = b64decode(sys.stdin.buffer.read())
    try:
        return {"pages": _read(data, mode, max_pages, max_text, max_images)}
    except _Refused as refused:
        return {"error": str(refused)}
    except MemoryError:
        return {"error": f"could not process PDF: it needs more than {max_memory >> 20} MiB of memory"}


def _limit(max_memory: int) -> None:
    """Bound what a hostile file can make pdfium take. The caller bounds the time."""
    resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(data: bytes, mode: str, max_pages: int, max_text: int, max_images: int) -> list[dict[str, str]]:
    """The pages. Raises _Refused."""
    try:
        pdfium: Any = import_module("pypdfium2")  # it ships no types
    except ImportError:
        raise _Refused("this service does not support PDFs: its extra pdf is not installed") from None
    if not data.strip():
        raise _Refused(EMPTY)
    try:
        document = pdfium.PdfDocument(data)
        count = len(document)
    except pdfium.PdfiumError as exc:
        raise _Refused(PROTECTED if getattr(exc, "err_code", None) == _PASSWORD else INVALID) from exc
    if count == 0:
        raise _Refused(EMPTY)
    if count > max_pages:
        raise _Refused(f"a maximum of {max_pages} PDF pages may be provided, and this one has {count}")
    pages = []
    text_size = image_size = 0
    for number in range(count):
        entry = {}
        try:
            page = document[number]
            if mode != "images":
                entry["text"] = _text(page)
                text_size += len(entry["text"].encode("utf-8"))
            if mode != "text":
                entry["image"] = _image(page)
                image_size += len(entry["image"])
        except pdfium.PdfiumError as exc:
            raise _Refused(f"could not process PDF: page {number + 1} cannot be read") from exc
        if text_size > max_text:
            raise _Refused(f"could not process PDF: its text is longer than {max_text >> 20} MiB")
        if image_size > max_images:
            raise _Refused(f"could not process PDF: the images of its pages are larger than {max_images >> 20} MiB")
        pages.append(entry)
        page.close()
    return pages


def _text(page: Any) -> str:
    """The text of a page, in UTF-8 without characters that no text has."""
    text: str = page.get_textpage().get_text_bounded()
    text = text.replace("\r\n", "\n").replace("\ufffe", "").replace("\0", "")
    return text.encode("utf-8", "ignore").decode("utf-8").strip()


def _image(page: Any) -> str:
    """The page as a PNG, in base64."""
    scale = _LONG_SIDE / max(1.0, *page.get_size())
    bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False)
    channels = bitmap.n_channels
    kind = {1: 0, 3: 2, 4: 6}[channels]  # of a PNG: grey, RGB, RGBA
    width = bitmap.width * channels
    raw = bytes(bitmap.buffer)
    rows = b"".join(b"\0" + raw[at : at + width] for at in range(0, bitmap.stride * bitmap.height, bitmap.stride))
    head = pack(">IIBBBBB", bitmap.width, bitmap.height, 8, kind, 0, 0, 0)
    png = b"".join(
        [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows, 6)), _chunk(b"IEND", b"")]
    )
    return b64encode(png).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    json.dump(main(sys.argv[1], *map(int, sys.argv[2:])), sys.stdout)
