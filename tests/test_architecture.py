"""The walks in `docs/explanation/architecture.md`: the files of the package that one event passes, in order.

Each walk is traced: a real request through uvicorn's protocol class, the application and the OpenAI engine, between a
socket and a scripted upstream in the same process. The walk of a 503 is traced in
`tests/engines/shared/test_failures_explained.py`.

`python -m tests.test_architecture` prints the walks. With `--write` it renews the document.
"""

import ast
import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.server.http_protocol import protocol_class
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.upstream.origin import Origin
from tests.engines.shared.test_failures_explained import WAY
from tests.support.upstream import ScriptedUpstream, Wire, sse

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = f"{ROOT / 'anthro_asgi'}/"
DOCUMENT: Final = ROOT / "docs" / "explanation" / "architecture.md"
SETTLED: Final = 20  # tokens after which a stream is in its steady state


class Walk:
    """Records the files of the package whose functions run, each at its first call or resumption, while it is on."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def start(self) -> None:
        sys.setprofile(self._on_event)

    def stop(self) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            self._pass(frame)

    def _pass(self, frame: FrameType) -> None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE) and file.removeprefix(PACKAGE) not in self.files:
            self.files.append(file.removeprefix(PACKAGE))


def token(text: str) -> bytes:
    event = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def request(*, stream: bool = True) -> bytes:
    body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    data = json.dumps(body).encode()
    return b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)


@asynccontextmanager
async def client_of(upstream: ScriptedUpstream) -> AsyncIterator[socket.socket]:
    """A client's socket to the service, whose engine is the upstream."""
    settings = load_settings({"native": ["off"]}, {})
    engine = OpenAIEngine(Origin.parse(upstream.url), dialect="openai")
    app = MessagesApp(engine)
    kind = protocol_class(settings, Metrics(()))
    config = Config(app, http=kind, ws="none", interface="asgi3", lifespan="off", log_config=None)
    config.load()
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    state = ServerState()
    make: Callable[..., asyncio.Protocol] = kind
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: make(config=config, server_state=state, app_state={}), ours
    )
    try:
        with theirs:
            yield theirs
            transport.abort()
            await asyncio.gather(*state.tasks, return_exceptions=True)
    finally:
        await engine.stop()


async def read_until(client: socket.socket, text: bytes) -> None:
    received = b""
    while text not in received:
        data = await asyncio.get_running_loop().sock_recv(client, 65536)
        assert data, received
        received += data


async def request_body() -> list[str]:
    """From the request's bytes on the client's socket to the request's bytes at the upstream."""
    walk = Walk()

    async def answer(wire: Wire) -> None:
        walk.stop()
        await wire.send(sse({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}))

    async with ScriptedUpstream(answer) as upstream, client_of(upstream) as client:
        walk.start()
        await asyncio.get_running_loop().sock_sendall(client, request())
        await read_until(client, b"message_stop")
    return walk.files


async def text_token() -> list[str]:
    """From a chunk of the upstream to the event on the client's socket, in the steady state of a stream."""
    walk = Walk()
    seen = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(sse(done=False).removesuffix(b"0\r\n\r\n"))
        for number in range(SETTLED):
            await wire.send(token(f"a{number} "))
            await asyncio.sleep(0.002)
        walk.start()
        await wire.send(token("last"))
        await seen.wait()
        walk.stop()

    async with ScriptedUpstream(answer) as upstream, client_of(upstream) as client:
        await asyncio.get_running_loop().sock_sendall(client, request())
        await read_until(client, b"last")
        seen.set()
        await upstream.until(lambda: sys.getprofile() is None)
    return walk.files


async def client_leaves() -> list[str]:
    """From the close of the client's socket in mid-stream to the close of the upstream's connection, and the log."""
    walk = Walk()

    async def answer(wire: Wire) -> None:
        await wire.send(sse(done=False).removesuffix(b"0\r\n\r\n"))
        for number in range(SETTLED):
            await wire.send(token(f"a{number} "))
            await asyncio.sleep(0.002)
        await wire.send(token("last"))
        await wire.gone()

    async with ScriptedUpstream(answer) as upstream, client_of(upstream) as client:
        await asyncio.get_running_loop().sock_sendall(client, request())
        await read_until(client, b"last")
        await asyncio.sleep(0.01)
        walk.start()
        client.close()
        await upstream.until(lambda: not upstream.wires)
        for _ in range(20):
            await asyncio.sleep(0)
        walk.stop()
    return walk.files


