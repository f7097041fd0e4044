"""The runner, over a real scripted engine: who takes part is measured, and who cannot is said to be missing."""

import argparse
import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.peers import driving, runner
from bench.peers.bench import Bench, Prepared
from bench.peers.driving import Load, Server, drive
from bench.peers.ours import Ours
from bench.peers.peer import Api, Launch, Missing
from bench.peers.processes import await_ready, free_port, running
from bench.peers.records import Records
from bench.peers.relay import Relay
from bench.peers.timed import PACED, SATURATED, Run, compare

TINY = Run("saturated", rate=0, streams=2, tokens=20, wave=2)

# A Messages server as peers are: it has an answer, and breaks two rules of the contract in it.
SLOPPY = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def event(name, rest):
    return 'event: %s\\ndata: {"type":"%s"%s}\\n\\n' % (name, name, rest)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        tokens = 32 if b'"max_tokens":32' in self.rfile.read(int(self.headers["content-length"])) else 20
        delta = ',"index":0,"delta":{"type":"text_delta","text":" 1234567"}'
        body = event("message_start", ',"message":{"id":"1"}')
        body += event("content_block_start", ',"index":0,"content_block":{"type":"text","text":""}')
        body += event("content_block_delta", delta) * tokens
        body += event("content_block_stop", ',"index":0')
        body += event("message_delta", ',"delta":{"stop_reason":"end_turn"},"usage":{}') + event("message_stop", "")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Program:
    """A peer that is a few lines of Python, which get the port."""

    label = "a program"
    api: Api = "messages"
    model = "scripted"
    ready = "/"

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self._source = source

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        return "1"

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        return Launch([sys.executable, "-c", self._source, str(port)])


class Nowhere(Program):
    """A peer that cannot be installed."""

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        raise Missing("could not be installed: no such thing")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "out" / "records.jsonl") as records:
        yield records


def bench(records: Records, folder: Path, *peers: Any) -> Bench:
    prepared = [Prepared(peer, peer.prepare(folder, refresh=False)) for peer in peers]
    return Bench(prepared, rounds=2, seconds=0.05, memory_streams=8, folder=folder, records=records)


def of(records: Records, kind: str) -> list[dict[str, Any]]:
    return [record for record in records.all if record["kind"] == kind]


