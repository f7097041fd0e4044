"""The options of the request side, from the command line to the engine's wire and back (contract section 3)."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp, Rules, Thinking, factory
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.openai.tool_names import short
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.wire.deltas import Finish, Signature
from anthro_asgi.wire.message import PLACEHOLDER_SIGNATURE
from tests.support.upstream import Answer, ScriptedUpstream, sse

Json = dict[str, Any]
HI: Json = {"role": "user", "content": "Hi"}
LONG = "mcp__" + "server" * 15
BILLING = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli;"


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}]}


def call(name: str, arguments: str = "{}") -> Json:
    return chunk(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": name, "arguments": arguments}}])


HELLO = sse(chunk("Hello"), chunk(None, "stop"))


class Served:
    """The service with these options, in front of a scripted engine."""

    def __init__(self, app: MessagesApp, upstream: ScriptedUpstream) -> None:
        self.app = app
        self.upstream = upstream

    async def post(self, path: str = "/v1/messages", **fields: Any) -> Response:
        body = orjson.dumps({"model": "m", "max_tokens": 99, "messages": [HI], **fields})
        return await Driver(self.app).request("POST", path, body=body)

    async def content(self, **fields: Any) -> list[Json]:
        """The content of the answer, the same streamed and whole."""
        response = await self.post(stream=True, **fields)
        assert response.status == 200, response.body
        events = parse_events(response.body)
        check_stream(events)
        whole = (await self.post(**fields)).json()
        streamed = message_from_events(events)
        assert (streamed["content"], streamed["stop_reason"]) == (whole["content"], whole["stop_reason"])
        content: list[Json] = whole["content"]
        return content

    async def asked(self, **fields: Any) -> Json:
        """The chat request that the engine received."""
        response = await self.post(**fields)
        assert response.status == 200, response.body
        return self.chats[-1]

    @property
    def chats(self) -> list[Json]:
        """The chat requests so far."""
        return [json.loads(request.body) for request in self.upstream.requests if request.method == "POST"]

    async def refused(self, **fields: Any) -> str:
        response = await self.post(**fields)
        assert response.status == 400
        message: str = response.json()["error"]["message"]
        return message


@asynccontextmanager
async def served(*answers: Answer, dialect: str = "openai", **options: str) -> AsyncIterator[Served]:
    async with ScriptedUpstream(*answers or (HELLO,)) as upstream:
        line = {"upstream": upstream.url, "upstream_api": "chat", "dialect": dialect, **options}
        settings = load_settings({name.replace("_", "-"): [value] for name, value in line.items()}, {})
        app = factory.build_app(factory.build_engine(settings), (), settings)
        yield Served(app, upstream)
        await app.engine.stop()


# Anthropic's own tools

SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}
FETCH: Json = {"type": "web_fetch_20250910", "name": "web_fetch"}
BASH: Json = {"type": "bash_20250124", "name": "bash"}
LOOK: Json = {"name": "look"}


async def test_server_tools_are_refused_with_a_code_on_the_wire() -> None:
    async with served() as service:
        response = await service.post(tools=[LOOK, SEARCH])
    assert (response.status, response.json()["error"]["details"]) == (400, {"error_code": "unsupported_tool_type"})


@pytest.mark.clause("3.14")
async def test_dropped_server_tools_never_reach_the_engine_and_are_logged_by_name_once_a_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "anthro_asgi")
    async with served(server_tools="drop") as service:
        body = await service.asked(tools=[FETCH, LOOK, {"type": "mcp_toolset", "mcp_server_name": "secret"}])
        assert [tool["function"]["name"] for tool in body["tools"]] == ["look"]
        named = {"type": "tool", "name": "web_fetch"}
        assert await service.refused(tools=[FETCH, LOOK], tool_choice=named) == (
            "tool_choice.name: no tool is named 'web_fetch'"
        )
        assert "no other tool is left" in await service.refused(tools=[FETCH])
        assert "is a server tool" in await service.refused(tools=[SEARCH, LOOK])
    lines = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert lines == ["dropped server tools: web_fetch, mcp_toolset"]


@pytest.mark.clause("3.14")
async def test_server_tools_that_are_passed_are_refused_for_a_chat_engine() -> None:
    async with served(server_tools="pass") as service:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            response = await service.post(path, tools=[LOOK, SEARCH])
            error = response.json()["error"]
            assert (response.status, error["details"]) == (400, {"error_code": "unsupported_tool_type"})
            assert error["message"].startswith("tools.1.type: 'web_search_20250305' is a server tool")
        assert (await service.refused(mcp_servers=[{"name": "s"}])).startswith("mcp_servers: ")


@pytest.mark.clause("3.21")
async def test_fields_without_effect_are_named_in_a_header_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anthro_asgi")
    edits = [{"type": "clear_thinking_20251015"}, {"type": "clear_later"}]
    fields: dict[str, Any] = {"context_management": {"edits": edits}, "speed": "fast", "container": "x"}
    async with served() as service:
        for stream in (False, True):
            response = await service.post(**fields, stream=stream)
            assert response.header("anthro-asgi-ignored") == "speed, context_management.edits.1"
        counted = await service.post("/v1/messages/count_tokens", **fields)
        assert counted.header("anthro-asgi-ignored") == "speed, context_management.edits.1"
        plain = await service.post(container="x", cache_control={"type": "ephemeral"}, service_tier="auto")
        assert plain.header("anthro-asgi-ignored") is None
    lines = [record.getMessage() for record in caplog.records if "path=/v1/messages" in record.getMessage()]
    assert ["anthro-asgi-ignored=" in line for line in lines] == [True, True, True, False]
    assert 'anthro-asgi-ignored="speed, context_management.edits.1"' in lines[0]


@pytest.mark.clause("3.15")
async def test_client_tools_are_sent_as_functions_and_called_by_their_own_name() -> None:
    answer = sse(call("bash", '{"command":"ls"}'), chunk(None, "tool_calls"))
    async with served(answer, client_tools="function") as service:
        assert await service.content(tools=[BASH]) == [
            {"type": "tool_use", "id": "call_1", "name": "bash", "input": {"command": "ls"}}
        ]
        (tool,) = service.chats[-1]["tools"]
        assert tool["function"]["name"] == "bash"
        assert set(tool["function"]["parameters"]["properties"]) == {"command", "restart"}
        body = await service.asked(tools=[BASH], tool_choice={"type": "tool", "name": "bash"})
        assert body["tool_choice"] == {"type": "function", "function": {"name": "bash"}}
    async with served() as service:
        assert "only Anthropic's models know" in await service.refused(tools=[BASH])


# tool names


async def test_a_long_tool_name_is_shortened_for_the_engine_and_restored_for_the_client() -> None:
    name = short(LONG, 64)
    halves = (call(name[:30], ""), call(name[30:], '{"a":1}'))
    async with served(sse(*halves, chunk(None, "tool_calls"))) as service:
        assert [block["name"] for block in await service.content(tools=[{"name": LONG}])] == [LONG]
        body = service.chats[-1]
    assert [tool["function"]["name"] for tool in body["tools"]] == [name]


async def test_a_long_tool_name_is_sent_unchanged_to_a_local_engine() -> None:
    async with served(sse(call(LONG), chunk(None, "tool_calls")), dialect="vllm") as service:
        assert [block["name"] for block in await service.content(tools=[{"name": LONG}])] == [LONG]
        assert service.chats[-1]["tools"][0]["function"]["name"] == LONG


# content


async def test_image_urls_are_sent_to_the_engine_when_allowed() -> None:
    url = "https://example.com/a.png"
    picture = {"type": "image", "source": {"type": "url", "url": url}}
    turn = {"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]}
    async with served(image_urls="pass") as service:
        (message,) = (await service.asked(messages=[turn]))["messages"]
        assert message["content"][0] == {"type": "image_url", "image_url": {"url": url}}
        assert (await service.post("/v1/messages/count_tokens", messages=[turn])).status == 200
    async with served() as service:
        assert await service.refused(messages=[turn]) == (
            "messages.0.content.0.image.source.type: could not process image: "
            "url sources are not fetched by this service; send the bytes as base64"
        )


@pytest.mark.clause("3.41")
@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_a_late_system_message_is_kept_or_folded_in_every_dialect(dialect: str) -> None:
    turns = [HI, {"role": "system", "content": "Be brief."}]
    folded = [{"role": "user", "content": "Hi\n<system>\nBe brief.\n</system>"}]
    for setting, sent in (("keep", turns), ("fold", folded)):
        async with served(dialect=dialect, late_system=setting) as service:
            assert (await service.asked(messages=turns))["messages"] == sent


async def test_the_billing_header_is_removed_unless_an_option_keeps_it() -> None:
    system = [{"type": "text", "text": text} for text in (BILLING, "Be brief.")]
    async with served() as service:
        assert (await service.asked(system=system))["messages"][0]["content"] == "Be brief."
    async with served(keep_billing_header="true") as service:
        assert (await service.asked(system=system))["messages"][0]["content"] == f"{BILLING}\nBe brief."


async def test_integers_beyond_64_bit_reach_the_engine_unchanged() -> None:
    huge = 2**80
    schema = b'{"type":"integer","maximum":%d}' % huge
    body = orjson.dumps({"model": "m", "max_tokens": 9, "messages": [HI], "tools": [{**LOOK, "input_schema": {}}]})
    async with served() as service:
        driver = Driver(service.app)
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            assert (await driver.request("POST", path, body=body.replace(b"{}", schema))).status == 200
        sent = service.chats[0]
    assert sent["tools"][0]["function"]["parameters"] == {"type": "integer", "maximum": huge}
    assert (await Driver(SIMULATED).request("POST", "/v1/messages", body=body.replace(b"{}", schema))).status == 200


# thinking


THOUGHT = [
    {"type": "thinking", "thinking": "Hm.", "signature": PLACEHOLDER_SIGNATURE},
    {"type": "text", "text": "Yes"},
]


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        ("tags", ["<think>Hm.</think>\n\nYes"]),
        ("tags", list("\n<think>\nHm.\n</think>\n\nYes")),
        ("open", ["Hm.</think>\n\nYes"]),
        ("open", list("\nHm.\n</think>\n\nYes")),
        ("open", list("<think>\nHm.\n</think>\n\nYes")),
    ],
)
async def test_think_tags_in_an_answer_are_thinking(kind: str, pieces: list[str]) -> None:
    async with served(sse(*map(chunk, pieces), chunk(None, "stop")), think_tags=kind) as service:
        assert await service.content() == THOUGHT


async def test_think_tags_are_text_by_default() -> None:
    async with served(sse(chunk("<think>Hm.</think>Yes"), chunk(None, "stop"))) as service:
        assert await service.content() == [{"type": "text", "text": "<think>Hm.</think>Yes"}]


async def test_no_thinking_block_is_opened_when_thinking_is_disabled() -> None:
    async with served(sse(chunk("Yes"), chunk(None, "stop")), think_tags="open", dialect="vllm") as service:
        assert [block["type"] for block in await service.content(thinking={"type": "disabled"})] == ["text"]
        assert [block["type"] for block in await service.content()] == ["thinking"]


@pytest.mark.parametrize("stops", [[], ["never"]])
async def test_omitted_thinking_is_an_empty_block_with_its_signature(stops: list[str]) -> None:
    answer = sse(chunk(reasoning="Hm"), chunk(reasoning="."), chunk("Ye"), chunk("s"), chunk(None, "stop"))
    async with served(answer) as service:
        shown = {"type": "adaptive", "display": "omitted"}
        assert await service.content(thinking=shown, stop_sequences=stops) == [
            {**THOUGHT[0], "thinking": ""},
            THOUGHT[1],
        ]
        stream = await service.post(stream=True, thinking=shown)
        assert b"thinking_delta" not in stream.body
        assert stream.body.count(b"signature_delta") == 1


@pytest.mark.parametrize("display", ["summarized", "updates", "anything", None])
async def test_thinking_is_shown_for_every_other_display_value(display: str | None) -> None:
    answer = sse(chunk(reasoning="Hm."), chunk("Yes"), chunk(None, "stop"))
    async with served(answer) as service:
        assert await service.content(thinking={"type": "adaptive", "display": display}) == THOUGHT


@pytest.mark.clause("3.10")
async def test_thinking_that_was_not_requested_is_shown_unless_an_option_hides_it() -> None:
    answer = sse(chunk(reasoning="Hm."), chunk("Yes"), chunk(None, "stop"))
    disabled = {"type": "disabled", "display": "omitted"}
    async with served(answer) as service:
        assert await service.content(thinking={"type": "disabled"}) == THOUGHT
        assert await service.content() == THOUGHT
    async with served(answer, hide_thinking="true") as service:
        assert await service.content(thinking=disabled) == THOUGHT[1:]
        assert await service.content(thinking={"type": "adaptive"}) == THOUGHT
        assert await service.content() == THOUGHT


async def test_the_engines_own_signature_is_kept_when_its_thinking_is_omitted() -> None:
    async def engine(request: Any) -> AsyncIterator[Any]:
        yield [Thinking("a"), Thinking("b")]
        yield [Signature("own"), "c", Finish("end_turn")]

    async with ScriptedUpstream() as upstream:
        content = await Served(MessagesApp(engine), upstream).content(
            thinking={"type": "adaptive", "display": "omitted"}
        )
    assert content[0] == {"type": "thinking", "thinking": "", "signature": "own"}


# depth and size

SIMULATED = MessagesApp(SimulatedEngine(ttft=0, itl=0))


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


DEEP = {
    "tools.0.input_schema": b'"messages":[{"role":"user","content":"Hi"}],"tools":[{"name":"a","input_schema":%b}]',
    "messages.0.content.0.tool_use.input": b'"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a",'
    b'"name":"b","input":%b}]}]',
    "messages.0.content.0.web_search_tool_result.content": b'"messages":[{"role":"assistant","content":['
    b'{"type":"web_search_tool_result","tool_use_id":"a","content":%b}]}]',
    "output_config.format.schema": b'"messages":[{"role":"user","content":"Hi"}],"output_config":{"format":'
    b'{"type":"json_schema","schema":%b}}',
}
IGNORED = [
    b'"messages":[{"role":"user","content":[{"type":"text","text":"Hi","citations":%b}]}]',
    b'"messages":[{"role":"user","content":"Hi"}],"metadata":%b',
    b'"messages":[{"role":"user","content":"Hi"}],"unknown":%b',
]


async def post_raw(app: MessagesApp, fields: bytes, levels: int, path: str = "/v1/messages") -> Response:
    body = b'{"model":"m","max_tokens":9,' + fields % nested(levels) + b"}"
    return await Driver(app).request("POST", path, body=body)


@pytest.mark.parametrize("engine", ["simulated", "upstream"])
@pytest.mark.parametrize("levels", [101, 250, 260, 900, 100_000])
async def test_nesting_that_is_too_deep_is_a_400_and_never_a_500(engine: str, levels: int) -> None:
    async with served() as service:
        app = SIMULATED if engine == "simulated" else service.app
        for place, fields in DEEP.items():
            for path in ("/v1/messages", "/v1/messages/count_tokens"):
                response = await post_raw(app, fields, levels, path)
                assert response.status == 400, response.body
                words = f"{place}: must not be nested deeper" if levels < 1000 else "body: not valid JSON"
                assert response.json()["error"]["message"].startswith(words)
        for fields in IGNORED:
            assert (await post_raw(app, fields, levels)).status in (200, 400)


@pytest.mark.parametrize("engine", ["simulated", "upstream"])
async def test_nesting_within_the_limit_reaches_the_engine(engine: str) -> None:
    async with served() as service:
        app = SIMULATED if engine == "simulated" else service.app
        for fields in DEEP.values():
            assert (await post_raw(app, fields, 100)).status == 200


# tolerated fields


@pytest.mark.clause("2.4", "3.20")
async def test_headers_and_fields_of_any_beta_are_tolerated() -> None:
    headers = [
        ("anthropic-version", "2099-01-01"),
        ("anthropic-beta", "a-2025-01-01,b-2026-01-01"),
        ("x-stainless", "1"),
    ]
    fields = {"betas": ["x"], "context_management": {"edits": []}, "mcp_servers": [], "speed": "fast"}
    body = orjson.dumps({"model": "m", "max_tokens": 9, "messages": [{**HI, "output_config": {}}], **fields})
    async with served() as service:
        response = await Driver(service.app).request(
            "POST", "/v1/messages", query=b"beta=true", headers=headers, body=body
        )
        assert response.status == 200
        assert not set(fields) & set(service.chats[-1])


@pytest.mark.clause("3.23")
async def test_a_continued_thread_is_a_404_so_that_the_sdk_replays_it() -> None:
    async with served() as service:
        response = await service.post(thread={"type": "continue", "id": "thread_1"})
        assert (response.status, response.json()["error"]["type"]) == (404, "not_found_error")
        assert response.json()["error"]["details"] == {"error_code": "thread_not_found"}
        assert (await service.post(thread={"type": "create"})).status == 200


async def test_disabled_parallel_calls_without_tools_are_not_sent_to_the_engine() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    async with served() as service:
        assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(await service.asked(tool_choice=choice))
        assert (await service.asked(tool_choice=choice, tools=[LOOK]))["parallel_tool_calls"] is False


def test_the_rules_are_a_public_name() -> None:
    assert Rules() == Rules(
        drop_server_tools=False,
        pass_server_tools=False,
        client_tools_as_functions=False,
        pass_image_urls=False,
        keep_billing_header=False,
    )
