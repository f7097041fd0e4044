"""How long a server keeps an idle connection open, according to its `Keep-Alive` response header."""

from collections.abc import Iterable

_DEFAULT = 55.0  # seconds: under the minute that load balancers and servers commonly allow
_MARGIN = 1.0  # seconds: a request that is in flight while the server closes the connection is lost


class KeepAlive:
    """Reads `Keep-Alive: timeout=N, max=M` (RFC 2068 section 19.7.1.1) from the responses of one connection.

    Some servers count M down; others repeat their total in each response (llama.cpp: `timeout=5, max=100`). The first
    M is taken as the total, and a later M can only lower the count. That is right for both kinds.
    """

    __slots__ = ("_left", "_timeout")

    def __init__(self) -> None:
        self._timeout: float | None = None
        self._left: int | None = None  # requests that may follow

    def update(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Read the headers of one response (names in lower case)."""
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
    def max_idle(self) -> float:
        """Seconds for which the connection may be idle from now on and be used again; 0: it must not be used again."""
        if self._left is not None and self._left <= 0:
            return 0.0
        return _DEFAULT if self._timeout is None else max(0.0, self._timeout - _MARGIN)
