"""The peers: their environments and command lines, and the runner over a real scripted engine."""

import argparse
import json
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from bench import peers as command
from bench.oracles import delta
from bench.peers import envs, harness, litellm, nginx, open_streams, ours, router
from bench.peers.asgi import asgi
from bench.peers.harness import Bench, Plan, Prepared, Server, drive, engine, running, started
from bench.peers.open_streams import opened
from bench.peers.ours import Ours
from bench.peers.peer import Launch, Peer, Unavailable
from bench.peers.probe import probe, stream_faults
from bench.peers.raw_asgi import ENDING, OPENING
from bench.peers.relay import Relay
from bench.peers.timed import PACED, SATURATED, Kind, compare
from bench.records import Asgi, Env, Grammar, Memory, Missing, ResultFile, Run
from bench.scripted.serving import UNPACED

UPSTREAM = "http://127.0.0.1:4321"
TINY = Kind("saturated", rate=0, streams=2, tokens=20, wave=2)


# environments


class Builder:
    """Fills a folder with one file, and counts the calls."""

    def __init__(self) -> None:
        self.built = 0
        self.fails = False

    def __call__(self, folder: Path) -> dict[str, str]:
        assert list(folder.iterdir()) == [], "an environment is built in an empty folder"
        self.built += 1
        (folder / "half").touch()
        if self.fails:
            raise Unavailable("could not be installed: no such version")
        return {"thing": f"1.{self.built}"}


def test_an_environment_is_built_once_and_again_for_other_pins_or_a_refresh(tmp_path: Path) -> None:
    builder, folder = Builder(), tmp_path / "envs" / "peer"
    versions = [envs.ensure(folder, pins, builder)["thing"] for pins in (["a"], ["a"], ["b"], ["b", "c"])]
    versions.append(envs.ensure(folder, ["b", "c"], builder, refresh=True)["thing"])
    assert versions == ["1.1", "1.1", "1.2", "1.3", "1.4"]
    assert json.loads((folder / "stamp.json").read_text())["pins"] == ["b", "c"]


def test_an_interrupted_environment_is_built_again(tmp_path: Path) -> None:
    builder, folder = Builder(), tmp_path / "peer"
    envs.ensure(folder, ["a"], builder)
    builder.fails = True
    with pytest.raises(Unavailable, match="no such version"):
        envs.ensure(folder, ["a"], builder, refresh=True)
    builder.fails = False
    assert envs.ensure(folder, ["a"], builder) == {"thing": "1.3"}


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"pins": ["a"]}', '{"pins": "a", "versions": {}}'])
def test_an_invalid_stamp_is_not_trusted(tmp_path: Path, stamp: str) -> None:
    builder = Builder()
    envs.ensure(tmp_path / "peer", ["a"], builder)
    (tmp_path / "peer" / "stamp.json").write_text(stamp)
    assert envs.ensure(tmp_path / "peer", ["a"], builder) == {"thing": "1.2"}


def test_an_editable_environment_is_built_again_when_pyproject_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, project = Builder(), tmp_path / "pyproject.toml"
    project.write_text("dependencies = []")
    monkeypatch.setattr(envs, "CHECKOUT", tmp_path)
    monkeypatch.setattr(envs, "_install", lambda folder, requirements, editable: builder(folder))
    folder = tmp_path / "peer"
    assert envs.venv(folder, ["it"], editable=True) == envs.venv(folder, ["it"], editable=True) == {"thing": "1.1"}
    project.write_text('dependencies = ["more"]')
    assert envs.venv(folder, ["it"], editable=True) == {"thing": "1.2"}


