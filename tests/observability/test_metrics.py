"""What is counted, and the exposition, which is parsed back with prometheus-client."""

import asyncio
import random
import re
import subprocess
import sys
import textwrap
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from itertools import product
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anthro_asgi import Finish, MessagesApp, Usage
from anthro_asgi.observability.logs import RequestRecord
from anthro_asgi.observability.metrics import Metrics, Sample
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.deltas import StopReason
from anthro_asgi.wire.errors import Overloaded
from anthro_asgi.wire.repairs import REPAIRS
from tests.http.test_message_response import PATIENCE, app_of, body
from tests.support.clock import fake_clock

PATHS = (
    "/v1/messages",
    "/messages",
    "/v1/v1/messages",
    "/v1/messages/count_tokens",
    "/messages/count_tokens",
    "/v1/models",
    "/models",
    "/v1/v1/models",
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
)
GAPS = "anthro_asgi_inter_token_latency_seconds"

Samples = dict[str, float]


def told(metrics: Metrics) -> Samples:
    """The samples by name and labels. Fails when a name with its labels occurs twice."""
    text = metrics.exposition()[0].decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            name = sample.name + ("{" + labels + "}" if labels else "")
            assert name not in samples
            samples[name] = sample.value
    return samples


def happened(before: Samples, after: Samples, prefix: str = "anthro_asgi_") -> Samples:
    """The samples that changed, with their differences, without the common prefix of the names."""
    return {
        name.removeprefix("anthro_asgi_"): value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith(prefix) and value != before.get(name, 0.0)
    }


def record(path: str = "/v1/messages", **values: Any) -> RequestRecord:
    made = RequestRecord("POST", path, "req_1")
    for name, value in values.items():
        setattr(made, name, value)
    return made


def counted(**values: Any) -> list[str]:
    """The label sets under which such a request is counted."""
    metrics = Metrics(PATHS)
    metrics.request_began()
    metrics.request_ended(record(**values))
    prefix = "anthro_asgi_requests_total"
    return [name.removeprefix(prefix) for name, value in told(metrics).items() if name.startswith(prefix) and value]


def outcome(route: str, status: str, stop_reason: str = "", stream: str = "") -> str:
    return f'{{route="{route}",status="{status}",stop_reason="{stop_reason}",stream="{stream}"}}'


# requests


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"status": 200, "stream": True, "stop_reason": "end_turn"},
            outcome("/v1/messages", "200", "end_turn", "true"),
        ),
        (
            {"path": "/v1/v1/messages", "status": 200, "stream": False, "stop_reason": "tool_use"},
            outcome("/v1/messages", "200", "tool_use", "false"),
        ),
        (
            {"path": "/messages", "status": 200, "stream": True, "error_type": "api_error"},
            outcome("/v1/messages", "200", "error", "true"),
        ),
        ({"status": 200, "stream": True, "client_left": True}, outcome("/v1/messages", "200", "client_left", "true")),
        ({"client_left": True}, outcome("/v1/messages", "none", "client_left")),
        ({"status": 529, "error_type": "overloaded_error"}, outcome("/v1/messages", "529")),
        ({"status": 299, "stop_reason": "x"}, outcome("/v1/messages", "other")),
        ({"status": 200, "stop_reason": "x", "stream": True}, outcome("/v1/messages", "200", "other", "true")),
        ({"path": "/messages/count_tokens", "status": 200}, outcome("/v1/messages/count_tokens", "200")),
        ({"path": "/v1/v1/models", "status": 401, "error_type": "x"}, outcome("/v1/models", "401")),
        ({"path": "/models/org/name", "status": 404}, outcome("/v1/models/{id}", "404")),
        ({"path": "/v1/modelsx", "status": 404}, outcome("other", "404")),
        ({"path": '/"\n{}', "status": 404}, outcome("other", "404")),
        ({"path": "/readyz", "status": 503}, outcome("/readyz", "503")),
        ({"path": "/", "status": 200}, outcome("/", "200")),
    ],
)
def test_a_request_is_counted_once_with_the_labels_of_its_result(values: Any, expected: str) -> None:
    assert counted(**values) == [expected]


