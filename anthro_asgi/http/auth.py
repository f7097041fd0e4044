"""Authentication by API key (contract section 2).

`Authorization: Bearer KEY` and `x-api-key: KEY` are equivalent. A request passes when any of these headers carries a
valid key, because clients send both, and one of them may be a placeholder.

Every key of the request is compared with every accepted key, in constant time and without stopping at a match, so that
the response time says nothing about the keys. The keys are kept as digests: these have the same length, and no dump of
the object shows a key.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from ..wire.errors import Unauthenticated

# RFC 9110 section 11.6.1: a 401 response names a scheme that the server accepts.
_CHALLENGE: Final = (("www-authenticate", "Bearer"),)

_MAX_KEYS: Final = 2  # keys of a request that are compared: one for each header


class ApiKeys:
    """The accepted API keys. Without any, every request passes."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """Raises ValueError for an empty key, or one that begins or ends with white space, which headers lose."""
        if isinstance(keys, str | bytes) or not hasattr(keys, "__iter__"):
            raise ValueError(f"keys is a sequence of keys, not one {type(keys).__name__}")
        if not all(isinstance(key, str) and key and key == key.strip() for key in keys):
            raise ValueError("an API key is empty or has white space around it")
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)

    def __repr__(self) -> str:
        return f"<ApiKeys {len(self._digests) or 'open'}>"

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Check the headers of a request; their names are in lower case.

        Returns the digest of the request's key, or None when every request passes. Raises Unauthenticated.
        """
        if not self._digests:
            return None
        keys_sent = 0
        accepted = None
        for name, value in headers:
            if name == b"x-api-key":
                key = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                key = value[7:]
            else:
                continue
            if keys_sent == _MAX_KEYS:
                break
            keys_sent += 1
            digest = sha256(key.strip()).digest()
            for known in self._digests:
                if compare_digest(digest, known):
                    accepted = known
        if accepted is None:
            message = "invalid API key" if keys_sent else "no API key: send one as x-api-key or Authorization: Bearer"
            raise Unauthenticated(message, headers=_CHALLENGE)
        return accepted
