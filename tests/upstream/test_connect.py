"""A name with several addresses: a dead one does not keep the service from the others."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import uvloop

from anthro_asgi.upstream import connect
from anthro_asgi.upstream.connect import Dialer, Target, alternate_families, resolve_name
from anthro_asgi.upstream.connection import IDLE, Connection
from anthro_asgi.upstream.errors import ConnectFailed
from anthro_asgi.upstream.http_parsers import default_parser
from anthro_asgi.upstream.origin import Deadlines, Origin

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
NO_ROUTE: Target = (V6, ("100::1", 9, 0, 0))  # RFC 6666: a prefix for packets that are discarded
Main = Callable[[], Awaitable[None]]


@contextmanager
def silent() -> Iterator[Target]:
    """An address at which a connection attempt gets no response, because the accept queue is full."""
    with ExitStack() as owned:
        listener = owned.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = owned.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield V4, listener.getsockname()


@contextmanager
def listening() -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield V4, listener.getsockname()


@contextmanager
def refusing() -> Iterator[Target]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield V4, bound.getsockname()


def dialer(targets: Sequence[Target]) -> Dialer:
    async def resolve(host: str, port: int) -> Sequence[Target]:
        return list(targets)

    return Dialer(Origin.parse("http://engine.test"), resolve)


async def peer_of(dialed: Dialer) -> tuple[Target, float]:
    """The address to which it connects, and the seconds that this took."""
    connection = Connection("engine.test", Deadlines(), default_parser(), lambda _: None)
    began = time.monotonic()
    await dialed.dial(connection)
    seconds = time.monotonic() - began
    assert connection.state is IDLE
    peer = connection._transport.get_extra_info("peername")
    family = connection._transport.get_extra_info("socket").family
    connection.abort()
    await connection.wait_closed()
    return (int(family), peer), seconds


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Main], None]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:

        def run(main: Main) -> None:
            async def whole() -> None:
                await main()

            runner.run(whole())

        yield run


def test_an_address_that_refuses_is_followed_by_the_next_at_once(run: Callable[[Main], None]) -> None:
    with refusing() as dead, listening() as good:

        async def main() -> None:
            peer, seconds = await peer_of(dialer([dead, good]))
            assert peer == good
            assert seconds < connect._STAGGER

        run(main)


@pytest.mark.slow
def test_broken_ipv6_does_not_keep_it_from_ipv4(run: Callable[[Main], None]) -> None:
    with listening() as good:

        async def main() -> None:
            assert (await peer_of(dialer([NO_ROUTE, good])))[0] == good

        run(main)


@pytest.mark.slow
def test_a_silent_address_costs_a_quarter_of_a_second_once(run: Callable[[Main], None]) -> None:
    with silent() as dead, listening() as good:

        async def main() -> None:
            dialed = dialer([dead, good])
            peer, first = await peer_of(dialed)
            assert peer == good
            peer, second = await peer_of(dialed)
            assert peer == good
            assert second < connect._STAGGER <= first + 0.01

        run(main)


def test_the_name_is_resolved_again_for_each_connection(run: Callable[[Main], None]) -> None:
    with listening() as old, listening() as new:

        async def main() -> None:
            targets = [old]
            dialed = dialer(targets)
            assert (await peer_of(dialed))[0] == old
            targets[:] = [new]
            assert (await peer_of(dialed))[0] == new

        run(main)


def test_the_error_of_the_first_address_is_reported_if_all_fail(run: Callable[[Main], None]) -> None:
    with refusing() as dead, refusing() as other:

        async def main() -> None:
            for targets in ([dead, other], [dead]):
                with pytest.raises(ConnectFailed, match=r"http://engine\.test: connection refused"):
                    await peer_of(dialer(targets))
            with pytest.raises(ConnectFailed, match="the name has no address"):
                await peer_of(dialer([]))

        run(main)


@pytest.mark.slow
def test_a_cancelled_attempt_leaves_no_socket_open(run: Callable[[Main], None]) -> None:
    with silent() as dead, silent() as other:

        async def main() -> None:
            task = asyncio.create_task(peer_of(dialer([dead, other])))
            await asyncio.wait([task], timeout=connect._STAGGER * 1.5)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        run(main)  # a socket that stays open is a ResourceWarning, which is an error here


def test_a_resolver_without_a_thread_is_a_failed_connection(run: Callable[[Main], None]) -> None:
    async def resolve(host: str, port: int) -> Sequence[Target]:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with pytest.raises(ConnectFailed, match="can't start new thread"):
            await peer_of(Dialer(Origin.parse("http://engine.test"), resolve))

    run(main)


def test_the_families_alternate_in_the_order_of_the_resolver() -> None:
    v4: list[Target] = [(V4, (f"10.0.0.{number}", 1)) for number in range(3)]
    v6: list[Target] = [(V6, (f"fd00::{number}", 1, 0, 0)) for number in range(2)]
    assert alternate_families([*v6, *v4]) == [v6[0], v4[0], v6[1], v4[1], v4[2]]
    assert alternate_families([*v4, *v6]) == [v4[0], v6[0], v4[1], v6[1], v4[2]]
    assert alternate_families([]) == []


def test_numeric_addresses_and_names_are_resolved(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        assert await resolve_name("127.0.0.1", 5) == [(V4, ("127.0.0.1", 5))]
        assert await resolve_name("::1", 5) == [(V6, ("::1", 5, 0, 0))]
        assert (V4, ("127.0.0.1", 5)) in await resolve_name("localhost", 5)
        with pytest.raises(OSError, match=r"Name or service not known|name resolution|No address"):
            await resolve_name("nothing.invalid", 5)

    run(main)