def test_every_possible_result_of_a_request_has_a_place() -> None:
    metrics = Metrics(PATHS)
    strange = ("x", 'a"b', "")
    for path, status, reason, stream, left, error in product(
        (*PATHS, "/v1/models/a/b", *strange),
        (None, 200, 299, 400, 503, 999),
        (None, *get_args(StopReason), *strange),
        (None, True, False),
        (True, False),
        (None, "api_error"),
    ):
        metrics.request_ended(
            record(path, status=status, stop_reason=reason, stream=stream, client_left=left, error_type=error)
        )
    assert set(metrics.request_labels.every()) >= {
        metrics.request_labels.of(record(status=status)) for status in (200, 400, 408, 413, 431, 529, None, 1)
    }


def test_values_from_a_client_create_no_label() -> None:
    metrics = Metrics(PATHS)
    metrics.request_ended(record("/first", status=404, duration=0.1))
    lines = len(told(metrics))
    for number in range(50):
        metrics.request_ended(record(f"/made/up/{number}", status=404, duration=0.1, model=f"m{number}"))
    assert len(told(metrics)) == lines


def test_durations_tokens_and_waits_of_a_request_are_counted() -> None:
    metrics = Metrics(PATHS)
    before = told(metrics)
    tokens: dict[str, Any] = {"input_tokens": 3, "output_tokens": 5, "cached_tokens": 7}
    metrics.request_ended(record(status=200, duration=0.05, ttft=0.5, queued=700.0, **tokens))
    found = happened(before, told(metrics))
    for name, number in tokens.items():
        assert found[f'tokens_total{{kind="{name.removesuffix("_tokens")}"}}'] == number
    route = 'route="/v1/messages"'
    assert found[f"request_duration_seconds_sum{{{route}}}"] == 0.05
    assert f'request_duration_seconds_bucket{{le="0.025",{route}}}' not in found  # a bound is part of its bucket
    assert found[f'request_duration_seconds_bucket{{le="0.05",{route}}}'] == 1
    assert found['time_to_first_token_seconds_bucket{le="0.5"}'] == 1
    assert found['queue_wait_seconds_bucket{le="+Inf"}'] == 1
    assert 'queue_wait_seconds_bucket{le="600.0"}' not in found
    assert found["queue_wait_seconds_count"] == 1
    assert found["queue_wait_seconds_sum"] == 700.0


# what happens


@pytest.mark.parametrize(
    ("what", "kind", "name"),
    [
        ("refused", "queue_full", 'admission_refusals_total{reason="queue_full"}'),
        ("refused", "queue_timeout", 'admission_refusals_total{reason="queue_timeout"}'),
        ("refused", "key", 'admission_refusals_total{reason="key"}'),
        ("refused", "bodies", 'admission_refusals_total{reason="bodies"}'),
        ("refused", "bodies_of_key", 'admission_refusals_total{reason="bodies_of_key"}'),
        ("upstream_error", "connect", 'upstream_errors_total{kind="connect"}'),
        ("upstream_error", "status_5xx", 'upstream_errors_total{kind="status_5xx"}'),
        ("upstream_error", "new", 'upstream_errors_total{kind="other"}'),
        ("ping", "", "pings_total"),
        *(("repair", kind, f'repairs_total{{kind="{kind}"}}') for kind in REPAIRS),
    ],
)
def test_noted_events_are_counted_by_their_kind(what: str, kind: str, name: str) -> None:
    metrics = Metrics(PATHS)
    before = told(metrics)
    metrics.note(what, kind)
    assert happened(before, told(metrics)) == {name: 1.0}


def test_an_unknown_event_is_not_counted() -> None:
    metrics = Metrics(PATHS)
    before = told(metrics)
    metrics.note("surprise", "connect")
    assert happened(before, told(metrics)) == {}


