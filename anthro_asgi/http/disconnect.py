"""Notices that the client of a response has disconnected."""

import asyncio
from types import TracebackType

from .http_request import ClientDisconnected, Receive


class DisconnectWatch:
    """Cancels the `async with` block when the client disconnects. The block then raises ClientDisconnected.

    Only `receive` reports a lost client; `send` does so on no server reliably. So a task of its own waits for it. A
    cancellation from elsewhere passes through unchanged. Enter the block after the request body has been read: from
    then on `receive` has nothing else to deliver.

    `disconnected` tells whether the client has left.
    """

    __slots__ = ("_cancelling", "_receive", "_task", "_watcher", "disconnected")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.disconnected = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        try:
            await asyncio.wait((self._watcher,))  # a late cancellation of this task is delivered here
        except asyncio.CancelledError:
            if not self.disconnected:
                raise
        task = self._task
        del self._watcher, self._task  # each refers to the watch: a cycle for the garbage collector otherwise
        if self.disconnected and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientDisconnected from None
