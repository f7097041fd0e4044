"""A short fuzz run; and that fuzzing finds bugs, repeats them and minimises their input."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from anthro_asgi import _native
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.wire import field_checks, message, request
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.large import json_reader
from tests.checks.fuzz import running
from tests.checks.fuzz.bodies import Bodies
from tests.checks.fuzz.mutation import cut, mangle
from tests.checks.fuzz.native_module import PUMP
from tests.checks.fuzz.running import MOST_FAILURES, Tally, Target, draw, made, minimised, report, run, run_chunk
from tests.checks.fuzz.streams import Streams

KINDS = [Bodies, Streams]


def names(kind: type[Target]) -> str:
    return kind.name


def told(kind: type[Target], tally: Tally, capsys: pytest.CaptureFixture[str]) -> str:
    """A description of the failures, for the assertion's message."""
    if tally.failures:
        report(made(kind), 0, tally, 1.0)
    return capsys.readouterr().out


# a short run


@pytest.mark.parametrize(
    ("kind", "count", "shares"),
    [
        (Bodies, 5_000, {"read": 0.3, "refused with 400": 0.3, "served: 200": 0.02, "served: 400": 0.02}),
        (
            Streams,
            4_000,
            {"chat, complete": 0.2, "messages, complete": 0.04, "chat, broken off: api_error": 0.05},
        ),
    ],
    ids=["bodies", "streams"],
)
def test_all_rules_hold_for_mutated_inputs_of_which_enough_are_valid_and_enough_invalid(
    kind: type[Target], count: int, shares: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    tally = run(kind, 5, count)
    assert not tally.failures, told(kind, tally, capsys)
    assert tally.trials == count
    for outcome, share in shares.items():
        assert tally.outcomes[outcome] >= share * tally.trials, tally.outcomes


@pytest.mark.parametrize("kind", KINDS, ids=names)
def test_a_trial_depends_on_the_seed_and_its_index_only(kind: type[Target]) -> None:
    trials = [draw(made(kind), 7, index) for index in range(200)]
    another = kind()
    assert [draw(another, 7, index) for index in reversed(range(200))] == trials[::-1]
    assert [draw(made(kind), 8, index) for index in range(200)] != trials


def test_several_processes_run_the_same_trials_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CHUNK", 100)
    heard: list[int] = []
    tally = run(Bodies, 2, 300, start=100, jobs=2, told=lambda tally: heard.append(tally.trials))
    assert tally == run_chunk(Bodies, 2, range(100, 400))
    assert heard == [100, 200, 300]


def test_pieces_are_the_same_bytes() -> None:
    for seed in range(300):
        rng = Random(seed)
        data = mangle(b'{"a":"some bytes"}' * rng.randrange(20), rng)
        assert b"".join(cut(data, rng)) == data


# bugs are found


def found(kind: type[Target], seed: int = 0) -> running.Failure:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "MOST_FAILURES", 1)  # the first failure ends the run
        tally = run(kind, seed, 20_000)
    assert tally.failures
    return tally.failures[0]


def test_an_exception_is_found_and_its_input_is_minimised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = field_checks.optional_array

    def broken(container: dict[str, Any], key: str, most: int) -> list[Any]:
        elements = original(container, key, most)
        if key == "stop_sequences" and any(isinstance(stop, str) and "END" in stop for stop in elements):
            raise IndexError("a bug")
        return elements

    monkeypatch.setattr(request, "optional_array", broken)
    failure = found(Bodies)
    assert failure.kind == "IndexError in _stop_sequences of request.py"
    assert failure.trial == draw(made(Bodies), 0, failure.index)
    smallest = minimised(made(Bodies), failure)
    assert b"END" in smallest.data
    assert len(smallest.data) < min(len(failure.trial.data), 130)
    report(made(Bodies), 0, Tally(failures=[failure]), 1.0)
    said = capsys.readouterr().out
    assert f"python -m tests.checks.fuzz bodies --seed 0 --only {failure.index}\n" in said
    assert repr(smallest.data) in said


def test_an_error_of_the_service_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anthro_asgi.http.prompt_tokens.PromptCounter.count", None)
    assert found(Bodies).kind == "the log has no error"


def test_a_request_that_reads_differently_in_steps_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "replace_lone_halves", bytes.upper)
    assert found(Bodies).kind == "read in steps it says something else"


def test_a_breach_of_the_grammar_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamEncoder, "block_stop", lambda self, _: b"")
    original = StreamEncoder._close
    monkeypatch.setattr(StreamEncoder, "_close", lambda self, verb: b"" if verb == "thinking" else original(self, verb))
    assert found(Streams).kind.startswith("by the grammar content_block_start is not allowed inside a block")


def test_a_stream_that_differs_from_the_message_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(message._HANDLERS, str, lambda builder, text: None)
    assert found(Streams).kind == "a stream means the Message"


def test_a_fast_path_that_differs_from_the_general_path_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FastChunkReader._texts
    monkeypatch.setattr(FastChunkReader, "_texts", lambda self, events: (original(self, events) or [])[::-1] or None)
    assert found(Streams).kind in ("the short way says what the slow one says", "a stream means the Message")


def test_an_endless_trial_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE", 0.05)

    def endless(body: bytes, **_: Any) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.checks.fuzz.bodies.parse_request", endless)
    tally = run_chunk(Bodies, 0, range(2))
    assert [failure.kind.split()[0] for failure in tally.failures] == ["Stuck", "Stuck"]


def test_it_stops_after_many_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(body: bytes, **_: Any) -> None:
        raise ApiError("")

    monkeypatch.setattr("tests.checks.fuzz.bodies.parse_request", wrong)
    assert len(run(Bodies, 0, 1000).failures) == MOST_FAILURES


# the command


@pytest.mark.parametrize(
    "options", [("bodies", "--count=40", "--jobs=2"), ("streams", "--only=3"), ("bodies", "--only=3")]
)
def test_the_command_prints_the_result(options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.checks.fuzz", *options], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("40 trials" in done.stdout) if "--count=40" in options else done.stdout.startswith("Trial(data=b'")


@pytest.mark.skipif(_native.new_pump is None, reason="the extension module is not built")
@pytest.mark.parametrize("module", ["__main__", "pumped", "threaded", "running"])
def test_a_process_of_the_fuzz_uses_the_extension_module_that_it_is_told_to_use(module: str, tmp_path: Path) -> None:
    """With another one the sanitizers would see nothing."""
    other = shutil.copy(_native._pump.__file__, tmp_path / "_pump.so")
    code = f"import tests.checks.fuzz.{module}; from anthro_asgi._native import _pump; print(_pump.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, PUMP: str(other)}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{other}\n"
