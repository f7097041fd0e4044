"""What a peer is to the bench: the seam between the runner and the adapter files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Api = Literal["chat", "messages"]
MODEL = "scripted"  # what the scripted engine's one model is called where a peer has to be told


class Missing(Exception):
    """A peer that cannot be compared. The text says why, for a person, in one line."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a peer: its command line, and the environment variables to set on top of this process's."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Peer(Protocol):
    """One server that stands between a client and the engine."""

    @property
    def name(self) -> str:
        """In records and on the command line."""

    @property
    def label(self) -> str:
        """In tables and plots."""

    @property
    def api(self) -> Api:
        """What its clients speak: "chat" for what passes bytes through, "messages" for what converts."""

    @property
    def model(self) -> str:
        """The model to ask for, in the words of this peer."""

    @property
    def ready(self) -> str:
        """A path that is answered with a status below 500 once the peer serves."""

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        """Install what it needs below `cache`, anew if `refresh`, and return its version. Raises Missing."""

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        """How to serve `upstream` (`http://HOST:PORT`) on 127.0.0.1:`port`. Files it needs are written to `folder`."""
