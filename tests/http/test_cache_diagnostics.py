"""Cache diagnostics as clients and operators see them: the SDK's types, the metric and the debug log."""

import json
import logging
from array import array
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic.types.beta import BetaMessage

from anthro_asgi.engines.base import BaseEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.http.cache_diagnostics import CacheDiagnostics
from anthro_asgi.http.messages_app import MessagesApp
from anthro_asgi.observability.logs import LogEvent
from anthro_asgi.testing.driver import Driver
from anthro_asgi.testing.in_process import InProcessApp
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire import prompt_fingerprint
from anthro_asgi.wire.deltas import Batch, Finish, Usage
from anthro_asgi.wire.errors import Overloaded
from anthro_asgi.wire.prompt_fingerprint import Fingerprint
from anthro_asgi.wire.request import MessagesRequest
from tests.support.upstream import ScriptedUpstream, Wire, json_answer
from tests.support.upstream_engines import SPEECHES, stream

Json = dict[str, Any]
CLAUSE = pytest.mark.clause("3.50")
TURNS: list[Json] = [{"role": "user", "content": "word " * 800}]
MORE: list[Json] = [*TURNS, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Go on"}]


class Engine(BaseEngine):
    """Counts every prompt as 1 000 tokens, of which 900 were cached. Fails for the model `full`."""

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        if request.engine_model == "full":
            raise Overloaded("no")
        yield [Usage(input_tokens=100, cache_read_input_tokens=900), "Hi"]
        yield [Finish("end_turn")]


def app(mode: Any = "asked", **options: Any) -> MessagesApp:
    return MessagesApp(Engine(), cache_diagnostics=mode, **options)


async def create(client: anthropic.AsyncAnthropic, *, streams: bool = False, **fields: Any) -> BetaMessage:
    body: Any = {"model": "m", "max_tokens": 9, "messages": TURNS, **fields}
    if not streams:
        return await client.beta.messages.create(**body)  # type: ignore[no-any-return]  # `body` is Any
    async with client.beta.messages.stream(**body) as events:
        first = await anext(aiter(events))
        assert first.type == "message_start"
        message = await events.get_final_message()
        assert first.message.diagnostics == message.diagnostics
        return message


def results(app: MessagesApp) -> dict[str, float]:
    head = 'anthro_asgi_cache_diagnoses_total{result="'
    lines = app.metrics.exposition()[0].decode().splitlines()
    found = (line.removeprefix(head).split('"} ') for line in lines if line.startswith(head))
    return {result: float(count) for result, count in found if float(count)}


@CLAUSE
@pytest.mark.parametrize("streams", [True, False])
async def test_the_sdk_reads_why_a_cache_missed(streams: bool) -> None:
    service = app()
    async with InProcessApp(service) as running:
        client = running.client(anthropic.AsyncAnthropic)
        first = await create(client, streams=streams, diagnostics={"previous_message_id": None})
        assert "diagnostics" in first.model_fields_set
        assert first.diagnostics is None
        again = {"previous_message_id": first.id}
        kept = await create(client, streams=streams, messages=MORE, diagnostics=again)
        assert kept.diagnostics is None
        changes: list[tuple[Json, str]] = [
            ({"model": "n"}, "model_changed"),
            ({"system": "Now it is 12:00"}, "system_changed"),
            ({"tools": [{"name": "look", "input_schema": {"type": "object"}}]}, "tools_changed"),
            ({"messages": [{"role": "user", "content": "Other"}]}, "messages_changed"),
        ]
        for fields, reason in changes:
            message = await create(client, streams=streams, diagnostics=again, **fields)
            assert message.diagnostics is not None
            assert message.diagnostics.cache_miss_reason is not None
            assert message.diagnostics.cache_miss_reason.type == reason
            missed = message.diagnostics.cache_miss_reason.cache_missed_input_tokens  # type: ignore[union-attr]  # the four types have it
            assert missed == (1000 if reason != "messages_changed" else pytest.approx(1000, abs=10))
        changes = [
            ({"diagnostics": {"previous_message_id": "msg_unknown"}}, "previous_message_not_found"),
            ({"diagnostics": again, "thinking": {"type": "adaptive"}}, "unavailable"),
        ]
        for fields, reason in changes:
            message = await create(client, streams=streams, **fields)
            assert message.diagnostics is not None
            assert message.diagnostics.to_dict() == {"cache_miss_reason": {"type": reason}}
    assert results(service) == dict.fromkeys(
        [
            "first",
            "kept",
            "model_changed",
            "system_changed",
            "tools_changed",
            "messages_changed",
            "previous_message_not_found",
            "unavailable",
        ],
        1.0,
    )


async def post(driver: Driver, key: str = "one", **fields: Any) -> Json:
    body = {"model": "m", "max_tokens": 9, "messages": TURNS, **fields}
    response = await driver.request(
        "POST", "/v1/messages", headers=[("x-api-key", key)], body=json.dumps(body).encode()
    )
    told: Json = {"status": response.status, "ignored": response.headers.get("anthro-asgi-ignored"), **response.json()}
    return told


@CLAUSE
async def test_an_answer_to_another_key_is_not_found() -> None:
    driver = Driver(app(keys=["one", "two"]))
    first = await post(driver, diagnostics={})
    again = {"previous_message_id": first["id"]}
    assert (await post(driver, "two", diagnostics=again))["diagnostics"] == {
        "cache_miss_reason": {"type": "previous_message_not_found"}
    }
    assert (await post(driver, "one", diagnostics=again))["diagnostics"] is None


@CLAUSE
async def test_a_request_that_does_not_ask_has_no_diagnostics_and_leaves_no_fingerprint() -> None:
    service = app()
    driver = Driver(service)
    silent = await post(driver)
    assert "diagnostics" not in silent
    assert "diagnostics" not in await post(driver, diagnostics=None)
    found = await post(driver, diagnostics={"previous_message_id": silent["id"]})
    assert found["diagnostics"] == {"cache_miss_reason": {"type": "previous_message_not_found"}}
    assert found["ignored"] is None
    assert results(service) == {"previous_message_not_found": 1.0}


@CLAUSE
async def test_the_option_turns_the_field_off() -> None:
    service = app("off")
    answer = await post(Driver(service), diagnostics={"previous_message_id": None})
    assert ("diagnostics" in answer, answer["ignored"]) == (False, ["diagnostics"])
    assert results(service) == {}


@pytest.mark.parametrize("previous", [1, [], {}, True])
async def test_an_id_that_is_no_text_is_refused(previous: Any) -> None:
    refused = await post(Driver(app()), diagnostics={"previous_message_id": previous})
    assert (refused["status"], refused["error"]["message"]) == (
        400,
        "diagnostics.previous_message_id: must be a string",
    )


async def test_a_request_that_failed_is_not_the_one_before() -> None:
    service = app("all")
    driver = Driver(service)
    await post(driver)
    assert (await post(driver, model="full"))["status"] == 529
    await post(driver, messages=MORE)
    assert results(service) == {"first": 1.0, "model_changed": 1.0, "kept": 1.0}


async def test_with_all_each_conversation_is_compared_with_its_last_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "anthro_asgi")
    service = app("all")
    driver = Driver(service)
    first = await post(driver)
    await post(driver, messages=[{"role": "user", "content": "another conversation"}])
    await post(driver, metadata={"user_id": "another user"})
    assert "diagnostics" not in await post(driver, messages=MORE)
    changed = [*MORE[:1], {"role": "assistant", "content": "edited"}, MORE[2]]
    await post(driver, messages=changed)
    assert results(service) == {"first": 3.0, "kept": 1.0, "messages_changed": 1.0}
    events: list[Any] = [entry.msg.fields() for entry in caplog.records if isinstance(entry.msg, LogEvent)]
    diagnosed = [event for event in events if event["event"] == "cache_diagnosis"]
    assert [event["result"] for event in diagnosed] == ["first", "first", "first", "kept", "messages_changed"]
    assert diagnosed[3]["previous"] == first["id"]
    assert diagnosed[4]["changed"] == "messages.1"
    assert 0 < diagnosed[4]["missed_tokens"] < 1000
    assert diagnosed[4]["request_id"].startswith("req_")


