"""An uploaded file, as the Files API writes it (contract section 12). Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .blocks import IMAGE_TYPES, PDF_TYPES
from .errors import InvalidRequest

SHORTEST_LIFETIME: Final = 3600
LONGEST_LIFETIME: Final = 90 * 24 * 3600
"""Seconds after which a file may expire, if the client says so."""
_LONGEST_NAME: Final = 255
_LONGEST_TYPE: Final = 255
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
_SEPARATORS: Final = re.compile(r"[/\\]")
_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
_DEFAULT_TYPE: Final = "text/plain"  # of a part without a content-type (RFC 7578, section 4.4)
_EXTENSIONS: Final = {
    "application/json": ".json",
    "application/pdf": ".pdf",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/markdown": ".md",
    "text/plain": ".txt",
}


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """One file. Times are Unix times in seconds; `expires_at` is None for a file that stays until it is deleted."""

    id: str
    created_at: float
    expires_at: float | None
    filename: str
    mime_type: str
    size: int


def file_json(file: FileMetadata) -> dict[str, Any]:
    """The FileMetadata object. An upload is never downloadable: the API gives back only what a tool has made."""
    return {
        "id": file.id,
        "type": "file",
        "filename": file.filename,
        "mime_type": file.mime_type,
        "size_bytes": file.size,
        "created_at": _written(file.created_at),
        "expires_at": None if file.expires_at is None else _written(file.expires_at),
        "downloadable": False,
        "scope": None,
    }


def media_type_of(content_type: str | None) -> str:
    """The media type in the `content-type` of a part, without parameters. Raises InvalidRequest."""
    if content_type is None:
        return _DEFAULT_TYPE
    kind = content_type.partition(";")[0].strip().lower()
    if len(kind) > _LONGEST_TYPE or _MEDIA_TYPE.fullmatch(kind) is None:
        raise InvalidRequest("file: its content-type is not a media type")
    return kind


def stored_name(filename: str | None, mime_type: str) -> str:
    """The name that a file is stored under: the last component of a path. Raises InvalidRequest."""
    name = _SEPARATORS.split(filename or "")[-1]
    if not name:
        return "unnamed" + _EXTENSIONS.get(mime_type, "")
    if len(name) > _LONGEST_NAME or _FORBIDDEN.search(name) is not None:
        raise InvalidRequest(
            f"file: its filename must have at most {_LONGEST_NAME} characters, "
            'without control characters and without any of < > : " | ? *'
        )
    return name


def lifetime_of(text: str) -> int:
    """The seconds in the field `expires_in_seconds`. Raises InvalidRequest."""
    if text.isascii() and text.isdigit() and len(text) < 10 and SHORTEST_LIFETIME <= int(text) <= LONGEST_LIFETIME:
        return int(text)
    raise InvalidRequest(f"expires_in_seconds: must be an integer from {SHORTEST_LIFETIME} to {LONGEST_LIFETIME}")


def is_image(mime_type: str) -> bool:
    """Whether an `image` block may refer to a file of this type."""
    return mime_type in IMAGE_TYPES


def is_pdf(mime_type: str) -> bool:
    return mime_type in PDF_TYPES


def is_text(mime_type: str) -> bool:
    """Whether a `document` block may refer to a file of this type as text."""
    return mime_type.startswith("text/") or mime_type == "application/json"


def _written(time: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
