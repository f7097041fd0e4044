"""The address of an engine: one URL, parsed once into what the pool and the engines need."""

import re
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(%[a-z0-9._-]+)?")  # name or IPv4 address | IPv6 address and its zone
_VERSIONED = re.compile(r"/v[2-9]$|/v1beta/openai$")  # Z.AI: /api/paas/v4; Gemini: /v1beta/openai
_PATH = re.compile(r"[!-~]*")  # what a request line can contain


@dataclass(frozen=True, slots=True)
class Origin:
    """One scheme, host and port (RFC 6454), with the path prefix of the engine's API.

    `scheme` is "http", "https" or "unix". For a Unix socket `host` is "", `port` is 0, and `socket` is the path of the
    socket. `base` is the path before `/v1`: "" or, for example, "/openai". `tls` is None except for https.
    """

    scheme: str
    host: str = ""
    port: int = 0
    socket: str = ""
    base: str = ""
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(
        cls, url: str, *, ca_file: str | None = None, cert_file: str | None = None, cert_key_file: str | None = None
    ) -> "Origin":
        """Parse `http://host[:port][/path][/v1]`, the same with https, or `unix:/path.sock[/v1]`.

        `ca_file` is a PEM file of certificate authorities to trust in addition to the system's; it is read for https
        only. `cert_file` is the client certificate (PEM, with its chain), and `cert_key_file` its key, if the key is
        not in the same file. A client certificate for a URL other than https is an error.

        Raises ValueError. Its text is one line without the URL, because an operator may have put a key into the URL.
        """
        parts = _split(url)
        if cert_key_file is not None and cert_file is None:
            raise ValueError("client key: the client certificate is missing")
        if cert_file is not None and parts.scheme != "https":
            raise ValueError("client certificate: only an https upstream can use one")
        if parts.scheme == "unix":
            return cls._unix(parts)
        if parts.scheme not in _PORTS:
            raise _invalid_url("the scheme must be http, https or unix")
        if "@" in parts.netloc:
            raise _invalid_url("user and password are not supported; set the API key with its own option")
        host = parts.hostname or ""
        if not _HOST.fullmatch(host):
            raise _invalid_url("the host is missing" if not host else "the host is invalid")
        base = _base(parts.path)
        if not _PATH.fullmatch(base):
            raise _invalid_url("the path has characters that must be percent-encoded")
        tls = _tls_context(ca_file, cert_file, cert_key_file) if parts.scheme == "https" else None
        return cls(parts.scheme, host=host, port=_port(parts), base=base, tls=tls)

    @classmethod
    def _unix(cls, parts: SplitResult) -> "Origin":
        path = _base(parts.path)
        if parts.netloc or not path.startswith("/"):
            raise _invalid_url("a Unix socket is written unix:/absolute/path.sock")
        return cls("unix", socket=path)

    def target(self, path: str, *, api: bool = True) -> str:
        """The request target of `path`, which begins with "/": under `/v1`, or beside `/v1` with `api=False`.

        A base path that names another version of the API is complete, so `/v1` is not added to it.
        """
        return f"{self.base}/v1{path}" if api and not _VERSIONED.search(self.base) else f"{self.base}{path}"

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 section 7.2), without a default port or an IPv6 zone; "localhost" for a socket."""
        if self.socket:
            return "localhost"
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that an engine may take.

    `connect`: until a connection is available. `first_byte`: from the request to the first byte of the response; also,
    if `silence` is shorter, between two reads of an answer that has no output yet. `silence`: between two reads of the
    response. `total`: from the request to the end of the response.
    """

    connect: float = 5.0
    first_byte: float = 600.0
    silence: float = 120.0
    total: float = 3600.0


def _split(url: str) -> SplitResult:
    # urlsplit silently drops tabs and newlines; here they are an error.
    if not url.isprintable() or " " in url:
        raise _invalid_url("it contains spaces or control characters")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _invalid_url("it is malformed") from None  # the cause quotes the URL, which may contain a key
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise _invalid_url("a query or fragment is not supported")
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _invalid_url("the port must be 1 to 65535")
    return port or _PORTS[parts.scheme]


def _base(path: str) -> str:
    return path.rstrip("/").removesuffix("/v1").rstrip("/")


def _tls_context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as exc:  # ssl.SSLError is an OSError
            raise ValueError(f"CA file {ca_file}: {exc.strerror or 'it contains no certificate'}") from exc
    if cert_file is not None:
        _load_client_certificate(context, cert_file, key_file)
    return context


def _load_client_certificate(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    """Raises ValueError that names the file at fault. Never prompts for a password."""

    def no_password() -> str:
        raise ValueError(f"client key {key}: it is encrypted; only an unencrypted key can be used")

    key = key_file or cert_file
    for kind, path, mark in (("certificate", cert_file, b"CERTIFICATE-----"), ("key", key, b"PRIVATE KEY-----")):
        try:
            with open(path, "rb") as file:
                found = mark in file.read()
        except OSError as exc:
            raise ValueError(f"client {kind} {path}: {exc.strerror}") from exc
        if not found:
            raise ValueError(f"client {kind} {path}: the file contains no {kind} in PEM format")
    try:
        context.load_cert_chain(cert_file, key, password=no_password)
    except OSError as exc:
        if isinstance(exc, ssl.SSLError) and exc.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"client key {key}: it does not match the certificate {cert_file}") from exc
        raise ValueError(f"client certificate {cert_file}: the certificate or its key cannot be read") from exc


def _invalid_url(why: str) -> ValueError:
    return ValueError(f"upstream URL: {why}")
