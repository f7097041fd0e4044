"""Requests as Claude Code sends them, to a scripted engine and to the real llama.cpp.

What matters to its users: nothing that it always sends is refused; what it works around by itself is refused clearly;
the prompt grows only at its end, so that the engine's prefix cache holds; and errors have the texts that it acts on.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.origin import Origin
from tests.support.llama.model import ANSWER
from tests.support.llama.server import LlamaServer
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, sse

Json = dict[str, Any]
CACHED: Json = {"cache_control": {"type": "ephemeral"}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode()
IMAGE: Json = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
TOOL_NAMES = [
    "Task",
    "Bash",
    "Glob",
    "Grep",
    "Read",
    "Edit",
    "Write",
    "NotebookEdit",
    "WebFetch",
    "TodoWrite",
    "BashOutput",
    "KillShell",
]


# the client


def tool(name: str) -> Json:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"command": {"type": "string", "description": "What to do"}, "timeout": {"type": "number"}},
        "required": ["command"],
        "additionalProperties": False,
    }
    return {"name": name, "description": f"{name} something.\n\nUsage notes: many.", "input_schema": schema}


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


class ClaudeCode:
    """One conversation: its messages so far, and the next request."""

    def __init__(self, driver: Driver, system: str = "You are Claude Code.", tools: list[str] = TOOL_NAMES) -> None:
        self._driver = driver
        self._system = system
        self._tools = [tool(name) for name in tools]
        self.messages: list[Json] = []

    def body(self, **over: Any) -> Json:
        """The body of the next request. Its first system block differs each time."""
        changing = f"cc_version=2.1.9.{secrets.token_hex(2)}; cc_entrypoint=cli; cch={secrets.token_hex(3)};"
        billing = f"x-anthropic-billing-header: {changing}"
        *before, last = self.messages
        marked = [*last["content"][:-1], {**last["content"][-1], **CACHED}]
        return {
            "model": "claude-opus-4-6",
            "messages": [*before, {**last, "content": marked}],
            "system": [text(billing), text(self._system, **CACHED), text("# Environment\ncwd: /project", **CACHED)],
            "tools": self._tools,
            "metadata": {"user_id": json.dumps({"device_id": "d1", "account_uuid": "", "session_id": "s1"})},
            "max_tokens": 32000,
            "thinking": {"type": "adaptive", "display": "updates"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"},
            "stream": True,
            **over,
        }

    async def post(self, path: str = "/v1/messages", **over: Any) -> Response:
        headers = [
            ("x-api-key", "unused"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27"),
        ]
        body = json.dumps(self.body(**over)).encode()
        return await self._driver.request("POST", path, query=b"beta=true", headers=headers, body=body)

    def says(self, *blocks: Json) -> None:
        """The user's turn, followed by a system message with a reminder of the client."""
        self.messages.append({"role": "user", "content": list(blocks), "output_config": {"effort": "high"}})
        self.messages.append({"role": "system", "content": [text("<reminder>Use the todo list.</reminder>")]})

    async def turn(self, *blocks: Json, **over: Any) -> Json:
        """Send a user turn. The answer becomes part of the conversation."""
        self.says(*blocks)
        response = await self.post(**over)
        assert response.status == 200, response.body
        message = message_from_events(parse_events(response.body))
        self.messages.append({"role": "assistant", "content": message["content"]})
        return message


def results(message: Json, content: Any = "done") -> list[Json]:
    """The results of the tool calls."""
    uses = [block for block in message["content"] if block["type"] == "tool_use"]
    return [{"type": "tool_result", "tool_use_id": use["id"], "content": content} for use in uses]


# the engine


