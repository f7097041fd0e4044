"""Starts a command in a network namespace of its own, which has only a loopback interface."""

import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_SIOCSIFFLAGS: Final = 0x8914  # ioctl(2): set the flags of an interface
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40


def run_without_network(command: Sequence[str]) -> int:
    """The exit status of `command`. Needs util-linux; without root also user namespaces."""
    own_user = () if os.geteuid() == 0 else ("--map-root-user",)
    inner = [sys.executable, "-m", "tests.clients.namespace", *command]
    return subprocess.run(["/usr/bin/unshare", "--net", *own_user, *inner], check=False).returncode


def _start_loopback() -> None:
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP | _IFF_RUNNING))


if __name__ == "__main__":
    _start_loopback()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command is the caller's own
