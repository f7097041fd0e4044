"""What the kernel still has of a connection that the transport has given up."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

_PIECE = 64 * 1024


def unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """What the peer said and nobody has read.

    Nothing for TLS, where only a server that lingers before it closes (as gateways do) is heard for certain.
    """
    raw = transport.get_extra_info("socket")
    if raw is None or transport.get_extra_info("sslcontext") is not None:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as peer:
        while data := peer.recv(_PIECE):
            yield data
