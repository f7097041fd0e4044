"""A batch does not hold the event loop: neither while its requests are checked, nor while they run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from anthro_asgi import Delta, MessagesApp, MessagesRequest, ToolJson, ToolStart
from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.sqlite import SqliteDatabase
from anthro_asgi.testing.driver import Driver
from tests.checks.hold import BAR, Ticker, no_collection
from tests.checks.hold.application import MIB, scale
from tests.checks.memory import SHAPES

pytestmark = pytest.mark.alone

_PIECE = 64 * 1024
HEADERS = ((b"content-type", b"application/json"),)
DENSE = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"junk":[%b0]}'


def batch(*params: bytes, rest: bytes = b"") -> bytes:
    entries = b",".join(b'{"custom_id":"%d","params":%b}' % entry for entry in enumerate(params))
    return b'{"requests":[%b]%b}' % (entries, rest)


BATCHES = {
    "dense params": lambda: batch(*[DENSE % (b"[]," * 80_000)] * 3),
    "objects in params": lambda: batch(*[DENSE % (b'{"a":0},' * 30_000)] * 3),
    "dense fields beside the requests": lambda: batch(DENSE % b"", rest=b',"junk":[%b0]' % (b"[]," * 330_000)),
    "many values in large params": lambda: batch(SHAPES["tool calls"](12 * MIB)),
    "large answers": lambda: batch(b'{"model":"deep","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'),
}


async def engine(request: MessagesRequest) -> AsyncIterator[Delta]:
    yield "Hi"
    if request.model == "deep":
        yield ToolStart("c", "f")
        yield ToolJson('{"a":[%s1]}' % (("[" * 40 + "1" + "]" * 40 + ",") * 4_500))


async def hold(folder: Path, body: bytes) -> float:
    """Seconds of CPU of the longest iteration of the event loop while the batch is created and worked off."""
    app = MessagesApp(engine, batch_store=SqlBatchStore(SqliteDatabase(str(folder / "batches.db"))))
    driver = Driver(app, timeout=60.0)
    pieces = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)]
    async with driver.lifespan(), asyncio.timeout(60):
        await driver.request("POST", "/v1/messages/batches", body=batch(DENSE % b""), headers=HEADERS)
        ticker = Ticker(asyncio.get_running_loop())
        response = await driver.request("POST", "/v1/messages/batches", body=pieces, headers=HEADERS)
        assert response.status in (200, 413)
        created = response.json()
        while response.status == 200 and created["processing_status"] != "ended":
            await asyncio.sleep(0.02)
            created = (await driver.request("GET", f"/v1/messages/batches/{created['id']}")).json()
        ticker.stop()
    return ticker.longest


@pytest.mark.parametrize("case", BATCHES)
def test_no_batch_holds_the_event_loop(tmp_path: Path, case: str) -> None:
    body = BATCHES[case]()
    bar = (BAR if len(body) <= MIB else 3 * BAR) * scale()  # a step copies the params of a request
    held = 1.0
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, no_collection():
            held = min(held, runner.run(hold(folder, body)))
        if held <= bar:
            break
    assert held <= bar