def test_counters_of_rare_events_are_exposed_as_zero_from_the_start() -> None:
    samples = told(Metrics(PATHS))
    for name in ("upstream_errors_total", "repairs_total", "admission_refusals_total", "tokens_total"):
        assert {value for key, value in samples.items() if name in key} == {0.0}


# the time between tokens


def buckets(samples: Samples) -> dict[float, float]:
    """How many were in each bucket of the inter-token latency, by its upper bound."""
    bounds = {float(name.split('"')[1]): value for name, value in samples.items() if name.startswith(f"{GAPS}_bucket")}
    found = sorted(bounds.items())
    return {bound: value - before for (bound, value), (_, before) in zip(found, [(0, 0), *found], strict=False)}


def by_hand(bounds: list[float], gaps: list[float]) -> dict[float, float]:
    expected = dict.fromkeys(bounds, 0.0)
    for gap in gaps:
        expected[bounds[bisect_left(bounds, gap)]] += 1
    return expected


def test_gaps_counted_together_equal_gaps_counted_one_by_one() -> None:
    chance = random.Random(5)
    metrics = Metrics(PATHS)
    bounds = sorted(buckets(told(metrics)))
    marks, now, gaps = [100.0], 100.0, []
    for _ in range(2_000):
        gap = chance.choice([0.0, *bounds[:-1], chance.expovariate(50), chance.expovariate(0.1), 1e-9, 40.0])
        gaps.append(now + gap - now)  # as the clock can tell it
        now += gap
        marks.append(now)
        if chance.random() < 0.1:
            metrics.observe_gaps(marks)
            assert marks == [now]
    metrics.observe_gaps(marks)
    samples = told(metrics)
    assert buckets(samples) == by_hand(bounds, gaps)
    assert samples[f"{GAPS}_count"] == 2_000
    assert samples[f"{GAPS}_sum"] == pytest.approx(sum(gaps))


@pytest.mark.parametrize("marks", [[], [5.0]])
def test_fewer_than_two_writes_have_no_gap(marks: list[float]) -> None:
    metrics = Metrics(PATHS)
    before = told(metrics)
    kept = marks[:]
    metrics.observe_gaps(marks)
    assert marks == kept
    assert happened(before, told(metrics)) == {}


def test_a_clock_reading_before_the_last_one_takes_nothing_from_the_sum() -> None:
    """The native thread reads the clock itself; that of uvloop lags by up to one iteration. A counter must not fall."""
    metrics = Metrics(PATHS)
    marks = [5.0, 5.25, 5.249]
    metrics.observe_gaps(marks[1:])
    samples = told(metrics)
    assert (samples[f"{GAPS}_count"], samples[f"{GAPS}_sum"]) == (1, 0.0)
    metrics.observe_gaps(marks)
    assert marks == [5.249]
    assert told(metrics)[f"{GAPS}_sum"] == pytest.approx(0.249)


@fake_clock
async def test_the_gaps_between_the_writes_of_a_stream_are_observed() -> None:
    steps: list[Any] = ["first"]
    for pause in (0.025, 0.025, 0.3):
        steps += [lambda pause=pause: asyncio.sleep(pause), ["two", "tokens"]]
    app = app_of(*steps, Finish("end_turn"))
    response = await Driver(app, PATIENCE).request("POST", "/v1/messages", body=body(stream=True))
    assert response.status == 200
    samples = told(app.metrics)
    assert {bound: count for bound, count in buckets(samples).items() if count} == {0.03: 2, 0.5: 1}
    assert samples[f"{GAPS}_sum"] == pytest.approx(0.35)


@fake_clock
async def test_a_ping_does_not_split_the_gap_around_it() -> None:
    app = app_of("a", lambda: asyncio.sleep(25), "b", Finish("end_turn"), ping_interval=10)
    await Driver(app, PATIENCE).request("POST", "/v1/messages", body=body(stream=True))
    samples = told(app.metrics)
    assert samples["anthro_asgi_pings_total"] == 2
    assert {bound: count for bound, count in buckets(samples).items() if count} == {30.0: 1}