def test_relay_and_we_are_measured_beside_the_engine_in_every_round(
    tmp_path: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Ours("ours-fast", "us", "fast", python=sys.executable)
    compare(bench(records, tmp_path, Relay(), ours), TINY, 0.05)
    turns = [(record["server"], record["round"]) for record in of(records, "peer")]
    assert sorted(turns) == [("ours-fast", 0), ("ours-fast", 1), ("relay", 0), ("relay", 1)]
    assert [record["round"] for record in of(records, "direct")] == [0, 1]
    for record in [*of(records, "peer"), *of(records, "direct")]:
        load = record["load"]
        assert load["ok"] == load["requests"] > 0
        assert load["errors"] == {}
        assert load["tokens"] == load["requests"] * TINY.tokens
        assert load["transit"]["n"] == load["tokens"]
        assert load["server"]["cpu_us_per_token"] > 0
    assert [(record["server"], record["faults"]) for record in of(records, "grammar")] == [
        ("relay", []),
        ("ours-fast", []),
    ]
    assert of(records, "missing") == []
    shown = capsys.readouterr().out
    assert "× relay" in shown
    assert len([line for line in shown.splitlines() if line.startswith("us ")]) == 2
    assert [json.loads(line) for line in records.path.read_text().splitlines()] == records.all


def test_a_peer_that_breaks_the_grammar_is_said_to_and_timed_and_one_that_does_not_start_is_missing(
    tmp_path: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Program("broken", "raise SystemExit('the port is not to my liking')")
    compare(bench(records, tmp_path, Program("sloppy", SLOPPY), broken), TINY, 0.05)
    (grammar,) = of(records, "grammar")
    assert grammar["server"] == "sloppy"
    first, second, *_ = grammar["faults"]
    assert first.startswith("event 0: message.type is 'message'")
    assert second.startswith("event 35: the object has the keys stop_reason, stop_sequence")
    assert {record["server"] for record in of(records, "peer")} == {"sloppy"}
    why = "saturated: ended by itself with status 1: the port is not to my liking"
    assert of(records, "missing") == [{"kind": "missing", "server": "broken", "why": why}]
    said = capsys.readouterr().out
    assert f"sloppy: BREAKS THE CONTRACT: {first}" in said
    assert f"broken: MISSING: {why}" in said


def test_a_server_that_never_answers_is_neither_ready_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "SLACK_SECONDS", 0.2)
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as silent, running(Launch(["sleep", "60"]), log) as process:
        port = silent.getsockname()[1]
        with pytest.raises(Missing, match=r"not ready after 0\.1 s: it said nothing"):
            await_ready(process, port, "/", log, 0.1)
        server = Server("silent", "silent", "chat", "scripted", f"http://127.0.0.1:{port}", process.pid)
        with pytest.raises(Missing, match=r"hangs: the load was not over after 0\.3 s"):
            drive(server, TINY.warm_up(), tmp_path, 0.1)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    runner.add_arguments(parser)
    return parser.parse_args(words)


def test_a_peer_that_cannot_be_installed_is_recorded_and_the_exit_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "peers", lambda: [Nowhere("nowhere", ""), Program("unasked", "")])
    out = tmp_path / "records.jsonl"
    out.write_text("what another run left\n")
    assert runner.main(options("--only", "nowhere", "--runs", "asgi,memory", "--out", str(out))) == 1
    missing, environment = (json.loads(line) for line in out.read_text().splitlines())
    assert missing == {"kind": "missing", "server": "nowhere", "why": "could not be installed: no such thing"}
    assert environment["kind"] == "env"
    assert environment["cores"] == os.cpu_count()
    said = capsys.readouterr().out
    assert "nowhere: MISSING: could not be installed: no such thing" in said
    assert str(out) in said


@pytest.mark.parametrize("word", ["--only=relay,nobody", "--runs=slowly", "--only=", "--rounds=0"])
def test_what_is_not_known_is_not_taken(word: str) -> None:
    with pytest.raises(argparse.ArgumentError):
        options(word)


# A process that ends when asked, and its child, which does not.
STUBBORN = """
import os, signal, sys
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(os.open(sys.argv[1], os.O_WRONLY), b"up")
while True:
    signal.pause()
"""


def test_what_was_started_is_ended_with_all_its_children(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "life")
    launch = Launch([sys.executable, "-c", STUBBORN, str(tmp_path / "life")])
    with running(launch, tmp_path / "log") as process:
        life = os.open(tmp_path / "life", os.O_RDONLY)
        assert os.read(life, 2) == b"up"
    assert process.returncode is not None
    readable, _, _ = select.select([life], [], [], 10)
    assert readable, "the child lives"
    assert os.read(life, 1) == b""  # nobody is left who could write
    os.close(life)


def test_a_command_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="cannot be started"), running(Launch([str(tmp_path / "no")]), tmp_path / "log"):
        pass


def test_the_load_that_a_run_asks_for() -> None:
    assert SATURATED.load(2.0, 0.1) == Load(tokens=2_000, requests=80, concurrency=4)
    assert SATURATED.load(2.0, 20.0) == SATURATED.warm_up()
    assert PACED.load(8.0, 3.0) == Load(tokens=400, requests=64, concurrency=64, ramp=3.0)
    words = Load(tokens=9, requests=800, rate=400).arguments()
    assert words[:6] == ["--rate", "400", "--arrivals", "constant", "--max-open", "800"]
    assert "--concurrency" not in words


def test_a_free_port_is_free() -> None:
    assert len({free_port() for _ in range(5)}) > 1
