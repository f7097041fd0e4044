"""A given number of streams, all open at once: the moment from which a cost is one of tokens and not of beginnings."""

import os
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from .driving import SLACK_SECONDS, Client, Server
from .peer import Missing

_POLL_SECONDS: Final = 0.1
_ESTABLISHED: Final = "01"  # in /proc/net/tcp
_LOOKS: Final = 5


class Gauge:
    """How many connections an engine has: its file descriptors less those it had for itself when this was made.

    The kernel's table of connections is of no use for that while they come and go by thousands: to read it takes
    seconds, and what is read is wrong. It says at the beginning, in quiet, which descriptors are connections.
    """

    def __init__(self, engine: Server) -> None:
        self._folder = f"/proc/{engine.pid}/fd"
        self._own = 0
        self._own = min(self._look(engine) for _ in range(_LOOKS))  # one that is just being closed counts as its own

    def _look(self, engine: Server) -> int:
        pause(_POLL_SECONDS / _LOOKS)
        return self.open() - connections(urlsplit(engine.url).port or 0)

    def open(self) -> int:
        """How many there are now; 0 when the engine is gone."""
        try:
            return len(os.listdir(self._folder)) - self._own
        except OSError:
            return 0


def connections(port: int) -> int:
    """How many connections to 127.0.0.1:`port` are established, as its server sees them. For quiet moments."""
    mine = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1] == mine and row[3] == _ESTABLISHED for row in rows)


def await_open(gauge: Gauge, streams: int, client: Client, seconds: float) -> None:
    """Return once they are all open. Raises Missing when they are not, `seconds` after the client came to work."""
    deadline = monotonic() + SLACK_SECONDS + seconds
    while gauge.open() < streams:
        if monotonic() > deadline or not client.at_work:
            raise Missing(f"{streams} streams were never open at once")
        pause(_POLL_SECONDS)


def pause(seconds: float) -> None:
    """Let time pass, which is what is measured; Ctrl-C ends it."""
    Event().wait(seconds)
