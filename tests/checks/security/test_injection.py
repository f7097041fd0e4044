"""Client input stays in the body of the engine request; engine output stays out of our response heads."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.checks.security.engine import RecordingEngine
from tests.support.client import RawClient
from tests.support.service import PARSERS, Service
from tests.support.upstream import raw_answer

APIS = ("chat", "messages")
EVIL = "x-evil"
WORDS = {
    "CRLF": f"a\r\n{EVIL}: 1",
    "LF": f"a\n{EVIL}: 1",
    "CR": f"a\r{EVIL}: 1",
    "a whole request": f"a\r\n\r\nGET /{EVIL} HTTP/1.1\r\nHost: a\r\n\r\n",
    "the end of a head and of a chunk": f"a\r\n\r\n0\r\n\r\nGET /{EVIL} HTTP/1.1\r\n\r\n",
    "percent-encoded": f"a%0d%0a{EVIL}:%201%0D%0A%0D%0A",
    "NUL": f"a\x00{EVIL}",
    "line ends of Unicode": f"a\u2028{EVIL}: 1\u0085{EVIL}: 1",
    "what ends in the bytes of CR and LF": f"a嘍嘊{EVIL}: 1",
    "half a surrogate pair": f"\ud83d{EVIL}",
    "the way up": f"../../{EVIL}",
    "another host": f"@elsewhere.invalid/{EVIL}",
    "a query": f"m?{EVIL}=1&a=b#{EVIL}",
}


class Relay:
    """A service over a recording engine, and the head of a request for harmless input."""

    def __init__(self, service: Service, recorder: RecordingEngine) -> None:
        self.service = service
        self.recorder = recorder
        self.sound = self.heads_of(post({}))[0]

    def heads_of(self, data: bytes) -> list[bytes]:
        """The heads of the engine requests that a client request caused, without content-length."""
        before = len(self.recorder.posts)
        self.ask(data)
        return [re.sub(rb"(?i)content-length: \d+\r\n", b"", request.head) for request in self.recorder.posts[before:]]

    def ask(self, data: bytes) -> Any:
        with RawClient(self.service.url) as client:
            client.send(data)
            (answer,) = client.rest()
        return answer


@pytest.fixture(scope="module", params=APIS)
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    options = ("--upstream-api", request.param, "--model-alias", "evil-*=m")
    with RecordingEngine() as recorder, Service("--upstream", recorder.url, *options) as service:
        yield Relay(service, recorder)


def post(fields: dict[str, Any], path: str = "/v1/messages", *lines: bytes) -> bytes:
    hello = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    body = json.dumps({**hello, **fields}).encode()
    head = [f"POST {path} HTTP/1.1".encode(), b"host: a", b"connection: close", b"content-length: %d" % len(body)]
    return b"\r\n".join([*head, *lines, b"", body])


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()


def fields(words: str) -> dict[str, dict[str, Any]]:
    """Requests that contain the words, each in another place."""
    use = {"type": "tool_use", "id": words, "name": "look", "input": {words: words}}
    result = {"type": "tool_result", "tool_use_id": words, "content": words}
    tool = {"name": words, "description": words, "input_schema": {"type": "object", "properties": {words: {}}}}
    turns = [{"role": "user", "content": words}, {"role": "assistant", "content": [use]}]
    return {
        "the model": {"model": words},
        "an alias": {"model": f"evil-{words}"},
        "the user": {"metadata": {"user_id": words}},
        "a call": {"messages": [*turns, {"role": "user", "content": [result]}]},
        "a tool": {"tools": [tool]},
        "the choice of a tool": {"tools": [{**tool, "name": "look"}], "tool_choice": {"type": "tool", "name": words}},
        "a stop sequence": {"stop_sequences": [words]},
        "the system prompt": {"system": words},
        "a tier": {"service_tier": words},
        "a container": {"container": words, "thread": {"type": "create", "id": words}},
        "an option nobody knows": {words: words},
    }


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_no_text_of_a_client_body_enters_the_head_of_an_engine_request(relay: Relay, words: str) -> None:
    """Byte for byte: the engine requests differ only in their bodies."""
    for place, said in fields(words).items():
        for stream in (False, True):
            assert relay.heads_of(post({**said, "stream": stream})) in ([relay.sound], []), place
        counted = relay.heads_of(post(said, "/v1/messages/count_tokens"))
        assert EVIL.encode() not in b"".join(counted), place
    assert relay.heads_of(post({})) == [relay.sound]


HEADERS = [
    *(b"anthropic-beta: a\tx-evil", b"anthropic-version: x-evil 1", b"user-agent: x-evil", b"cookie: x-evil=1"),
    *(b"authorization: Bearer x-evil", b"x-api-key: x-evil", b"x-evil: 1", b"x-forwarded-for: x-evil"),
    *(b"x-forwarded-host: x-evil", b"forwarded: for=x-evil", b"x-request-id: x-evil", b"request-id: x-evil"),
    *(b"accept: x-evil", b"accept-encoding: x-evil", b"te: x-evil", b"trailer: x-evil", b"connection: x-evil"),
    *(b"content-type: x-evil", b"range: x-evil", b"if-none-match: x-evil", b"expect: x-evil", b"upgrade: x-evil"),
    *(b"keep-alive: x-evil", b"proxy-connection: x-evil", b"proxy-authorization: x-evil", b"origin: x-evil"),
    *(b"traceparent: x-evil", b"traceparent: 00-x-evil-00", b"tracestate: x-evil=1", b"baggage: x-evil=1"),
    b"traceparent: 00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-01\tx-evil: 1",
    b"traceparent: 00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-\xff\xfex-evil",
    b"traceparent: 00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-01\r\ntracestate: a=\xe5\x98\x8a\xe5\x98\x8dx-evil",
    b"traceparent: 00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-01\r\ntracestate: a=" + b"x-evil" * 5000,
]


@pytest.mark.parametrize("line", HEADERS, ids=lambda line: line[:60].decode("latin-1"))
def test_no_header_of_a_client_is_sent_to_the_engine(relay: Relay, line: bytes) -> None:
    """Except the two trace headers and, for a Messages server, the two about the version, if they are valid."""
    for head in relay.heads_of(post({}, "/v1/messages", line)):
        assert EVIL.encode() not in head
        trace = rb"(?i)traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\r\n"
        assert re.sub(trace, b"", head) == re.sub(trace, b"", relay.sound)


@pytest.mark.parametrize(
    "words", ["x-evil", "%0d%0ax-evil:%201", "..%2f..%2fx-evil", "%00x-evil", "%ff%fex-evil", "x?x-evil"]
)
def test_no_path_or_query_of_a_client_is_sent_to_the_engine(relay: Relay, words: str) -> None:
    before = len(relay.recorder.requests)
    for path in (f"/v1/models/{words}", f"/v1/models?after_id={words}&{words}", f"/v1/messages/{words}", f"/{words}"):
        assert relay.ask(get(path)).status in (200, 400, 404, 405)
    for head in relay.heads_of(post({}, f"/v1/messages?{words}")):
        assert head == relay.sound
    asked = [request.head.partition(b"\r\n")[0] for request in relay.recorder.requests[before:]]
    assert not [line for line in asked if b"evil" in line.lower()]


# --- from the engine to the client ---

ODD = {
    "control": b"1\x01",
    "DEL": b"1\x7f",
    "not ASCII": b"1\xff\xfe",
    "UTF-8 of CR and LF": "嘊嘍x-evil: 1".encode(),
    "tab": b"1\tx-evil: 1",
    "long": b"1" * 5000,
    "empty": b"",
}


@pytest.fixture(scope="module", params=PARSERS)
def answering(request: pytest.FixtureRequest) -> Iterator[Relay]:
    with (
        RecordingEngine() as recorder,
        Service("--upstream", recorder.url, "--upstream-api", "chat", kind=request.param) as service,
    ):
        yield Relay(service, recorder)


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("status", [429, 503, 400])
def test_an_odd_header_of_the_engine_neither_breaks_nor_enters_a_response(
    answering: Relay, status: int, value: bytes
) -> None:
    names = ("retry-after", "retry-after-ms", "x-should-retry", "request-id", "server", "set-cookie", "x-evil")
    odd = [(name, value.decode("latin-1")) for name in names]
    answering.recorder.answer = raw_answer(status, [("content-length", "2"), *odd], b"{}")
    answer = answering.ask(post({}))
    assert answer.status in ({503: 529}.get(status, status), 502)  # not HTTP for a strict parser
    assert answer.headers["request-id"] == answer.json["request_id"]
    assert re.fullmatch(rb"[\r\n -~]+", answer.head), answer.head
    assert b"evil" not in answer.head
    assert len(answer.head) < 1000


def test_a_valid_retry_after_of_the_engine_is_passed_on(answering: Relay) -> None:
    advice = [("retry-after", "Fri, 31 Dec 2027 23:59:59 GMT"), ("retry-after-ms", "1500"), ("x-should-retry", "false")]
    answering.recorder.answer = raw_answer(429, [("content-length", "2"), *advice], b"{}")
    answer = answering.ask(post({}))
    assert dict(advice).items() <= answer.headers.items()
