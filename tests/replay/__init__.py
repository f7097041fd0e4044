"""Recorded responses of real engines, byte for byte (see `corpus/README.md`)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("corpus")


@dataclass(frozen=True, slots=True)
class Case:
    """One request and its response. `str(case)` is the file, which names a parametrised test."""

    file: str  # ENGINE/NAME[@VARIANT].SUFFIX
    request: str  # method and path
    body: Any  # as sent: an object; a string where it was no JSON or is shortened, then ending in "(cut)"; None
    status: int
    content_type: str | None  # None if the capture does not have it
    framing: str  # "length", "chunked", or "close" for a body that ends with the connection
    end: str  # "complete", or "server-fin" for a connection closed before the last chunk

    @property
    def engine(self) -> str:
        return self.file.split("/")[0]

    @property
    def name(self) -> str:
        """The scenario, the same for all engines: `03b_stop_stream`."""
        return Path(self.file).stem.split("@")[0]

    @property
    def variant(self) -> str:
        """The model or setting of the engine; empty for the usual one."""
        return Path(self.file).stem.partition("@")[2]

    @property
    def streamed(self) -> bool:
        """Whether the answer is an event stream; a streaming request may be refused with plain JSON."""
        return (self.content_type or "").startswith("text/event-stream")

    @property
    def content(self) -> bytes:
        """The body of the answer, without its HTTP framing."""
        return (CORPUS / self.file).read_bytes()

    def __str__(self) -> str:
        return self.file


@cache
def _all() -> tuple[Case, ...]:
    lines = (CORPUS / "manifest.jsonl").read_text("utf-8").splitlines()
    return tuple(Case(**json.loads(line)) for line in lines)


def cases(
    engine: str | None = None,
    *,
    request: str | None = None,
    name: str | None = None,
    status: int | None = None,
    streamed: bool | None = None,
) -> list[Case]:
    """The cases with these properties, all by default. `name` may be the beginning of one. Never an empty list."""
    wanted: list[Callable[[Case], bool]] = [
        lambda case: engine in (None, case.engine),
        lambda case: request in (None, case.request),
        lambda case: case.name.startswith(name or ""),
        lambda case: status in (None, case.status),
        lambda case: streamed in (None, case.streamed),
    ]
    found = [case for case in _all() if all(holds(case) for holds in wanted)]
    if not found:
        raise LookupError(f"no case of {engine=}, {request=}, {name=}, {status=}, {streamed=}")
    return found
