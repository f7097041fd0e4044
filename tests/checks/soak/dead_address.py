"""The real command, where the name of its engine has a dead address first.

The name NAME has two addresses: DEAD, at which a connection attempt gets no response, and the one of the engine. No
name server is needed: the system's resolver is replaced for this name.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from anthro_asgi.cli.main import main

COMMAND: Final = ("-c", f"from {__name__} import serve; serve()")
NAME: Final = "engine.soak"
DEAD: Final = "127.0.0.2"
_ENGINE: Final = "127.0.0.1"
_FILLERS: Final = 3  # connections that fill an accept queue of length 0
_resolve: Final = socket.getaddrinfo


@contextmanager
def behind_a_dead_address(url: str) -> Iterator[str]:
    """The URL of the same engine by NAME. While the block runs, DEAD accepts no connection on the engine's port."""
    port = urlsplit(url).port
    with ExitStack() as owned:
        listener = owned.enter_context(socket.socket())
        listener.bind((DEAD, port))
        listener.listen(0)
        for _ in range(_FILLERS):
            filler = owned.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((DEAD, port))
        yield f"http://{NAME}:{port}"


def resolve(host: Any, port: Any, *options: int, **named: int) -> list[Any]:
    """As `socket.getaddrinfo`, for NAME too."""
    if host != NAME or named.get("flags", 0) & socket.AI_NUMERICHOST:
        return list(_resolve(host, port, *options, **named))
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (one, port)) for one in (DEAD, _ENGINE)]


def serve() -> None:
    """The command, with this resolver."""
    socket.getaddrinfo = resolve
    sys.exit(main())
