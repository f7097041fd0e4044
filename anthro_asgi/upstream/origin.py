"""Where an engine lives: one URL, read once, that answers what the pool and the engines ask of it."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(%[a-z0-9._-]+)?")  # name or IPv4 address | IPv6 address and its zone
_PATH = re.compile(r"[!-~]*")  # what a request line can carry


@dataclass(frozen=True, slots=True)
class Origin:
    """One scheme, host and port (RFC 6454), with the path under which the engine's API hangs.

    `scheme` is "http", "https" or "unix". `host` and `port` are "" and 0 for a Unix socket, whose file is `socket`.
    `base` is what stands before `/v1`, "" or "/openai". `tls` is an `ssl.SSLContext` for https, else None.
    """

    scheme: str
    host: str = ""
    port: int = 0
    socket: str = ""
    base: str = ""
    tls: Any = None  # not typed, for that would import ssl where nobody needs it

    @classmethod
    def parse(
        cls, url: str, *, ca_file: str | None = None, cert_file: str | None = None, cert_key_file: str | None = None
    ) -> "Origin":
        """Read `http://host[:port][/path][/v1]`, the same with https, or `unix:/path.sock[/v1]`.

        `ca_file` names a PEM file of authorities to trust beside the system's; only https reads it. `cert_file` is the
        certificate (PEM, with its chain) that is shown to the engine, and `cert_key_file` its key, if that is not in
        the same file; who gives them counts on them, so anything but https is then a mistake.
        Raises ValueError, one line that never repeats the URL: an operator may have put a key into it.
        """
        parts = _split(url)
        if cert_key_file is not None and cert_file is None:
            raise ValueError("client key: its certificate is missing")
        if cert_file is not None and parts.scheme != "https":
            raise ValueError("client certificate: only an https upstream is shown one")
        if parts.scheme == "unix":
            return cls._unix(parts)
        if parts.scheme not in _PORTS:
            raise _refused("the scheme must be http, https or unix")
        if "@" in parts.netloc:
            raise _refused("user and password do not belong here; give the key by its own setting")
        host = parts.hostname or ""
        if not _HOST.fullmatch(host):
            raise _refused("the host is missing" if not host else "the host is not one")
        base = _base(parts.path)
        if not _PATH.fullmatch(base):
            raise _refused("the path has characters that must be percent-encoded")
        tls = _tls(ca_file, cert_file, cert_key_file) if parts.scheme == "https" else None
        return cls(parts.scheme, host=host, port=_port(parts), base=base, tls=tls)

    @classmethod
    def _unix(cls, parts: SplitResult) -> "Origin":
        path = _base(parts.path)
        if parts.netloc or not path.startswith("/"):
            raise _refused("a Unix socket is written unix:/absolute/path.sock")
        return cls("unix", socket=path)

    def target(self, path: str, *, api: bool = True) -> str:
        """The request target of `path` (which begins with "/"): under `/v1`, or beside it with `api=False`."""
        return f"{self.base}/v1{path}" if api else f"{self.base}{path}"

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 section 7.2): without a default port or an IPv6 zone; "localhost" for a socket."""
        if self.socket:
            return "localhost"
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: to get a connection, until the first byte of an answer, between its bytes, and for the whole of it."""

    connect: float = 5.0
    first_byte: float = 600.0
    silence: float = 120.0
    total: float = 3600.0


def _split(url: str) -> SplitResult:
    # urlsplit drops tabs and newlines in silence; here they are a mistake worth telling.
    if not url.isprintable() or " " in url:
        raise _refused("it has spaces or control characters")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refused("it is malformed") from None  # the cause quotes what may hold a key
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise _refused("a query or fragment does not belong here")
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _refused("the port must be 1 to 65535")
    return port or _PORTS[parts.scheme]


def _base(path: str) -> str:
    return path.rstrip("/").removesuffix("/v1").rstrip("/")


def _tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> Any:
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as exc:  # ssl.SSLError is one too
            raise ValueError(f"CA file {ca_file}: {exc.strerror or 'no certificate in it'}") from exc
    if cert_file is not None:
        _identify(context, cert_file, key_file)
    return context


def _identify(context: Any, cert_file: str, key_file: str | None) -> None:
    """Have it show a certificate. Raises ValueError, which says which of the two files is at fault, and never asks."""

    def refuse() -> str:
        raise ValueError(f"client key {key}: it is encrypted, and there is nobody to ask for its password")

    key = key_file or cert_file
    for kind, path, mark in (("certificate", cert_file, b"CERTIFICATE-----"), ("key", key, b"PRIVATE KEY-----")):
        try:
            with open(path, "rb") as file:
                found = mark in file.read()
        except OSError as exc:
            raise ValueError(f"client {kind} {path}: {exc.strerror}") from exc
        if not found:
            raise ValueError(f"client {kind} {path}: there is none in it, as PEM")
    try:
        context.load_cert_chain(cert_file, key, password=refuse)
    except OSError as exc:
        if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ValueError(f"client key {key}: it is not that of {cert_file}") from exc
        raise ValueError(f"client certificate {cert_file}: it or its key cannot be read") from exc


def _refused(why: str) -> ValueError:
    return ValueError(f"upstream URL: {why}")
