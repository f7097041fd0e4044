"""Freed memory is given back to the system some seconds after large requests."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.http import heap
from anthro_asgi.http.heap import HeapTrimmer, trim_heap
from anthro_asgi.testing.driver import Driver


class Echo:
    """An engine that answers with one word."""

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        yield ["Hi", Finish("end_turn")]


@pytest.mark.parametrize("content", ["x", 5])
@pytest.mark.parametrize(("size", "trims"), [(1000, False), (300_000, True)])
async def test_the_heap_is_trimmed_after_a_large_request(content: object, size: int, trims: bool) -> None:
    app = MessagesApp(Echo())
    messages = [{"role": "user", "content": content}]
    body = {"model": "m", "max_tokens": 9, "messages": messages, "junk": "x" * size}
    await Driver(app).request("POST", "/v1/messages", body=orjson.dumps(body))
    assert (app._heap._timer is not None) is trims
    app._heap.stop()
    assert app._heap._timer is None


async def test_several_large_requests_make_one_trim_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "PAUSE", 0.0)
    threads: list[str] = []
    trimmed = threading.Event()

    def trim() -> None:
        threads.append(threading.current_thread().name)
        trimmed.set()

    trimmer = HeapTrimmer(trim)
    for _ in range(3):
        trimmer.note_large_request()
    await asyncio.to_thread(trimmed.wait)
    assert threads == ["anthro-asgi heap"]
    assert trimmer._timer is None


def test_the_c_library_trims_its_heap() -> None:
    trim_heap()
