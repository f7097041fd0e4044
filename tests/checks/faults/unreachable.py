"""Engines that cannot be reached, for different reasons."""

import datetime
import socket
import ssl
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import trustme

from tests.checks.faults.bad_engine import BadEngine

Where = tuple[BadEngine, str, dict[str, str]]  # the engine, its address, and options for the service
_LONG_AGO: Final = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
_NO_NAME: Final = "http://" + ".".join(["a" * 60] * 5)  # too long for a host name: no name server is asked


@asynccontextmanager
async def engine_at(place: str) -> AsyncIterator[Where]:
    """An engine at this place. At a place that is not in this file, the engine can be reached."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA() if place in _TLS else None
        context = _TLS[place](authority) if authority is not None else None
        engine = await stack.enter_async_context(BadEngine(context))
        options = {}
        if authority is not None and place != "an unknown authority":
            options["upstream-ca"] = str(folder / "ca.pem")
            authority.cert_pem.write_to_path(options["upstream-ca"])
        yield engine, _ADDRESS[place](stack, folder, engine) if place in _ADDRESS else engine.url, options


def _refused(stack: AsyncExitStack, *_: object) -> str:
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{bound.getsockname()[1]}"


def _full(stack: AsyncExitStack, *_: object) -> str:
    """An accept queue that is full: the kernel drops further connections."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    first = stack.enter_context(socket.socket())
    first.connect(listener.getsockname())
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _silent(stack: AsyncExitStack, *_: object) -> str:
    """Connections that are accepted by the kernel and never answered."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"https://127.0.0.1:{listener.getsockname()[1]}"


_ADDRESS: Final[dict[str, Callable[[AsyncExitStack, Path, BadEngine], str]]] = {
    "refused": _refused,
    "no such name": lambda *_: _NO_NAME,
    "no such socket": lambda _, folder, __: f"unix:{folder}/absent.sock",
    "connections are not accepted": _full,
    "no TLS": lambda _, __, engine: engine.url.replace("http:", "https:"),
    "TLS that stalls": _silent,
}


def _server(authority: trustme.CA, name: str = "127.0.0.1", until: datetime.datetime | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=until).configure_cert(context)
    return context


def _old(authority: trustme.CA) -> ssl.SSLContext:
    context = _server(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # the version is deprecated
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


_TLS: Final[dict[str, Callable[[trustme.CA], ssl.SSLContext]]] = {
    "an unknown authority": _server,
    "a certificate for another host": lambda authority: _server(authority, "other.example"),
    "an expired certificate": lambda authority: _server(authority, until=_LONG_AGO),
    "TLS 1.1": _old,
    "valid TLS": _server,
}
