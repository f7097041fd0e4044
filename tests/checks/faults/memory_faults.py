"""Requests that would take much memory, and a process that has none left: played against the command.

Each function plays its fault and returns what the client got, in the words of `cells`. The memory of a request is
measured as in `tests.checks.memory`.
"""

from collections.abc import Callable
from typing import Final

from tests.checks.memory import MIB, ONE_ARENA, SHAPES, address_space, measure, post, running_service

_SIZE: Final = 2 * MIB
_EXHAUSTED: Final = (4, 8, 12)  # MiB that are left: it ends while the body is read, parsed or converted
_BODY: Final = 16 * MIB


def within_bounds(shape: str) -> Callable[[], str]:
    """Plays one body of this shape."""

    def play() -> str:
        with running_service(shape) as service:
            result = measure(service, SHAPES[shape](_SIZE), 0.0)
        if not result.is_peak_within_bounds():
            return str(result)
        return "message" if result.status == 200 else str(result.status)

    return play


def exhausted() -> str:
    """The process may map little more memory than it has. The next client is served."""
    with running_service("one long string", may_log_errors=True, **ONE_ARENA) as service:
        body, small = SHAPES["one long string"](_BODY), SHAPES["one long string"](2000)
        statuses = set()
        for more in _EXHAUSTED:
            with address_space(service, more * MIB):
                status, _ = post(service, body)
            statuses.add(status)
            if post(service, small)[0] != 200:
                return "the next client is not served"
    return ", ".join(map(str, sorted(statuses - {0})))  # 0: closed before the client had sent the body