WALKS: Final = {
    "One request body": request_body,
    "One text token": text_token,
    "One client that leaves": client_leaves,
}


def written(title: str) -> list[str]:
    """The files that the document lists under a heading, in order."""
    section = DOCUMENT.read_text("utf-8").partition(f"### {title}\n")[2].partition("\n#")[0]
    return re.findall(r"^\d+\. `([\w/.]+)`", section, re.MULTILINE)


@pytest.mark.parametrize("title", WALKS)
async def test_the_document_lists_the_files_that_an_event_passes_in_their_order(title: str) -> None:
    try:
        assert written(title) == await WALKS[title]()
    finally:
        sys.setprofile(None)


def test_the_document_describes_each_file_of_the_package() -> None:
    rooms = DOCUMENT.read_text("utf-8").partition("## Rooms")[2].partition("\n## ")[0]
    files = {path.relative_to(PACKAGE).as_posix() for path in Path(PACKAGE).rglob("*.py") if path.name != "__init__.py"}
    assert set(re.findall(r"^\| `([\w/.]+\.py)` \|", rooms, re.MULTILINE)) == files


def test_the_document_lists_the_files_that_an_upstream_503_passes_in_their_order() -> None:
    assert written("One upstream 503") == list(WAY)


def main(arguments: Sequence[str]) -> None:
    """Print the walks; with `--write` put them into the document, and its table of files too.

    What the document says of a file in a walk stays. For a file that is new there, it gets the first sentence of the
    file's docstring.
    """
    text = DOCUMENT.read_text("utf-8")
    for title, walk in WALKS.items():
        before, heading, rest = text.partition(f"### {title}\n")
        section, following, after = rest.partition("\n#")
        notes = dict(re.findall(r"^\d+\. `([\w/.]+)`: (.*)$", section, re.MULTILINE))
        files = asyncio.run(walk())
        lines = [f"{number}. `{file}`: {notes.get(file) or summary(file)}" for number, file in enumerate(files, 1)]
        print(f"### {title}", "", *lines, "", sep="\n")
        introduction = re.split(r"^1\. ", section, maxsplit=1, flags=re.MULTILINE)[0]
        text = before + heading + introduction + "\n".join(lines) + "\n" + following + after
    if "--write" in arguments:
        DOCUMENT.write_text(with_all_files(text), "utf-8")


def with_all_files(text: str) -> str:
    """The document with each row of its tables of files renewed, and the rows of new files added."""
    before, heading, rest = text.partition("## Rooms")
    rooms, following, after = rest.partition("\n## ")
    for section in re.findall(r"^### .*?(?=^### |\Z)", rooms, re.MULTILINE | re.DOTALL):
        room = section.partition("\n")[0].removeprefix("### ")
        folder = Path(PACKAGE, room) if (Path(PACKAGE) / room).is_dir() else Path(PACKAGE)
        paths = folder.rglob("*.py") if folder != Path(PACKAGE) else folder.glob("*.py")
        files = sorted(path.relative_to(PACKAGE).as_posix() for path in paths if path.name != "__init__.py")
        rows = (f"| `{file}` | {summary(file)} |" for file in files)
        table = "\n".join(["| file | what it holds |", "|---|---|", *rows])
        introduction = section.partition("| file |")[0]
        rooms = rooms.replace(section, f"{introduction}{table}\n\n")
    return before + heading + rooms.rstrip() + "\n" + following + after


def summary(file: str) -> str:
    """The first paragraph of a file's docstring."""
    docstring = ast.get_docstring(ast.parse(Path(PACKAGE, file).read_text("utf-8"))) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    main(sys.argv[1:])
