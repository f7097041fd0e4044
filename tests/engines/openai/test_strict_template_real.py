"""A real llama.cpp whose template refuses what strict templates refuse: no conversation is lost on it."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin
from tests.support.chat_requests import Json, assistant, result, use, user
from tests.support.llama.model import write_model
from tests.support.llama.server import LlamaServer

pytestmark = pytest.mark.slow
LATE = {"role": "system", "content": "Mind."}
TOOLS = [{"name": "look", "input_schema": {"type": "object"}}]
CONVERSATIONS = {
    "two user turns": [user("a"), user("b")],
    "a late system message": [user("a"), LATE, user("b")],
    "two assistant turns": [user("a"), assistant("b"), assistant("c"), user("d")],
    "an empty assistant turn": [user("a"), assistant(""), user("b")],
    "text behind a result": [user("a"), assistant(use("x")), user(result("x", "1"), "b")],
    "a late system message behind a result": [user("a"), assistant(use("x")), user(result("x", "1")), LATE],
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    model: Path = tmp_path_factory.mktemp("strict") / "model.gguf"
    write_model(model, "strict.jinja")
    with LlamaServer(model=model) as server:
        yield server


@asynccontextmanager
async def service(strict: LlamaServer, late_system: bool | None) -> AsyncIterator[Driver]:
    driver = Driver(MessagesApp(OpenAIEngine(Origin.parse(strict.url), late_system=late_system)))
    async with driver.lifespan():
        yield driver


async def ask(driver: Driver, messages: list[Json], *, stream: bool, **more: Any) -> str:
    body = {"model": "m", "max_tokens": 8, "messages": messages, "stream": stream, **more}
    response = await driver.request("POST", "/v1/messages", body=json.dumps(body).encode())
    assert response.status == 200, response.body
    return response.body.decode()


@pytest.mark.clause("3.37", "3.41")
@pytest.mark.parametrize("late_system", [None, True], ids=["folded", "kept until refused"])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_a_strict_template_gets_a_conversation_that_it_accepts(
    strict: LlamaServer, messages: list[Json], late_system: bool | None
) -> None:
    async with service(strict, late_system) as driver:
        for tools in ({}, {"tools": TOOLS}):
            assert json.loads(await ask(driver, messages, stream=False, **tools))["content"]
            assert "message_stop" in await ask(driver, messages, stream=True, **tools)