def test_a_failed_installation_is_explained_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'no room on the disk' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(Unavailable, match="could not be installed: no room on the disk"):
        envs.venv(tmp_path / "peer", ["thing==1"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"apt-get install .*npm"):
        envs.node_modules(tmp_path / "peer", ["thing@1"])


# command lines


def which(path: str | None) -> Callable[..., str | None]:
    return lambda *_, **__: path


def test_names_are_unique_and_the_relay_comes_first() -> None:
    assert [peer.name for peer in command.peers()] == [
        "relay",
        "nginx",
        "ours-fast",
        "ours-native",
        "ours-h11",
        "ccr",
        "litellm",
    ]
    assert [peer.name for peer in command.peers() if peer.api == "chat"] == ["relay", "nginx"]


def test_nginx_forwards_each_read_over_kept_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", which("/opt/nginx"))
    launch = nginx.Nginx().launch(UPSTREAM, 99, tmp_path)
    text = Path(launch.command[-1]).read_text()
    lines = {line.strip() for line in text.splitlines()}
    assert launch.command[0] == "/opt/nginx"
    assert {"proxy_buffering off;", "proxy_http_version 1.1;", 'proxy_set_header Connection "";'} <= lines
    assert {"worker_processes 1;", "daemon off;", "listen 127.0.0.1:99 backlog=4096;"} <= lines
    assert "upstream engine { server 127.0.0.1:4321; keepalive 128; }" in lines
    monkeypatch.setattr("shutil.which", which(None))
    with pytest.raises(Unavailable, match=r"^not installed: apt-get install --no-install-recommends nginx$"):
        nginx.Nginx().prepare(tmp_path, refresh=False)


def test_our_service_is_installed_from_the_checkout_and_started_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, tuple[list[str], bool]] = {}

    def venv(folder: Path, requirements: list[str], *, editable: bool, refresh: bool) -> dict[str, str]:
        asked[folder.name] = (requirements, editable)
        return {"anthro-asgi": "9"}

    monkeypatch.setattr(ours, "venv", venv)
    fast, native, h11 = (peer for peer in command.peers() if isinstance(peer, Ours))
    assert [one.prepare(tmp_path, refresh=False) for one in (fast, native, h11)] == ["9", "9", "9"]
    assert [peer.launch(UPSTREAM, 9, tmp_path).command[8:10] for peer in (fast, native, h11)] == [
        ["--native", "off"],
        ["--native", "on"],
        ["--native", "off"],
    ]
    assert asked["ours-native"] == asked["ours-fast"]
    assert asked["ours-fast"] == ([f"{asked['ours-h11'][0][0]}[fast]"], True)
    words = h11.launch(UPSTREAM, 99, tmp_path).command
    assert words[:4] == [str(tmp_path / "envs" / "ours-h11" / "bin" / "python"), "-m", "anthro_asgi", "serve"]
    assert words[words.index("--upstream") + 1] == f"{UPSTREAM}/v1"
    assert int(words[words.index("--max-concurrency") + 1]) >= 8_000


