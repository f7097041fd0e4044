"""The micro benchmarks: wrong results are never timed, and the input is as documented."""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.upstream.sse import SSEParser
from anthro_asgi.wire.deltas import ToolJson
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.message import MessageBuilder
from anthro_asgi.wire.request import parse_request
from anthro_asgi.wire.stop_sequences import StopSequenceFilter, StopSequenceMatcher
from bench import bodies, micro, oracles
from bench.micro import case as timing
from bench.micro import conversion, parts, request, streams
from bench.micro.case import Case, same

CASES = micro.cases()
RECORD = {"kind", "group", "name", "ns", "floor", "floor_ns", "ratio", "bar"}


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    micro.add_arguments(parser)
    return parser.parse_args(words)


# the cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_case_agrees_with_its_oracle_and_can_be_timed(case: Case) -> None:
    case.check()
    record = case.measure(1)
    assert record.ns > 0
    assert record.floor_ns > 0
    assert record.ratio == pytest.approx(record.ns / record.floor_ns)


def test_no_two_cases_have_the_same_name() -> None:
    assert len({case.key for case in CASES}) == len(CASES)


def test_every_bar_of_the_path_of_a_token_is_set() -> None:
    bars = {case.key: case.bar for case in CASES}
    assert bars["encoder: text(str)"] == 3.0
    assert bars["request: check and convert, agent of 1 MB"] == 2.0
    found = {key: bar for key, bar in bars.items() if key.startswith("conversion: ") and "events a read" not in key}
    assert set(found.values()) == {1.0, 2.0}
    assert all(bar == (1.0 if "steady" in key else 2.0) for key, bar in found.items())


class Deaf(StopSequenceMatcher):
    """Matches nothing."""

    def feed(self, text: str) -> str:
        return text


class Hasty(SSEParser):
    """Takes every read for whole events."""

    def feed(self, data: bytes) -> list[bytes]:
        return [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]


class Mute(StreamEncoder):
    """Leaves out what is not ASCII."""

    def text(self, text: str) -> bytes:
        return super().text("".join(filter(str.isascii, text)))


class Forgetful(MessageBuilder):
    """Loses a delta."""

    def feed(self, batch: Any) -> None:
        if batch != streams.varied(500)[100]:
            super().feed(batch)


def without_results(*arguments: Any) -> dict[str, Any]:
    body = to_chat(*arguments)
    return {**body, "messages": [turn for turn in body["messages"] if turn["role"] != "tool"]}


BROKEN: list[tuple[Any, str, Any, str]] = [
    (parts, "StreamEncoder", Mute, "encoder: text(str)"),
    (parts, "StopSequenceMatcher", Deaf, "stop matcher: 1 sequence"),
    (parts, "SSEParser", Hasty, "SSE parser: byte by byte"),
    (parts, "Thinking", ToolJson, "chat chunk: thinking, SGLang"),
    (conversion, "StreamEncoder", Mute, "conversion: text, steady state, llama.cpp"),
    (
        conversion,
        "StopSequenceFilter",
        lambda _: StopSequenceFilter(("never",)),
        "conversion: stop sequences active, vLLM",
    ),
    (
        request,
        "parse_request",
        lambda body: replace(parse_request(body), system=[]),
        "request: the same but for writing it",
    ),
    (request, "to_chat", without_results, "request: check and convert, agent of 1 MB"),
    (parts, "MessageBuilder", Forgetful, "message: 500 deltas and a call"),
]


@pytest.mark.parametrize(("module", "name", "broken", "key"), BROKEN, ids=[row[3] for row in BROKEN])
def test_a_wrong_result_fails_and_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Any, key: str
) -> None:
    timed: list[Any] = []
    monkeypatch.setattr(module, name, broken)
    monkeypatch.setattr("bench.micro.case.compare", lambda *given: timed.append(given))
    with pytest.raises(AssertionError, match=key.partition(":")[0]):
        micro.measure(1, key)
    assert not timed


def test_a_difference_is_shown_where_it_begins() -> None:
    with pytest.raises(AssertionError, match=r"row: got …'a+bc', expected …'a+bd'"):
        same("a" * 1000 + "bc", "a" * 1000 + "bd", "row")
    with pytest.raises(AssertionError, match=r"row: got …'\[1\]', expected …'\[1, 2\]'"):
        same([1], [1, 2], "row")


# from the command line


def test_the_table_names_each_floor_and_marks_a_bar_that_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert micro.main(options("--rounds", "1", "--only", "encoder: ")) == 0
    shown = capsys.readouterr().out
    assert "floor: orjson.dumps of the text" in shown
    assert all(name in shown for name in ("text(str)", "feed(list of 8)", "slow oracle"))


