"""Bytes that two HTTP parsers could read as different requests.

If a proxy in front of the service reads a body where the service reads the next request, clients get each other's
answers. So an ambiguous request is refused, and the connection is closed: nothing after it is read as a request.
"""

from collections.abc import Iterator
from time import monotonic

import pytest

from tests.checks.security.wording import ANSWERED, EARLY, KEY, LAST, REFUSED, SMUGGLED, chunked, get
from tests.end_to_end.conftest import AT_ONCE
from tests.support.client import Answer, RawClient
from tests.support.service import PARSERS, Service


@pytest.fixture(scope="module", params=PARSERS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    options = ("--simulate", *AT_ONCE, "--max-body", "64KiB", "--receive-deadline", "8s")
    with Service(*options, ANTHRO_ASGI_API_KEYS=KEY.decode(), kind=request.param) as service:
        yield service
    assert not [line for line in service.log if line.get("path") == "/smuggled"], "it was taken for a request"


def answers(service: Service, *data: bytes) -> list[Answer]:
    """All responses on one connection until the service closes it."""
    with RawClient(service.url) as client:
        for piece in data:
            client.send(piece)
        return client.rest()


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers if answer.status >= 200]


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused_and_ends_the_connection(service: Service, name: str) -> None:
    (answer,) = answers(service, REFUSED[name] + SMUGGLED)
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.headers["request-id"] == answer.json["request_id"]


@pytest.mark.parametrize("name", ANSWERED)
def test_an_unambiguous_request_is_answered_once(service: Service, name: str) -> None:
    asked, expected = ANSWERED[name]
    assert statuses(answers(service, asked + LAST)) == [*expected, 200]


@pytest.mark.parametrize("name", EARLY)
def test_the_rest_of_a_refused_body_is_not_read_as_a_request(service: Service, name: str) -> None:
    asked, expected = EARLY[name]
    assert statuses(answers(service, asked + LAST)) in ([expected, 200], [expected])


@pytest.mark.parametrize("name", [name for name in EARLY if name != "too large, in chunks"])
def test_a_refused_expectation_ends_the_connection(service: Service, name: str) -> None:
    """The client asks for 100 Continue and is refused. Its next bytes may be the body or another request."""
    asked, expected = EARLY[name]
    begun = monotonic()
    with RawClient(service.url) as client:
        client.send(asked[: asked.index(b"\r\n\r\n") + 2] + b"Expect: 100-continue\r\n\r\n")
        assert statuses(client.rest()) == [expected]
        assert monotonic() - begun < 4, "it waits for the body"
        client.send(SMUGGLED)
        assert client.everything() == b""


@pytest.mark.parametrize(
    "ending",
    [get(b"Connection: close"), get(line=b"GET /healthz HTTP/1.0"), get(b"Connection: keep-alive, close")],
)
def test_nothing_is_read_after_the_last_request(service: Service, ending: bytes) -> None:
    assert statuses(answers(service, ending + SMUGGLED)) == [200]


def test_a_tunnel_is_not_opened(service: Service) -> None:
    (answer,) = answers(service, get(line=b"CONNECT service:443 HTTP/1.1") + SMUGGLED)
    assert answer.status in (400, 405)


@pytest.mark.parametrize("method", [b"get", b"SMUGGLE", b"QUERY", b"PROPFIND"])
def test_an_unknown_method_ends_the_connection(service: Service, method: bytes) -> None:
    (answer,) = answers(service, get(line=method + b" /healthz HTTP/1.1") + SMUGGLED)
    assert answer.status in (400, 405)


@pytest.mark.parametrize("parser", PARSERS)
def test_a_chunk_of_any_size_must_arrive_before_the_deadline(parser: str) -> None:
    with Service(
        "--simulate", "--receive-deadline", "200ms", ANTHRO_ASGI_API_KEYS=KEY.decode(), kind=parser
    ) as service:
        for size in (b"7ffffffffffffff", b"ffffffffffffffff"):
            (answer,) = answers(service, chunked(size + b"\r\n" + SMUGGLED))
            assert answer.status in (400, 408, 413)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get(b"X-A: " + b"b" * 100_000), 431),
        (get(*[b"X-%d: b" % number for number in range(10_000)]), 431),
        (get(line=b"GET /" + b"a" * 100_000 + b" HTTP/1.1"), 431),
        (chunked(b"1;" + b"a" * 100_000 + b"\r\n"), 431),
        (chunked(b"0\r\n" + b"X-A: b\r\n" * 20_000), 431),
    ],
    ids=["a field", "fields", "a target", "an extension", "trailers"],
)
def test_heads_chunk_extensions_and_trailers_have_a_limit(service: Service, request_: bytes, expected: int) -> None:
    (answer,) = answers(service, request_)
    assert (answer.status, answer.headers["connection"]) == (expected, "close")
