"""A model file served by a supervised llama.cpp: the real one, with a tiny model."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.engines.llamacpp.engine import LlamaCppEngine
from anthro_asgi.engines.llamacpp.supervisor import LlamaSupervisor
from anthro_asgi.wire.deltas import Finish
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.request import MessagesRequest
from tests.support.clock import fake_clock
from tests.support.llama.model import write_model

pytestmark = pytest.mark.slow

PATIENCE = 20.0  # seconds
HELLO = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture
def engine(model: Path) -> LlamaCppEngine:
    return LlamaCppEngine(str(model), context=1024, slots=2, threads=1)


async def said(engine: LlamaCppEngine, **changes: Any) -> list[Any]:
    request = MessagesRequest("any", 20, HELLO, **changes)
    return [
        delta async for batch in engine.stream(request) for delta in (batch if isinstance(batch, list) else [batch])
    ]


def has_files(engine: LlamaCppEngine) -> bool:
    return Path(engine._folder.name).exists()


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_a_model_file_answers_counts_and_lists(engine: LlamaCppEngine) -> None:
    await engine.start()
    try:
        assert await engine.ready()
        assert isinstance((await said(engine))[-1], Finish)
        listed = await engine.models()
        assert [(entry.id, entry.max_input_tokens) for entry in listed] == [("tiny", 1024)]
        assert await engine.count_tokens(MessagesRequest("any", 20, HELLO)) > 0
        pid = engine._supervisor.pid
        assert pid is not None
        assert is_alive(pid)
    finally:
        await engine.stop()
    assert not is_alive(pid)
    assert not has_files(engine)


async def test_failures_and_connections_are_reported_as_for_any_upstream(engine: LlamaCppEngine) -> None:
    seen: list[tuple[str, str]] = []
    engine.observe = lambda what, kind: seen.append((what, kind))
    await engine.start()
    try:
        stream: Any = engine.stream(MessagesRequest("any", 20, HELLO))
        await anext(stream)
        assert engine.connections()["leased"] == 1
        await stream.aclose()
        await engine._supervisor.stop()
        with pytest.raises(ApiError):
            await said(engine)
        assert ("upstream_error", "connect") in seen
    finally:
        await engine.stop()


async def test_a_killed_child_is_restarted_and_answers_again(
    engine: LlamaCppEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await engine.start()
    try:
        first = engine._supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    answer = await said(engine)
                except ApiError:
                    await asyncio.sleep(0.05)
                else:
                    if engine._supervisor.pid != first:
                        break
        assert isinstance(answer[-1], Finish)
    finally:
        await engine.stop()
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told == ["llama.cpp ended (SIGKILL); it restarts in 0.5 s"]


async def test_a_file_that_llama_cpp_cannot_load_gives_a_one_line_reason(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(1000))
    engine = LlamaCppEngine(str(bad))
    with pytest.raises(RuntimeError, match=r"^llama.cpp could not load .*bad.gguf: .*bad GGUF version: 0$"):
        await engine.start()
    await engine.stop()
    assert not has_files(engine)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot read the model .*: No such file"), (b"<html>", "is not a GGUF file")]
)
def test_a_file_that_is_not_a_model_is_refused_before_anything_starts(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        LlamaCppEngine(str(path))


class ChildrenThatEnd(LlamaSupervisor):
    """Its children load the model and run for the given times, in seconds. `started` has the time of each start."""

    def __init__(self, runs: list[float]) -> None:
        super().__init__("tiny.gguf", Path("unused.sock"), {})
        self._runs = runs
        self.started: list[float] = []

    async def _run_child(self) -> str:
        self.started.append(asyncio.get_running_loop().time())
        self._loaded_once = True
        self._loaded.set()
        await asyncio.sleep(self._runs[len(self.started) - 1])
        return "SIGKILL"


@fake_clock
async def test_the_pause_before_a_restart_grows_to_half_a_minute_until_a_child_runs_for_a_minute() -> None:
    runs = [1.0] * 9 + [61.0, 1.0, 10_000.0]
    supervisor = ChildrenThatEnd(runs)
    await supervisor.start()
    await asyncio.sleep(1000)
    await supervisor.stop()
    begun = supervisor.started
    pauses = [later - start - run for start, later, run in zip(begun, begun[1:], runs, strict=False)]
    assert [round(pause, 3) for pause in pauses] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1]


def test_the_child_ends_when_its_parent_is_killed(model: Path) -> None:
    code = f"""
import asyncio, time
from anthro_asgi.engines.llamacpp.engine import LlamaCppEngine

async def main():
    engine = LlamaCppEngine({str(model)!r}, context=512, slots=1, threads=1)
    await engine.start()
    print(engine._supervisor.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    deadline = time.monotonic() + PATIENCE
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
