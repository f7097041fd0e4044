"""The load generator against scripted servers, over real sockets in one event loop."""

import asyncio
import errno
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthro_asgi.bench import client
from anthro_asgi.bench.counting import Api
from anthro_asgi.bench.load.exchange import Connections, Exchange
from anthro_asgi.bench.load.output import summary, sweep_table, table
from anthro_asgi.bench.load.runner import Flow, Plan, Run
from anthro_asgi.bench.load.tally import Slo, Tally, inter_token_latency
from anthro_asgi.bench.load.target import BadRun, Target
from anthro_asgi.bench.load.workload import Content, Workload, read_dataset
from anthro_asgi.bench.records import Goodput, load_from
from anthro_asgi.simulator.distributions import Distribution
from anthro_asgi.upstream.http_parsers import H11Parser
from tests.support.upstream import Answer, ScriptedUpstream, Wire, fragmented, framed, json_answer, raw_answer, sse

PLAN: dict[str, Any] = {
    "api": "messages",
    "stream": True,
    "concurrency": 1,
    "ramp": 0.0,
    "rate": None,
    "arrivals": "constant",
    "burst": 1,
    "max_open": 100,
    "requests": None,
    "duration": None,
    "warmup": 0,
    "timeout": 30.0,
    "drain": 0.0,
    "seed": 0,
}
CONTENT = Content("messages", "m", "key", True, Distribution.of(4), Distribution.of(3))
SSE = [("content-type", "text/event-stream")]


def delta(text: str) -> bytes:
    value = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return f"event: content_block_delta\ndata: {json.dumps(value)}\n\n".encode()


STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
GOOD = [b'event: message_start\ndata: {"type":"message_start"}\n\n', delta("a"), delta("b"), delta("c"), STOP]
ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'


def answer(pieces: Iterable[bytes] = GOOD, framing: str = "chunked") -> bytes:
    return framed(200, SSE, pieces, framing)


def cut(data: bytes) -> Answer:
    async def send(wire: Wire) -> None:
        await wire.send(data)
        wire.close()

    return send


class Outcome:
    """A run that is over: what was counted, and each request."""

    def __init__(self, tally: Tally, exchanges: list[Exchange], plan: Plan) -> None:
        self.tally = tally
        self.exchanges = exchanges
        self.summary = summary("http://h", plan, tally)

    @property
    def goodput(self) -> Goodput:
        assert self.summary.goodput is not None
        return self.summary.goodput


def prepared(url: str, slo: Slo | None = None, content: Content = CONTENT, **changes: Any) -> tuple[Run, Outcome]:
    """A run, and where to look when it is over."""
    plan, tally, exchanges = Plan(**{**PLAN, **changes}), Tally(slo or Slo(), None), list[Exchange]()
    target = Target.parse(url, plan.api)
    asked = replace(content, api=plan.api, stream=plan.stream)
    run = Run(
        plan,
        Connections(target, plan.timeout),
        Workload(target, asked),
        tally,
        lambda *_: None,
        exchanges.append,
    )
    return run, Outcome(tally, exchanges, plan)


async def load(url: str, slo: Slo | None = None, content: Content = CONTENT, **changes: Any) -> Outcome:
    run, outcome = prepared(url, slo, content, **changes)
    await run.run()
    return Outcome(outcome.tally, outcome.exchanges, run._plan)


# ---- answers of every framing


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_every_body_framing_is_read_and_connections_are_reused_where_possible(framing: str) -> None:
    async with ScriptedUpstream(answer(framing=framing)) as server:
        found = await load(server.url, requests=5)
        assert found.tally.ok == 5
        assert found.tally.tokens == 15
        assert not found.tally.errors
        assert server.accepted == (5 if framing == "close" else 1)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("seed", range(4))
