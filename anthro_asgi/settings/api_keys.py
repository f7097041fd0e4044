"""The API keys that the settings configure: those of clients, and the one for the upstream.

Keys come from the environment or a file. The command line takes none, because `ps` shows it to every user.
"""

from ipaddress import ip_address

from .options import ConfigError, ResourceUnavailable, Settings
from .values import KEY


def client_keys(settings: Settings) -> tuple[str, ...]:
    """The keys that clients may use. An empty tuple means that the service needs no key.

    Raises ConfigError when there is no key although other machines or every web page can connect and `no_auth` is not
    set, and for an invalid key; ResourceUnavailable for a file that cannot be read.
    """
    keys = settings.api_keys + (read_key_file(settings.api_key_file) if settings.api_key_file is not None else ())
    if "*" in settings.cors_origin and not (keys or settings.no_auth):
        raise ConfigError(
            "every web page can connect because of --cors-origin '*', but no API key is configured: set "
            "ANTHRO_ASGI_API_KEYS or --api-key-file, or turn authentication off with --no-auth"
        )
    if keys or settings.no_auth or settings.uds is not None or is_loopback(settings.host):
        return keys
    raise ConfigError(
        f"other machines can connect to {settings.host}, but no API key is configured: set ANTHRO_ASGI_API_KEYS or "
        "--api-key-file, or turn authentication off with --no-auth"
    )


def upstream_key(settings: Settings) -> str | None:
    """The key that is sent to the upstream, None when none is configured. Raises like `client_keys`."""
    if settings.upstream_key_file is None:
        return settings.upstream_key
    keys = read_key_file(settings.upstream_key_file)
    if len(keys) > 1 or settings.upstream_key is not None:
        raise ConfigError(
            "more than one upstream key is configured: set either ANTHRO_ASGI_UPSTREAM_KEY or --upstream-key-file, "
            "with one key in the file"
        )
    return keys[0]


def read_key_file(path: str) -> tuple[str, ...]:
    """The keys in a file: UTF-8, one key a line. Blank lines and lines that begin with `#` are skipped.

    Raises ResourceUnavailable when the file cannot be read, ConfigError when it contains no key or an invalid one.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except OSError as exc:
        raise ResourceUnavailable(f"cannot read the key file {path}: {exc.strerror}") from exc
    except ValueError as exc:  # UnicodeDecodeError, or a NUL character in the path
        raise ConfigError(f"the key file {path} is not UTF-8 text") from exc
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"the key file {path} contains no key")
    try:
        return tuple(map(KEY.parse, keys))
    except ValueError as exc:
        raise ConfigError(f"the key file {path}: {exc}") from exc


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host` (for the name `localhost`: RFC 6761 section 6.3)."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
