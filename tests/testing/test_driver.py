"""The driver accepts correct applications and detects each kind of incorrect one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from anthro_asgi.testing.driver import App, AsgiViolation, Driver, LifespanFailed, Message, Receive, Send, Stuck

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def piece(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def start(status: Any, *headers: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def saying(*messages: Message) -> App:
    """An application that sends these messages for every request."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Sends each piece of the request body back as it arrives."""
    await send(START)
    while (message := await receive()).get("more_body"):
        await send(piece(message["body"]))
    await send({**END, "body": message["body"]})


# ---------------------------------------------------------------------------------------------------- good ones


async def test_a_whole_response_is_returned() -> None:
    app = saying(start(201, (b"a", b"1"), (b"b", b"2"), (b"b", b"3")), piece(b'{"x":'), {**END, "body": b"1}"})
    response = await Driver(app).request("GET", "/")
    assert (response.status, response.headers, response.body) == (201, {"a": ["1"], "b": ["2", "3"]}, b'{"x":1}')
    assert response.json() == {"x": 1}
    assert response.header("a") == "1"
    assert response.header("c") is None
    with pytest.raises(AssertionError, match="b came 2 times"):
        response.header("b")


async def test_each_piece_is_read_as_it_was_sent() -> None:
    async with Driver(saying(START, piece(b"a"), piece(b""), piece(b"bc"), END)).open("GET", "/") as exchange:
        await exchange.started()
        assert exchange.status == 200
        assert exchange.header("content-type") == "text/plain"
        assert [await exchange.chunk() for _ in range(5)] == [b"a", b"", b"bc", None, None]
        assert exchange.complete


async def test_a_last_piece_with_a_body_is_read_too() -> None:
    async with Driver(saying(START, {**END, "body": b"z"})).open("GET", "/") as exchange:
        assert [await exchange.chunk(), await exchange.chunk()] == [b"z", None]


async def test_the_request_arrives_piece_by_piece() -> None:
    async with Driver(echo).open("POST", "/", body=[b"a", b"b", b""]) as exchange:
        assert [await exchange.chunk(), await exchange.chunk(), await exchange.chunk()] == [b"a", b"b", None]
        assert exchange.pieces_read == 3


async def test_the_scope_is_that_of_a_server() -> None:
    scopes = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await saying(START, END)(scope, receive, send)

    driver = Driver(app, state={"pool": 1})
    await driver.request("POST", "/a%20b", headers=[("X-Api-Key", "k")], body=b"abc", query=b"beta=true", client=None)
    await driver.request("POST", "/", body=[b"abc"], http_version="1.0")
    whole, pieces = scopes
    assert (whole["method"], whole["path"], whole["raw_path"]) == ("POST", "/a b", b"/a%20b")
    assert (whole["query_string"], whole["client"], whole["state"]) == (b"beta=true", None, {"pool": 1})
    assert whole["headers"] == [(b"host", b"localhost"), (b"x-api-key", b"k"), (b"content-length", b"3")]
    assert pieces["headers"] == [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
    assert (pieces["http_version"], pieces["client"]) == ("1.0", ("127.0.0.1", 50000))


async def test_receive_after_the_body_waits_for_the_client_to_leave() -> None:
    order = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        order.append((await receive())["type"])
        await send(piece(b"nobody reads this"))

    async with Driver(app).open("GET", "/") as exchange:
        await exchange.started()
        order.append("leaving")
        exchange.disconnect()
        assert await exchange.rest() == b""
    assert order == ["leaving", "http.disconnect"]


async def test_an_application_need_not_respond_to_a_client_that_left() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with Driver(app).open("GET", "/") as exchange:
        exchange.disconnect()
        with pytest.raises(AssertionError, match="the client left"):
            await exchange.started()
        assert await exchange.chunk() is None


async def test_receive_after_the_response_is_a_disconnect() -> None:
    seen = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await saying(START, END)(scope, receive, send)
        seen.extend([await receive(), await receive()])

    await Driver(app).request("GET", "/")
    assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]


async def test_a_body_may_never_end() -> None:
    async with Driver(echo).open("POST", "/", body=[b"a"], complete=False) as exchange:
        assert await exchange.chunk() == b"a"
        exchange.disconnect()
        with pytest.raises(KeyError):  # this application does not handle a disconnect
            await exchange.rest()