async def test_an_answer_in_pieces_gives_the_same_counts(framing: str, seed: int) -> None:
    data = answer(framing=framing)
    draw = random.Random(seed)
    pieces = range(len(data)) if seed == 0 else draw.sample(range(len(data)), 12)
    async with ScriptedUpstream(fragmented(data, pieces)) as server:
        found = await load(server.url, requests=2)
    assert (found.tally.ok, found.tally.tokens) == (2, 6)
    assert len(found.tally.icl) == 4
    assert len(found.tally.ttft) == len(found.tally.e2e) == 2


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_without_httptools_h11_reads_the_answers(framing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "default_parser", lambda: H11Parser)
    async with ScriptedUpstream(fragmented(answer(framing=framing), range(0, 400, 7))) as server:
        found = await load(server.url, requests=3)
        assert server.accepted == (3 if framing == "close" else 1)
    assert (found.tally.ok, found.tally.chunks, found.tally.errors) == (3, 9, {})


async def test_tokens_of_one_read_have_zero_intervals() -> None:
    async with ScriptedUpstream(answer()) as server:
        found = await load(server.url, requests=1)
    assert (found.tally.icl.zeros, len(found.tally.icl)) == (2, 2)


async def test_chat_completions_are_understood_too() -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("a", "b")]
    async with ScriptedUpstream(sse(*chunks)) as server:
        found = await load(server.url, api="chat", requests=3)
        assert server.requests[0].target == "/v1/chat/completions"
        assert server.requests[0].headers["authorization"] == "Bearer key"
    assert (found.tally.ok, found.tally.tokens) == (3, 6)


@pytest.mark.parametrize(("api", "key"), [("messages", "output_tokens"), ("chat", "completion_tokens")])
async def test_the_tokens_of_a_whole_answer_are_those_of_its_usage(api: Api, key: str) -> None:
    async with ScriptedUpstream(json_answer(200, {"usage": {key: 7}})) as server:
        found = await load(server.url, api=api, stream=False, requests=2)
    assert (found.tally.ok, found.tally.tokens, len(found.tally.e2e)) == (2, 14, 2)
    assert len(found.tally.ttft) == len(found.tally.icl) == len(found.tally.itl) == 0


# ---- failures


@pytest.mark.parametrize(
    ("reply", "error", "tokens"),
    [
        (json_answer(529, {"type": "error", "error": {"type": "overloaded_error"}}), "http 529", 0),
        (json_answer(401, {}), "http 401", 0),
        (answer([*GOOD[:3], ERROR]), "error event", 2),
        (answer(GOOD[:-1]), "cut", 3),
        (cut(answer()[:-30]), "cut", 3),
        (cut(answer(framing="length")[:-30]), "cut", 3),
        (answer(GOOD[:-1], framing="close"), "cut", 3),
        (cut(answer()[:20]), "cut", 0),
        (cut(b""), "cut", 0),
        (cut(b"no HTTP at all\r\n\r\n"), "garbled", 0),
        (cut(answer().replace(b"\r\n\r\n", b"\r\n\r\nnot a size\r\n", 1)), "garbled", 0),
        (answer([b"data: no JSON\n\n", STOP]), "garbled", 0),
        (json_answer(200, {"usage": {"output_tokens": 5}}), "not a stream", 0),
    ],
)
async def test_a_failure_is_counted_by_its_kind(reply: Answer, error: str, tokens: int) -> None:
    async with ScriptedUpstream(reply) as server:
        found = await load(server.url, requests=2, concurrency=2)
    assert found.tally.errors == {error: 2}
    assert (found.tally.ok, found.tally.tokens, len(found.tally.e2e)) == (0, 2 * tokens, 0)


@pytest.mark.parametrize(
    ("reply", "stream", "detail"),
    [
        (cut(b"no HTTP at all\r\n\r\n"), True, "the response is not valid HTTP"),
        (answer([b"data: no JSON\n\n", STOP]), True, "an event that is not one of the API: no JSON"),
        (
            framed(200, [("content-type", "text/html")], [b"<html>"], "length"),
            False,
            "not a whole answer: unexpected character",
        ),
        (json_answer(200, {}), False, "not a whole answer: an answer without usage"),
    ],
)
async def test_what_is_garbled_is_shown(reply: Answer, stream: bool, detail: str) -> None:
    async with ScriptedUpstream(reply) as server:
        found = await load(server.url, requests=1, stream=stream)
    assert found.tally.details["garbled"].startswith(detail)


async def test_an_answer_that_is_complete_before_its_connection_breaks_is_good() -> None:
    async with ScriptedUpstream(cut(answer()[:-5])) as server:
        found = await load(server.url, requests=1)
    assert (found.tally.ok, found.tally.tokens) == (1, 3)


