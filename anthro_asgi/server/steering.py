"""Which of the servers that share a port gets the next connection. On Linux; elsewhere nothing here does anything.

The sockets that listen on one port with SO_REUSEPORT are a group, in the order in which they began to. Linux draws one
for each connection by a hash, and resets the connections that wait at a socket when it is closed. So a server that is
about to close steers what comes to the first socket behind its own, and closes once nothing waits at its own any more.
A group stays steered until someone undoes it; while there is no such socket, the hash draws as before.
"""

import socket
from array import array
from contextlib import suppress
from struct import pack
from typing import Final

# asm-generic/socket.h, and linux/filter.h: the one instruction "return K"
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
_BPF_RET_K: Final = 0x06


def steer(sock: socket.socket, place: int) -> None:
    """Have connections go to the socket at `place` in the group of `sock`, which is 0 for the oldest."""
    program = array("B", pack("HBBI", _BPF_RET_K, 0, 0, place))
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pack("HP", 1, program.buffer_info()[0]))


def unsteer(sock: socket.socket) -> None:
    """Let the hash draw again."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
