"""Client behaviours, most of them bad. Each is `async def behaviour(session)` and returns the outcome."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tests.checks.faults.client import PATIENCE, Client, head_of, request_of
from tests.checks.faults.healthy_response import TEXT
from tests.checks.faults.session import ClientSession
from tests.checks.faults.stream_faults import framed

Behaviour = Callable[[ClientSession], Awaitable[str]]
_LONG: Final = "endless heartbeats/after headers"  # an answer that ends with a deadline only
_TOKEN: Final = b"text_delta"


async def asks(session: ClientSession) -> str:
    """A correct request."""
    return await session.outcome_of(session.request())


async def asks_until_dropped(session: ClientSession) -> str:
    """A correct request; then it waits until the service has dropped the engine's connection."""
    said = await session.outcome_of(session.request())
    await session.engine.until(lambda: session.engine.answering == 0)
    return said


async def asks_thrice(session: ClientSession) -> str:
    """Three clients, one after the other. The last one must have a connection to the engine of its own."""
    said = [await session.outcome_of(session.request()) for _ in range(2)]
    before = session.engine.accepted
    said.append(await session.outcome_of(session.request()))
    if session.engine.accepted == before:
        said.append("on a connection with an answer of another request")
    return ", then ".join(said)


async def asks_with_value(session: ClientSession) -> str:
    """A client has a value that the engine refuses. The field of the next client must reach the engine."""
    said = [await session.outcome_of(session.request(metadata={"user_id": user})) for user in ("u" * 100, "u")]
    if "user" not in json.loads(session.engine.requests[-1].body):
        said.append("without its field")
    return ", then ".join(said)


# leaving: `Client.close` sends a FIN, `Client.reset` a RST


Leave = Callable[[Client], object]


async def leaves_connected(leave: Leave, session: ClientSession) -> str:
    leave(await session.open())
    return await session.wait_until_released(0)


async def leaves_mid_head(leave: Leave, session: ClientSession) -> str:
    leave(await session.open(session.request()[:40]))
    return await session.wait_until_released(0)


async def leaves_mid_body(leave: Leave, session: ClientSession) -> str:
    leave(await session.open(session.request()[:-10]))
    return await session.wait_until_released()


async def leaves_waiting(leave: Leave, session: ClientSession) -> str:
    leave(await session.start_request())
    return await session.wait_until_released()


async def leaves_mid_stream(leave: Leave, session: ClientSession) -> str:
    client = await session.start_request()
    await client.until(_TOKEN)
    leave(client)
    return await session.wait_until_released()


async def leaves_queued(leave: Leave, session: ClientSession) -> str:
    """Leaves while it waits for the only slot; the client that has the slot is not affected."""
    first = await session.start_request(model=_LONG)
    second = await session.open(session.request())
    await _queued(session, 1)
    leave(second)
    await session.wait_until_released(held=1)
    assert len(session.engine.requests) - session._asked == 1, "the engine was asked for a client that had left"
    first.close()
    return await session.wait_until_released(2)


async def leaves_with_another_behind(leave: Leave, session: ClientSession) -> str:
    """Leaves with a second request pipelined. The service has read the second, and must end the first nevertheless."""
    client = await session.start_request()
    await client.until(_TOKEN)
    await client.send(session.request("healthy/after headers"))
    leave(client)
    return await session.wait_until_released()


async def _queued(session: ClientSession, waiting: int) -> None:
    await session.engine.until(lambda: f"waiting={waiting}/" in repr(session.service.admission), within=10)


# admission


async def meets_a_full_queue(session: ClientSession) -> str:
    await session.start_request(model=_LONG)
    await session.open(session.request())
    await _queued(session, 1)
    outcome = await session.outcome_of(session.request())
    session.close()
    return outcome


async def asks_beside_another(session: ClientSession) -> str:
    """A request while another answer is running."""
    await session.start_request(model=_LONG)
    outcome = await session.outcome_of(session.request())
    session.close()
    return outcome


