"""Converts the ids of tool calls for engines that accept only some ids, or that sign their calls. Pure.

An engine may sign its calls (Gemini: `extra_content.google.thought_signature`) and expect the signature when the call
comes back in the history. A Messages client returns the id of a call unchanged, but no other field, so the signature
becomes part of the id. An engine may accept only short ids (Mistral). The replacement depends on the id alone, so a
call and its result get the same one, and every turn of a conversation converts it to the same bytes.
"""

import re
from hashlib import blake2b
from typing import Any, Final

_MARK: Final = "_gts_"  # before the signature, in the URL-safe alphabet of base64: clients accept no other characters
_TO_URL_SAFE: Final = str.maketrans("+/", "-_")
_TO_STANDARD: Final = str.maketrans("-_", "+/")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def signed_call_id(identity: Any, entry: dict[str, Any]) -> Any:
    """The id for the call `entry` of a chat answer: `identity`, with the signature of the call if it has one."""
    extra = entry.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    if not isinstance(signature, str) or len(signature) % 4 or not _BASE64.fullmatch(signature):
        return identity
    own = identity if isinstance(identity, str) and identity else "call"
    return f"{own}{_MARK}{signature.rstrip('=').translate(_TO_URL_SAFE)}"


def thought_signature(identity: str) -> str | None:
    """The signature in a call's id, as the engine wrote it; None if there is none."""
    _, mark, signature = identity.partition(_MARK)
    if not mark or not signature:
        return None
    return signature.translate(_TO_STANDARD) + "=" * (-len(signature) % 4)


def engine_call_id(identity: str, length: int | None) -> str:
    """The id to send to the engine: without a signature, and of `length` letters and digits if that is not None."""
    own = identity if _MARK not in identity else identity.partition(_MARK)[0]
    if length is None or (len(own) == length and own.isascii() and own.isalnum()):
        return own
    return blake2b(own.encode("utf-8", "surrogatepass")).hexdigest()[:length]
