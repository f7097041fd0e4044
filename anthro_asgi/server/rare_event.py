"""An event that is rarely waited for, in a tenth of the memory of an asyncio.Event."""

import asyncio


class RareEvent:
    """The methods of asyncio.Event. The queue of those who wait, of 0.8 KiB, is made when somebody waits."""

    __slots__ = ("_is_set", "_waited_for")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waited_for: asyncio.Event | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait. It stays set until `clear`."""
        self._is_set = True
        if self._waited_for is not None:
            self._waited_for.set()
            self._waited_for = None

    def clear(self) -> None:
        """Who waits from now on waits for the next `set`."""
        self._is_set = False

    async def wait(self) -> bool:
        """Wait until it is set. Returns True, as that of asyncio."""
        if not self._is_set:
            if self._waited_for is None:
                self._waited_for = asyncio.Event()
            await self._waited_for.wait()
        return True