# slow clients


async def reads_nothing(session: ClientSession) -> str:
    """Stays connected and reads nothing. The service must close both connections."""
    client = await session.start_request(rcvbuf=4096)
    await session.engine.until(lambda: not session.service.connections, within=PATIENCE)
    return await session.read_outcome(client)


async def reads_slowly(session: ClientSession) -> str:
    """Reads everything, over several times the stall deadline."""
    client = await session.start_request(rcvbuf=64 * 1024)
    client.is_slow = True
    return await session.read_outcome(client)


async def sends_slowly(at_once: int, pieces: int, pause: float, session: ClientSession) -> str:
    """Sends `at_once` bytes at once (negative: all but so many), the rest in `pieces` with pauses of `pause` s."""
    data = session.request()
    client = await session.open(data[:at_once])
    hearing = asyncio.ensure_future(session.read_outcome(client))
    rest = data[len(data[:at_once]) :]
    size = len(rest) // pieces + 1
    with suppress(ConnectionError):
        for at in range(0, len(rest), size):
            await asyncio.wait((hearing,), timeout=pause)
            if hearing.done():
                break
            await client.send(rest[at : at + size])
    return await hearing


async def says_nothing(session: ClientSession) -> str:
    client = await session.open()
    await client.ended()
    return "closed" if not client.received else await session.read_outcome(client)


# pipelining


async def pipelines(session: ClientSession) -> str:
    client = await session.open(session.request() * 3)
    outcome = [await session.read_outcome(client) for _ in range(3)]
    assert all(answer.message["content"][0]["text"] == TEXT for answer in session.answers)
    return ", ".join(dict.fromkeys(outcome))


async def pipelines_garbage(session: ClientSession) -> str:
    client = await session.open(session.request() + bytes(range(256)))
    return f"{await session.read_outcome(client)}, then {await session.read_outcome(client)}"


# framing


async def says(data: Callable[[ClientSession], bytes], session: ClientSession) -> str:
    """Sends the bytes that `data` returns."""
    return await session.outcome_of(data(session))


async def says_body(body: Callable[[ClientSession], bytes], session: ClientSession) -> str:
    """Sends a request with the body that `body` returns."""
    return await session.outcome_of(request_of(body(session)))


async def expects(length: int | None, session: ClientSession) -> str:
    """Waits for 100 Continue (RFC 9110, section 10.1.1). `length` is announced instead of the real one."""
    body = session.body()
    client = await session.open(head_of(length or len(body), "expect: 100-continue"))
    if length is None:
        await client.until(b"100 Continue\r\n\r\n")
        client.received.clear()
        await client.send(body)
    return await session.read_outcome(client)


async def breaks_off_in_chunks(session: ClientSession) -> str:
    """Sends an invalid chunk after the application has begun to read the body."""
    client = await session.open(head_of(None, "transfer-encoding: chunked", "expect: 100-continue"))
    await client.until(b"100 Continue\r\n\r\n")
    client.received.clear()
    await client.send(framed(session.body()[:20]) + b"zz\r\nrest\r\n")
    return await session.read_outcome(client)


async def sends_too_little(session: ClientSession) -> str:
    body = session.body()
    return await session.outcome_of(head_of(len(body) + 10) + body)


async def sends_too_much(session: ClientSession) -> str:
    """The surplus bytes are not a valid request."""
    body = session.body()
    client = await session.open(head_of(len(body) - 10) + body)
    first = await session.read_outcome(client)
    with suppress(ConnectionError):
        return f"{first}, then {await session.read_outcome(client)}"
    return first


async def asks_with(key: str | None, session: ClientSession) -> str:
    return await session.outcome_of(request_of(session.body(), key=key))


async def gets(target: str, session: ClientSession) -> str:
    """A GET request."""
    client = await session.open(head_of(None, target=target).replace(b"POST", b"GET", 1))
    return await session.read_outcome(client, "GET")