async def test_a_whole_answer_without_usage_is_garbled_and_one_that_breaks_off_is_cut() -> None:
    async with ScriptedUpstream(json_answer(200, {}), cut(json_answer(200, {"usage": {}})[:-3])) as server:
        found = await load(server.url, requests=2, stream=False)
    assert found.tally.errors == {"garbled": 1, "cut": 1}


async def test_a_failed_connection_is_the_error_connect() -> None:
    async with ScriptedUpstream(answer()) as server:
        url = server.url
    found = await load(url, requests=3, concurrency=3)
    assert found.tally.errors == {"connect": 3}


async def test_a_server_that_refused_before_the_time_was_over_is_reported_as_refusing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections = Connections(Target.parse("http://127.0.0.1:1", "messages"), 30.0)
    attempts = iter([ConnectionRefusedError(errno.ECONNREFUSED, "refused"), None])

    async def connect() -> client.Connection:
        error = next(attempts)
        if error is not None:
            raise error
        await asyncio.Event().wait()  # hangs, as on a busy machine
        raise AssertionError

    monkeypatch.setattr(connections, "_connect", connect)
    with pytest.raises(ConnectionRefusedError):
        await connections.reach(0.3)
    await connections.close()


async def test_a_client_that_cannot_connect_waits_before_it_tries_again() -> None:
    async with ScriptedUpstream(answer()) as server:
        url = server.url
    found = await load(url, duration=0.12)
    assert 1 <= found.tally.errors["connect"] <= 3  # at 0, 50 and 100 ms at the earliest


async def test_connection_attempts_that_hang_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **named: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    found = await load("http://127.0.0.1:9", requests=70, concurrency=70, timeout=0.03)
    assert found.tally.errors == {"timeout": 70}


async def silence(wire: Wire) -> None:
    await wire.gone()


async def test_a_timeout_is_in_the_percentiles_with_its_waiting_time() -> None:
    async with ScriptedUpstream(silence) as server:
        found = await load(server.url, requests=2, concurrency=2, timeout=0.05)
    assert found.tally.errors == {"timeout": 2}
    assert len(found.tally.ttft) == len(found.tally.e2e) == 2
    assert (found.summary.ttft["p50"] or 0) >= 0.05


async def test_an_idle_connection_that_was_closed_is_replaced_without_an_error() -> None:
    async def answer_and_leave(wire: Wire) -> None:
        await wire.send(answer())
        await wire._request()
        wire.close()  # just as the next request is there

    async with ScriptedUpstream(answer_and_leave, answer()) as server:
        found = await load(server.url, requests=2)
        assert server.accepted == 2
    assert (found.tally.ok, found.tally.errors.total()) == (2, 0)


async def test_a_connection_with_connection_close_is_not_reused() -> None:
    reply = raw_answer(200, [*SSE, ("connection", "close"), ("content-length", str(len(b"".join(GOOD))))])

    async def linger(wire: Wire) -> None:
        await wire.send(reply + b"".join(GOOD))
        await wire.gone()

    async with ScriptedUpstream(linger) as server:
        found = await load(server.url, requests=2)
        assert server.accepted == 2
    assert (found.tally.ok, found.tally.tokens) == (2, 6)


async def test_unexpected_bytes_end_the_connection_and_not_the_run() -> None:
    async with ScriptedUpstream(answer() + answer()) as server:
        found = await load(server.url, requests=2)
        assert server.accepted == 2
    assert (found.tally.ok, found.tally.tokens) == (2, 6)


async def test_an_informational_response_is_skipped() -> None:
    async with ScriptedUpstream(raw_answer(103, [("link", "x")]) + answer()) as server:
        found = await load(server.url, requests=2)
    assert (found.tally.ok, found.tally.tokens) == (2, 6)


# ---- the two loops


async def test_a_closed_loop_has_one_open_request_per_client_and_ends_after_its_requests() -> None:
    gate = asyncio.Event()

    async def held(wire: Wire) -> None:
        await gate.wait()
        await wire.send(answer())

    async with ScriptedUpstream(held) as server:
        run, found = prepared(server.url, requests=10, concurrency=4)
        running = asyncio.create_task(run.run())
        await server.until(lambda: len(server.requests) == 4)
        gate.set()
        await running
        assert len(server.requests) == 10
        assert server.accepted == 4
    assert found.tally.ok == 10


