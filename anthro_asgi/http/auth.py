"""Who may come in (contract section 2).

`Authorization: Bearer KEY` and `x-api-key: KEY` are equal: a request passes when any of these headers carries a valid
key, since clients send both, one of them a placeholder. Every key offered is compared with every key known, in
constant time and to the end, so that the time an answer takes says nothing about the keys. They are held as digests:
these are of one length, and nothing that prints or dumps this object can show a key.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from ..wire.errors import Unauthenticated

# RFC 9110 section 11.6.1: a 401 names a scheme that would do
_CHALLENGE: Final = (("www-authenticate", "Bearer"),)


class ApiKeys:
    """The keys clients may use; none lets everybody in."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """Raises ValueError for a key no header could carry, which would admit nobody or, empty, everybody."""
        if isinstance(keys, str):
            raise ValueError("keys is a sequence of keys, not one str")
        if not all(key and key == key.strip() for key in keys):
            raise ValueError("an API key is empty or has white space around it")
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)

    def __repr__(self) -> str:
        return f"<ApiKeys {len(self._digests) or 'open'}>"

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Let a request with these headers (names in lower case, as ASGI has them) pass, or raise Unauthenticated.

        Returns the digest of the key that it came with, None where no key is asked for.
        """
        if not self._digests:
            return None
        offered = 0
        admitted = None
        for name, value in headers:
            if name == b"x-api-key":
                key = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                key = value[7:]
            else:
                continue
            offered += 1
            digest = sha256(key.strip()).digest()
            for known in self._digests:
                if compare_digest(digest, known):
                    admitted = known
        if admitted is None:
            message = "invalid API key" if offered else "no API key: send one as x-api-key or Authorization: Bearer"
            raise Unauthenticated(message, headers=_CHALLENGE)
        return admitted
