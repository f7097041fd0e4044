"""The kit for client tests with real clients: Anthropic's SDK, httpx2 and httpx; and pytest with the plugin."""

import asyncio
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import pytest
from fastapi import FastAPI

from anthro_asgi import MessagesApp
from anthro_asgi.testing import Cut, InProcessApp, InProcessMessages, MessagesServer, Stall, ToolCall, error
from anthro_asgi.testing.driver import LifespanFailed, Message, Receive, Send

ROOT = Path(__file__).parents[2]
HELLO: Any = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello?"}]}
BOTH = pytest.mark.parametrize("package", [httpx2, httpx], ids=["httpx2", "httpx"])


# the SDK


def test_the_sync_sdk_over_a_port(messages_server: MessagesServer) -> None:
    call = ToolCall("look", {"at": "sky"})
    messages_server.script(error(429, retry_after=0.01), ["Look: ", call], "Hello!")
    with messages_server.client(anthropic.Anthropic, max_retries=1) as client:
        message = client.messages.create(**HELLO)
        assert [block.type for block in message.content] == ["text", "tool_use"]
        with client.messages.stream(**HELLO) as stream:
            assert "".join(stream.text_stream) == "Hello!"
    assert [request.status for request in messages_server.requests] == [429, 200, 200]
    messages_server.check_all_used()


@pytest.mark.parametrize(
    ("options", "key"), [({}, "sk-test"), ({"keys": ()}, "sk-test"), ({"keys": ["sk-a", "sk-b"]}, "sk-a")]
)
def test_clients_send_a_key_that_the_server_accepts(options: dict[str, Any], key: str) -> None:
    with MessagesServer("Hello", **options) as server, InProcessMessages("Hello", **options) as in_process:
        for kit in (server, in_process):
            assert kit.client(anthropic.Anthropic).messages.create(**HELLO).content[0].text == "Hello"
            assert kit.requests[0].api_key == key
            assert kit.client(anthropic.Anthropic, api_key="other").api_key == "other"
        assert server.environment["ANTHROPIC_API_KEY"] == key


def test_the_sync_sdk_in_process(in_process_messages: InProcessMessages) -> None:
    in_process_messages.script(error(529, retry_after=0.01), "Hello you!", Cut(), ["Hel", Cut()])
    with in_process_messages.client(anthropic.Anthropic, max_retries=1) as client:
        with client.messages.stream(**HELLO) as stream:
            assert list(stream.text_stream) == ["Hello", " you!"]
        with pytest.raises(anthropic.APIConnectionError):
            client.with_options(max_retries=0).messages.create(**HELLO)
        with client.messages.stream(**HELLO) as stream, pytest.raises(httpx2.RemoteProtocolError, match="closed"):
            stream.get_final_message()
    assert [request.status for request in in_process_messages.requests] == [529, 200, None, 200]


async def test_the_async_sdk_in_process_on_the_loop_of_the_test() -> None:
    async with InProcessMessages("Hello you!", ["Hel", Stall()]) as messages:
        client = messages.client(anthropic.AsyncAnthropic)
        async with client.messages.stream(**HELLO) as stream:
            assert [text async for text in stream.text_stream] == ["Hello", " you!"]
        async with client.messages.stream(**HELLO) as stream:
            async for text in stream.text_stream:
                assert text == "Hel"
                break
        assert [request.client_left for request in messages.requests] == [False, True]


async def test_the_async_sdk_in_process_with_the_application_in_a_thread(
    in_process_messages: InProcessMessages,
) -> None:
    in_process_messages.script("Hello you!", ["Hel", Stall()])
    async with in_process_messages.client(anthropic.AsyncAnthropic, max_retries=0, timeout=0.2) as client:
        assert (await client.messages.create(**HELLO)).content[0].type == "text"
        with pytest.raises(anthropic.APITimeoutError):
            await client.messages.create(**HELLO)
    assert in_process_messages.requests[1].client_left


