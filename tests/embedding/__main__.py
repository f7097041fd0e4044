"""`python -m tests.embedding`: what each server does about a client that leaves, and about one that does not read.

Prints the table of docs/how-to/embedding.md. A client that leaves closes its socket in the middle of a stream, or
while it waits for a whole answer; the table shows the time until the engine's generator was closed, the median of
five. A client that does not read requests an endless stream; the table shows how much the engine had generated when it
stopped, or "unlimited" if it never stopped.
"""

import json
import statistics
import sys
import time
from contextlib import closing
from typing import Any, Final

from tests.embedding.servers import SERVERS, Running, running
from tests.embedding.test_servers import ask, connect, read_until
from tests.support.client import HELLO

_TIMES: Final = 5
_STILL: Final = 1.0  # seconds without growth
_TOO_MUCH: Final = 256  # MB after which there is no back-pressure
_MADE_AT_ONCE: Final = 1000  # bytes of text in a delta of `endless`


def noticed(served: Running, stream: bool) -> float:
    """Median seconds from a client's leaving to the end of its engine's generator."""
    took: list[float] = []
    for number in range(_TIMES):
        name = f"gated:measured-{stream}-{number}"
        with closing(connect(served)) as connection:
            data = json.dumps({**HELLO, "model": name, "stream": stream})
            connection.request("POST", served.server.prefix + "/v1/messages", data)
            served.until(lambda state, name=name: state["yielded"].get(name))  # type: ignore[misc]
            left = time.monotonic()
        state = served.until(lambda state, name=name: name in state["closed"])  # type: ignore[misc]
        took.append(state["closed"][name] - left)
    return statistics.median(took)


def made_ahead(served: Running) -> float | None:
    """MB that the engine made for a client that does not read; None when it never stopped."""
    name = "endless:unread"
    with closing(connect(served)) as connection:
        response = ask(served, connection, name, stream=True)
        read_until(response, b"content_block_delta")
        made, since = 0.0, time.monotonic()
        while time.monotonic() - since < _STILL:
            now = served.state()["yielded"][name] * _MADE_AT_ONCE / 1e6
            if now > _TOO_MUCH:
                return None
            if now > made:
                made, since = now, time.monotonic()
    served.until(lambda state: name in state["closed"])
    return made


def row(served: Running) -> str:
    """The server's line of the table."""
    started: Any = served.state()["started"]
    ahead = made_ahead(served)
    cells = (
        served.server.name,
        *(f"{noticed(served, stream) * 1e3:.1f} ms" for stream in (True, False)),
        "unlimited" if ahead is None else f"{ahead:.1f} MB",
        "yes" if started else "no",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    print(
        "| server | stream: generator closed after | whole answer: generator closed after "
        "| generated for a client that does not read | lifespan events |"
    )
    print("|---|---:|---:|---:|---|")
    for server in SERVERS:
        with running(server) as served:
            print(row(served), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
