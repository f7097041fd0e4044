"""Names of tools as long as an engine takes them: cut short on the way there, original_names on the way back. Pure.

A tool may have a name of 128 characters here and of 64 at OpenAI's. A short name is the beginning of the long one and a
digest of all of it. It depends on the name alone, unless another name is already that, so that a conversation reads the
same at every turn, which the engine's prefix cache lives on.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import count

_DIGEST = 4  # bytes; twice as many characters


def short(name: str, longest: int, salt: int = 0) -> str:
    """`name` in `longest` characters."""
    if len(name) <= longest:
        return name
    data = name.encode("utf-8", "surrogatepass")
    digest = blake2b(data, digest_size=_DIGEST, salt=salt.to_bytes(8, "big")).hexdigest()
    return f"{name[: longest - len(digest) - 1]}_{digest}"


def short_names(names: Iterable[str], longest: int | None) -> dict[str, str]:
    """What each of `names` that is too long is called instead: by a name that none of the others has."""
    if longest is None:
        return {}
    known = dict.fromkeys(names)
    taken = set(known)
    called: dict[str, str] = {}
    for name in known:
        if len(name) > longest:
            called[name] = next(own for salt in count() if (own := short(name, longest, salt)) not in taken)
            taken.add(called[name])
    return called


def original_names(called: Mapping[str, str]) -> dict[str, str]:
    """The way back: each short name and the name it stands for."""
    return {own: name for name, own in called.items()}