async def test_in_the_open_loop_no_answer_delays_an_arrival_and_latency_counts_from_the_due_moment() -> None:
    """A server that stalls until the last request has come: each has waited from its own moment on."""
    gate = asyncio.Event()

    async def held(wire: Wire) -> None:
        await gate.wait()
        await wire.send(answer())

    async with ScriptedUpstream(held) as server:
        run, found = prepared(server.url, concurrency=None, rate=400.0, requests=20)
        running = asyncio.create_task(run.run())
        await server.until(lambda: len(server.requests) == 20)
        opened = asyncio.get_running_loop().time()
        gate.set()
        await running
    moments = sorted(exchange.due for exchange in found.exchanges)
    assert [due - moments[0] for due in moments] == [number * 2_500_000 for number in range(20)]
    for exchange in found.exchanges:
        assert exchange.first - exchange.due >= opened * 1e9 - exchange.due
        assert exchange.sent >= exchange.due
    assert len(found.tally.late) == 20


async def test_requests_beyond_the_open_limit_count_as_not_sent() -> None:
    async with ScriptedUpstream(silence) as server:
        found = await load(server.url, concurrency=None, rate=2000.0, requests=10, max_open=3, duration=0.2)
        assert len(server.requests) == 3
    assert found.tally.errors == {"not sent": 7}
    assert (found.tally.requests, found.tally.unfinished) == (7, 3)


async def test_arrivals_end_after_the_duration() -> None:
    async with ScriptedUpstream(answer()) as server:
        found = await load(server.url, concurrency=None, rate=200.0, duration=0.1, drain=10.0)
    assert found.tally.ok == 20  # at 0, 5, … 95 ms
    assert found.tally.seconds >= 0.1


async def test_open_requests_are_drained_and_then_unfinished() -> None:
    async with ScriptedUpstream(answer(), silence) as server:
        found = await load(server.url, concurrency=2, duration=0.05, drain=0.05)
    assert (found.tally.unfinished, found.tally.errors.total()) == (2, 0)
    assert len(found.tally.ttft) == found.tally.ok + 2  # the waits for a first token that never came
    assert len(found.tally.e2e) == found.tally.ok


async def test_warm_up_requests_do_not_count_and_the_flow_has_no_pause() -> None:
    async with ScriptedUpstream(json_answer(500, {}), json_answer(500, {}), answer()) as server:
        found = await load(server.url, warmup=2, requests=3)
        assert len(server.requests) >= 5
        assert server.accepted == 1
    assert (found.tally.ok, found.tally.errors.total()) == (3, 0)
    assert [exchange.counted for exchange in found.exchanges] == [True] * 3


async def test_counting_begins_after_all_clients_of_the_ramp_have_started() -> None:
    gate = asyncio.Event()
    seen: list[int] = []

    async def held(wire: Wire) -> None:
        seen.append(len(server.requests))
        await gate.wait()
        await wire.send(answer())

    async with ScriptedUpstream(answer(), held) as server:
        run, found = prepared(server.url, concurrency=3, ramp=0.06, warmup=1, requests=3)
        running = asyncio.create_task(run.run())
        await server.until(lambda: len(server.requests) == 4)  # the first client's second, and the others
        assert not found.tally.counting or server.accepted == 3
        gate.set()
        await running
    assert found.tally.ok == 3


async def test_an_interrupt_ends_the_run_with_the_counts_so_far() -> None:
    async with ScriptedUpstream(answer(), answer(), silence) as server:
        run, found = prepared(server.url, duration=3600.0, drain=3600.0)
        running = asyncio.create_task(run.run())
        await server.until(lambda: len(server.requests) == 3)
        run.interrupt()
        await running
    assert run.interrupted
    assert (found.tally.ok, found.tally.unfinished) == (2, 1)
    assert found.tally.seconds > 0


async def test_the_number_of_connection_attempts_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    dialling, most = 0, 0
    create = loop.create_connection

    async def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal dialling, most
        dialling += 1
        most = max(most, dialling)
        try:
            return await create(*arguments, **named)
        finally:
            dialling -= 1

    monkeypatch.setattr(loop, "create_connection", counted)
    async with ScriptedUpstream(answer()) as server:
        found = await load(server.url, concurrency=200, requests=200)
    assert found.tally.ok == 200
    assert most == 64


