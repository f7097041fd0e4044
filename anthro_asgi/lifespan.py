"""An application's life as ASGI tells it: what begins with the server and ends with it. A server may do without."""

from collections.abc import Awaitable, Callable
from typing import Any

from .call import Receive, Send

Hook = Callable[[], Awaitable[None]]


async def live(receive: Receive, send: Send, start: Hook, stop: Hook) -> None:
    """One lifespan. What `start` raises is told to the server, which then does not serve."""
    await receive()
    try:
        await start()
    except Exception as exc:
        await send({"type": "lifespan.startup.failed", "message": f"{type(exc).__name__}: {exc}"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await stop()
    await send({"type": "lifespan.shutdown.complete"})


async def have(engine: Any, name: str) -> None:
    """Have an engine `start` or `stop`, if that is something it does."""
    method = getattr(engine, name, None)
    if method is not None:
        await method()