async def test_only_the_last_answers_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(app(cache_diagnostics_answers=2))
    ids = [(await post(driver, diagnostics={}))["id"] for _ in range(3)]
    known = [(await post(driver, diagnostics={"previous_message_id": one}))["diagnostics"] is None for one in ids[1:]]
    assert known == [True, False]  # the answer to the first question took the place of the second
    monkeypatch.setattr("anthro_asgi.http.cache_diagnostics._MAX_BYTES", 600)
    driver = Driver(app())
    ids = [(await post(driver, diagnostics={}))["id"] for _ in range(2)]
    asked = {"previous_message_id": ids[0]}
    assert (await post(driver, diagnostics=asked))["diagnostics"]["cache_miss_reason"]["type"].endswith("not_found")


async def test_a_prompt_that_is_too_long_for_a_fingerprint_has_no_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_fingerprint, "MAX_MESSAGES", 2)
    driver = Driver(app("all"))
    answer = await post(driver, messages=MORE, diagnostics={"previous_message_id": "msg_1"})
    assert answer["diagnostics"] == {"cache_miss_reason": {"type": "unavailable"}}


async def test_a_large_request_is_compared_too() -> None:
    large = [{"role": "user", "content": "word " * 100_000}]
    driver = Driver(app())
    first = await post(driver, messages=large, diagnostics={})
    asked = {"previous_message_id": first["id"]}
    assert (await post(driver, messages=large, diagnostics=asked))["diagnostics"] is None


