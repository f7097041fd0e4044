"""How tests run: each `async def test_…` on an event loop of its own, and the suite in parallel.

Each test has one of two marks. `slow` tests start real processes or models, or measure time: all below the folders in
`SLOW`, all that use the real llama.cpp, and those that say `@pytest.mark.slow`. All others are `core`. With `-m core`
the folders in `SLOW` are not even imported.

`alone` tests, which are slow too, measure time so exactly that other processes would disturb them. They are left out of
parallel runs (`-n auto`), and `pytest -m alone tests/checks` runs them one after the other.

In parallel, all tests of a file run in one worker (`--dist loadfile`), so that a server shared by them starts once.
Slow files start first, then the files of the native path, which take up to a minute each: the run then ends with short
tests, and no worker is idle.
"""

import asyncio
import inspect
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from anthro_asgi.testing.pytest_plugin import in_process_messages as in_process_messages
from anthro_asgi.testing.pytest_plugin import messages_server as messages_server
from tests.support.clock import FakeClockLoop
from tests.support.heap import freeze_heap
from tests.support.llama_fixture import llama as llama

TESTS = Path(__file__).parent
NATIVE = TESTS / "native"
SLOW = tuple(
    TESTS / folder
    for folder in (
        "batches/postgres",
        "bench",
        "checks",
        "cli",
        "clients",
        "deploy",
        "docs",
        "embedding",
        "end_to_end",
        "server",
        "support/llama",
    )
)

# Property tests have the same examples on every run, and no time limit, which a busy machine would miss.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.option.markexpr == "core" and collection_path in SLOW else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors for `-n auto`: many tests wait."""
    return len(os.sched_getaffinity(0)) + 1


@cache
def in_slow_folder(path: Path) -> bool:
    return any(folder in path.parents for folder in SLOW)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        real_engine = "llama" in getattr(item, "fixturenames", ())
        if item.get_closest_marker("slow") is None:
            item.add_marker("slow" if real_engine or in_slow_folder(item.path) else "core")
    if hasattr(config, "workerinput"):  # this is a process of a parallel run
        alone = [item for item in items if item.get_closest_marker("alone") is not None]
        items[:] = [item for item in items if item.get_closest_marker("alone") is None]
        config.hook.pytest_deselected(items=alone)
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, NATIVE not in item.path.parents))


def pytest_collection_finish() -> None:
    freeze_heap()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(loop_factory=getattr(function, "loop_factory", None)) as runner:
        runner.run(_run(function(**arguments)))
    return True


async def _run(test: Any) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    # a test that waits for what never comes is red, and not a suite that hangs; on a fake clock, hours are cheap
    async with asyncio.timeout(24 * 3600 if isinstance(asyncio.get_running_loop(), FakeClockLoop) else 60):
        await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"
    assert not complaints, f"the event loop complained: {complaints}"


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Functions by their names: an address in a test's id would differ between parallel workers."""
    if inspect.isfunction(val):
        return val.__name__
    return None
