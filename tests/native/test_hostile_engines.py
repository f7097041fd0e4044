"""Engines that send something unusual: clients, log and metrics get the same with the native path as without it."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.native.hostile_engines import SCRIPTS, play
from tests.replay.golden import masked
from tests.support.client import ask, get
from tests.support.service import Service
from tests.support.upstream import ThreadedUpstream

pytestmark = pytest.mark.slow
MODES = ("on", "loop", "off")
OPTIONS = ("--upstream-api", "chat", "--dialect", "vllm", "--ping-interval", "300ms", "--silence-deadline", "1500ms")
PING = re.compile(rb"event: ping\ndata: [^\n]*\n\n")
DIFFERS = {"time", "request_id", "queued", "ttft", "duration"}  # fields of the log that hold an id or a time
COUNTERS = (
    *("tokens_total", "repairs_total", "upstream_errors_total", "requests_total", "clients_left_total"),
    *("internal_errors_total", "answers_running", 'upstream_connections{state="leased"}'),
)
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]


@dataclass(frozen=True)
class Outcome:
    """What a service made of all scripts.

    `bodies` are without ids; without pings, whose number depends on the time; and without `message_start`, whose counts
    depend on what the kernel delivered with the first token.
    """

    native: str
    bodies: dict[str, bytes]
    pings: dict[str, int]
    log: dict[str, dict[str, Any]]
    counters: list[str]


def _played(service: Service) -> Outcome:
    def one(name: str) -> bytes:
        return masked(ask(service.url, model=name, stream=True, max_tokens=100_000, tools=TOOLS).body)

    with ThreadPoolExecutor(16) as pool:
        bodies = dict(zip(SCRIPTS, pool.map(one, SCRIPTS), strict=True))
    log = {}
    for name in SCRIPTS:
        line = service.logged(event="request", model=name)
        log[name] = {key: value for key, value in line.items() if key not in DIFFERS}
    lines = get(service.url, "/metrics").body.decode().splitlines()
    counters = [line for line in lines if line.startswith(tuple(f"anthro_asgi_{name}" for name in COUNTERS))]
    return Outcome(
        native=service.logged(event="started")["native"],
        bodies={name: PING.sub(b"", body.partition(b"\n\n")[2]) for name, body in bodies.items()},
        pings={name: len(PING.findall(body)) for name, body in bodies.items()},
        log=log,
        counters=counters,
    )


@pytest.fixture(scope="module", name="outcomes")
def fixture_outcomes() -> Iterator[dict[str, Outcome]]:
    with ThreadedUpstream(play) as upstream, ExitStack() as stack:
        services = [
            stack.enter_context(Service("--upstream", f"{upstream.url}/v1", *OPTIONS, "--native", mode))
            for mode in MODES
        ]
        yield {mode: _played(service) for mode, service in zip(MODES, services, strict=True)}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("mode", ["on", "loop"])
def test_a_client_gets_the_same_and_the_log_says_the_same(mode: str, name: str, outcomes: dict[str, Outcome]) -> None:
    native, pure = outcomes[mode], outcomes["off"]
    assert (native.native, pure.native) == ({"on": "yes"}.get(mode, mode), "no")
    assert native.bodies[name] == pure.bodies[name]
    assert native.log[name] == pure.log[name]
    if "pause" in name:
        assert native.pings[name] > 0
        assert pure.pings[name] > 0


@pytest.mark.parametrize("mode", ["on", "loop"])
def test_the_counters_are_the_same(mode: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[mode].counters == outcomes["off"].counters
    assert 'anthro_asgi_upstream_connections{state="leased"} 0.0' in outcomes[mode].counters