@CLAUSE
@pytest.mark.parametrize("streams", [True, False])
async def test_a_relayed_upstream_neither_gets_the_field_nor_overrides_the_diagnosis(streams: bool) -> None:
    speech = SPEECHES["messages"]
    began: Json = {"id": "msg_1", "content": [], "usage": {"input_tokens": 3, "output_tokens": 0}, "diagnostics": None}
    event = b"data: " + json.dumps({"type": "message_start", "message": began}).encode() + b"\n\n"
    text = speech.begin().partition(b"\n\n")[2] + speech.text("Hi") + speech.end()

    async def answer(wire: Wire) -> None:
        await wire.send(stream(event, text) if wire.method == "POST" else json_answer(200, {"data": [{"id": "m"}]}))

    async with ScriptedUpstream(answer) as upstream:
        service = MessagesApp(MessagesEngine(Origin.parse(upstream.url)))
        async with InProcessApp(service) as running:
            client = running.client(anthropic.AsyncAnthropic)
            first = await create(client, streams=streams, diagnostics={"previous_message_id": None})
            other = await create(client, streams=streams, system="Other", diagnostics={"previous_message_id": first.id})
        assert other.diagnostics is not None
        assert other.diagnostics.cache_miss_reason is not None
        assert other.diagnostics.cache_miss_reason.type == "system_changed"
        assert all(b"diagnostics" not in request.body for request in upstream.requests)


def test_the_memory_of_the_fingerprints_is_counted_once_for_each_answer() -> None:
    diagnostics = CacheDiagnostics(10, lambda what, kind: None)
    assert repr(diagnostics) == "<CacheDiagnostics 0/10 answers, 0 bytes>"
    fingerprint = Fingerprint("m", b"", b"", b"", bytes(8), array("Q", [9]))
    for answer in ("msg_1", "msg_1", "msg_2"):  # an upstream that gives an id twice
        diagnostics.keep(answer, None, fingerprint, 9, None)
    assert repr(diagnostics) == f"<CacheDiagnostics 2/10 answers, {2 * fingerprint.size} bytes>"
