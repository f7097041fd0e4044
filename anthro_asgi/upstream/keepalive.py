"""How long a server lets a connection rest, as far as it said so."""

from collections.abc import Iterable

_DEFAULT = 55.0  # seconds: under the minute that load balancers and servers commonly allow
_MARGIN = 1.0  # seconds: a request that is on its way when the server hangs up is lost


class KeepAlive:
    """What one connection's responses said in `Keep-Alive: timeout=N, max=M` (RFC 2068 section 19.7.1.1).

    Some servers count M down, some repeat their total (llama.cpp: `timeout=5, max=100`). Taking the first M as the
    total, and no later one as more, is right for both.
    """

    __slots__ = ("_left", "_timeout")

    def __init__(self) -> None:
        self._timeout: float | None = None
        self._left: int | None = None  # requests that may follow

    def note(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in one response's headers (names in lower case)."""
        if self._left is not None:
            self._left -= 1
        for name, value in headers:
            if name == b"keep-alive":
                for parameter in value.split(b","):
                    self._parameter(*parameter.partition(b"="))

    def _parameter(self, name: bytes, _: bytes, value: bytes) -> None:
        name, value = name.strip().lower(), value.strip()
        if len(value) > 9 or not value.isdigit():
            return
        if name == b"timeout":
            self._timeout = float(value)
        elif name == b"max":
            left = int(value) - 1
            self._left = left if self._left is None else min(self._left, left)

    @property
    def rest(self) -> float:
        """Seconds for which the connection may rest from now and still be used again; 0 when it may not at all."""
        if self._left is not None and self._left <= 0:
            return 0.0
        return _DEFAULT if self._timeout is None else max(0.0, self._timeout - _MARGIN)
