"""Each event is one log line, whatever text it contains: no forged lines, no terminal control sequences."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.checks.security.engine import RecordingEngine
from tests.end_to_end.conftest import AT_ONCE
from tests.support.client import RawClient
from tests.support.service import PARSERS, Service
from tests.support.upstream import json_answer

FORGED = '{"time":"2026-01-01T00:00:00.000Z","level":"info","event":"request","path":"/forged"}'
WORDS = {
    "LF": f"a\n{FORGED}",
    "CR": f"a\r{FORGED}",
    "CRLF": f"a\r\n{FORGED}\r\n",
    "vertical tab and form feed": f"a\x0b{FORGED}\x0c{FORGED}",
    "line ends of Unicode": f"a\u0085{FORGED}\u2028{FORGED}\u2029{FORGED}\x1c\x1d\x1e",
    "a terminal's": "a\x1b[2J\x1b[31m\x1b]0;title\x07\x1b]8;;http://a\x1b\\\x9b31m",
    "from right to left": "a\u202eb\u2066c\u200b\ufeff\U000e0041",
    "NUL and DEL": "a\x00b\x7f",
    "backspaces": "a" + "\x08" * 100 + "forged",
    "a quote": 'a" status=200 path="/forged',
    "a backslash": 'a\\" status=200 path=/forged \\',
    "an equals sign": "a status=200",
    "half a surrogate pair": "a\ud800b",
    "long": "a" * 100_000,
}
LONGEST_LINE = 6000  # characters


@pytest.fixture(
    scope="module", params=[(parser, style) for parser in PARSERS for style in ("json", "text")], ids="-".join
)
def logged(request: pytest.FixtureRequest) -> Iterator[tuple[Service, RecordingEngine]]:
    parser, style = request.param
    options = ("--log-format", style, "--log-level", "debug", "--upstream-api", "chat", "--model-alias", "b=a")
    with (
        RecordingEngine() as recorder,
        Service("--upstream", recorder.url, *options, kind=parser, may_log_errors=True) as service,
    ):
        lines_of(service, get(b"/healthz"))  # together with the lines of the start
        yield service, recorder


def lines_of(service: Service, data: bytes) -> list[str]:
    """The log lines of a request, up to its own line."""
    before = len(service.lines)
    with RawClient(service.url) as client:
        client.send(data)
        client.everything()
    service.wait_for_lines(
        lambda lines: any("event=request" in line or '"event":"request"' in line for line in lines[before:])
    )
    return service.lines[before:]


def post(body: object, *lines: bytes) -> bytes:
    data = json.dumps(body).encode()
    head = [b"POST /v1/messages HTTP/1.1", b"host: a", b"connection: close", b"content-length: %d" % len(data), *lines]
    return b"\r\n".join([*head, b"", data])


def get(target: bytes) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"host: a", b"connection: close", b"", b""])


PAIR = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)')


def values_of(line: str) -> dict[str, str]:
    """The fields of a line, parsed strictly: no name may appear twice."""
    if line.startswith("{"):
        value: dict[str, str] = json.loads(line)
        return value
    head = re.match(r"\S+ [A-Z]+ *(?= )", line)
    assert head, line
    pairs = PAIR.findall(line, head.end())
    assert "".join(f" {name}={value}" for name, value in pairs) == line[head.end() :], "it is more than its pairs"
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def check(lines: list[str], expected: int) -> None:
    # at level debug, the engine's own words have a line of their own
    assert len([line for line in lines if "upstream_error_message" not in line]) == expected, lines
    for line in lines:
        assert line.isprintable(), ascii(line)
        assert len(line) < LONGEST_LINE
        values = values_of(line)
        assert values.get("path") in (None, "/v1/messages", "/v1/models") or str(values["status"]) != "200"
        assert values.get("path") != "/forged"


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_no_model_name_or_path_of_a_client_breaks_a_log_line(
    logged: tuple[Service, RecordingEngine], words: str
) -> None:
    service, recorder = logged
    hello = {"max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    recorder.answer = json_answer(404, {"error": {"message": "no such model"}})
    # of the engine, of the model, of the request; a name that is too long does not reach the engine
    check(lines_of(service, post({**hello, "model": words})), 3 if len(words) <= 4096 else 1)
    check(lines_of(service, post({**hello, "model": words[:4000]})), 3)
    check(lines_of(service, post({**hello, "model": "a", "messages": [{"role": words, "content": words}]})), 1)
    encoded = "".join(f"%{byte:02x}" for byte in words[:3000].encode("utf-8", "surrogatepass"))
    for path in (f"/{encoded}", f"/v1/models/{encoded}", f"/v1/models?after_id={encoded}"):
        check(lines_of(service, get(path.encode())), 1)


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_no_text_of_an_engine_breaks_a_log_line(logged: tuple[Service, RecordingEngine], words: str) -> None:
    service, recorder = logged
    hello = {"model": "a", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    for status in (400, 401, 500):
        recorder.answer = json_answer(status, {"error": {"message": words, "code": words, "type": words}})
        check(lines_of(service, post(hello)), 2)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\x1b[31m HTTP/1.1\r\n\r\n",
        b"\x1b]0;title\x07\r\n\r\n",
        b"G\x1b[2JT / HTTP/1.1\r\n\r\n",
        get(b"/\xe2\x80\xae"),
        b"GET / HTTP/1.1\r\nhost: a\x1b[31m\r\n\r\n",
    ],
)
def test_bytes_that_are_not_a_request_make_at_most_one_log_line(
    logged: tuple[Service, RecordingEngine], data: bytes
) -> None:
    check(lines_of(logged[0], data), 1)


def test_the_name_of_a_dropped_tool_is_logged_without_control_characters() -> None:
    tools = [{"name": "look"}, {"type": "web_fetch_20250910", "name": f"a\x1b[31m\n{FORGED}"}]
    body = {"model": "a", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}], "tools": tools}
    with Service("--simulate", *AT_ONCE, "--server-tools", "drop", may_log_errors=True) as service:
        lines_of(service, get(b"/v1/models"))  # together with the lines of the start
        lines = lines_of(service, post(body))
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 2