async def test_a_client_that_does_not_read_blocks_the_next_send() -> None:
    sent: list[bytes] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        for body in (b"a", b"b", b"c"):
            await send(piece(body))
            sent.append(body)
        await send(END)

    async with Driver(app).open("GET", "/") as exchange:
        exchange.hold()
        await exchange.blocked()
        assert sent == []
        exchange.release()
        assert await exchange.rest() == b"abc"
        assert sent == [b"a", b"b", b"c"]


async def test_leaving_frees_a_blocked_send() -> None:
    async with Driver(saying(START, piece(b"a"), END)).open("GET", "/") as exchange:
        exchange.hold()
        await exchange.blocked()
        exchange.disconnect()


async def test_send_does_not_yield_to_the_loop() -> None:
    turns: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_soon(turns.append, "a turn")
        await send(START)
        await send(END)
        assert not turns

    await Driver(app).request("GET", "/")


async def test_the_response_to_head_has_a_length_and_no_body() -> None:
    response = await Driver(saying(start(200, (b"content-length", b"5")), END)).request("HEAD", "/")
    assert (response.body, response.header("content-length")) == (b"", "5")


# ---------------------------------------------------------------------------------------------------- bad ones


@pytest.mark.parametrize(
    ("rule", "messages"),
    [
        ("must begin with http.response.start", [END]),
        ("may follow, not http.response.start", [START, START]),
        ("may follow, not http.response.trailers", [START, {"type": "http.response.trailers"}]),
        ("nothing may be sent after", [START, END, END]),
        ("nothing may be sent after", [START, END, piece(b"a")]),
        ("names and values are bytes", [start(200, ("a", "b")), END]),
        ("names and values are bytes", [start(200, (b"a", 3)), END]),
        ("in lower case", [start(200, (b"Retry-After", b"1")), END]),
        ("in lower case", [start(200, (b"", b"1")), END]),
        ("is one line", [start(200, (b"a", b"b\r\nc: d")), END]),
        ("final status", [start("200"), END]),
        ("final status", [start(100), END]),
        ("final status", [start(True), END]),
        ("trailers", [{**START, "trailers": True}, END]),
        ("a body is bytes", [START, {**END, "body": "text"}]),
        ("more_body is a bool", [START, {**END, "more_body": None}]),
        ("204 has no body", [start(204), {**END, "body": b"a"}]),
        ("content-length was 3, the body has 2", [start(200, (b"content-length", b"3")), {**END, "body": b"ab"}]),
        ("content-length is", [start(200, (b"content-length", b"x")), END]),
        ("content-length is", [start(200, (b"content-length", b"0"), (b"content-length", b"0")), END]),
        ("returned before its response was complete", [START, piece(b"a")]),
        ("returned before its response was complete", []),
    ],
)
async def test_a_broken_rule_is_named(rule: str, messages: list[Message]) -> None:
    with pytest.raises(AsgiViolation, match=rule):
        await Driver(saying(*messages)).request("GET", "/")


async def test_a_broken_rule_cannot_be_swallowed() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await send(END)
        except AssertionError:
            await saying(START, END)(scope, receive, send)

    with pytest.raises(AsgiViolation, match=r"must begin with http\.response\.start"):
        async with Driver(app).open("GET", "/"):
            pass


async def test_a_broken_rule_is_reported_while_the_application_still_runs() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await send(END)
        except AssertionError:
            await receive()
            await receive()

    with pytest.raises(AsgiViolation, match=r"must begin with http\.response\.start"):
        await Driver(app).request("GET", "/")


async def test_an_exception_that_escapes_reaches_the_test() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await Driver(app).request("GET", "/")
    with pytest.raises(LookupError, match="lost"):
        async with Driver(app).open("GET", "/"):
            pass


async def test_an_exception_after_the_response_reaches_the_test() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await saying(START, END)(scope, receive, send)
        raise LookupError("late")

    with pytest.raises(LookupError, match="late"):
        await Driver(app).request("GET", "/")


