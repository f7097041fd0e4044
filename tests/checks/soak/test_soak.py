"""The soak passes for the real service, and detects leaks, wrong answers and leftovers."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import orjson
import pytest

from anthro_asgi.wire.deltas import Finish, ToolJson, ToolStart, Usage
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.errors import BadUpstream, Overloaded
from bench.process import serving
from tests.checks import soak
from tests.checks.soak import command as commanding
from tests.checks.soak.clients import Crowd, Tally
from tests.checks.soak.command import Plan, Result, run, table
from tests.checks.soak.faults import FAULTS, NONE, Fault, asked, asking
from tests.checks.soak.judging import Answer, Wrong, judge
from tests.checks.soak.leaky import UPSTREAM
from tests.checks.soak.service import Gauges, Log, Service, command
from tests.checks.soak.turns import Kind, Turn, anything_else, streaming
from tests.checks.soak.watch import Sample, Verdict
from tests.checks.soak.watch import judge as judged

SSE = b"text/event-stream; charset=utf-8"
MIB = 1024 * 1024


def plan(arguments: Any, **more: Any) -> Plan:
    return Plan(**{"seconds": 6.0, "streams": 30, "seed": 3, "rate": 20.0, "arguments": arguments, **more})


def verdicts(result: Result) -> dict[str, bool | None]:
    return {verdict.name: verdict.holds for verdict in result.verdicts}


# whole runs


def test_a_run_holds_for_the_service_as_it_is() -> None:
    looks: list[Sample] = []
    result = run(plan(partial(command, streams=30, workers=1)), looks.append)
    holds = verdicts(result)
    del holds["memory"]  # a run of seconds is no judge of that
    assert set(holds.values()) == {True}, table(result)
    kinds = {kind for kind, _ in result.tally.outcomes}
    assert kinds == {"stream", "whole", "count", "models", "invalid"}
    assert sum(look.open >= 30 for look in looks) > len(looks) / 2
    assert max(look.files for look in looks) > 60
    assert max(look.gauges.connections["leased"] for look in looks if look.gauges is not None) > 20


def leaky(url: str) -> list[str]:
    os.environ[UPSTREAM] = f"{url}/v1"
    return [sys.executable, "-m", "anthro_asgi", "serve", "--port", "0", "--engine", "tests.checks.soak.leaky:Leaky"]


def test_a_service_that_leaks_and_repeats_text_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UPSTREAM, "")
    result = run(plan(leaky, patience=3.0))
    assert not result.holds
    wrong = {name for name, holds in verdicts(result).items() if holds is False}
    assert wrong == {"answers", "memory", "files", "pool", "log"}
    told = table(result)
    assert "tokens, not" in told
    assert "never retrieved" in told
    assert told.count("BROKEN") == len(wrong)


async def each_once(service: Service, turns: list[Turn]) -> Tally:
    """The tally of these turns, each the only turn of its client."""
    crowd = Crowd(service.host, service.port, 0)
    left = len(turns)
    all_begun = asyncio.Event()

    def draw(rng: Random, first: bool, turn: Turn) -> Turn:
        nonlocal left
        left -= 1
        if not left:
            all_begun.set()
        return turn

    for turn in turns:
        crowd.add(1, partial(draw, turn=turn), 0.0)
    await all_begun.wait()
    await crowd.close(30.0)
    return crowd.tally


@pytest.mark.parametrize("calls", [False, True])
def test_each_fault_of_the_engine_has_its_documented_effect(calls: bool) -> None:
    faults = (NONE, *FAULTS.values())
    kinds: tuple[Kind, ...] = ("stream", "whole")
    turns = [Turn(kind, 6, fault, 0 if fault.early else 3, calls=calls) for fault in faults for kind in kinds]
    with (
        serving([sys.executable, "-m", "tests.checks.soak.engine", "--rate", "20"]) as (url, _),
        Service(command(url, streams=30, workers=1)) as service,
    ):
        outcomes = asyncio.run(each_once(service, turns))
    assert not outcomes.wrong, outcomes.samples
    good = sum(not fault.type for fault in faults)
    begun = sum(bool(fault.type) and not fault.early and fault.sure for fault in faults)
    assert outcomes.outcomes["stream", "answered"] == outcomes.outcomes["whole", "answered"] == good
    assert outcomes.outcomes["whole", "error"] == len(faults) - good
    assert begun <= outcomes.outcomes["stream", "error event"] <= begun + 2  # a reset and a ping may go either way


# answers


def stream(*texts: str, error: Any = None, tokens: int = 0) -> Answer:
    encoder = StreamEncoder("msg_" + "x" * 24, "m", lambda: 1)
    body = encoder.start() + b"".join(map(encoder.text, texts))
    if error is not None:
        body += encoder.error(error, "req_1")
    else:
        encoder.feed([Usage(1, tokens or len(texts)), Finish("end_turn")])
        body += encoder.end(0)
    return Answer(200, SSE, body, "complete")


def call(arguments: str) -> Answer:
    encoder = StreamEncoder("msg_" + "x" * 24, "m", lambda: 1)
    body = encoder.start() + encoder.feed([ToolStart("t", "write"), ToolJson(arguments)])
    encoder.feed([Usage(1, 2), Finish("tool_use")])
    return Answer(200, SSE, body + encoder.end(0), "complete")


def refused(error: Any) -> Answer:
    return Answer(error.status, b"application/json", error.body("req_1"), "complete")


def changed(answer: Answer, **fields: Any) -> Answer:
    return replace(answer, **fields)


TWO = stream(" 1", " 2")
BROKEN = BadUpstream("it broke")
CUT = Turn("stream", 9, FAULTS["cut"], 2)


@pytest.mark.parametrize(
    ("turn", "answer", "outcome"),
    [
        (Turn("stream", 2), TWO, "answered"),
        (Turn("stream", 2, calls=True), call('{"a":" 1 2"}'), "answered"),
        (Turn("stream", 9, FAULTS["no-end"], 2), TWO, "answered"),
        (CUT, stream(" 1", " 2", error=BROKEN), "error event"),
        (Turn("whole", 9, FAULTS["cut"], 2), refused(BROKEN), "error"),
        (Turn("stream", 9, FAULTS["reset"], 2), refused(BROKEN), "error"),
        (Turn("stream", 9, FAULTS["away"]), refused(Overloaded()), "error"),
        (Turn("stream", 9, leaves=1), changed(TWO, body=TWO.body[:-90], ending=None), "left"),
        (Turn("stream", 9, leaves=0), Answer(0, b"", b"", None), "left"),
        (Turn("count", 1), Answer(200, b"application/json", b'{"input_tokens":3}', "complete"), "answered"),
    ],
)
def test_a_correct_answer_is_accepted(turn: Turn, answer: Answer, outcome: str) -> None:
    assert judge(turn, answer) == outcome


@pytest.mark.parametrize(
    ("turn", "answer", "how"),
    [
        (Turn("stream", 3), TWO, "2 tokens, not 3"),
        (Turn("stream", 2), stream(" 2", " 1"), "out of order"),
        (Turn("stream", 2, calls=True), call('{"a":" 1 3 2"}'), "3 tokens, not 2"),
        (Turn("stream", 2, calls=True), TWO, "no answer of this API"),
        (Turn("stream", 2), call('{"a":" 1 2"}'), "no answer of this API"),
        (Turn("stream", 2), stream(" 1", " 2", tokens=3), "another count"),
        (Turn("stream", 2), changed(TWO, ending="cut"), "the connection: cut"),
        (Turn("stream", 2), changed(TWO, body=TWO.body[:-40]), "by the grammar"),
        (
            Turn("stream", 2),
            changed(TWO, body=TWO.body.replace(b'"index":0', b'"index":1', 1)),
            "by the grammar: the index",
        ),
        (Turn("stream", 2, leaves=1), changed(TWO, body=TWO.body[300:], ending=None), "by the grammar"),
        (Turn("stream", 2), stream(" 1", error=BROKEN), "not an answer"),
        (Turn("stream", 2), refused(Overloaded()), "not an answer"),
        (CUT, TWO, "an answer, though cut"),
        (CUT, refused(BROKEN), "a stream that had begun"),
        (CUT, stream(" 1", " 2", error=Overloaded()), "not api_error"),
        (Turn("whole", 9, FAULTS["mute"]), refused(BROKEN), "not timeout_error"),
        (Turn("whole", 9, FAULTS["failure"]), refused(BROKEN), "status 502, not 500"),
        (Turn("whole", 2), Answer(200, b"application/json", b"{}", "complete"), "no answer of this API: KeyError"),
        (Turn("invalid", 2), Answer(500, b"text/plain", b"Internal Server Error", "complete"), "no answer of this API"),
        (Turn("count", 1), Answer(200, b"application/json", b'{"input_tokens":0}', "complete"), "a wrong answer"),
        (Turn("models", 1), Answer(200, b"application/json", b'{"data":[]}', "complete"), "a wrong answer"),
    ],
)
def test_a_wrong_answer_is_detected(turn: Turn, answer: Answer, how: str) -> None:
    with pytest.raises(Wrong, match=how):
        judge(turn, answer)


# turns


@pytest.mark.parametrize("draw", [streaming, anything_else])
def test_turns_are_drawn_from_the_seed_and_make_valid_requests(draw: Any) -> None:
    turns = [draw(Random(seed), False, 90) for seed in range(600)]
    assert turns == [draw(Random(seed), False, 90) for seed in range(600)]
    for turn in turns:
        head, _, body = turn.request("127.0.0.1:1").partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        if turn.kind in ("stream", "whole"):
            told = orjson.loads(body)
            assert (told["max_tokens"], told["stream"]) == (turn.tokens, turn.kind == "stream")
            assert asked(body) == (turn.fault, turn.after)
            assert turn.tokens > turn.after
    for share in (lambda turn: turn.fault is not NONE, lambda turn: turn.leaves is not None):
        assert 0.04 < sum(map(share, turns)) / len(turns) < 0.25


def test_a_prompt_asks_for_its_fault() -> None:
    for fault in FAULTS.values():
        assert asked(json.dumps({"content": asking(fault, 12)}).encode()) == (fault, 12)
    assert asked(b"") == (NONE, 0)
    assert asked(asking(Fault("unheard-of"), 1).encode()) == (NONE, 1)


# samples


def samples(memory: Any, seconds: int = 600) -> list[Sample]:
    return [Sample(at, round(memory(at) * MIB), 50, 1, 30, Gauges(30, {"leased": 30})) for at in range(seconds + 1)]


def verdict(name: str, looks: list[Sample], rest: Sample | None = None) -> Verdict:
    tally = Tally()
    tally.outcomes["stream", "answered"] = 1
    idle = Sample(0, 30 * MIB, 9, 1, 0, Gauges(0, {}))
    rest = rest or replace(idle, gauges=Gauges(0, {"idle": 0, "leased": 0}))
    service = argparse.Namespace(log=Log(), status=0, processes=1)
    found = {one.name: one for one in judged(looks, idle, rest, tally, service)}  # type: ignore[arg-type]
    return found[name]


@pytest.mark.parametrize(
    ("memory", "holds"),
    [
        (lambda at: 40, True),
        (lambda at: 40 + min(at, 55), True),  # needed once
        (lambda at: 100 + at / 600 * 2.5, True),
        (lambda at: 100 + at / 600 * 5.0, False),
        (lambda at: 100 + at / 10, False),
        (lambda at: 100 + 90 * (at % 7 == 0), True),  # a large request now and then
        (lambda at: 100 - at / 10, True),
    ],
)
def test_memory_may_grow_at_first_and_fluctuate_but_not_keep_growing(memory: Any, holds: bool) -> None:
    assert verdict("memory", samples(memory)).holds is holds


def test_a_short_run_is_judged_after_it_has_settled() -> None:
    assert verdict("memory", samples(lambda at: 40 + 20 * min(at, 12), 30)).holds is True
    assert verdict("memory", samples(lambda at: 40 + at, 30)).holds is False
    assert verdict("memory", samples(lambda at: 100 + at / 2, 30)).holds is True  # +4 %
    assert verdict("memory", samples(lambda at: 100 + at * 3 / 2, 30)).holds is False  # +11 %
    assert verdict("memory", samples(lambda at: 40, 1)).holds is None


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("files", {"files": 10}),
        ("threads", {"threads": 9}),
        ("in flight", {"gauges": Gauges(1, {"idle": 0})}),
        ("pool", {"gauges": Gauges(0, {"idle": 1, "leased": 0})}),
        ("pool", {"gauges": Gauges(0, {"waiting": 1})}),
    ],
)
def test_leftover_files_threads_and_connections_are_detected(name: str, left: dict[str, Any]) -> None:
    rest = Sample(0, 30 * MIB, 9, 1, 0, Gauges(0, {"idle": 0}))
    assert verdict(name, samples(lambda at: 40), rest).holds is True
    assert verdict(name, samples(lambda at: 40), replace(rest, **left)).holds is False


def test_an_invariant_without_data_does_not_fail() -> None:
    rest = Sample(0, 30 * MIB, 9, 1, 0, None)
    assert verdict("pool", samples(lambda at: 40), rest).holds is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"level":"info","event":"request","status":200}', False),
        ('{"level":"warning","event":"log","message":"upstream: Broken"}', False),
        ('{"level":"error","event":"log","message":"Task exception was never retrieved"}', True),
        ('{"level":"warning","event":"log","message":"x","exception":"Traceback"}', True),
        ("Traceback (most recent call last):", True),
        ('{"level":"info","event":"request","path":"soak none 0 word"}', True),
    ],
)
def test_a_forbidden_log_line_is_detected(line: str, fault: bool) -> None:
    log = Log()
    log.take(line + "\n")
    assert (log.lines, log.faults, log.samples) == (1, int(fault), [line] if fault else [])


# the command


def test_the_exit_status_tells_whether_all_invariants_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    soak.add_arguments(parser)
    options = parser.parse_args(["--seconds", "5", "--streams", "7"])
    assert (options.seconds, options.streams, options.workers) == (5.0, 7, 2)
    for holds, status in ((True, 0), (None, 0), (False, 1)):
        result = Result([Verdict("files", holds, "9 idle")], Tally(), argparse.Namespace(log=Log()))  # type: ignore[arg-type]
        monkeypatch.setattr(commanding, "run", lambda plan, seen, result=result: result)
        assert soak.main(options) == status
    assert "files      BROKEN  9 idle" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(commanding, "command", lambda url, **_: [sys.executable, "-c", "print('no address')"])
    assert soak.main(options) == 2
