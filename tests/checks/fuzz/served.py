"""The service in this process; its log has to keep rules too."""

import asyncio
import atexit
import io
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

import orjson

from anthro_asgi import MessagesApp
from anthro_asgi.observability.logs import JsonFormatter
from anthro_asgi.testing.driver import Driver, Response
from tests.checks.fuzz.running import Breach

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on one loop for all trials: to create a loop takes longer than a trial."""
    return _loop().run_until_complete(coroutine)


class _Log(logging.StreamHandler[io.StringIO]):
    """Formats every log line, as the command does. Raises if that fails."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(JsonFormatter())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        raise

    def lines(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.stream.getvalue().splitlines()]


@asynccontextmanager
async def serving(service: MessagesApp) -> AsyncIterator[Driver]:
    """A driver of the service. At the end the log must have no error, which would be a bug of the service."""
    logger = logging.getLogger("anthro_asgi")
    before = logger.handlers[:], logger.level, logger.propagate
    log = _Log()
    logger.handlers[:], logger.propagate = [log], False
    logger.setLevel(logging.INFO)
    try:
        yield Driver(service)
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
    for line in log.lines():
        if line["level"] == "error":
            raise Breach(f"the log has no error\n{line}")


async def post(driver: Driver, path: str, body: list[bytes]) -> Response:
    return await driver.request("POST", path, body=body)
