"""The real command with either of the server's two HTTP parsers."""

import signal
import time
from collections.abc import Callable
from typing import TypeVar

from tests.end_to_end.service import PATIENCE, Service, ServiceFailed

# As where httptools is not installed: the service looks for it, finds none, and serves with h11.
_WITHOUT = "import sys; sys.modules['httptools'] = None; from anthro_asgi.cli.main import main; sys.exit(main())"
T = TypeVar("T")
PARSERS = ("httptools", "h11")


class ServiceOn(Service):
    """`anthro-asgi serve` with `options`, on the parser of that name."""

    def __init__(self, parser: str, *options: str, **environ: str) -> None:
        super().__init__(*options, **environ)
        if parser == "h11":
            begin = self._command.index("-m")
            assert self._command[begin : begin + 2] == ["-m", "anthro_asgi"]
            self._command[begin : begin + 2] = ["-c", _WITHOUT]

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def noticed(self, since: int) -> int:
        """Wait for a line of the log beyond the first `since` that is about no request; how many there are then."""

        def news(lines: list[str]) -> int:
            return next((at for at, line in enumerate(lines, 1) if at > since and '"event":"request"' not in line), 0)

        return self.heard(news)

    def heard(self, enough: Callable[[list[str]], T]) -> T:
        """Wait until its lines are `enough`, and return what that says of them. Raises ServiceFailed."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while not (said := enough(self._lines)):
                if not self._news.wait(deadline - time.monotonic()):
                    raise ServiceFailed(f"not enough came within {PATIENCE} s:\n{self._told()}")
        return said

    @property
    def lines(self) -> list[str]:
        """What it has written to standard error so far, as it stands."""
        return list(self._lines)


class ProvokedService(ServiceOn):
    """One whose log may be of errors, and in any form, for that is what its test is about. It must still end well."""

    def ended(self, excused: str | None = None) -> int:
        status = self._process.wait(PATIENCE)
        self._end()
        if status != 0:
            raise ServiceFailed(f"it ended with status {status} and said\n{self._told()}")
        return status
