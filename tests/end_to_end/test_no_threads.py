"""The system has no thread left: a request that needs one gets a 529, and the service goes on."""

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.engines.shared import paced_reading
from anthro_asgi.engines.shared.paced_reading import in_thread
from anthro_asgi.http import answer
from anthro_asgi.http.answer import in_input_thread
from anthro_asgi.http.prompt_tokens import PromptCounter
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.errors import Overloaded
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.request import MessagesRequest
from tests.support.client import ask, connect
from tests.support.service import AT_ONCE, Service

BODY: Final = b'{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}'
# A new thread needs 64 MiB of address space for its stack, and the process may take 16 MiB more than it has.
NAMED: Final = """
import asyncio, resource, sys, threading, uvloop
from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin

BODY = b'{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}'

def app_at(host):
    return MessagesApp(OpenAIEngine(Origin.parse(f"http://{host}:9/v1"), dialect="vllm"))

async def main():
    print((await Driver(app_at("127.0.0.1")).request("POST", "/v1/messages", body=BODY)).status)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    threading.stack_size(64 << 20)
    resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), resource.RLIM_INFINITY))
    app = app_at("localhost")
    for _ in range(3):
        response = await Driver(app).request("POST", "/v1/messages", body=BODY)
        print(response.status, response.json()["error"]["type"])

asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None).run(main())
"""
HELLO: Final = MessagesRequest("m", 100, [{"role": "user", "content": "Hi"}])
THREADLESS: Final = """
import sys, threading
def start(*_):
    raise RuntimeError("can't start new thread")
threading._start_new_thread = start
from anthro_asgi.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_name_look_up_without_a_thread_is_a_529_and_does_not_end_the_process(loop: str) -> None:
    child = subprocess.run((sys.executable, "-c", NAMED, loop), capture_output=True, text=True, timeout=60, check=False)
    assert child.stdout.splitlines() == ["529"] + ["529 overloaded_error"] * 3, child.stderr
    assert child.returncode == 0


def test_the_service_starts_answers_and_ends_without_a_thread() -> None:
    with _Threadless("--simulate", *AT_ONCE) as service:
        assert ask(service.url).status == 200
        with closing(connect(service.url)) as client:
            client.request("GET", "/metrics")
            assert client.getresponse().status == 200


class _Threadless(Service):
    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        self._command[self._command.index("-m") : self._command.index("serve")] = ["-c", THREADLESS]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading._start_new_thread", start)


@pytest.mark.usefixtures("no_threads")
async def test_an_engine_in_a_thread_is_overloaded_without_one() -> None:
    def engine(request: MessagesRequest) -> Iterator[str]:
        yield "Hi"

    response = await Driver(MessagesApp(as_engine(engine))).request("POST", "/v1/messages", body=BODY)
    assert (response.status, response.json()["error"]["type"]) == (529, "overloaded_error")


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("call", [in_thread, in_input_thread], ids=["a large event", "a large tool input"])
async def test_large_parts_of_an_answer_are_overloaded_without_a_thread(
    call: Callable[[Callable[[], None]], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (answer, paced_reading):  # a pool whose threads are idle would need no new one
        monkeypatch.setattr(module, "_pool", ThreadPoolExecutor(1))
    with pytest.raises(Overloaded, match="no thread left"):
        await call(lambda: None)


@pytest.mark.usefixtures("no_threads")
async def test_a_prompt_is_estimated_if_its_tokenizer_has_no_thread() -> None:
    async def engine(request: MessagesRequest) -> AsyncIterator[str]:
        yield "Hi"

    counter = PromptCounter(as_engine(engine), lambda request: 42)
    assert counter.start_estimate(HELLO)() == estimate_tokens(HELLO)
    with pytest.raises(Overloaded, match="no thread left"):
        await counter.count(HELLO)