def chunk(finish: str | None = None, **delta: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def calls(*names: str) -> list[Json]:
    """Chunks with parallel calls of these tools."""
    heads = [{"index": n, "id": f"call_{name}", "function": {"name": name}} for n, name in enumerate(names)]
    tails = [{"index": n, "function": {"arguments": '{"command":"ls"}'}} for n, _ in enumerate(names)]
    return [chunk(tool_calls=heads), chunk(tool_calls=tails), chunk("tool_calls")]


DONE = sse(chunk(content="All done."), chunk("stop"))
THREE_TURNS = (
    sse(chunk(reasoning="I look."), chunk(content="Looking."), *calls("Bash")),
    sse(chunk(content="And more."), *calls("Grep", "Read")),
    DONE,
)


class Served:
    """The service over a vLLM that gives these answers in turn and counts tokens."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.heard: list[bytes] = []
        self.counted = 0
        self.driver: Driver

    @property
    def chats(self) -> list[Json]:
        return [json.loads(body) for body in self.heard]

    async def answer(self, wire: Wire) -> None:
        if wire.target == "/v1/chat/completions":
            self.heard.append(wire.body)
            answer = self._answers.pop(0)
        elif wire.target == "/tokenize":
            self.counted += 1
            answer = json_answer(200, {"count": 1000 + len(json.loads(wire.body)["messages"]), "max_model_len": 65536})
        else:
            answer = json_answer(404, {"detail": "Not Found"})
        if isinstance(answer, bytes):
            await wire.send(answer)
        else:
            await answer(wire)


@asynccontextmanager
async def served(*answers: Answer) -> AsyncIterator[Served]:
    script = Served(*answers)
    async with ScriptedUpstream(script.answer) as upstream:
        engine = OpenAIEngine(Origin.parse(f"{upstream.url}/v1"), dialect="vllm")
        script.driver = Driver(MessagesApp(engine, aliases={"claude-*": "tiny"}))
        async with script.driver.lifespan():
            yield script


async def three_turns(client: ClaudeCode) -> list[Json]:
    first = await client.turn(text("Tidy up."))
    second = await client.turn(*results(first))
    return [first, second, await client.turn(*results(second, [text("ok")]), text("and then stop"))]


@pytest.mark.clause("2.4")
async def test_a_tool_loop_of_three_turns_is_answered() -> None:
    async with served(*THREE_TURNS) as service:
        first, second, third = await three_turns(ClaudeCode(service.driver))
    assert [block["type"] for block in first["content"]] == ["thinking", "text", "tool_use"]
    assert [block.get("name") for block in second["content"]] == [None, "Grep", "Read"]
    assert [message["stop_reason"] for message in (first, second, third)] == ["tool_use", "tool_use", "end_turn"]
    assert third["content"] == [text("All done.")]
    assert {message["model"] for message in (first, second, third)} == {"claude-opus-4-6"}


@pytest.mark.clause("3.42")
async def test_the_prompt_of_each_turn_begins_with_the_prompt_of_the_turn_before() -> None:
    async with served(*THREE_TURNS) as service:
        await three_turns(ClaudeCode(service.driver))
        first, second, third = service.chats
    for shorter, longer in ((first, second), (second, third)):
        assert longer["messages"][: len(shorter["messages"])] == shorter["messages"]
        for key in ("tools", "model", "chat_template_kwargs", "max_tokens"):
            assert longer[key] == shorter[key]
    assert [turn["role"] for turn in third["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]


@pytest.mark.clause("3.31")
async def test_fields_that_only_concern_the_client_do_not_reach_the_engine() -> None:
    async with served(*THREE_TURNS) as service:
        await three_turns(ClaudeCode(service.driver))
    for body in service.heard:
        for word in (b"cache_control", b"billing", b"context_management", b"ephemeral", b"display", b"metadata"):
            assert word not in body
    sent = service.chats[0]
    assert sent["messages"][0] == {
        "role": "system",
        "content": "You are Claude Code.\n# Environment\ncwd: /project",
    }
    assert (sent["model"], sent["max_tokens"], len(sent["tools"])) == ("tiny", 32000, 12)
    assert sent["tools"][1]["function"]["parameters"] == tool("Bash")["input_schema"], "schemas are not touched"
    assert json.loads(sent["user"])["session_id"] == "s1"
    assert sent["reasoning_effort"] == "high"
    assert sent["chat_template_kwargs"]["enable_thinking"] is True


async def test_a_sub_agent_between_two_turns_has_its_own_prompt() -> None:
    answers = (sse(*calls("Task")), sse(*calls("Grep")), sse(chunk(content="Found."), chunk("stop")), DONE)
    async with served(*answers) as service:
        main = ClaudeCode(service.driver)
        agent = ClaudeCode(service.driver, "You search files.", ["Grep", "Read"])
        task = await main.turn(text("Find it."))
        found = await agent.turn(text("Find it, agent."))
        report = await agent.turn(*results(found, "x.py:1"))
        end = await main.turn(*results(task, report["content"]))
    assert end["content"] == [text("All done.")]
    main_1, agent_1, agent_2, main_2 = [chat["messages"] for chat in service.chats]
    assert main_2[: len(main_1)] == main_1
    assert agent_2[: len(agent_1)] == agent_1
    assert agent_1[0]["content"].startswith("You search files.")
    assert [chat["tools"][0]["function"]["name"] for chat in service.chats] == ["Task", "Grep", "Grep", "Task"]
    assert {"role": "tool", "tool_call_id": "call_Task", "content": "Found."} in main_2


async def test_images_of_the_user_and_of_a_tool_reach_the_engine() -> None:
    async with served(sse(*calls("Read")), DONE) as service:
        client = ClaudeCode(service.driver)
        read = await client.turn(text("What is this?"), IMAGE)
        await client.turn(*results(read, [text("a screenshot"), IMAGE]))
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert service.chats[0]["messages"][1]["content"] == [
        text("What is this?"),
        url,
        text("<system>\n<reminder>Use the todo list.</reminder>\n</system>"),
    ]
    turns = service.chats[1]["messages"]
    at = next(number for number, turn in enumerate(turns) if turn["role"] == "tool")
    assert turns[at]["content"].startswith("a screenshot")
    assert url in turns[at + 1]["content"]


@pytest.mark.clause("3.14")
async def test_the_web_search_tool_is_refused_with_its_name() -> None:
    async with served() as service:
        client = ClaudeCode(service.driver)
        client.says(text("Search the web for news."))
        search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
        response = await client.post(tools=[search])
    error = response.json()["error"]
    assert (response.status, error["type"]) == (400, "invalid_request_error")
    assert error["details"] == {"error_code": "unsupported_tool_type"}
    assert error["message"].startswith("tools.0")
    assert service.heard == []


OVERFLOW = json_answer(
    400,
    {
        "error": {
            "message": "This model's maximum context length is 65536 tokens. However, your prompt contains "
            "70001 input tokens, which exceeds this limit even without any output tokens.",
            "type": "BadRequestError",
            "code": 400,
        }
    },
)


async def test_an_overflow_has_the_error_text_on_which_the_client_compacts() -> None:
    async with served(OVERFLOW, DONE) as service:
        client = ClaudeCode(service.driver)
        client.says(text("word " * 1000))
        response = await client.post()
        assert response.status == 400
        assert response.json()["error"] == {
            "type": "invalid_request_error",
            "message": "prompt is too long: 70001 tokens > 65536 maximum",
        }
        compacted = ClaudeCode(service.driver)
        assert (await compacted.turn(text("Summary: words.")))["stop_reason"] == "end_turn"


async def test_a_burst_of_24_counts_is_answered() -> None:
    async with served() as service:
        client = ClaudeCode(service.driver)
        client.says(text("Hello"))
        burst = [client.post("/v1/messages/count_tokens", tools=[tool(f"t{number}")]) for number in range(24)]
        answers = await asyncio.gather(*burst)
        assert service.counted == 24
    assert {answer.status for answer in answers} == {200}
    told = {"input_tokens": 1002, "context_management": {"original_input_tokens": 1002}}
    assert all(answer.json() == told for answer in answers)
    assert service.heard == []


@pytest.mark.clause("7.12")
async def test_after_an_error_in_mid_stream_the_client_may_ask_again_without_stream() -> None:
    async def fails(wire: Wire) -> None:
        begun, _, rest = sse(chunk(content="All"), {"error": {"message": "boom", "code": 500}}).partition(b"}\n\n")
        await wire.send(begun + b"}\n\n")
        await asyncio.wait_for(told.wait(), 5)
        await wire.send(rest)

    told = asyncio.Event()
    async with served(fails, DONE) as service:
        client = ClaudeCode(service.driver)
        client.says(text("Tidy up."))
        body = json.dumps(client.body()).encode()
        async with service.driver.open("POST", "/v1/messages", query=b"beta=true", body=body) as exchange:
            begun = await (await exchange.started()).chunk()
            told.set()
            events = parse_events((begun or b"") + await exchange.rest())
        assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "api_error")
        again = await client.post(stream=False)
    assert again.status == 200
    assert again.json()["content"] == [text("All done.")]
    assert again.json()["stop_reason"] == "end_turn"
    first, second = service.chats
    assert first == second, "the engine is always asked for a stream"


# the real engine


@asynccontextmanager
async def real(llama: LlamaServer) -> AsyncIterator[Driver]:
    engine = OpenAIEngine(Origin.parse(llama.url))
    driver = Driver(MessagesApp(engine, aliases={"*": "one-sentence"}), timeout=20.0)
    async with driver.lifespan():
        yield driver


async def test_a_tool_loop_of_three_turns_on_the_real_engine(llama: LlamaServer) -> None:
    async with real(llama) as driver:
        client = ClaudeCode(driver)
        forced = {"tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}
        first = await client.turn(text("Tidy up."), **forced)
        second = await client.turn(*results(first), **forced)
        third = await client.turn(*results(second), thinking={"type": "disabled"})
    assert [message["stop_reason"] for message in (first, second, third)] == ["tool_use", "tool_use", "end_turn"]
    (use,) = [block for block in first["content"] if block["type"] == "tool_use"]
    assert use["name"] in TOOL_NAMES
    assert isinstance(use["input"]["command"], str)
    assert third["content"] == [text(ANSWER)]
    cached = [message["usage"].get("cache_read_input_tokens", 0) for message in (second, third)]
    lengths = [
        message["usage"]["input_tokens"] + message["usage"].get("cache_read_input_tokens", 0)
        for message in (first, second)
    ]
    for before, read in zip(lengths, cached, strict=True):
        assert read >= before - 16, "the whole prompt of the turn before was read from the cache"


@pytest.mark.parametrize("limit", [32_000, 128_000])
async def test_adaptive_thinking_and_large_limits_are_answered_on_the_real_engine(
    llama: LlamaServer, limit: int
) -> None:
    async with real(llama) as driver:
        message = await ClaudeCode(driver).turn(text("Think."), max_tokens=limit)
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert message["content"][1] == text(ANSWER)


async def test_an_overflow_of_the_real_engine_has_the_error_text_on_which_the_client_compacts(
    llama: LlamaServer,
) -> None:
    async with real(llama) as driver:
        client = ClaudeCode(driver)
        client.says(text("word " * 40_000))
        response = await client.post()
    assert response.status == 400
    assert response.json()["error"]["message"].startswith("prompt is too long: ")


@pytest.mark.clause("10.2")
async def test_a_burst_of_counts_on_the_real_engine_equals_its_usage(llama: LlamaServer) -> None:
    async with real(llama) as driver:
        client = ClaudeCode(driver)
        client.says(text("Count me."))
        answers = await asyncio.gather(*(client.post("/v1/messages/count_tokens") for _ in range(24)))
        response = await client.post(stream=False)
    usage = response.json()["usage"]
    assert {answer.json()["input_tokens"] for answer in answers} == {
        usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
    }