async def test_many_streams_in_process_do_not_mix() -> None:
    async def ask(client: anthropic.AsyncAnthropic, text: str) -> str:
        turns: Any = [{"role": "user", "content": text}]
        async with client.messages.stream(**{**HELLO, "messages": turns}) as stream:
            return await stream.get_final_text()

    async with InProcessMessages() as messages:
        messages.otherwise(lambda request: f"You said: {request.text}")
        client = messages.client(anthropic.AsyncAnthropic)
        texts = [f"number {number}" for number in range(20)]
        assert await asyncio.gather(*(ask(client, text) for text in texts)) == [f"You said: {text}" for text in texts]


# the transports


@BOTH
def test_a_sync_client_gets_each_piece_when_it_is_sent(package: ModuleType) -> None:
    with InProcessApp(pieces) as app, app.http_client(package) as client:
        with client.stream("POST", "/path?x=1", content=b"body", headers={"x-a": "1"}) as response:
            assert (response.status_code, response.headers["x-seen"]) == (200, "POST /path x=1 1 body")
            received = response.iter_raw()
            assert next(received) == b"first"  # the application waits for the client before it sends more
        assert client.get("/end").text == "firstsecond"


@BOTH
async def test_an_async_client_gets_each_piece_when_it_is_sent(package: ModuleType) -> None:
    async with InProcessApp(pieces) as app, app.http_client(package, is_async=True) as client:
        async with client.stream("POST", "/path?x=1", content=b"body", headers={"x-a": "1"}) as response:
            assert (response.status_code, response.headers["x-seen"]) == (200, "POST /path x=1 1 body")
            async for piece in response.aiter_raw():
                assert piece == b"first"
                break
        assert (await client.get("/end")).text == "firstsecond"


async def pieces(scope: Message, receive: Receive, send: Send) -> None:
    """Sends `first`, and `second` on the path `/end`. On another path it waits until the client leaves."""
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    seen = b" ".join(
        [
            scope["method"].encode(),
            scope["path"].encode(),
            scope["query_string"],
            dict(scope["headers"]).get(b"x-a", b""),
            (await receive())["body"],
        ]
    )
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-seen", seen)]})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    if scope["path"] == "/end":
        await send({"type": "http.response.body", "body": b"second"})
    else:
        assert (await receive())["type"] == "http.disconnect"


@BOTH
def test_a_client_times_out_as_over_a_network(package: ModuleType) -> None:
    with InProcessMessages(Stall()) as messages:
        client = messages.http_client(package, timeout=0.1)
        with pytest.raises(package.ReadTimeout):
            client.post("/v1/messages", json=HELLO)
        assert messages.requests[0].client_left


@BOTH
def test_an_application_that_fails_is_a_lost_connection_with_the_cause(package: ModuleType) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await pieces(scope, receive, send)
        raise LookupError("a bug")

    with InProcessApp(app) as running, running.http_client(package) as client:
        with pytest.raises(package.RemoteProtocolError, match="the application failed: LookupError") as caught:
            client.get("/")
        assert isinstance(caught.value.__cause__, LookupError)


def test_a_stream_that_is_left_open_does_not_delay_the_end() -> None:
    with InProcessMessages(["Hel", Stall()]) as messages:
        client = messages.client(anthropic.Anthropic)
        stream = client.messages.create(**HELLO, stream=True)
        assert next(iter(stream)).type == "message_start"
    messages.requests[0].wait_ended(0)
    stream.close()


