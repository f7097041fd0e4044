"""How long an engine may take, and for what."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: to get a connection, until the first byte of an answer, between its bytes, and for the whole of it."""

    connect: float = 5.0
    first_byte: float = 600.0
    silence: float = 120.0
    total: float = 3600.0
