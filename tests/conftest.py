"""Runs `async def test_…` functions, each on an event loop of its own that must end with nothing left running."""

import asyncio
import inspect
from typing import Any

import pytest

from tests.support.clock import FakeClockLoop
from tests.support.llama_fixture import llama as llama


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
