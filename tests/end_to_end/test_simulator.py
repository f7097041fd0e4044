"""The simulator as the command serves it: both APIs, the service in front of it, and simulated failures."""

import http.client
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest
import sambanova

from anthro_asgi.conformance.grammar import message_from_events
from anthro_asgi.simulator import read_trace
from tests.end_to_end.conftest import AT_ONCE, KEY
from tests.support.client import ask, ask_both_ways, comparable, connect, get, post
from tests.support.service import ROOT, Service

CHAT = "/v1/chat/completions"
INCOMPLETE = "without completing response"  # in uvicorn's message about a connection that was cut on purpose
BENCH = (sys.executable, "-m", "anthro_asgi", "bench")
TOOL: Any = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
SESSION: Any = {"role": "user", "content": "Tell me of the river. " * 100}


class Completions(Service):
    """`anthro-asgi simulate-openai`."""

    command = "simulate-openai"


@pytest.fixture(scope="module")
def completions() -> Iterator[Completions]:
    with Completions(*AT_ONCE, "--simulate-cache-tokens", "100000", ANTHRO_ASGI_API_KEYS=KEY) as service:
        yield service


@pytest.fixture(scope="module")
def fronted(completions: Completions) -> Iterator[Service]:
    """The Messages API, over the simulator that speaks chat completions."""
    with Service("--upstream", f"{completions.url}/v1", ANTHRO_ASGI_UPSTREAM_KEY=KEY) as service:
        yield service


@pytest.fixture
def client(completions: Completions) -> Iterator[sambanova.SambaNova]:
    how: Any = {"max_retries": 0, "_strict_response_validation": True}
    with sambanova.SambaNova(base_url=f"{completions.url}/v1", api_key=KEY, **how) as client:
        yield client


# chat completions


def test_an_sdk_reads_the_same_from_a_completion_and_its_stream(client: sambanova.SambaNova) -> None:
    hello: Any = {"model": "m", "max_tokens": 300, "messages": [{"role": "user", "content": "Hello?"}]}
    whole: Any = client.chat.completions.create(**hello)
    chunks: Any = list(client.chat.completions.create(**hello, stream=True, stream_options={"include_usage": True}))
    (choice,) = whole.choices
    assert choice.finish_reason == "stop"
    assert choice.message.content == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens > 0


def test_an_sdk_reads_calls_and_errors(client: sambanova.SambaNova) -> None:
    function = {"name": TOOL["name"], "parameters": TOOL["input_schema"]}
    asked: Any = {"model": "m", "max_tokens": 300, "messages": [{"role": "user", "content": "Hello?"}]}
    tools: Any = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    whole: Any = client.chat.completions.create(**asked, **tools)
    (call,) = whole.choices[0].message.tool_calls
    assert (call.function.name, whole.choices[0].finish_reason) == ("get_weather", "tool_calls")
    assert isinstance(orjson.loads(call.function.arguments), dict)
    with pytest.raises(sambanova.BadRequestError, match="n: must be 1"):
        client.chat.completions.create(**asked, n=2)
    with pytest.raises(sambanova.AuthenticationError):
        client.with_options(api_key="sk-wrong").chat.completions.create(**asked)


# the Messages API over it


def test_the_service_detects_it_as_a_plain_engine_and_lists_its_model(fronted: Service) -> None:
    (model,) = get(fronted.url, "/v1/models").json["data"]
    assert model["id"] == "simulated"
    assert get(fronted.url, "/readyz").status == 200


def test_text_through_the_service_is_the_text_of_the_simulator(fronted: Service, simulated: Service) -> None:
    question: Any = {"model": "m", "max_tokens": 300, "messages": [{"role": "user", "content": "How is the river?"}]}
    behind = ask_both_ways(fronted.url, **question)
    with closing(connect(simulated.url)) as connection:
        headers = {"content-type": "application/json", "x-api-key": KEY}
        connection.request("POST", "/v1/messages", orjson.dumps(question), headers)
        direct = orjson.loads(connection.getresponse().read())
    assert comparable(behind) == comparable(direct)


@pytest.mark.parametrize(
    ("more", "kinds", "reason"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, ["tool_use"], "tool_use"),
        ({"tools": [TOOL], "messages": [{"role": "user", "content": "get_weather"}]}, ["text", "tool_use"], "tool_use"),
        ({"max_tokens": 5}, ["text"], "max_tokens"),
        ({"stop_sequences": ["."]}, ["text"], "stop_sequence"),
    ],
)
def test_the_service_answers_with_and_without_stream(
    fronted: Service, more: Any, kinds: list[str], reason: str
) -> None:
    message = ask_both_ways(fronted.url, **more)
    assert [block["type"] for block in message["content"]] == kinds
    assert message["stop_reason"] == reason


def test_a_repeated_prompt_is_reported_as_cached(fronted: Service) -> None:
    first = ask(fronted.url, messages=[SESSION]).json["usage"]
    again = ask(fronted.url, messages=[SESSION]).json["usage"]
    assert first["input_tokens"] == again["input_tokens"] + again["cache_read_input_tokens"]
    assert again["cache_read_input_tokens"] > 400


def test_its_reasoning_becomes_thinking_blocks() -> None:
    with (
        Completions(*AT_ONCE, "--simulate-thinking-rate", "1") as engine,
        Service("--upstream", f"{engine.url}/v1") as front,
    ):
        message = ask_both_ways(front.url)
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]


# simulated failures


