"""The members of uvicorn that this room uses although uvicorn does not document them.

`UvicornProtocol` and `Cycle` declare their types, for the type checker. `MEMBERS` is the list of all of them, each with
its shape and the reason why it is used. A test compares the list with the code of this room and with the installed
uvicorn; CI runs it on the lowest and the newest version that the package allows. To editors: a member of uvicorn that
is not in the list makes that test fail.
"""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final, NamedTuple, Protocol

from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from .rare_event import RareEvent


class Cycle(Protocol):
    """One request and its response: uvicorn's `RequestResponseCycle`, of which each parser has its own class."""

    scope: MutableMapping[str, Any]
    transport: Any  # replaced by a HeadHolder
    message_event: asyncio.Event | RareEvent  # replaced by a RareEvent
    disconnected: bool
    response_started: bool
    response_complete: bool


class UvicornProtocol(asyncio.Protocol):
    """What uvicorn's two HTTP protocol classes have in common. It declares types only, so it overrides nothing."""

    cycle: Cycle | None
    flow: FlowControl  # replaced by a ReadControl
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    timeout_keep_alive: float
    timeout_keep_alive_handler: Callable[[], None]
    timeout_keep_alive_task: asyncio.TimerHandle | None
    _unset_keepalive_if_required: Callable[[], None]


class Method(NamedTuple):
    """A method: the names of its parameters without `self`."""

    parameters: tuple[str, ...] = ()
    is_async: bool = False


class Member(NamedTuple):
    """One member. `shape` is the type of its value, or a Method. `owner` is "Protocol" for both protocol classes."""

    owner: str
    name: str
    shape: type | Method
    reason: str


MEMBERS: Final = (
    # the server: its life is overridden in steps, because its own start and shutdown lose connections
    Member("Server", "config", Config, "has the class of the connections"),
    Member("Server", "server_state", ServerState, "open connections and running requests, which are drained"),
    Member("Server", "lifespan", LifespanOn, "started before the sockets listen, stopped after the last response"),
    Member("Server", "started", bool, "set at startup; uvicorn then calls main_loop and shutdown"),
    Member("Server", "should_exit", bool, "the first signal sets it"),
    Member("Server", "force_exit", bool, "the second SIGINT sets it; exit status 130"),
    Member("Server", "serve", Method(("sockets",), is_async=True), "runs the four steps below"),
    Member("Server", "capture_signals", Method(), "overridden: signals drain, and SIGHUP reloads"),
    Member("Server", "startup", Method(("sockets",), is_async=True), "overridden: Acceptor opens the listeners"),
    Member("Server", "main_loop", Method(is_async=True), "overridden: waits for an event instead of polling"),
    Member("Server", "on_tick", Method(("counter",), is_async=True), "called every second: renews the date header"),
    Member(
        "Server",
        "shutdown",
        Method(("sockets",), is_async=True),
        "overridden: drains in the order that this service needs",
    ),
    Member("Config", "http_protocol_class", type, "creates a connection at each accept"),
    Member("ServerState", "connections", set, "connections that are open"),
    Member("ServerState", "tasks", set, "requests that are running"),
    Member("LifespanOn", "startup", Method(is_async=True), "starts the application"),
    Member("LifespanOn", "shutdown", Method(is_async=True), "stops the application"),
    Member("LifespanOn", "should_exit", bool, "the application failed to start"),
    Member("LifespanOn", "state", dict, "an argument of each connection"),
    # the connection: both HTTP protocol classes
    Member("Protocol", "connection_made", Method(("transport",)), "overridden: sets up framing and timers"),
    Member("Protocol", "connection_lost", Method(("exc",)), "overridden: stops the timers"),
    Member("Protocol", "data_received", Method(("data",)), "overridden: bytes go through RequestFraming first"),
    Member("Protocol", "pause_writing", Method(), "overridden: starts the write stall timer"),
    Member("Protocol", "resume_writing", Method(), "overridden: the client reads"),
    Member("Protocol", "on_response_complete", Method(), "overridden: goes on to the next request"),
    Member("Protocol", "send_400_response", Method(("msg",)), "overridden: an error in the shape of the API"),
    Member("Protocol", "shutdown", Method(), "overridden: closes only when no request is on its way"),
    Member("Protocol", "cycle", object, "the current request: whether its response has started or is complete"),
    Member("Protocol", "flow", FlowControl, "pauses reading while requests are queued behind the current one"),
    Member("Protocol", "loop", asyncio.AbstractEventLoop, "timers"),
    Member("Protocol", "transport", asyncio.BaseTransport, "error responses, and closing"),
    Member(
        "Protocol",
        "timeout_keep_alive",
        int,
        "the idle timeout, restarted after the rest of a refused request was dropped",
    ),
    Member("Protocol", "timeout_keep_alive_handler", Method(), "called when the idle timeout is over"),
    Member("Protocol", "timeout_keep_alive_task", asyncio.TimerHandle, "whether the idle timeout runs"),
    Member(
        "Protocol",
        "_unset_keepalive_if_required",
        Method(),
        "a request that has begun has the receive deadline instead",
    ),
    Member("Cycle", "scope", dict, "carries the record of an error response, and the channel"),
    Member("Cycle", "transport", object, "replaced, so that the head and the first body bytes are one write"),
    Member("Cycle", "message_event", asyncio.Event, "wakes the application's `receive`; replaced by a RareEvent"),
    Member("Cycle", "disconnected", bool, "tells the application's `receive` that the client is gone"),
    Member("Cycle", "response_started", bool, "decides whether an error response is still possible"),
    Member("Cycle", "response_complete", bool, "decides whether the next request may be parsed"),
    Member("FlowControl", "read_paused", bool, "the receive deadline does not count while reading is paused"),
    Member("FlowControl", "write_paused", bool, "a piece of a body is written directly only while the client reads"),
    Member("FlowControl", "_is_writable_event", asyncio.Event, "replaced by a RareEvent, which is smaller"),
    Member("FlowControl", "pause_reading", Method(), "requests are queued behind the current one"),
    Member("FlowControl", "resume_reading", Method(), "the rest of a refused request is read and dropped"),
)