def test_litellm_and_the_router_are_told_the_engine_and_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "venv", lambda *_, **__: {"litellm": "9.9"})
    monkeypatch.setattr(router, "node_modules", lambda *_, **__: {"@musistudio/llms": "1.0.53"})
    one, other = litellm.LiteLLM(), router.Router()
    assert (one.prepare(tmp_path, refresh=False), other.prepare(tmp_path, refresh=False)) == ("9.9", "1.0.53")
    (tmp_path / "envs" / "ccr").mkdir(parents=True)
    launch = one.launch(UPSTREAM, 99, tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    for part in ("model: openai/scripted", f"api_base: {UPSTREAM}/v1\n", "telemetry: false"):
        assert part in text
    assert launch.environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    launch = other.launch(UPSTREAM, 99, tmp_path)
    assert launch.command[2:] == [f"{UPSTREAM}/v1/chat/completions", "99"]
    assert other.model == "bench,scripted"
    assert 'name: "bench"' in Path(launch.command[1]).read_text()


def test_the_load_of_a_turn_fills_its_seconds() -> None:
    assert SATURATED.plan(2.0, 0.1) == Plan(tokens=2_000, requests=80, concurrency=4)
    assert SATURATED.plan(2.0, 20.0) == SATURATED.warm_up()
    assert PACED.plan(8.0, 3.0) == Plan(tokens=400, requests=64, concurrency=64, ramp=3.0)
    words = Plan(tokens=9, requests=800, rate=400).arguments()
    assert words[:6] == ["--rate", "400", "--arrivals", "constant", "--max-open", "800"]


# the grammar of a stream

WHOLE = OPENING + delta("text", " 1") + delta("text", " 2") + ENDING


def test_each_broken_rule_is_reported_once_with_the_first_event_that_breaks_it() -> None:
    assert stream_faults(WHOLE) == []
    body = WHOLE.replace(b"msg_" + b"a" * 24, b"msg_1").replace(b',"stop_sequence":null},"usage"', b'},"usage"')
    body = body.replace(b'"text":" 1"', b'"text":""').replace(b'"text":" 2"', b'"text":""')
    faults = stream_faults(body)
    assert [fault.partition(":")[0] for fault in faults] == ["event 0", "event 2", "event 5"]
    cut = WHOLE[: WHOLE.index(b"event: message_delta")]
    assert stream_faults(cut) == ["event 5: the stream ends between blocks, without message_stop or error"]
    for other in (b'data: {"choices": []}\n\n', b"<html>", b"event: ping\ndata: {\n\n"):
        assert len(stream_faults(other)) == 1


# whole runs

# A Messages server that answers and breaks two rules of the contract.
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


class Program(Peer):
    """A peer that is a few lines of Python, which receive the port."""

    label = "a program"
    ready = "/"

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self._source = source

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        if not self._source:
            raise Unavailable("could not be installed: no such thing")
        return "1"

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        return Launch([sys.executable, "-c", self._source, str(port)])


@pytest.fixture
def records(tmp_path: Path) -> Iterator[ResultFile]:
    with ResultFile(tmp_path / "out" / "records.jsonl") as records:
        yield records


def bench(records: ResultFile, folder: Path, *peers: Peer, seconds: float = 0.05, rounds: int = 2) -> Bench:
    prepared = [Prepared(peer, peer.prepare(folder, refresh=False)) for peer in peers]
    return Bench(prepared, rounds=rounds, seconds=seconds, memory_streams=5, folder=folder, records=records)


def our_service() -> Ours:
    return Ours("ours-fast", "us", "fast", python=sys.executable)


def test_relay_and_service_are_measured_beside_the_engine_in_every_round(
    tmp_path: Path, records: ResultFile, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(bench(records, tmp_path, Relay(), our_service()), TINY, 0.05)
    turns = sorted((run.server, run.round) for run in records.of(Run))
    assert turns == [(name, number) for name in ("direct", "ours-fast", "relay") for number in (0, 1)]
    for run in records.of(Run):
        load = run.load
        assert load.ok == load.requests > 0
        assert load.errors == {}
        assert load.chunks == load.requests * TINY.tokens
        assert (load.transit or {})["n"] == load.chunks
        assert load.server is not None
        assert (load.server.cpu_us_per_chunk or 0) > 0
    assert records.of(Grammar) == [Grammar("relay", ()), Grammar("ours-fast", ())]
    assert records.of(Missing) == []
    shown = capsys.readouterr().out
    assert "× byte relay" in shown
    assert len([line for line in shown.splitlines() if line.startswith("us ")]) == 4


def test_a_peer_that_breaks_the_grammar_is_timed_and_one_that_does_not_start_is_missing(
    tmp_path: Path, records: ResultFile, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Program("broken", "raise SystemExit('the port is not to my liking')")
    compare(bench(records, tmp_path, Program("sloppy", SLOPPY), broken), TINY, 0.05)
    (grammar,) = records.of(Grammar)
    assert grammar.faults[0].startswith("event 0: message.type must be 'message'")
    assert grammar.faults[1].startswith("event 35: the object must have stop_reason, stop_sequence")
    assert {run.server for run in records.of(Run)} == {"direct", "sloppy"}
    why = "saturated: ended with status 1: the port is not to my liking"
    assert records.of(Missing) == [Missing("broken", why)]
    said = capsys.readouterr().out
    assert f"sloppy: BREAKS THE CONTRACT: {grammar.faults[0]}" in said
    assert f"broken: MISSING: {why}" in said


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SLACK_SECONDS", 0.2)
    sleeping = Launch(["sleep", "60"])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        late = pytest.raises(Unavailable, match=r"not ready after 0\.1 s: no output")
        with late, started(sleeping, port, "/", tmp_path / "log", 0.1):
            pytest.fail("started")
        server = Server("silent", "silent", "chat", "scripted", f"http://127.0.0.1:{port}", os.getpid())
        with pytest.raises(Unavailable, match=r"hangs: the load was not over after 0\.3 s"):
            drive(server, TINY.warm_up(), tmp_path, 0.1)


def test_open_streams_are_counted_by_the_engine_and_one_model_is_never_paced(tmp_path: Path) -> None:
    with engine(0.001, tmp_path) as server:  # the second token after a quarter of an hour
        assert probe(server.url, "chat", server.model, 1) == []
        assert probe(server.url, "chat", UNPACED, 500) == []
        assert opened(server) == 0
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            body = orjson.dumps({"stream": True, "max_tokens": 9})
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            assert client.recv(9) == b"HTTP/1.1 "
            assert opened(server) == 1
    assert opened(server) == 0


def test_the_simulated_engine_is_measured_beside_a_raw_application(
    tmp_path: Path, records: ResultFile, capsys: pytest.CaptureFixture[str]
) -> None:
    asgi(bench(records, tmp_path, our_service(), seconds=0.2, rounds=1))
    raw, simulated = records.of(Asgi)
    assert (raw.name, simulated.name) == ("raw", "simulated")
    assert min(raw.cpu_us_per_token, simulated.cpu_us_per_token) > 0
    assert "simulated / raw" in capsys.readouterr().out


def test_streams_that_end_too_soon_are_not_measured(
    tmp_path: Path, records: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([4, 0])
    monkeypatch.setattr(open_streams, "LEVELS", (4,))
    monkeypatch.setattr(open_streams, "_SETTLING_SECONDS", 0.0)
    monkeypatch.setattr(open_streams, "opened", lambda _: next(looks))
    open_streams.streams(bench(records, tmp_path, Relay(), seconds=0.2, rounds=1))
    assert records.of(Missing) == [Missing("relay", "streams, 4 of them: the streams ended before the measurement")]


def test_memory_of_open_streams_is_measured_and_all_streams_succeed(
    tmp_path: Path, records: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_streams, "_TOGETHER_SECONDS", 1.0)
    monkeypatch.setattr(open_streams, "_SAMPLE_SECONDS", 0.1)
    open_streams.memory(bench(records, tmp_path, our_service(), seconds=0.2, rounds=1))
    (weighed,) = records.of(Memory)
    assert (weighed.streams, weighed.errors) == (5, {})


# processes and options

# A process that ends when asked, and its child, which does not.
STUBBORN = """
import os, signal, sys
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(os.open(sys.argv[1], os.O_WRONLY), b"up")
while True:
    signal.pause()
"""


def test_a_process_is_ended_with_all_its_children(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "life")
    launch = Launch([sys.executable, "-c", STUBBORN, str(tmp_path / "life")])
    with running(launch, tmp_path / "log") as process:
        life = os.open(tmp_path / "life", os.O_RDONLY)
        assert os.read(life, 2) == b"up"
    assert process.returncode is not None
    readable, _, _ = select.select([life], [], [], 10)
    assert readable, "the child lives"
    assert os.read(life, 1) == b""  # no process is left that could write
    os.close(life)
    with (
        pytest.raises(Unavailable, match="cannot be started"),
        running(Launch([str(tmp_path / "no")]), tmp_path / "log"),
    ):
        pytest.fail("running")


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_a_peer_that_cannot_be_installed_is_recorded_and_the_exit_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "peers", lambda: [Program("nowhere", ""), Program("unasked", "1")])
    out = tmp_path / "records.jsonl"
    out.write_text("left by another run\n")
    assert command.main(options("--only", "nowhere", "--runs", "asgi,memory", "--out", str(out))) == 1
    missing, environment = (json.loads(line) for line in out.read_text().splitlines())
    assert missing == {"kind": "missing", "server": "nowhere", "why": "could not be installed: no such thing"}
    assert (environment["kind"], environment["cores"]) == ("env", os.cpu_count())
    assert "nowhere: MISSING: could not be installed: no such thing" in capsys.readouterr().out
    assert Env().versions == {}


@pytest.mark.parametrize("word", ["--only=relay,nobody", "--runs=slowly", "--only=", "--rounds=0"])
def test_unknown_names_are_refused(word: str) -> None:
    with pytest.raises(argparse.ArgumentError):
        options(word)
