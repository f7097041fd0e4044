"""The undocumented members of uvicorn that the server uses: the list is complete, and the installed uvicorn has them.

CI runs this file on the lowest and on the newest uvicorn that the package allows.
"""

import ast
import asyncio
import inspect
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from anthro_asgi import server as room
from anthro_asgi.server.uvicorn_internals import MEMBERS, Member, Method

ROOM = Path(room.__file__).parent
OWNERS = {  # what stands before the dot in our code: the owner of the member
    ("ServerProcess", "self"): "Server",
    ("ServerProcess", "super()"): "Server",
    ("ServerProcess", "self.config"): "Config",
    ("ServerProcess", "self.server_state"): "ServerState",
    ("ServerProcess", "self.lifespan"): "LifespanOn",
    ("StrictProtocolMixin", "self"): "Protocol",
    ("StrictProtocolMixin", "super()"): "Protocol",
    ("StrictProtocolMixin", "self.cycle"): "Cycle",
    ("StrictProtocolMixin", "cycle"): "Cycle",
    ("StrictProtocolMixin", "self.flow"): "FlowControl",
    ("Channel", "self._flow"): "FlowControl",
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class StoppingServer(Server):
    """uvicorn's server, which stops as soon as it has called `startup`."""

    async def startup(self, sockets: object = None) -> None:
        await self.lifespan.startup()
        await self.lifespan.shutdown()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def server_objects() -> dict[str, Any]:
    server = StoppingServer(Config(application, interface="asgi3", lifespan="on", log_config=None))
    await server.serve()
    return {
        "Server": server,
        "Config": server.config,
        "ServerState": server.server_state,
        "LifespanOn": server.lifespan,
    }


@asynccontextmanager
async def connected(protocol_class: type[asyncio.Protocol]) -> AsyncIterator[dict[str, Any]]:
    """The objects of an open connection that has answered one request."""
    config = Config(application, http=protocol_class, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    ours, client = socket.socketpair()
    with client:
        client.setblocking(False)
        ours.setblocking(False)
        transport, protocol = await loop.connect_accepted_socket(
            lambda: protocol_class(config=config, server_state=ServerState(), app_state={}),  # type: ignore[call-arg]  # uvicorn's classes
            ours,
        )
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 200 ")
        connection: Any = protocol
        yield {"Protocol": connection, "Cycle": connection.cycle, "FlowControl": connection.flow}
        transport.abort()
        await asyncio.sleep(0)


def assert_has(target: Any, member: Member) -> None:
    value = getattr(target, member.name)
    if isinstance(member.shape, Method):
        assert tuple(inspect.signature(value).parameters) == member.shape.parameters, member
        assert inspect.iscoroutinefunction(value) == member.shape.is_async, member
    else:
        assert isinstance(value, member.shape), member


async def test_the_server_has_every_member_that_we_use() -> None:
    objects = await server_objects()
    members = [member for member in MEMBERS if member.owner in objects]
    assert len(members) > 15
    overridden = {"startup", "capture_signals"}  # by StoppingServer
    for member in members:
        if member.owner == "Server" and member.name in overridden:
            assert_has(Server(objects["Config"]), member)
        else:
            assert_has(objects[member.owner], member)


@pytest.mark.parametrize("protocol_class", [H11Protocol, HttpToolsProtocol])
async def test_both_protocol_classes_have_every_member_that_we_use(protocol_class: type[asyncio.Protocol]) -> None:
    async with connected(protocol_class) as objects:
        members = [member for member in MEMBERS if member.owner in objects]
        assert len(members) > 15
        for member in members:
            assert_has(objects[member.owner], member)


async def test_the_list_names_exactly_the_members_that_our_code_uses() -> None:
    async with connected(H11Protocol) as connection:
        names = {owner: dir(target) for owner, target in {**await server_objects(), **connection}.items()}
    used = defaultdict(set)
    for file in ("process.py", "http_protocol.py"):
        for node in ast.walk(ast.parse((ROOM / file).read_text())):
            if isinstance(node, ast.ClassDef):
                for owner, name in names_used(node):
                    if name in names[owner] and not name.startswith("__"):
                        used[owner].add(name)
    listed = defaultdict(set)
    for member in MEMBERS:
        listed[member.owner].add(member.name)
    assert used == listed


def names_used(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The owner and the name of each attribute that a class of ours reads, sets or overrides."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute):
            owner = OWNERS.get((node.name, ast.unparse(inner.value)))
            if owner is not None:
                yield owner, inner.attr
    if (node.name, "self") in OWNERS:
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                yield OWNERS[node.name, "self"], inner.name


def test_each_member_has_a_reason_and_is_listed_once() -> None:
    assert all(member.reason for member in MEMBERS)
    assert len({(member.owner, member.name) for member in MEMBERS}) == len(MEMBERS)