async def test_the_gaps_of_a_long_stream_are_counted_before_its_end() -> None:
    go_on = asyncio.Event()
    app = app_of(*("token" for _ in range(100)), go_on.wait, Finish("end_turn"))
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        for _ in range(100):
            await exchange.chunk()
        assert 64 < told(app.metrics)[f"{GAPS}_count"] < 99
        go_on.set()
        await exchange.rest()
    assert told(app.metrics)[f"{GAPS}_count"] == 99


# the app


async def test_a_request_is_in_flight_until_its_response_is_complete() -> None:
    go_on = asyncio.Event()
    app = app_of("a", go_on.wait, Finish("end_turn"))
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        await exchange.chunk()
        samples = told(app.metrics)
        assert samples["anthro_asgi_requests_in_flight"] == 1
        assert samples["anthro_asgi_answers_running"] == 1
        go_on.set()
        await exchange.rest()
    samples = told(app.metrics)
    assert samples["anthro_asgi_requests_in_flight"] == 0
    assert samples["anthro_asgi_answers_running"] == 0


async def test_waiting_requests_are_the_queue_depth() -> None:
    go_on = asyncio.Event()
    app = app_of("a", go_on.wait, Finish("end_turn"), max_concurrency=1)
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as first:
        await first.chunk()
        waiting = asyncio.create_task(Driver(app).request("POST", "/v1/messages", body=body()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert told(app.metrics)["anthro_asgi_queue_depth"] == 1
        go_on.set()
        await first.rest()
        assert (await waiting).status == 200
    samples = told(app.metrics)
    assert samples["anthro_asgi_queue_depth"] == 0
    assert samples["anthro_asgi_queue_wait_seconds_count"] == 2


async def test_a_client_that_disconnects_is_counted_with_the_tokens_generated_for_it() -> None:
    app = app_of(Usage(11, None, 5), "a", [Usage(output_tokens=7), "b"], asyncio.Event().wait)
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        await exchange.chunk()
        await exchange.chunk()
        exchange.disconnect()
    samples = told(app.metrics)
    assert samples["anthro_asgi_clients_left_total"] == 1
    assert samples['anthro_asgi_tokens_total{kind="input"}'] == 11
    assert samples['anthro_asgi_tokens_total{kind="cached"}'] == 5
    assert samples['anthro_asgi_tokens_total{kind="output"}'] == 7
    assert samples["anthro_asgi_requests_in_flight"] == 0


async def test_a_refused_request_has_no_tokens() -> None:
    app = app_of(Overloaded("busy"))
    assert (await Driver(app).request("POST", "/v1/messages", body=body())).status == 529
    samples = told(app.metrics)
    assert {value for name, value in samples.items() if name.startswith("anthro_asgi_tokens_total")} == {0.0}
    assert samples["anthro_asgi_time_to_first_token_seconds_count"] == 0


async def test_upstream_connections_are_exposed_by_state() -> None:
    class Connected:
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            yield Finish("end_turn")

        def connections(self) -> dict[str, int]:
            return {"idle": 3, "leased": 2, "unheard of": 9}

    samples = told(MessagesApp(Connected()).metrics)
    prefix = "anthro_asgi_upstream_connections"
    found = {name.removeprefix(prefix): value for name, value in samples.items() if name.startswith(prefix) and value}
    assert found == {'{state="idle"}': 3, '{state="leased"}': 2}


# workers


def test_counters_of_all_workers_are_summed_and_worker_up_is_not() -> None:
    metrics = Metrics(PATHS)
    metrics.share_among(3)
    for worker in (0, 2):
        metrics.count_as(worker)
        metrics.request_began()
        metrics.note("ping", "")
        metrics.observe_gaps([0.0, 0.5])
    samples = told(metrics)
    assert samples["anthro_asgi_pings_total"] == 2
    assert samples["anthro_asgi_requests_in_flight"] == 2
    assert samples[f"{GAPS}_count"] == 2
    assert [samples[f'anthro_asgi_worker_up{{worker="{number}"}}'] for number in range(3)] == [1, 0, 1]


def test_a_dead_worker_is_down_and_its_counters_continue_after_its_restart() -> None:
    metrics = Metrics(PATHS)
    metrics.share_among(2)
    metrics.count_as(1)
    metrics.request_began()
    metrics.note("ping", "")
    metrics.worker_lost(1)
    samples = told(metrics)
    assert samples['anthro_asgi_worker_up{worker="1"}'] == 0
    assert samples["anthro_asgi_requests_in_flight"] == 0
    metrics.count_as(1)
    metrics.note("ping", "")
    samples = told(metrics)
    assert samples['anthro_asgi_worker_up{worker="1"}'] == 1
    assert samples['anthro_asgi_worker_starts_total{worker="1"}'] == 2
    assert samples["anthro_asgi_pings_total"] == 2


@pytest.mark.slow
@fake_clock
async def test_other_workers_see_a_sample_within_a_second() -> None:
    depth = 0
    metrics = Metrics(PATHS)
    metrics.sample = lambda: Sample(depth, 0, False, {})
    metrics.share_among(2)
    metrics.count_as(1)
    metrics.start()
    depth = 5
    await asyncio.sleep(1.1)
    metrics.stop()
    depth = 6
    await asyncio.sleep(5)
    metrics.count_as(0)
    metrics.sample = None
    assert told(metrics)["anthro_asgi_queue_depth"] == 5


@fake_clock
async def test_a_single_worker_takes_no_periodic_samples() -> None:
    metrics = Metrics(PATHS)
    metrics.sample = lambda: pytest.fail("no sample was needed")
    metrics.start()
    await asyncio.sleep(5)
    metrics.stop()


# exposition


def test_every_metric_name_follows_the_conventions() -> None:
    metrics = Metrics(PATHS)
    families = list(text_string_to_metric_families(metrics.exposition()[0].decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert re.fullmatch(r"anthro_asgi(_[a-z]+)+", family.name), family.name
        assert family.documentation
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
    assert {family.type for family in families} == {"gauge", "counter", "histogram"}


def test_build_info_names_the_versions_and_parts() -> None:
    text = Metrics(PATHS).exposition()[0].decode()
    found = re.search(r"^anthro_asgi_build_info\{(.*)\} 1\.0$", text, re.MULTILINE)
    assert found is not None
    told = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (told["http"], told["loop"]) == ("httptools", "uvloop")
    assert told["version"]
    began = re.search(r"^anthro_asgi_start_time_seconds (\S+)$", text, re.MULTILINE)
    assert began is not None
    assert abs(float(began[1]) - time.time()) < 60


WITHOUT = """
import asyncio, sys
sys.modules["prometheus_client"] = None
from anthro_asgi import MessagesApp
from anthro_asgi.testing.driver import Driver

async def engine(request):
    yield "Hello"

async def main():
    driver = Driver(MessagesApp(engine))
    body = b'{"model":"m","max_tokens":1,"stream":true,"messages":[{"role":"user","content":"x"}]}'
    assert (await driver.request("POST", "/v1/messages", body=body)).status == 200
    answer = await driver.request("GET", "/metrics")
    print(answer.status, answer.json()["error"]["message"])

asyncio.run(main())
"""


@pytest.mark.slow
def test_without_the_extra_only_the_metrics_route_fails_and_names_the_extra() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "404 /metrics needs the extra `metrics`: pip install 'anthro-asgi[metrics]'\n"


@pytest.mark.slow
def test_the_metrics_are_loaded_later_when_no_file_can_be_opened_at_the_start() -> None:
    code = """
        import resource
        from anthro_asgi.observability.prometheus import load_exposition, load_exposition_early
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # standard input, output and error are open
        load_exposition_early()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert load_exposition.cache_info().currsize == 0, "otherwise the test proves nothing"
        assert load_exposition() is not None
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
