"""Who may come in (contract section 2).

`Authorization: Bearer KEY` and `x-api-key: KEY` are equal: a request passes when any of these headers carries a valid
key, since clients send both, one of them a placeholder. Every key offered is compared with every key known, in
constant time and to the end, so that the time an answer takes says nothing about the keys. They are held as digests:
these are of one length, and nothing that prints or dumps this object can show a key.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final

from ..settings.options import ConfigError, ResourceUnavailable, Settings
from ..settings.values import KEY
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


def read_key_file(path: str) -> tuple[str, ...]:
    """The keys in a file: UTF-8, one a line; blank lines and lines beginning with `#` are skipped.

    Raises ResourceUnavailable when it cannot be read and ConfigError when no key is in it.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except OSError as exc:
        raise ResourceUnavailable(f"cannot read the key file {path}: {exc.strerror}") from exc
    except ValueError as exc:  # UnicodeDecodeError; a path with a NUL in it
        raise ConfigError(f"the key file {path} is not UTF-8 text") from exc
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"the key file {path} holds no key")
    try:
        return tuple(map(KEY.parse, keys))
    except ValueError as exc:
        raise ConfigError(f"the key file {path}: {exc}") from exc


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host` (RFC 6761 section 6.3 for the name)."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def client_keys(settings: Settings) -> tuple[str, ...]:
    """The keys clients may use. With none the service is open, which must be safe or asked for by name.

    Raises ConfigError when it is neither, or for an invalid key; ResourceUnavailable for an unreadable file.
    """
    keys = settings.api_keys + (read_key_file(settings.api_key_file) if settings.api_key_file is not None else ())
    if keys or settings.no_auth or settings.uds is not None or is_loopback(settings.host):
        return keys
    raise ConfigError(
        f"others can reach {settings.host} and there is no API key: set ANTHRO_ASGI_API_KEYS, "
        "name an --api-key-file, or let everybody in with --no-auth"
    )


def upstream_key(settings: Settings) -> str | None:
    """The one key for the upstream, if it needs one. Raises like `client_keys`."""
    if settings.upstream_key_file is None:
        return settings.upstream_key
    keys = read_key_file(settings.upstream_key_file)
    if len(keys) > 1 or settings.upstream_key is not None:
        raise ConfigError("the upstream takes one key: ANTHRO_ASGI_UPSTREAM_KEY or one line of --upstream-key-file")
    return keys[0]
