"""The alarm clock, on real time: never early, once for each setting."""

import asyncio
from time import monotonic_ns

from anthro_asgi.simulator.timerfd import Alarm

MILLISECOND = 1_000_000


class Bell:
    """Notes when it rang."""

    def __init__(self) -> None:
        self.rang: list[int] = []
        self._moved = asyncio.Event()

    def ring(self) -> None:
        self.rang.append(monotonic_ns())
        self._moved.set()

    async def until(self, times: int) -> None:
        while len(self.rang) < times:
            self._moved.clear()
            await self._moved.wait()


async def test_it_rings_once_and_not_before_its_moment() -> None:
    bell = Bell()
    alarm, other = Alarm(bell.ring), Alarm((end := Bell()).ring)
    moment = monotonic_ns() + 2 * MILLISECOND
    alarm.set(moment)
    other.set(moment + 5 * MILLISECOND)
    await end.until(1)
    assert len(bell.rang) == 1
    assert bell.rang[0] >= moment
    alarm.close()
    other.close()


async def test_the_moment_that_was_set_last_counts_and_a_past_one_is_now() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(monotonic_ns() + 3600 * 1000 * MILLISECOND)
    alarm.set(1)
    await bell.until(1)
    alarm.set(0)
    await bell.until(2)
    alarm.close()
    alarm.close()


async def test_one_that_is_set_while_it_rings_rings_again() -> None:
    bell = Bell()

    def ring() -> None:
        bell.ring()
        if len(bell.rang) < 5:
            alarm.set(monotonic_ns() + 1000)

    alarm = Alarm(ring)
    alarm.set(monotonic_ns())
    await bell.until(5)
    alarm.close()


async def test_one_that_is_off_does_not_ring() -> None:
    bell, end = Bell(), Bell()
    alarm, other = Alarm(bell.ring), Alarm(end.ring)
    alarm.set(monotonic_ns() + MILLISECOND)
    alarm.off()
    other.set(monotonic_ns() + 3 * MILLISECOND)
    await end.until(1)
    assert not bell.rang
    alarm.close()
    other.close()


async def test_a_ring_may_close_its_alarm() -> None:
    bell = Bell()

    def ring() -> None:
        bell.ring()
        alarm.close()

    alarm = Alarm(ring)
    alarm.set(monotonic_ns())
    await bell.until(1)
