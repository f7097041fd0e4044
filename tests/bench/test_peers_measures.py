"""The further measurements: what they stand on, and the quick ones whole."""

import socket
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.peers import asgi, memory, streams
from bench.peers.bench import Bench, Prepared
from bench.peers.ours import Ours
from bench.peers.probe import probe
from bench.peers.records import Records
from bench.peers.relay import Relay
from bench.peers.serving import engine
from bench.peers.steady import Gauge, connections
from bench.peers.two_paces import UNPACED


def bench(records: Records, folder: Path, peer: Relay | Ours) -> Bench:
    prepared = Prepared(peer, peer.prepare(folder, refresh=False))
    return Bench([prepared], rounds=1, seconds=0.2, memory_streams=5, folder=folder, records=records)


def test_connections_are_counted_as_their_server_sees_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as clients:
        address = server.getsockname()
        for count in range(4):
            assert connections(address[1]) == count
            clients.enter_context(socket.create_connection(address))
            clients.enter_context(server.accept()[0])
        clients.close()
        assert connections(address[1]) == 0


def test_the_connections_of_an_engine_are_gauged_by_its_descriptors(tmp_path: Path) -> None:
    with engine(0, tmp_path) as server, ExitStack() as clients:
        gauge = Gauge(server)
        for count in range(4):
            assert gauge.open() == count
            client = clients.enter_context(closing(HTTPConnection(urlsplit(server.url).netloc)))
            client.request("GET", "/v1/models")
            assert client.getresponse().read()
    assert gauge.open() == 0


def test_an_engine_of_two_paces_keeps_only_one_of_its_models_waiting(tmp_path: Path) -> None:
    with engine(0.001, tmp_path, "bench.peers.two_paces") as server:  # a token in a quarter of an hour, but the first
        assert probe(server, 1) == []
        assert probe(replace(server, model=UNPACED), 500) == []


def test_the_simulated_engine_is_measured_beside_a_raw_application(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Records(tmp_path / "records.jsonl") as records:
        asgi.asgi(bench(records, tmp_path, Ours("ours-fast", "us", "fast", python=sys.executable)))
    raw, simulated = records.all
    assert (raw["kind"], raw["name"], raw["round"]) == ("asgi", "raw", 0)
    assert (simulated["kind"], simulated["name"], simulated["round"]) == ("asgi", "simulated", 0)
    assert raw["cpu_us_per_token"] > 0
    assert simulated["cpu_us_per_token"] > 0
    assert "simulated / raw" in capsys.readouterr().out


class Ending:
    """A gauge that sees all streams open once, and then none."""

    def __init__(self, *_: object) -> None:
        self._looks = 0

    def open(self) -> int:
        self._looks += 1
        return 4 if self._looks == 1 else 0


def test_streams_that_are_over_too_soon_are_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LEVELS", (4,))
    monkeypatch.setattr(streams, "_SETTLING_SECONDS", 0.0)
    monkeypatch.setattr(streams, "Gauge", Ending)
    with Records(tmp_path / "records.jsonl") as records:
        streams.streams(bench(records, tmp_path, Relay()))
    grammar, missing = records.all
    assert (grammar["kind"], grammar["faults"]) == ("grammar", [])
    assert (missing["kind"], missing["server"]) == ("missing", "relay")
    assert missing["why"] == "streams, 4 of them: the streams ended before the measurement"


def test_an_open_stream_is_weighed_and_all_end_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TOGETHER_SECONDS", 1.0)
    monkeypatch.setattr(memory, "_SAMPLES_SECONDS", 0.1)
    with Records(tmp_path / "records.jsonl") as records:
        memory.memory(bench(records, tmp_path, Ours("ours-fast", "us", "fast", python=sys.executable)))
    (weighed,) = [record for record in records.all if record["kind"] == "memory"]
    assert (weighed["streams"], weighed["errors"]) == (5, {})
