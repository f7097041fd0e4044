"""The optional native path: steady deltas of a stream go from socket to socket in C, without Python code per token.

    upstream's transport ──► Pump.data_received ──► convert (C) ──► write of the client's transport
                                  │
                                  └── anything that the template does not cover ──► Owner.hand_back ──► the Python path

While each chunk of a chat-completions stream only continues the text, the thinking or the tool input of an open block,
a `Pump` is the protocol of the upstream's transport. It converts these chunks as `engines.openai.fast_path` and
`wire.encoder` do, and writes the same events. Anything else is handed back to Python at the boundary of an event and of
an HTTP chunk: another delta, the end, an error, a client that reads slowly. The Python path is complete without this
module, and is the oracle of its tests.

The pieces of a tool input must join to one JSON object. So Python holds some of their text back until its meaning is
certain, and repairs some (see `engines.shared.tool_arguments`). The pump does the same with valid JSON. It hands back
what has to be repaired, and more than Python reads at once. It keeps the text of the pieces that it has relayed
(`take_input`): Python reads that text as well, so it can go on at any time.

A pump can leave both sockets to a `Thread` instead, which needs no GIL (see `pump_thread`):

    upstream's socket ──► the thread: recv ──► convert ──► send ──► client's socket
                              └── anything else ──► eventfd ──► Thread.collect ──► Owner.hand_back ──► the Python path

`pump.c` holds the types, `convert.h` and `client_chunk.h` the conversion, `tool_json.h` the tool input, and `thread.h`
the thread; these four know no Python. They are written in C with the stable ABI of CPython 3.11, not in Cython: one
wheel serves every later Python, the build needs a compiler and nothing else, and all but `pump.c` can be run alone
under sanitizers.

The module is missing where the package was installed without a C compiler. `new_pump` is None then. httptools is needed
too, on both sides: it tells where an HTTP chunk ends, and it leaves the client's chunks to the pump.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, Protocol

CLIENT_TRANSPORT = "anthro_asgi.client_transport"
"""The key of the ASGI scope under which the server passes the transport of a client that may be written to directly:
the response must be sent in HTTP/1.1 chunks, and each write must be one or more whole chunks.
"""


class Owner(Protocol):
    """What a pump reports to."""

    def hand_back(self, data: bytes) -> None:
        """Take the transport back, and read `data`, which begins an HTTP chunk. The pump is not called again."""

    def sync(self) -> None:
        """Call `take`, and `take_input` if the pump relays a tool input.

        32 writes have been made, or 2 KiB of tool input have been read, since the last time.
        """

    def slow_down(self) -> None:
        """Make the next read later: the stream delivers more than 500 reads per second. Called after each read."""

    def connection_lost(self, error: Exception | None) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Pump(Protocol):
    """The protocol of a transport. `last_read` is the time of the last read on the clock of the event loop."""

    last_read: float

    def arm(
        self,
        before: bytes,
        after: bytes,
        numberless: bytes,
        opening: bytes,
        closing: bytes,
        max_event: int,
        place: bytes = b"",
    ) -> None:
        """Set the template: of the engine's events (see ChunkTemplate), and the frame of the client's.

        `place` is where the next text stands in the arguments of a call (see `JsonObject.place`); b"" for other texts.
        Raises ValueError for a template or a place that cannot be used.
        """

    def data_received(self, data: bytes) -> None:
        """Convert and write `data`, or hand it back."""

    def convert(self, data: bytes) -> tuple[int, bytes, int, bytes, bool]:
        """What `data_received` would do, without doing it.

        Returns the number of bytes converted, the HTTP chunk for the client (b"" if there is none), the number of its
        deltas, the latest counts, and whether the rest waits for more bytes (otherwise it is handed back).
        """

    def take(self) -> tuple[int, bytes, list[float]]:
        """Since the last call: the number of deltas, the latest counts (b"" without any), the times of the writes."""

    def take_input(self) -> tuple[str, int]:
        """Since the last call: the text of the arguments, and the number of deltas that the client got nothing of.

        If a thread relays the stream, up to the last call of `take`.
        """

    def leave_to(self, thread: "Thread", upstream: int) -> bool:
        """Let `thread` relay the stream from the socket `upstream` to the client's, until `disarm`.

        The pump is armed. Nothing else reads the one socket or writes to the other meanwhile; nothing waits in the
        client's transport. Returns False if the system has no descriptor or memory left. Raises ValueError without a
        socket of the client, or if the event loop has a clock of its own.
        """

    def disarm(self) -> bytes:
        """Drop all references. The pump must not receive data any more.

        If a thread relays the stream, it touches neither socket after this call; the client's transport has got what
        its socket did not take. Returns the bytes that were read and not converted: an incomplete HTTP chunk, or what
        the thread has returned.
        """


class NewPump(Protocol):
    """Makes a pump. `time` is the event loop's clock; None if that is CLOCK_MONOTONIC. The other functions are those of
    the client's transport, which nothing else may write to while the pump is armed.

    `fd` is its socket, which the pump writes to while the transport is open and has nothing to send; -1 if only the
    transport can write, as with TLS.
    """

    def may_begin(self, place: bytes, /) -> bool:
        """Whether its pumps can be armed at this place in the arguments of a call (see `JsonObject.place`)."""

    def __call__(
        self,
        owner: Owner,
        time: Callable[[], float] | None,
        write: Callable[[bytes], None],
        unsent: Callable[[], int],
        closing: Callable[[], bool],
        fd: int,
    ) -> Pump: ...


class Thread(Protocol):
    """A thread that relays the streams that pumps leave to it (see `pump_thread`). `pumps` is their number."""

    pumps: int

    def fileno(self) -> int:
        """The descriptor that is readable when `collect` has something to tell. Raises ValueError after `close`."""

    def collect(self) -> None:
        """Call `hand_back` of each owner whose stream the thread has returned, and `sync` of those with 128 writes.

        If one of these calls raises an exception, it is raised here, and the next `collect` calls the remaining owners.
        """

    def close(self) -> None:
        """End the thread. Raises RuntimeError while a pump uses it."""


class NewThread(Protocol):
    """Starts a thread. Raises OSError."""

    def __call__(self) -> Thread: ...


INTERFACE: Final = 2
"""The version of what this package calls in the extension module. `pump.c` has it too. Change both with the interface:
a module that was built from older code, in a checkout, would end streams with errors."""

new_pump: NewPump | None = None
new_thread: NewThread | None = None
_built: int | None = None  # the interface of the module that is installed
try:
    from . import _pump
except ImportError:
    pass
else:
    _built = getattr(_pump, "INTERFACE", 0)
    if _built == INTERFACE:
        new_pump, new_thread = _pump.Pump, _pump.Thread


def missing() -> str | None:
    """What is not installed and is needed for the native path; None if everything is there."""
    if _built is None:
        return "its extension module, which is built on Linux where a C compiler is installed"
    if new_pump is None:
        return "an extension module of this version: install the package again"
    return "httptools, which is in the extra `fast`" if find_spec("httptools") is None else None


def description(mode: str) -> str:
    """Whether steady streams are relayed in C with this value of the option `--native`: yes, no, or loop.

    `loop` is the event loop alone, without a thread for it.
    """
    return "no" if not is_used(mode) else "loop" if mode == "loop" else "yes"


def is_used(mode: str) -> bool:
    """Whether the option `--native` with this value (auto, on, loop or off) has an effect here."""
    return mode != "off" and missing() is None