async def test_a_cancellation_that_escapes_is_a_violation() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(AsgiViolation, match="CancelledError"):
        await Driver(app).request("GET", "/")


async def test_the_failure_of_the_test_comes_first() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise LookupError("on the way out")

    with pytest.raises(ZeroDivisionError) as caught:
        async with Driver(app).open("GET", "/"):
            raise ZeroDivisionError
    assert caught.value.__notes__ == ["and the application: LookupError('on the way out')"]


async def tokens() -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.Event().wait()


async def endless(scope: Message, receive: Receive, send: Send) -> None:
    await send(START)
    async with aclosing(tokens()) as stream:  # type: ignore[type-var]
        async for token in stream:
            await send(piece(token))


async def test_an_application_that_waits_forever_shows_its_stack() -> None:
    driver = Driver(endless, timeout=0.01)
    with pytest.raises(Stuck, match=r"(?s)0.01 s.*in endless.*in tokens"):
        await driver.request("GET", "/")
    with pytest.raises(Stuck, match=r"(?s)in endless.*in tokens"):
        async with driver.open("GET", "/") as exchange:
            assert await exchange.chunk() == b"a"


async def test_an_application_that_ignores_a_disconnect_shows_its_stack() -> None:
    with pytest.raises(Stuck, match="in tokens"):
        async with Driver(endless, timeout=0.01).open("GET", "/") as exchange:
            exchange.disconnect()


async def test_an_application_that_swallows_its_cancellation_is_reported_as_such() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await saying(START, END)(scope, receive, send)

    with pytest.raises(Stuck, match="swallowed its cancellation"):
        await Driver(app, timeout=0.01).request("GET", "/")


# ---------------------------------------------------------------------------------------------------- lifespan


def living(*answers: str) -> App:
    """An application that gives one of these answers to each stage, and returns."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["asked"] = []
        for answer in answers:
            scope["state"]["asked"].append((await receive())["type"])
            await send({"type": answer, "message": "no engine"})

    return app


async def test_the_lifespan_is_called_for_startup_and_shutdown_and_keeps_its_state() -> None:
    driver = Driver(living("lifespan.startup.complete", "lifespan.shutdown.complete"))
    async with driver.lifespan():
        assert driver.state == {"asked": ["lifespan.startup"]}
    assert driver.state == {"asked": ["lifespan.startup", "lifespan.shutdown"]}


async def test_a_failed_startup_is_reported_with_its_message() -> None:
    with pytest.raises(LifespanFailed, match="no engine"):
        async with Driver(living("lifespan.startup.failed")).lifespan():
            pytest.fail("nothing runs after a failed start")


async def test_a_failed_shutdown_is_reported_with_its_message() -> None:
    with pytest.raises(LifespanFailed, match="no engine"):
        async with Driver(living("lifespan.startup.complete", "lifespan.shutdown.failed")).lifespan():
            pass


@pytest.mark.parametrize(
    ("rule", "answers"),
    [
        ("lifespan.shutdown.complete after lifespan.startup", ["lifespan.shutdown.complete"]),
        ("ended without an answer to lifespan.startup", []),
        ("ended without an answer to lifespan.shutdown", ["lifespan.startup.complete"]),
    ],
)
async def test_a_broken_rule_of_the_lifespan_is_named(rule: str, answers: list[str]) -> None:
    with pytest.raises(AsgiViolation, match=rule):
        async with Driver(living(*answers)).lifespan():
            pass


async def test_a_second_answer_to_startup_is_a_violation() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.startup.complete"})

    with pytest.raises(AsgiViolation, match="answered twice"):
        async with Driver(app).lifespan():
            pass


async def test_a_lifespan_that_does_not_end_shows_its_stack() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        await receive()

    with pytest.raises(Stuck, match="in app"):
        async with Driver(app, timeout=0.01).lifespan():
            pass


async def test_an_error_inside_the_lifespan_still_shuts_down() -> None:
    driver = Driver(living("lifespan.startup.complete", "lifespan.shutdown.complete"))
    with pytest.raises(ZeroDivisionError):
        async with driver.lifespan():
            raise ZeroDivisionError
    assert driver.state["asked"] == ["lifespan.startup", "lifespan.shutdown"]