async def test_the_lifespan_of_an_application_runs_and_may_fail() -> None:
    class Engine:
        life: list[str] = []  # noqa: RUF012 - one test, one class
        returning_ends_turn = True

        async def start(self) -> None:
            self.life.append("start")

        async def stop(self) -> None:
            self.life.append("stop")

        async def stream(self, request: Any) -> AsyncIterator[str]:
            yield "Hello"

    async with InProcessApp(MessagesApp(Engine)) as app:
        assert Engine.life == ["start"]
        message = await app.client(anthropic.AsyncAnthropic).messages.create(**HELLO)
        assert message.content[0].to_dict()["text"] == "Hello"
    assert Engine.life == ["start", "stop"]

    async def failing(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no GPU"})

    with pytest.raises(LifespanFailed, match="no GPU"):
        await InProcessApp(failing).__aenter__()
    with pytest.raises(LifespanFailed, match="no GPU"):
        InProcessApp(failing).__enter__()


async def test_an_application_that_is_mounted_in_another_one_is_reached_by_its_path() -> None:
    async def engine(request: Any) -> AsyncIterator[str]:
        yield "Hello from below"

    host = FastAPI()
    host.mount("/llm", MessagesApp(engine))
    async with InProcessApp(host) as app:
        client = app.client(anthropic.AsyncAnthropic, base_url="http://in-process/llm")
        message = await client.messages.create(**HELLO)
        assert message.content[0].to_dict()["text"] == "Hello from below"


# what is installed


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let these packages look as if they were not installed."""
    importing = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importing(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_httpx_is_used_where_httpx2_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcessMessages() as messages:
        assert isinstance(messages.http_client(), httpx2.Client)
        without(monkeypatch, "httpx2")
        assert isinstance(messages.http_client(), httpx.Client)


def test_without_either_the_error_names_the_package_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "httpx2", "httpx")
    with InProcessMessages() as messages, pytest.raises(ModuleNotFoundError) as caught:
        messages.http_client()
    assert str(caught.value) == "the in-process client needs httpx2 or httpx: pip install httpx2"


def test_an_sdk_gets_a_client_of_the_package_that_it_imports() -> None:
    with InProcessMessages() as messages:
        for package in (httpx2, httpx):
            sdk = type("Sdk", (OldSdk,), {"__module__": package.__name__})
            assert isinstance(messages.client(sdk).options["http_client"], httpx2.Client)
        module = ModuleType("old_sdk")
        module.httpx = httpx  # type: ignore[attr-defined]  # as `import httpx` does there
        sys.modules["old_sdk"] = module
        try:
            old = type("Sdk", (OldSdk,), {"__module__": "old_sdk"})
            assert isinstance(messages.client(old).options["http_client"], httpx.Client)
        finally:
            del sys.modules["old_sdk"]


class OldSdk:
    """A client class that keeps its arguments."""

    def __init__(self, **options: Any) -> None:
        self.options = options


async def test_a_sync_client_of_an_application_on_the_loop_of_the_test_is_refused() -> None:
    async with InProcessMessages() as messages:
        with pytest.raises(RuntimeError, match="use `with` instead of `async with`"):
            messages.client(anthropic.Anthropic)
    with pytest.raises(RuntimeError, match="is not running"):
        messages.client(anthropic.AsyncAnthropic)


# pytest


def run_pytest(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run the tests in `folder` as a user does, with the plugin of this checkout."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--strict-markers"]
    if not any(point.name == "anthro_asgi" for point in importlib.metadata.entry_points(group="pytest11")):
        command += ["-p", "anthro_asgi.testing.pytest_plugin"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_examples_pass_in_parallel(tmp_path: Path) -> None:
    names = ("test_sync_client.py", "test_async_agent.py", "test_retries.py")
    for name in names:
        shutil.copy(ROOT / "examples" / name, tmp_path)
    done = run_pytest(tmp_path, "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    written = sum((ROOT / "examples" / name).read_text().count("\ndef test_") for name in names)
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > written


def test_the_code_of_the_how_to_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "testing-your-client.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    for number, block in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(block)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.findall(r"(\d+) passed", done.stdout)[0])
    assert passed >= sum(block.count("def test_") for block in blocks)


def test_the_mark_takes_keywords_only(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import pytest\n@pytest.mark.messages_options(['sk'])\ndef test_one(messages_server): pass\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "messages_options takes keywords only, such as messages_options(keys=['sk-right'])" in done.stdout


def test_a_request_beyond_the_script_fails_the_test_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import anthropic, pytest\n"
        "def test_swallows(messages_server):\n"
        "    messages_server.script('one')\n"
        "    client = messages_server.client(anthropic.Anthropic)\n"
        f"    client.messages.create(**{HELLO})\n"
        "    with pytest.raises(anthropic.BadRequestError):\n"
        f"        client.messages.create(**{HELLO})\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "1 passed, 1 error" in done.stdout
    assert "AssertionError: 1 request had no reply in the script: 'Hello?'" in done.stdout
