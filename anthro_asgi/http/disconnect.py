"""Notices that the client of a response has disconnected."""

import asyncio
from contextlib import suppress
from types import TracebackType

from ..wire.response_channel import ResponseChannel
from .http_request import ClientDisconnected, HttpRequest


class DisconnectWatch:
    """Cancels the `async with` block when the client disconnects. The block then raises ClientDisconnected.

    Our own server calls when the client leaves. On any other server only `receive` reports a lost client; `send` does
    so on none reliably. So a task of its own waits for it. A cancellation from elsewhere passes through unchanged.
    Enter the block after the request body has been read: from then on `receive` has nothing else to deliver.

    `disconnected` tells whether the client has left.
    """

    __slots__ = ("_cancelling", "_channel", "_receive", "_task", "_watcher", "disconnected")

    def __init__(self, http_request: HttpRequest) -> None:
        self._receive = http_request.receive
        self._channel: ResponseChannel | None = http_request.channel
        self.disconnected = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher: asyncio.Task[None] | None = None
        if self._channel is None or self._channel.lost:
            self._watcher = asyncio.get_running_loop().create_task(self._wait())
        else:
            self._channel.on_lost = self._on_lost

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._on_lost()

    def _on_lost(self) -> None:
        self.disconnected = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            try:
                await asyncio.wait((self._watcher,))  # a late cancellation of this task is delivered here
            except asyncio.CancelledError:
                if not self.disconnected:
                    raise
        elif self._channel is not None:
            self._channel.on_lost = None
            if self.disconnected and kind is not asyncio.CancelledError:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)  # as above
        task = self._task
        del self._watcher, self._task  # each refers to the watch: a cycle for the garbage collector otherwise
        if self.disconnected and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientDisconnected from None
