"""RareEvent does what asyncio.Event does."""

import asyncio
import random

from anthro_asgi.server.rare_event import RareEvent


async def trace(event: asyncio.Event | RareEvent, seed: int) -> list[str]:
    """What happens when tasks wait for `event`, are cancelled, and it is set and cleared, in a random order."""
    drawn = random.Random(seed)
    found: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def wait(number: int) -> None:
        try:
            found.append(f"{number} {await event.wait()}")
        except asyncio.CancelledError:
            found.append(f"{number} cancelled")
            raise

    for number in range(40):
        match drawn.choice(("wait", "wait", "set", "clear", "set and clear", "cancel", "turn")):
            case "wait":
                tasks.append(asyncio.ensure_future(wait(number)))
            case "set":
                event.set()
            case "clear":
                event.clear()
            case "set and clear":
                event.set()
                event.clear()
            case "cancel" if tasks:
                drawn.choice(tasks).cancel()
            case _:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        found.append(f"is set: {event.is_set()}")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    found.append(f"wait: {sum(not task.done() for task in tasks)}")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def test_it_does_what_the_event_of_asyncio_does() -> None:
    for seed in range(300):
        expected = await trace(asyncio.Event(), seed)
        assert sorted(await trace(RareEvent(), seed)) == sorted(expected), seed


async def test_it_can_be_set_from_the_beginning() -> None:
    event = RareEvent(is_set=True)
    assert event.is_set()
    assert await asyncio.wait_for(event.wait(), 1)
