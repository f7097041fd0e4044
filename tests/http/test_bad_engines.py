"""Engines in this process that break the rules: the client gets an error of the API, and the counters stay right."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp, Usage
from anthro_asgi.engines.base import BaseEngine, ModelInfo
from anthro_asgi.observability.logs import RequestRecord
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.deltas import Block, Citation, MessageFields, Signature, Thinking, ToolJson, ToolStart
from anthro_asgi.wire.request import MessagesRequest

BODY: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
NO_EXCEPTIONS = ("CancelledError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "a BaseException")
Broken = Callable[[], Any]


class Unusual(BaseException):
    """As a library may derive it, so that no `except Exception` catches it."""


def raising(exc: BaseException) -> Broken:
    def broken() -> Any:
        raise exc

    return broken


BROKEN: dict[str, Broken] = {
    "CancelledError": raising(asyncio.CancelledError()),
    "SystemExit": raising(SystemExit(3)),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "a BaseException": raising(Unusual()),
    "a BaseExceptionGroup": raising(BaseExceptionGroup("of tasks", [asyncio.CancelledError()])),
    "an exception": raising(ZeroDivisionError()),
    "a number": lambda: 5,
    "None": lambda: None,
    "a dict in a list": lambda: [{}],
    "bytes": lambda: b"text",
    "a tool without an id": lambda: ToolStart(None, "f"),  # type: ignore[arg-type]  # that is the fault
    "thinking without a text": lambda: Thinking(None),  # type: ignore[arg-type]  # that is the fault
    "thinking without a text in a list": lambda: [Thinking("a"), Thinking(None)],  # type: ignore[arg-type]  # as above
    "a number as a tool's input": lambda: [ToolStart("t", "f"), ToolJson(7)],  # type: ignore[arg-type]  # as above
    "a signature of bytes": lambda: [Thinking("a"), Signature(b"s")],  # type: ignore[arg-type]  # as above
    "a finish without a reason": lambda: Finish(None),  # type: ignore[arg-type]  # that is the fault
    "a finish with a number": lambda: Finish("end_turn", 7),  # type: ignore[arg-type]  # that is the fault
    "a tool with an empty id": lambda: ToolStart("", "f"),
    "a tool with an empty name": lambda: ToolStart("t", ""),
    "an unknown stop reason": lambda: Finish("done"),  # type: ignore[arg-type]  # that is the fault
    "a stop reason in a list": lambda: Finish(["end_turn"]),  # type: ignore[arg-type]  # that is the fault
    "a usage below zero": lambda: [Usage(1, -1), Finish("end_turn")],
    "a usage beyond 64 bit": lambda: [Usage(1, 2**64), Finish("end_turn")],
    "a usage of fractions": lambda: [Usage(1.5), Finish("end_turn")],  # type: ignore[arg-type]  # that is the fault
    "a usage of truth values": lambda: [Usage(True), Finish("end_turn")],
    "thinking tokens in words": lambda: [Usage(thinking_tokens="1"), Finish("end_turn")],  # type: ignore[arg-type]  # as above
    "a text with details of a usage": lambda: [Usage(details="x"), Finish("end_turn")],  # type: ignore[arg-type]  # as above
    "fields of None": lambda: [MessageFields(None), Finish("end_turn")],  # type: ignore[arg-type]  # as above
    "fields without JSON": lambda: [MessageFields({"a": {1}}), Finish("end_turn")],
    "details of a finish without JSON": lambda: Finish("end_turn", None, {"a": object()}),
    "a block of None": lambda: Block(None),  # type: ignore[arg-type]  # that is the fault
    "a block of bytes": lambda: Block({"type": "x", "data": b"x"}),
    "a citation of None": lambda: ["a", Citation(None)],  # type: ignore[arg-type]  # as above
    "a usage of texts": lambda: [Usage("many"), Finish("end_turn")],  # type: ignore[arg-type]  # that is the fault
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("begun", [True, False], ids=["after text", "at first"])
@pytest.mark.parametrize("fault", BROKEN)
async def test_an_engine_that_breaks_the_rules_fails_its_own_request_only(
    fault: str, begun: bool, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def engine(request: MessagesRequest) -> AsyncIterator[Any]:
        if begun:
            yield "Hello"
        yield BROKEN[fault]()
        yield Finish("end_turn")

    app = MessagesApp(engine)
    with caplog.at_level(logging.INFO, "anthro_asgi"):
        response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps(BODY | {"stream": stream}))
    assert response.header("request-id")
    if response.status == 200:
        assert stream
        assert b"event: error" in response.body
        error = orjson.loads(response.body.rpartition(b"data: ")[2])
    else:
        assert response.status in (500, 502)
        error = response.json()
    assert error["type"] == "error"
    assert error["request_id"] == response.header("request-id")
    assert (app._admission.running, app._admission.waiting) == (0, 0)
    assert any(record.levelno >= logging.ERROR for record in caplog.records)
    (line,) = [record.msg for record in caplog.records if isinstance(record.msg, RequestRecord)]
    assert (line.input_tokens or 0, line.output_tokens or 0) < (100, 4)


async def test_a_stream_that_is_no_async_generator_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Engine:
        def stream(self, request: MessagesRequest) -> list[str]:
            return ["Hello"]

    response = await Driver(MessagesApp(Engine())).request("POST", "/v1/messages", body=orjson.dumps(BODY))
    assert response.status == 500
    assert "the engine Engine returned list, not an async generator" in caplog.text


@pytest.mark.parametrize("fault", NO_EXCEPTIONS)
@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/models", "/readyz"])
async def test_an_engine_that_raises_no_exception_elsewhere_fails_that_request_only(
    path: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Engine(BaseEngine):
        async def stream(self, request: MessagesRequest) -> AsyncIterator[Any]:
            yield Finish("end_turn")

        async def count_tokens(self, request: MessagesRequest) -> int:
            return int(BROKEN[fault]())

        async def models(self) -> list[ModelInfo]:
            return list(BROKEN[fault]())

        async def why_not_ready(self) -> str | None:
            return str(BROKEN[fault]())

    body, method = (orjson.dumps(BODY), "POST") if path.endswith("count_tokens") else (b"", "GET")
    with caplog.at_level(logging.INFO, "anthro_asgi"):
        response = await Driver(MessagesApp(Engine())).request(method, path, body=body)
    error = response.json()
    assert (response.status, error["type"], error["error"]["type"]) == (500, "error", "api_error")
    assert error["request_id"] == response.header("request-id")
    assert any(record.levelno >= logging.ERROR for record in caplog.records)
