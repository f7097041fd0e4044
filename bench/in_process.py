"""Both ends of the service without sockets: transports of this process in the place of the client's and the engine's.

`metered` and `per_request` measure with them what is not the kernel's part, so their figures do not scatter with the
machine's other work.
"""

import asyncio
from typing import Any, Final

from uvicorn import Config
from uvicorn.server import ServerState

from .micro.streams import framed

REQUEST: Final = (
    b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1:8484\r\ncontent-type: application/json\r\n"
    b"accept: text/event-stream\r\nanthropic-version: 2023-06-01\r\nx-api-key: sk-bench\r\ncontent-length: %d\r\n\r\n"
)
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END: Final = b"0\r\n\r\n"


class Sink(asyncio.Transport):
    """A transport without a socket that counts the writes."""

    def __init__(self, protocol: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes = 0
        self._protocol = protocol
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        self.writes += 1

    def abort(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)

    close = abort

    def is_closing(self) -> bool:
        return self._protocol is None

    def get_write_buffer_size(self) -> int:
        return 0

    def _nothing(self, *_: Any, **__: Any) -> None: ...

    pause_reading = resume_reading = set_write_buffer_limits = set_protocol = _nothing


def chunked(payload: bytes) -> bytes:
    """An event of the engine as an HTTP chunk."""
    event = framed([payload])
    return b"%x\r\n%b\r\n" % (len(event), event)


def connection(app: Any, protocol: type[asyncio.Protocol]) -> Any:
    """A client's connection to `app` on uvicorn, of this protocol class."""
    config = Config(
        app, http=protocol, lifespan="off", ws="none", access_log=False, log_config=None, proxy_headers=False
    )
    config.load()
    create: Any = config.http_protocol_class
    return create(config, ServerState(), {})
