"""What the drivers share: tasks in, outcomes out, and the tools."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

Json = dict[str, Any]

REPORT_SCHEMA: Final[Json] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


class Calls:
    """The tools' own functions. `made` holds the calls in the order in which the client executed them."""

    def __init__(self) -> None:
        self.made: list[Json] = []

    def weather(self, city: str) -> str:
        self.made.append({"name": "weather", "input": {"city": city}})
        return f"Sunny in {city}"

    def clock(self) -> str:
        self.made.append({"name": "clock", "input": {}})
        return "Noon"


def serve(run: Callable[[Json, Calls], Awaitable[Json]]) -> None:
    """Read tasks until the standard input ends. What the libraries print goes to standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asyncio.run(_serve(run, out))


async def _serve(run: Callable[[Json, Calls], Awaitable[Json]], out: Any) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        calls = Calls()
        try:
            outcome = await run(json.loads(line), calls)
        except Exception as exc:
            outcome = {"error": error_of(exc)}
        print(json.dumps({"calls": calls.made, **outcome}), file=out, flush=True)


def error_of(exc: BaseException) -> Json:
    """An exception as a client's user sees it."""
    status = getattr(exc, "status_code", None)
    return {"kind": type(exc).__name__, "status": status, "message": str(exc)}