@pytest.mark.parametrize(("kind", "status"), [("429", 429), ("529", 529), ("500", 500)])
def test_a_simulated_refusal_reaches_the_client_directly_and_through_the_service(kind: str, status: int) -> None:
    fail = (*AT_ONCE, "--simulate-fail", f"{kind}=1")
    with (
        Service(*fail) as direct,
        Completions(*fail) as engine,
        Service("--upstream", f"{engine.url}/v1") as front,
    ):
        answers = [ask(service.url, stream=stream) for service in (direct, front) for stream in (True, False)]
        assert ask(engine.url, CHAT).status == {529: 503}.get(status, status)
    assert [answer.status for answer in answers] == [status] * 4
    assert all(answer.headers.get("retry-after") for answer in answers if status != 500)


def test_a_simulated_error_is_an_error_event_directly_and_through_the_service() -> None:
    fail = (*AT_ONCE, "--simulate-fail", "error=1")
    with (
        Service(*fail) as direct,
        Completions(*fail) as engine,
        Service("--upstream", f"{engine.url}/v1") as front,
    ):
        for service in (direct, front):
            *before, last = ask(service.url, stream=True).events
            assert last.type == "error"
            assert any(event.type == "content_block_delta" for event in before)
        assert ask(direct.url).status == 500


def cut_off(url: str, path: str, stream: bool) -> bytes:
    """The part of an answer before its connection is cut."""
    with closing(connect(url)) as connection:
        post(connection, path, stream=stream)
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
    return caught.value.partial


def test_a_simulated_cut_ends_the_connection_inside_the_answer() -> None:
    fail = (*AT_ONCE, "--simulate-fail", "cut=1")
    with Service(*fail) as direct, Completions(*fail) as engine:
        assert b"content_block_delta" in cut_off(direct.url, "/v1/messages", stream=True)
        assert b'"delta":{"content":' in cut_off(engine.url, CHAT, stream=True)
        for service, path in ((direct, "/v1/messages"), (engine, CHAT)):
            assert cut_off(service.url, path, stream=False) == b""
        with Service("--upstream", f"{engine.url}/v1") as front:
            *before, last = ask(front.url, stream=True).events
            assert (len(before) > 2, last.type) == (True, "error")
        for service in (direct, engine):
            service.send_signal()
            service.ended(excused=INCOMPLETE)


def test_a_simulated_stall_is_filled_with_pings() -> None:
    pace = ("--simulate-fail", "stall=1", "--simulate-stall", "500ms", "--ping-interval", "100ms")
    with Service(*AT_ONCE, *pace) as service:
        began = monotonic()
        events = ask(service.url, stream=True).events
        assert monotonic() - began > 0.5
    names = [event.type for event in events]
    assert names.count("ping") >= 2
    assert names[-1] == "message_stop"


# profiles and traces


def test_a_profile_file_sets_what_options_leave_open(tmp_path: Path) -> None:
    profile = tmp_path / "slow.toml"
    profile.write_text(
        "source = 'nowhere'\nttft = '400ms'\nitl = 'uniform(1ms, 2ms)'\noutput-tokens = 3\nseed = 5\n[fail]\n429 = 0\n"
    )
    with Service("--simulate-profile", str(profile), "--simulate-output-tokens", "4") as service:
        began = monotonic()
        answer = ask(service.url).json
    assert monotonic() - began > 0.4
    assert answer["usage"]["output_tokens"] == 4


def test_a_recorded_trace_is_replayed_with_its_timing(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies.jsonl"
    asked: Any = {"model": "m", "max_tokens": 300, "tools": [TOOL], "thinking": {"type": "adaptive"}}
    bodies.write_bytes(orjson.dumps({**asked, "messages": [{"role": "user", "content": "Use get_weather now."}]}))
    pace = ("--simulate-ttft", "200ms", "--simulate-itl", "10ms")
    for service, api in ((Service(*pace), "messages"), (Completions(*pace), "chat")):
        trace = tmp_path / f"{api}.jsonl"
        with service:
            command = [*BENCH, "record", service.url, "--api", api, "--out", str(trace)]
            source = ["--bodies", str(bodies)] if api == "messages" else ["--requests", "2", "--output-tokens", "12"]
            subprocess.run([*command, *source], cwd=ROOT, check=True, timeout=30)
            original = ask(service.url, **orjson.loads(bodies.read_bytes())).json if api == "messages" else None
        recorded = read_trace(trace.read_bytes().splitlines())
        with Service("--simulate-trace", str(trace)) as replaying:
            began = monotonic()
            events = ask(replaying.url, stream=True).events
            took = monotonic() - began
        message = message_from_events(events)
        assert took == pytest.approx(sum(recorded[0].gaps), abs=0.3)
        assert took > 0.2
        if original is not None:
            assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
            assert comparable(message)["content"] == comparable(original)["content"]
            assert message["stop_reason"] == "tool_use"
        else:
            assert len(recorded) == 2
            assert message["usage"]["output_tokens"] == len(recorded[0].parts) == 12


def test_the_load_generator_of_the_bench_can_drive_both(completions: Completions, fronted: Service) -> None:
    for url, how in ((completions.url, ("--api", "chat", "--key", KEY)), (fronted.url, ())):
        command = [*BENCH, "load", url, *how, "--requests", "20", "--concurrency", "4"]
        done = subprocess.run([*command, "--json", "-"], cwd=ROOT, capture_output=True, check=True, timeout=60)
        summary = orjson.loads(done.stdout.splitlines()[-1])
        assert (summary["ok"], summary["requests"]) == (20, 20)
        assert summary["tokens"] > 20 * 20
