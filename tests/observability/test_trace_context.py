"""W3C trace context: valid headers reach the engine unchanged, invalid headers are ignored."""

from typing import Any

import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.observability.trace_context import parse_trace_headers
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin
from tests.http.test_message_response import app_of, body
from tests.support.upstream import ScriptedUpstream, sse

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{ID}-00f067aa0ba902b7-01"


def headers_of(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


def state_of(*states: str) -> str | None:
    """What becomes of a tracestate, in one header or several. The trace itself never suffers from it."""
    trace = parse_trace_headers(headers_of(("traceparent", PARENT), *(("tracestate", state) for state in states)))
    assert trace.trace_id == ID
    passed = dict(trace.headers)
    assert passed.pop("traceparent") == PARENT
    return passed.get("tracestate")


@pytest.mark.parametrize(
    "parent",
    [
        PARENT,
        f"00-{ID}-00f067aa0ba902b7-00",
        f"00-{ID}-00f067aa0ba902b7-ff",
        f"cc-{ID}-00f067aa0ba902b7-01",
        f"cc-{ID}-00f067aa0ba902b7-01-what-the-future-will-be-like",
    ],
)
@pytest.mark.parametrize("around", ["{}", " {}", "\t {} \t"])
def test_a_valid_traceparent_is_forwarded_unchanged(parent: str, around: str) -> None:
    trace = parse_trace_headers(headers_of(("traceparent", around.format(parent))))
    assert trace.trace_id == ID
    assert trace.headers == (("traceparent", parent),)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        ID,
        PARENT[:-1],
        PARENT + "0",
        PARENT + ".",
        PARENT + "-",
        PARENT + "-what-the-future-will-be-like",
        PARENT.upper(),
        f"ff-{ID}-00f067aa0ba902b7-01",
        f".0-{ID}-00f067aa0ba902b7-01",
        f"000-{ID}-00f067aa0ba902b7-01",
        f"0-{ID}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID[:-1]}.-00f067aa0ba902b7-01",
        f"00-{ID}1-00f067aa0ba902b7-01",
        f"00-{ID[:-1]}-00f067aa0ba902b7-01",
        f"00-{ID}-00f067aa0ba902b-01",
        f"00-{ID}-00f067aa0ba902b7a-01",
        f"00-{ID}-00f067aa0ba902b7-0.",
        f"00-{ID}-00f067aa0ba902b7-1",
        f"00_{ID}_00f067aa0ba902b7_01",
        f"cc-{ID}-00f067aa0ba902b7-01.what-the-future-will-be-like",
        f"cc-{ID}-00f067aa0ba902b7-01-\r\nx-evil: 1",
        f"cc-{ID}-00f067aa0ba902b7-01-caf\xe9",
        f"cc-{ID}-00f067aa0ba902b7-01-{'x' * 100_000}",
        PARENT + "\n",
        "\uff10".encode().decode("latin-1") + PARENT[1:],
    ],
    ids=lambda parent: parent[:70],
)
def test_an_invalid_traceparent_is_ignored_with_its_tracestate(parent: str) -> None:
    trace = parse_trace_headers(headers_of(("traceparent", parent), ("tracestate", "foo=1")))
    assert (trace.trace_id, trace.headers) == (None, ())


def test_two_traceparent_headers_are_ignored() -> None:
    assert parse_trace_headers(headers_of(("traceparent", PARENT), ("traceparent", PARENT))).trace_id is None


def test_a_tracestate_without_a_traceparent_is_ignored() -> None:
    assert parse_trace_headers(headers_of(("tracestate", "foo=1"))).headers == ()


CHARACTERS = "".join(map(chr, [*range(0x20, 0x2C), *range(0x2D, 0x3D), *range(0x3E, 0x7F)]))


