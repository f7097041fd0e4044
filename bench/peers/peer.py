"""The interface between the measurements and the files of the peers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from anthro_asgi.bench.counting import Api
from anthro_asgi.conformance.scripted_engine import MODEL as CONFORMANCE_MODEL

MODEL: Final = CONFORMANCE_MODEL  # of the scripted engine; the engine of the conformance suite has the same


class Unavailable(Exception):
    """A peer that cannot be measured. The message gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line, and environment variables that are added to those of this process."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Peer(ABC):
    """A server between a client and the engine."""

    name: str
    """In records and on the command line."""
    label: str
    """In tables and plots."""
    api: Api = "messages"
    """What its clients speak: `chat` for a byte proxy, `messages` for a converting one."""
    model: str = MODEL
    """The model name that clients send."""
    ready: str = "/v1/models"
    """A path that is answered with a status below 500 once the peer serves."""
    holds: ClassVar[bytes] = b""
    """What the answer to that path holds once the peer serves."""
    unix: ClassVar[bool] = False
    """Whether both of its sides can be Unix sockets."""
    share: ClassVar[float] = 1.0
    """The part of the full rate that this peer gets, because it could not bear more beside others on two cores."""

    @abstractmethod
    def prepare(self, cache: Path, *, install: bool) -> str:
        """Find it below `cache`, or install it there if `install`; returns its version. Raises Unavailable."""

    @abstractmethod
    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        """How to serve `engine` at `listen`; each is `HOST:PORT` or the path of a Unix socket.

        The files of the peer go to `folder`.
        """


def is_path(address: str) -> bool:
    """Whether an address is that of a Unix socket."""
    return address.startswith("/")