def test_results_are_written_as_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "micro.jsonl"
    assert micro.main(options("--rounds", "1", "--only", "stop matcher", "--json", str(file))) == 0
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [record["name"] for record in records] == ["none", "1 sequence", "4 sequences"]
    assert all(set(record) == RECORD and record["group"] == "stop matcher" for record in records)


def test_a_name_without_a_row_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert micro.main(options("--only", "no such thing")) == 2
    assert "no such thing" in capsys.readouterr().err


def test_zero_rounds_are_refused() -> None:
    with pytest.raises(argparse.ArgumentError, match="rounds"):
        options("--rounds", "0")


def test_the_rows_with_a_bar_can_be_selected() -> None:
    results = micro.measure(1, "encoder", barred=True)
    assert list(results) == ["encoder: text(str)"]
    assert results["encoder: text(str)"].ratio > 0


# timing


def test_each_round_starts_anew_and_costs_are_per_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 10, 0, 10, *(0, 100, 0, 300), *(0, 100, 0, 900), *(0, 200, 0, 800)])
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: next(ticks))
    begun: list[list[int]] = []

    def start() -> Callable[[int], None]:
        begun.append([])
        return begun[-1].append

    cost = timing.compare(timing.always(abs, [1, 2]), timing.Side(start, [3, 4]), 2, 3)
    assert begun == [[3, 4]] * 4
    assert cost == timing.Comparison(floor_ns=50, subject_ns=400, ratio=4)


# oracles and input


@pytest.mark.parametrize("style", streams.STYLES, ids=lambda style: style.name)
def test_a_recording_holds_other_texts_in_the_same_frame(style: streams.Style) -> None:
    for kind in style.recordings:
        pieces = streams.varied(300)
        stream = streams.stream(style, kind, pieces)
        assert [oracles.said(chunk) for chunk in stream.chunks] == [[(kind, piece)] for piece in pieces]
        chunks = [json.loads(chunk) for chunk in stream.chunks]
        assert len({chunk["id"] for chunk in chunks}) == 1
        told = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
        assert told == list(range(told[0], told[0] + 300)) if told else style.name != "vLLM"
        assert stream.tail
        assert len(set(map(len, stream.chunks))) > 10


def test_texts_have_many_lengths_and_scripts_and_are_repeatable() -> None:
    words = streams.varied(1_000)
    assert words == streams.varied(1_000)
    assert all(words)
    assert {len(json.dumps(word)) for word in words} >= set(range(3, 12))
    assert any(not word.isascii() for word in words)
    assert any(json.dumps(word, ensure_ascii=False) != f'"{word}"' for word in words)


def test_the_texts_contain_beginnings_of_stop_sequences_and_no_whole_one() -> None:
    whole = "".join(parts.STOP_TEXTS)
    assert oracles.before_a_stop(whole, parts.STOPS) == (whole, None)
    assert all(stop[:2] in whole for stop in parts.STOPS)


@pytest.mark.parametrize(
    ("text", "sequences", "expected"),
    [
        ("abcd", [], ("abcd", None)),
        ("abcd", ["x"], ("abcd", None)),
        ("abcd", ["bcd", "c"], ("ab", "c")),
        ("abcd", ["c", "bc"], ("a", "bc")),
        ("abab", ["ab"], ("", "ab")),
    ],
)
def test_the_stop_oracle_takes_the_first_complete_sequence_and_of_two_the_longer(
    text: str, sequences: list[str], expected: tuple[str, str | None]
) -> None:
    assert oracles.before_a_stop(text, sequences) == expected


# the agent's body


def test_the_agents_body_is_the_same_every_time_and_about_a_megabyte() -> None:
    body = bodies.agent()
    assert body == bodies.agent()
    assert body != bodies.agent(seed=5)
    assert len(body) == pytest.approx(1_000_000, rel=0.01)
    assert len(bodies.agent(100_000, messages=20)) == pytest.approx(100_000, rel=0.1)


def test_the_agents_body_is_a_request_with_its_turns_and_tools() -> None:
    found = parse_request(bodies.agent())
    assert len(found.messages) == 200
    assert len(found.tools) == 20
    assert found.stream
    assert found.messages[-1]["role"] == "user"
    kinds = {block["type"] for turn in found.messages for block in turn["content"] if isinstance(block, dict)}
    assert kinds == {"text", "thinking", "tool_use", "tool_result"}
    assert parse_request(bodies.hello()).messages == [{"role": "user", "content": "Hello"}]


def test_the_agents_body_has_escapes_several_scripts_and_long_numbers() -> None:
    body = bodies.agent()
    assert body.count(rb"\n") > 5_000
    assert body.count(rb"\"") > 1_000
    assert 0.005 < sum(byte > 127 for byte in body) / len(body) < 0.3
    assert re.search(rb"[0-9]{19}", body)