# ---- results


async def test_goodput_counts_the_requests_within_the_limits_per_second_and_as_a_share() -> None:
    async with ScriptedUpstream(answer(), json_answer(500, {})) as server:
        good = await load(server.url, slo=Slo(ttft=30.0, itl=30.0, e2e=30.0), requests=2)
        late = await load(server.url, slo=Slo(ttft=1e-9), requests=1)
    assert good.goodput.fraction == 0.5
    assert good.goodput.requests_per_s == 1 / good.summary.seconds
    assert good.goodput.slo == {"ttft": 30.0, "itl": 30.0, "e2e": 30.0}
    assert late.goodput.fraction == 0.0


def test_the_limit_of_inter_token_latency_is_for_a_requests_mean() -> None:
    slo = Slo(itl=0.5)
    assert slo.holds(ttft=10**12, itl=0.5e9, e2e=10**12)
    assert not slo.holds(ttft=0, itl=0.51e9, e2e=0)


async def test_summary_and_table_hold_the_same_values_and_the_summary_can_be_read_back() -> None:
    async with ScriptedUpstream(answer(), json_answer(500, {})) as server:
        found = await load(server.url, requests=2, slo=Slo(e2e=30.0))
    result = found.summary
    assert set(result.itl) == {"mean", "std", "p50", "p90", "p95", "p99", "p99.9", "max", "n"}
    assert (result.requests, result.errors) == (2, {"http 500": 1})
    assert load_from(orjson.dumps(result)) == result
    text = table(result)
    assert "2 requests" in text
    assert "1 http 500" in text
    assert "50.0%" in text


async def test_transit_is_computed_from_stamps_within_the_request_only() -> None:
    async def stamped(wire: Wire) -> None:
        now = int(asyncio.get_running_loop().time() * 1e9)
        texts = (f" {now}", f" {now} {now}", " 12", f" {now + 10**15}", "words", f" {now}")
        await wire.send(answer([delta(text) for text in texts] + [STOP]))

    async with ScriptedUpstream(stamped) as server:
        found = await load(server.url, requests=1)
    assert found.tally.tokens == 6
    assert len(found.tally.transit) == 4
    transit, e2e = found.summary.transit or {}, found.summary.e2e
    assert 0 <= (transit["max"] or 0) <= (e2e["max"] or 0)


class Watcher:
    """Notes what part of a run it was told of."""

    def __init__(self) -> None:
        self.parts: set[str] = set()

    def __call__(self, part: str, flow: Flow, tally: Tally) -> None:
        self.parts.add(part)


async def test_a_run_reports_its_progress() -> None:
    watcher = Watcher()
    async with ScriptedUpstream(silence) as server:
        run, _ = prepared(server.url, duration=0.06, drain=0.06, timeout=0.2)
        run._watch = watcher
        await run.run()
    assert watcher.parts == {"load", "drain"}


# ---- tokens and errors


def usage(given: int, made: int) -> list[bytes]:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": given, "cache_read_input_tokens": 4}}}
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": made}}
    return [b"data: " + orjson.dumps(value) + b"\n\n" for value in (start, end)]


async def test_tokens_are_those_of_the_usage_and_chunks_are_the_deltas() -> None:
    start, end = usage(10, 12)
    async with ScriptedUpstream(answer([start, delta("a b c d"), delta("e f"), delta("g"), end, STOP])) as server:
        found = await load(server.url, requests=2)
    result = found.summary
    assert (result.chunks, result.tokens) == (6, 24)
    assert (result.input_tokens["mean"], result.output_tokens["mean"], result.output_tokens["n"]) == (14.0, 12.0, 2)
    assert (result.icl["n"], result.itl["n"]) == (4, 2)
    assert result.tokens_per_s == pytest.approx(24 / result.seconds)
    assert result.requests_per_s == pytest.approx(2 / result.seconds)
    for exchange in found.exchanges:
        expected = (exchange.last - exchange.first) / 11
        assert inter_token_latency(exchange.first, exchange.last, 12) == expected