@pytest.mark.parametrize(
    ("states", "passed"),
    [
        (["foo=1,bar=2"], "foo=1,bar=2"),
        (["foo=1,bar=2", "rojo=1", "baz=3"], "foo=1,bar=2,rojo=1,baz=3"),
        (["", "foo=1", " "], "foo=1"),
        (["foo=1 \t , \t bar=2,, \t baz=3\t"], "foo=1,bar=2,baz=3"),
        ([f"az09_-*/={CHARACTERS}"], f"az09_-*/={CHARACTERS}"),
        (["0tenant_-*/@sys_-*/=1"], "0tenant_-*/@sys_-*/=1"),
        (["z" * 256 + "=1"], "z" * 256 + "=1"),
        (["t" * 241 + "@" + "v" * 14 + "=1"], "t" * 241 + "@" + "v" * 14 + "=1"),
        (["a=" + "x" * 256], "a=" + "x" * 256),
        ([",".join(f"k{number}=1" for number in range(32))], ",".join(f"k{number}=1" for number in range(32))),
    ],
    ids=repr,
)
def test_a_valid_tracestate_is_forwarded_in_one_header(states: list[str], passed: str) -> None:
    assert state_of(*states) == passed


@pytest.mark.parametrize(
    "states",
    [
        [""],
        [" , ,"],
        ["foo"],
        ["foo=1,foo=1"],
        ["foo=1", "foo=2"],
        ["foo =1"],
        ["FOO=1"],
        ["foo.bar=1"],
        ["0foo=1"],
        ["foo@=1,bar=2"],
        ["@foo=1,bar=2"],
        ["foo@@bar=1,bar=2"],
        ["foo@bar@baz=1,bar=2"],
        ["foo=1", "z" * 257 + "=1"],
        ["foo=1", "t" * 242 + "@v=1"],
        ["foo=1", "t@" + "v" * 15 + "=1"],
        ["foo=bar=baz"],
        ["foo=,bar=3"],
        ["a=" + "x" * 257],
        ["foo=caf\xe9"],
        ["foo=1\r\nx-evil: 1"],
        ["foo=1\x00"],
        [",".join(f"k{number}=1" for number in range(33))],
    ],
    ids=repr,
)
def test_an_invalid_tracestate_is_omitted(states: list[str]) -> None:
    assert state_of(*states) is None


def test_a_long_tracestate_loses_its_long_members_first_and_then_its_last() -> None:
    short = [f"s{number}=" + "x" * 60 for number in range(8)]
    assert state_of(",".join([short[0], "long=" + "y" * 200, *short[1:]])) == ",".join(short)
    many = [f"s{number:02}=" + "x" * 60 for number in range(20)]
    passed = state_of(",".join(many))
    assert passed is not None
    assert len(passed) <= 512
    assert passed == ",".join(many[: len(passed.split(","))])
    assert len(passed) + len(many[0]) + 1 > 512


# through the service

CHUNK = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("stream", [True, False])
async def test_the_trace_is_forwarded_to_the_engine_and_named_in_the_log(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    seen: list[dict[str, str]] = []

    async def answer(wire: Any) -> None:
        seen.append(wire.headers)
        await wire.send(sse(CHUNK))

    async with ScriptedUpstream(answer) as upstream:
        engine = OpenAIEngine(Origin.parse(f"{upstream.url}/v1"), dialect="openai")
        how = {
            "body": body(stream=stream),
            "headers": [("TraceParent", PARENT), ("tracestate", "a=1"), ("x-other", "1")],
        }
        response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", **how)
        await engine.stop()
    assert response.status == 200
    assert {name: value for name, value in seen[-1].items() if "trace" in name or "other" in name} == {
        "traceparent": PARENT,
        "tracestate": "a=1",
    }
    assert f"trace_id={ID}" in caplog.messages[-1]


async def test_a_request_without_a_trace_starts_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    response = await Driver(app_of("a", Finish("end_turn"))).request("POST", "/v1/messages", body=body())
    assert response.status == 200
    assert "trace_id" not in caplog.messages[-1]
