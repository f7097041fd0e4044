"""The server on a loopback port, with plain sockets as clients."""

import http.client
import threading
import tomllib
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.testing import (
    Cut,
    InProcessMessages,
    LoopbackServer,
    MessagesServer,
    Stall,
    ToolCall,
    error,
    pytest_plugin,
)
from anthro_asgi.testing.driver import LifespanFailed, Message, Receive, Send
from tests.support.client import RawClient, ask, connect, get, post


def test_replies_come_over_a_socket_in_order(messages_server: MessagesServer) -> None:
    call = ToolCall("look", {"at": "sky"})
    messages_server.script(error(529, retry_after=3), call, "It is blue.")
    refused = ask(messages_server.url)
    assert (refused.status, refused.headers["retry-after"]) == (529, "3")
    called = message_from_events(ask(messages_server.url, stream=True).events)
    assert (called["stop_reason"], called["content"][0]["id"]) == ("tool_use", call.id)
    assert ask(messages_server.url).json["content"][0]["text"] == "It is blue."
    assert [request.status for request in messages_server.requests] == [529, 200, 200]


def test_a_cut_before_any_content_closes_the_connection_without_a_response(messages_server: MessagesServer) -> None:
    messages_server.script(Cut())
    with pytest.raises(http.client.RemoteDisconnected):
        ask(messages_server.url)
    messages_server.requests[0].wait_ended()
    assert (messages_server.requests[0].status, messages_server.requests[0].client_left) == (None, False)


def test_a_cut_in_a_stream_closes_the_connection_after_what_was_sent(messages_server: MessagesServer) -> None:
    messages_server.script(["Hel", Cut()])
    with closing(connect(messages_server.url)) as connection:
        post(connection, stream=True)
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
    assert b'"Hel"' in caught.value.partial
    assert b"message_stop" not in caught.value.partial


def test_a_cut_leaves_other_connections_open(messages_server: MessagesServer) -> None:
    messages_server.script(["Hel", Stall(0.2), "lo"], Cut())
    with closing(connect(messages_server.url)) as slow:
        post(slow, stream=True)
        response = slow.getresponse()  # the first reply has begun
        with pytest.raises(http.client.RemoteDisconnected):
            ask(messages_server.url)
        message = message_from_events(parse_events(response.read()))
    assert message["content"] == [{"type": "text", "text": "Hello"}]


def test_a_client_that_leaves_is_noticed(messages_server: MessagesServer) -> None:
    messages_server.script(["Hel", Stall()])
    with RawClient(messages_server.url) as client:
        body = b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}'
        client.send(b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        assert b"200" in client.socket.recv(65536)
    (request,) = messages_server.requests
    request.wait_ended()
    assert request.client_left


def test_a_stalled_stream_does_not_delay_the_end_of_the_server() -> None:
    with MessagesServer(["Hel", Stall()]) as server, closing(connect(server.url)) as connection:
        post(connection, stream=True)
        assert connection.getresponse().status == 200
    server.requests[0].wait_ended(0)


@pytest.mark.messages_options(keys=["sk-right"], models=["claude-test"])
def test_a_mark_gives_options_to_the_fixture(messages_server: MessagesServer) -> None:
    assert ask(messages_server.url).status == 401
    assert get(messages_server.url, "/v1/models").status == 401
    assert messages_server.environment == {"ANTHROPIC_BASE_URL": messages_server.url, "ANTHROPIC_API_KEY": "sk-right"}


def test_a_server_that_does_not_run_has_no_address() -> None:
    server = MessagesServer()
    with pytest.raises(RuntimeError, match="is not running"):
        server.url  # noqa: B018 - reading it is what fails
    with server:
        assert get(server.url, "/healthz").status == 200
    with pytest.raises(RuntimeError, match="is not running"):
        server.client(dict)


def test_a_client_instead_of_its_class_is_a_type_error() -> None:
    words = r"^write the class of the client, such as anthropic\.Anthropic, not SimpleNamespace\(…\)"
    made: Any = SimpleNamespace()
    with MessagesServer() as server, pytest.raises(TypeError, match=words):
        server.client(made)
    with InProcessMessages() as messages, pytest.raises(TypeError, match=words):
        messages.client(made)


def test_two_servers_have_different_ports_and_scripts() -> None:
    with MessagesServer("one") as first, MessagesServer("two") as second:
        texts = [ask(server.url).json["content"][0]["text"] for server in (second, first)]
    assert texts == ["two", "one"]


def test_a_client_is_built_with_the_address_and_a_key() -> None:
    with MessagesServer() as server:
        client: dict[str, Any] = server.client(dict, max_retries=0)
        assert client == {"base_url": server.url, "api_key": "sk-test", "max_retries": 0}


def test_the_lifespan_of_another_application_runs() -> None:
    stages: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                stages.append((await receive())["type"])
                await send({"type": f"lifespan.{stage}.complete"})
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with LoopbackServer(app) as server:
        assert get(server.url, "/").status == 204
        assert stages == ["lifespan.startup"]
    assert stages == ["lifespan.startup", "lifespan.shutdown"]


def test_an_application_that_does_not_start_fails_the_entering() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no GPU"})

    threads = threading.active_count()
    with pytest.raises(LifespanFailed, match="no GPU"):
        LoopbackServer(app).__enter__()
    assert threading.active_count() == threads


def test_the_plugin_is_the_entry_point_of_the_wheel() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"anthro_asgi": pytest_plugin.__name__}
