"""What our own server offers an application beside ASGI: a direct write of a body, and a call when the client leaves.

The server puts a ResponseChannel into the scope of a request, under the key CHANNEL. An application on another server
finds none, and uses `send` and `receive` alone. The channel costs less: `send` is a coroutine and a dict for each piece
of the body, and a lost client has to be waited for with `receive` in a task of its own.
"""

from collections.abc import Callable
from typing import Final, Protocol

CHANNEL: Final = "anthro_asgi.channel"
"""The key in the ASGI scope."""


class ResponseChannel(Protocol):
    """The response to one request.

    Attributes:
        lost: whether the client has disconnected before the response was complete.
        on_lost: is called when that happens, by a callback of the event loop. None is no call.
    """

    lost: bool
    on_lost: Callable[[], None] | None

    def write(self, data: bytes) -> bool:
        """Write a piece of the body. False if it was not written: the caller then uses `send`, which may wait.

        The first piece of a body is left to `send`, which writes it together with the head. To be used after that,
        until the last `send` of a body that has no content-length.
        """
