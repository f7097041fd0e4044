"""The interface between the measurements and the files of the peers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from anthro_asgi.bench.counting import Api

MODEL: Final = "scripted"  # the scripted engine's model


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

    @abstractmethod
    def prepare(self, cache: Path, *, refresh: bool) -> str:
        """Install what it needs below `cache`, again if `refresh`; returns its version. Raises Unavailable."""

    @abstractmethod
    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        """How to serve `upstream` (`http://HOST:PORT`) on 127.0.0.1:`port`. Its files go to `folder`."""
