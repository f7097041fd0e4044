"""The bad client: ways to ask, to listen and to leave. Each is `async def manner(visit)` and says what came of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tests.checks.faults.engine import framed
from tests.checks.faults.guest import Guest, head_of, request_of
from tests.checks.faults.speech import TEXT
from tests.checks.faults.visit import Visit

Manner = Callable[[Visit], Awaitable[str]]
_LONG: Final = "endless heartbeats/after headers"  # an answer that takes its time
_TOKEN: Final = b"text_delta"


async def asks(visit: Visit) -> str:
    """As it should be."""
    return await visit.say(visit.request())


# leaving: `Guest.close` sends a FIN, `Guest.reset` a RST


Leave = Callable[[Guest], object]


async def leaves_connected(leave: Leave, visit: Visit) -> str:
    leave(await visit.enter())
    return await visit.let_go(0)


async def leaves_mid_head(leave: Leave, visit: Visit) -> str:
    leave(await visit.enter(visit.request()[:40]))
    return await visit.let_go(0)


async def leaves_mid_body(leave: Leave, visit: Visit) -> str:
    leave(await visit.enter(visit.request()[:-10]))
    return await visit.let_go()


async def leaves_waiting(leave: Leave, visit: Visit) -> str:
    leave(await visit.asks())
    return await visit.let_go()


async def leaves_mid_stream(leave: Leave, visit: Visit) -> str:
    guest = await visit.asks()
    await guest.until(_TOKEN)
    leave(guest)
    return await visit.let_go()


async def leaves_queued(leave: Leave, visit: Visit) -> str:
    """Behind one who has the only turn, and who then gets an answer all the same."""
    first = await visit.asks(model=_LONG)
    second = await visit.enter(visit.request())
    await _queued(visit, 1)
    leave(second)
    await visit.let_go(held=1)
    assert len(visit.engine.requests) - visit._asked == 1, "the engine was asked for one who had left"
    first.close()
    return await visit.let_go(2)


async def leaves_with_another_behind(leave: Leave, visit: Visit) -> str:
    """Pipelined: the service knows of the second, and the first must end nevertheless."""
    guest = await visit.asks()
    await guest.until(_TOKEN)
    await guest.send(visit.request("healthy/after headers"))
    leave(guest)
    return await visit.let_go()


async def _queued(visit: Visit, waiting: int) -> None:
    await visit.engine.until(lambda: f"waiting={waiting}/" in repr(visit.house.admission), within=2)


# admission


async def finds_the_queue_full(visit: Visit) -> str:
    await visit.asks(model=_LONG)
    await visit.enter(visit.request())
    await _queued(visit, 1)
    told = await visit.say(visit.request())
    visit.leave()
    return told


async def asks_beside_another(visit: Visit) -> str:
    """While another's answer takes its time."""
    await visit.asks(model=_LONG)
    told = await visit.say(visit.request())
    visit.leave()
    return told


# slowly


async def reads_nothing(visit: Visit) -> str:
    """And stays. The service must close, and the engine be rid of it."""
    guest = await visit.asks(rcvbuf=4096)
    await visit.engine.until(lambda: not visit.house.connections, within=8)
    return await visit.hear(guest)


async def reads_slowly(visit: Visit) -> str:
    """All of it, over several times the longest stall."""
    guest = await visit.asks(rcvbuf=64 * 1024)
    guest.rests = True
    return await visit.hear(guest)


async def sends_slowly(at_once: int, pause: float, visit: Visit) -> str:
    """The first bytes (from the end when negative) at once, the others in pieces with pauses of so many seconds."""
    data = visit.request()
    guest = await visit.enter(data[:at_once])
    hearing = asyncio.ensure_future(visit.hear(guest))
    rest = data[len(data[:at_once]) :]
    size = len(rest) // 20 + 1
    with suppress(ConnectionError):
        for at in range(0, len(rest), size):
            await asyncio.wait((hearing,), timeout=pause)
            if hearing.done():
                break
            await guest.send(rest[at : at + size])
    return await hearing


async def says_nothing(visit: Visit) -> str:
    guest = await visit.enter()
    await guest.ended()
    return "closed" if not guest.received else await visit.hear(guest)


# several at once


async def pipelines(visit: Visit) -> str:
    guest = await visit.enter(visit.request() * 3)
    told = [await visit.hear(guest) for _ in range(3)]
    assert all(answer.message["content"][0]["text"] == TEXT for answer in visit.answers)
    return ", ".join(dict.fromkeys(told))


async def pipelines_garbage(visit: Visit) -> str:
    guest = await visit.enter(visit.request() + bytes(range(256)))
    return f"{await visit.hear(guest)}, then {await visit.hear(guest)}"


# framing


async def says(data: Callable[[Visit], bytes], visit: Visit) -> str:
    """What `data` makes of the visit, as it is."""
    return await visit.say(data(visit))


async def says_body(body: Callable[[Visit], bytes], visit: Visit) -> str:
    """The same of a body."""
    return await visit.say(request_of(body(visit)))


async def expects(length: int | None, visit: Visit) -> str:
    """Waits to be told to go on (RFC 9110, section 10.1.1). A `length` other than the body's is told."""
    body = visit.body()
    guest = await visit.enter(head_of(length or len(body), "expect: 100-continue"))
    if length is None:
        await guest.until(b"100 Continue\r\n\r\n")
        guest.received.clear()
        await guest.send(body)
    return await visit.hear(guest)


async def breaks_off_in_chunks(visit: Visit) -> str:
    """When the application is in the middle of the body."""
    guest = await visit.enter(head_of(None, "transfer-encoding: chunked", "expect: 100-continue"))
    await guest.until(b"100 Continue\r\n\r\n")
    guest.received.clear()
    await guest.send(framed(visit.body()[:20]) + b"zz\r\nrest\r\n")
    return await visit.hear(guest)


async def sends_less_than_told(visit: Visit) -> str:
    body = visit.body()
    return await visit.say(head_of(len(body) + 10) + body)


async def sends_more_than_told(visit: Visit) -> str:
    """What is too much is then no request."""
    body = visit.body()
    guest = await visit.enter(head_of(len(body) - 10) + body)
    first = await visit.hear(guest)
    with suppress(ConnectionError):
        return f"{first}, then {await visit.hear(guest)}"
    return first


async def asks_with(key: str | None, visit: Visit) -> str:
    return await visit.say(request_of(visit.body(), key=key))


async def gets(target: str, visit: Visit) -> str:
    """A look beside answers."""
    guest = await visit.enter(head_of(None, target=target).replace(b"POST", b"GET", 1))
    return await visit.hear(guest, "GET")
