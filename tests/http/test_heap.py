"""Freed memory is given back to the system some seconds after large requests."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.http.heap import PAUSE, HeapTrimmer, trim_heap
from anthro_asgi.testing.driver import Driver
from tests.support.clock import fake_clock


class Echo:
    """An engine that answers with one word."""

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        yield ["Hi", Finish("end_turn")]


@fake_clock
@pytest.mark.parametrize(("size", "trims"), [(1000, False), (300_000, True)])
async def test_the_heap_is_trimmed_after_a_large_request(size: int, trims: bool) -> None:
    trimmed = threading.Event()
    app = MessagesApp(Echo())
    app._heap = HeapTrimmer(trimmed.set)
    for content in ("x" * size, 5):
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}], "junk": "x" * size}
        await Driver(app).request("POST", "/v1/messages", body=orjson.dumps(body))
        assert (app._heap._timer is not None) is trims
        app._heap.stop()
        assert app._heap._timer is None
        assert not trimmed.is_set()


def test_the_c_library_trims_its_heap() -> None:
    trim_heap()
    assert PAUSE > 1
