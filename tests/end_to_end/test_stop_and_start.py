"""The service and its engine stop and start at different times."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from tests.end_to_end.conftest import Endless
from tests.end_to_end.test_leaving import BOUND, ENDLESS, busy
from tests.end_to_end.test_real_engine import THINK, TOOLS
from tests.support.client import ask, ask_both_ways, connect, get, post
from tests.support.llama.model import ANSWER, ARGUMENT
from tests.support.llama.server import LlamaServer
from tests.support.service import Service, until

SPOKEN = [{"type": "text", "text": ANSWER}]
NAMES = {"type": "array", "minItems": 400, "maxItems": 400, "items": {"type": "string"}}
LONG: dict[str, Any] = {
    "max_tokens": 10_000,
    "output_config": {
        "format": {"type": "json_schema", "schema": {"type": "object", "properties": {"x": NAMES}, "required": ["x"]}}
    },
}


# --- the service stops ---


def test_a_stream_open_at_the_signal_is_completed(endless: Endless) -> None:
    with Service("--upstream", endless.llama.url) as service, closing(connect(service.url)) as connection:
        post(connection, **LONG, stream=True)
        response = connection.getresponse()
        begun = response.readline()
        service.send_signal()
        message = message_from_events(parse_events(begun + response.read()))
        assert message["content"][0]["text"].count(ARGUMENT) == 400
        assert message["stop_reason"] == "end_turn"
        assert service.ended() == 0
        assert service.logged(event="request")["status"] == 200


def test_a_whole_answer_begun_before_the_signal_is_completed(endless: Endless) -> None:
    with Service("--upstream", endless.llama.url) as service, closing(connect(service.url)) as connection:
        endless.llama.until_idle(BOUND)
        post(connection, **LONG)
        busy(endless)
        service.send_signal()
        response = connection.getresponse()
        assert response.status == 200
        assert response.read().count(ARGUMENT.encode()) == 400
        assert service.ended() == 0


def test_an_answer_that_exceeds_the_drain_timeout_is_aborted_at_the_engine(endless: Endless) -> None:
    cut = ("--drain-timeout", "100ms")
    with Service("--upstream", endless.llama.url, *cut) as service, closing(connect(service.url)) as connection:
        post(connection, **ENDLESS, stream=True)
        connection.getresponse().readline()
        begun = time.monotonic()
        service.send_signal()
        assert service.ended(excused="drain timeout") == 0
        assert time.monotonic() - begun <= 0.1 + 2 * BOUND
        endless.llama.until_idle(BOUND)


# --- the engine stops and starts ---


def test_an_engine_that_stops_and_starts_is_found_again_each_time(tmp_path: Path) -> None:
    engine = tmp_path / "engine.sock"
    with Service("--upstream", f"unix:{engine}") as service:
        assert_without_engine(service)
        assert get(service.url, "/v1/models").status == 529
        with LlamaServer(uds=engine):
            assert_with_engine(service)
        assert_without_engine(service)
        assert len(get(service.url, "/v1/models").json["data"]) == 1, "the last known list"
        with LlamaServer(uds=engine):
            assert_with_engine(service)


def assert_without_engine(service: Service) -> None:
    assert get(service.url, "/healthz").status == 200
    until(lambda: get(service.url, "/readyz").status == 503)
    for stream in (False, True):
        answer = ask(service.url, stream=stream)
        assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")
        assert int(answer.headers["retry-after"]) >= 1


def assert_with_engine(service: Service) -> None:
    """The first request after the engine's start is answered, in the engine's dialect."""
    thought, *spoken = ask_both_ways(service.url, thinking=THINK)["content"]
    assert (thought["type"], spoken) == ("thinking", SPOKEN)
    call = ask(service.url, tools=TOOLS, tool_choice={"type": "tool", "name": "get_weather"}).json["content"][-1]
    assert call["name"] == "get_weather"
    until(lambda: get(service.url, "/readyz").status == 200)
    assert len(get(service.url, "/v1/models").json["data"]) == 1


def test_an_engine_that_dies_during_a_stream_gives_an_error_event() -> None:
    with LlamaServer(ctx=32768, parallel=1) as llama, Service("--upstream", llama.url) as service:
        with closing(connect(service.url)) as connection:
            post(connection, **ENDLESS, stream=True)
            response = connection.getresponse()
            begun = response.readline()
            llama.stop()
            events = parse_events(begun + response.read())
        check_stream(events)
        assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "api_error")
        assert service.logged(event="request")["error_type"] == "api_error"
        assert ask(service.url).status == 529


def test_an_engine_that_dies_during_a_whole_answer_gives_an_error() -> None:
    with (
        LlamaServer(ctx=32768, parallel=1) as llama,
        Service("--upstream", llama.url) as service,
        closing(connect(service.url)) as connection,
    ):
        before = llama.metrics()["n_decode_total"]
        post(connection, **ENDLESS)
        busy(Endless(service, llama))
        while (
            llama.metrics()["n_decode_total"] < before + 5
        ):  # the answer has begun; before that, the request would be sent again
            pass
        llama.stop()
        response = connection.getresponse()
        assert response.status == 502
        assert b'"api_error"' in response.read()