async def test_without_a_usage_each_chunk_is_a_token() -> None:
    async with ScriptedUpstream(answer()) as server:
        found = await load(server.url, requests=1)
    assert (found.summary.tokens, found.summary.output_tokens["mean"], found.summary.input_tokens["n"]) == (3, 3.0, 0)


def test_the_inter_token_latency_of_one_token_is_zero() -> None:
    assert [inter_token_latency(5, 5, tokens) for tokens in (0, 1)] == [0.0, 0.0]
    assert inter_token_latency(100, 400, 4) == 100.0


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (
            json_answer(400, {"type": "error", "error": {"type": "x", "message": "max_tokens:  too\nlarge"}}),
            "http 400",
            "max_tokens: too large",
        ),
        (framed(502, [], [b"<h1>Bad gateway</h1>" * 50], "length"), "http 502", ("<h1>Bad gateway</h1>" * 50)[:200]),
        (answer([*GOOD[:2], ERROR]), "error event", "no"),
        (answer(GOOD[:-1]), "cut", "the answer ended before it was complete"),
        (json_answer(200, {"usage": {"output_tokens": 5}}), "not a stream", "content-type: application/json"),
        (cut(answer()[:-30]), "cut", "the answer ended before it was complete"),
        (cut(b""), "cut", "the connection was closed without an answer, as an https:// server does with http://"),
    ],
)
async def test_what_an_error_says_is_kept_in_short(reply: Answer, kind: str, text: str) -> None:
    async with ScriptedUpstream(reply) as server:
        found = await load(server.url, requests=2)
    assert found.summary.error_details == {kind: text}
    assert f"  {kind}: {text}" in table(found.summary)


async def test_a_sweep_has_a_line_for_each_run() -> None:
    async with ScriptedUpstream(answer()) as server:
        loads = [(await load(server.url, slo=Slo(e2e=30.0), requests=8, concurrency=n)).summary for n in (1, 4)]
    head, *lines = sweep_table(loads).splitlines()
    assert head.endswith("  good")
    assert [line[:9] for line in lines] == ["1 at once", "4 at once"]
    assert all(line.endswith("100.0%") for line in lines)


# ---- what is asked


def asked(server: ScriptedUpstream) -> list[Any]:
    return [orjson.loads(request.body) for request in server.requests]


async def test_the_turns_of_a_conversation_hold_the_answers_before_them() -> None:
    async with ScriptedUpstream(answer()) as server:
        found = await load(server.url, content=replace(CONTENT, turns=3), requests=6)
        bodies = asked(server)
    assert found.tally.ok == 6
    assert [[one["role"][0] for one in body["messages"]] for body in bodies] == [["u"], [*"uau"], [*"uauau"]] * 2
    assert bodies[2]["messages"][:3] == bodies[1]["messages"]
    assert bodies[1]["messages"][1] == {"role": "assistant", "content": "abc"}
    assert bodies[0]["messages"] != bodies[3]["messages"]


async def test_in_the_open_loop_the_arrivals_begin_conversations() -> None:
    async with ScriptedUpstream(answer()) as server:
        asking = replace(CONTENT, turns=2)
        found = await load(server.url, content=asking, concurrency=None, rate=500.0, requests=100, drain=30.0)
        lengths = sorted(len(body["messages"]) for body in asked(server))
    assert found.tally.ok == 100
    assert lengths.count(3) >= 1
    assert lengths.count(1) >= lengths.count(3)


async def test_lengths_are_drawn_from_their_distributions() -> None:
    prompt, output = Distribution("uniform", 5, 9), Distribution("uniform", 20, 30)
    async with ScriptedUpstream(answer()) as server:
        await load(server.url, content=replace(CONTENT, prompt_tokens=prompt, output_tokens=output), requests=40)
        bodies = asked(server)
    words = {len(body["messages"][0]["content"].split()) for body in bodies}
    most = {body["max_tokens"] for body in bodies}
    assert words <= {5, 6, 7, 8, 9}
    assert most <= set(range(20, 31))
    assert min(len(words), len(most)) > 2


