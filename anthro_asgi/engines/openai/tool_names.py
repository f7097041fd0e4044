"""Tool names that are too long for an engine: shortened in requests, restored in answers. Pure.

The Messages API allows 128 characters, OpenAI allows 64. A short name is the beginning of the long name and a digest of
the whole name. It depends on the long name alone, except when another tool already has that short name. So a
conversation is converted to the same bytes at every turn, and the engine's prefix cache applies.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import count

_DIGEST = 4  # bytes; two hexadecimal characters each


def short(name: str, longest: int, salt: int = 0) -> str:
    """`name`, shortened to `longest` characters if it is longer."""
    if len(name) <= longest:
        return name
    data = name.encode("utf-8", "surrogatepass")
    digest = blake2b(data, digest_size=_DIGEST, salt=salt.to_bytes(8, "big")).hexdigest()
    return f"{name[: longest - len(digest) - 1]}_{digest}"


def short_names(names: Iterable[str], longest: int | None) -> dict[str, str]:
    """The short name of each of `names` that is longer than `longest`. No two tools have the same name."""
    if longest is None:
        return {}
    known = dict.fromkeys(names)
    taken = set(known)
    shorter: dict[str, str] = {}
    for name in known:
        if len(name) > longest:
            shorter[name] = next(own for salt in count() if (own := short(name, longest, salt)) not in taken)
            taken.add(shorter[name])
    return shorter


def original_names(shorter: Mapping[str, str]) -> dict[str, str]:
    """The inverse of `short_names`: the original name of each short name."""
    return {own: name for name, own in shorter.items()}