@pytest.mark.parametrize("api", ["messages", "chat"])
async def test_prefixes_are_shared_and_tools_and_thinking_are_offered(api: Api) -> None:
    asking = replace(CONTENT, prefix_tokens=30, prefixes=2, tools=3, thinking_tokens=1024 * (api == "messages"))
    reply = sse({"choices": [{"index": 0, "delta": {"content": "a"}}]}) if api == "chat" else answer()
    async with ScriptedUpstream(reply) as server:
        await load(server.url, content=asking, api=api, requests=20)
        bodies = asked(server)
    prefixes = {body["messages"][0]["content"] if api == "chat" else body["system"] for body in bodies}
    assert len(prefixes) == 2
    assert {len(prefix.split()) for prefix in prefixes} == {30}
    assert len({body["messages"][-1]["content"] for body in bodies}) == 20
    assert {len(body["tools"]) for body in bodies} == {3}
    if api == "messages":
        assert {(body["thinking"]["budget_tokens"], body["max_tokens"]) for body in bodies} == {(1024, 1027)}


async def test_a_dataset_replaces_the_prompts(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"prompt": "Hello"}\n\n{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}\n')
    async with ScriptedUpstream(answer()) as server:
        await load(server.url, content=replace(CONTENT, dataset=read_dataset(file)), requests=20)
        found = {(body["messages"][0]["content"], body["max_tokens"], body["model"]) for body in asked(server)}
    assert found == {("Hello", 3, "m"), ("Hi", 5, "m")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", ": the file of requests is empty"),
        (b"[]", ", line 1: is not a JSON object"),
        (b'{"a": 1}', ", line 1: has neither messages nor a prompt"),
        (b'{"prompt": 5}', ", line 1: has neither messages nor a prompt"),
        (b'{"messages": 5}', ", line 1: messages is not a list"),
        (b'{"prompt": "a"}\n\n{', ", line 3: is not JSON"),
        (b'{"prompt": "a"}\r\n\xff\r\n', ", line 2: is not JSON"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused_with_the_line(text: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_bytes(text)
    with pytest.raises(BadRun) as caught:
        read_dataset(file)
    assert str(caught.value).startswith(f"{file}{reason}")


@pytest.mark.parametrize("stream", [True, False])
async def test_the_run_decides_whether_the_answers_to_a_dataset_are_streamed(stream: bool, tmp_path: Path) -> None:
    """A dataset may consist of recorded bodies, which say themselves whether they were streamed."""
    file = tmp_path / "requests.jsonl"
    file.write_text(json.dumps({"messages": [], "stream": not stream}))
    reply = answer() if stream else json_answer(200, {"usage": {"output_tokens": 5}})
    async with ScriptedUpstream(reply) as server:
        found = await load(server.url, content=replace(CONTENT, dataset=read_dataset(file)), requests=2, stream=stream)
        assert [body["stream"] for body in asked(server)] == [stream] * 2
    assert found.tally.ok == 2


def test_a_prompt_of_a_dataset_may_have_a_limit_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"prompt": "Hello", "max_tokens": 7, "id": 1}\n')
    assert read_dataset(file) == [{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 7}]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/messages"])
def test_a_url_may_end_with_the_path_of_the_api(path: str) -> None:
    assert Target.parse(f"http://127.0.0.1:1{path}", "messages").path == "/v1/messages"
    assert Target.parse(f"http://127.0.0.1:1/llm{path}", "messages").path == "/llm/v1/messages"


def test_a_dataset_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"prompt": "Hello"}\n', encoding="utf-8-sig")
    assert read_dataset(file) == [{"messages": [{"role": "user", "content": "Hello"}]}]


@pytest.mark.parametrize("varied", [False, True], ids=["equal requests", "varied requests"])
def test_the_runs_of_a_sweep_share_no_prompt(varied: bool) -> None:
    """A server with a prefix cache would answer the later runs faster than the first one."""
    content = replace(CONTENT, prompt_tokens=Distribution("uniform", 4, 9)) if varied else CONTENT
    target = Target.parse("http://127.0.0.1:1", "messages")
    runs = [Workload(target, content, number) for number in range(3)]
    prompts = [[run.begin().request() for _ in range(20)] for run in runs]
    assert len({prompt for run in prompts for prompt in run}) == 60
    again = Workload(target, content, 1)
    assert [again.begin().request() for _ in range(20)] == prompts[1]
