"""API keys: comparison, secrecy, and replacement while the service runs."""

import ast
import hmac
import inspect
import json
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest

from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.http import auth
from anthro_asgi.http.auth import ApiKeys
from anthro_asgi.http.messages_app import MessagesApp
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import Unauthenticated
from tests.checks.security.engine import RecordingEngine
from tests.end_to_end.conftest import AT_ONCE
from tests.support.client import Answer, RawClient
from tests.support.service import PARSERS, Service

KEYS = ("sk-first", "sk-second", "sk-third")
MOST_COMPARED = 2  # keys of one request: one for each header
PROMPTLY = 1.0  # seconds, on a busy machine


def ask(
    service: Service, *lines: bytes, path: bytes = b"/v1/models", method: bytes = b"GET", body: bytes = b""
) -> Answer:
    head = [method + b" " + path + b" HTTP/1.1", b"host: a", b"connection: close", b"content-length: %d" % len(body)]
    with RawClient(service.url) as client:
        client.send(b"\r\n".join([*head, *lines, b"", body]))
        (answer,) = client.rest()
    return answer


# --- comparison ---


@pytest.mark.clause("2.2")
def test_two_offered_keys_are_compared_with_every_accepted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(hmac.compare_digest(one, other))
        return compared[-1]

    assert vars(auth)["compare_digest"] is hmac.compare_digest
    monkeypatch.setattr(auth, "compare_digest", compare)
    keys = ApiKeys(KEYS)
    offers = [(b"x-api-key", key.encode()) for key in (*KEYS, "sk-wrong")]
    for offered in (offers[:1], offers[2:3], offers[3:], offers):
        compared.clear()
        try:
            keys.authenticate(offered)
        except Unauthenticated:
            assert offered == offers[3:]
        assert len(compared) == min(len(offered), MOST_COMPARED) * len(KEYS)


def test_the_comparison_has_no_early_exit_and_no_other_code_compares_keys() -> None:
    source = ast.parse(textwrap.dedent(inspect.getsource(ApiKeys.authenticate)))
    (loop,) = [
        node for node in ast.walk(source) if isinstance(node, ast.For) and "compare_digest" not in ast.dump(node.iter)
    ][:1]
    # the one exit depends on how many keys were sent, and on none of them
    counted = [node for node in ast.walk(loop) if isinstance(node, ast.If) and "_MAX_KEYS" in ast.dump(node.test)]
    excused = {inner for node in counted for inner in ast.walk(node)}
    inside = [node for node in ast.walk(loop) if node not in excused]
    assert not [node for node in inside if isinstance(node, (ast.Break, ast.Return, ast.Raise))]
    equal = [node for node in inside if isinstance(node, ast.Compare) and "digest" in ast.unparse(node)]
    assert not equal, [ast.unparse(node) for node in equal]


WRONG: dict[str, list[bytes]] = {
    "none": [],
    "an empty one": [b"x-api-key:"],
    "an empty bearer": [b"authorization: Bearer "],
    "a bearer alone": [b"authorization: Bearer"],
    "no bearer": [b"authorization: sk-first"],
    "a basic one": [b"authorization: Basic c2stZmlyc3Q6"],
    "the beginning of one": [b"x-api-key: sk-firs"],
    "more than one": [b"x-api-key: sk-first,sk-second"],
    "all in a list": [b"x-api-key: " + b", ".join(key.encode() for key in KEYS)],
    "another case": [b"x-api-key: SK-FIRST"],
    "in quotes": [b'x-api-key: "sk-first"'],
    "UTF-8": ["x-api-key: sk-\u0455irst".encode()],
    "no UTF-8": [b"x-api-key: \xff\xfe\xfd"],
    "in UTF-16": [b"x-api-key: " + "sk-first".encode("utf-16-le").replace(b"\x00", b"\xa0")],
    "long": [b"x-api-key: " + b"sk-first" * 3500],
    "many": [b"x-api-key: sk-%d" % number for number in range(240)],
    "many in both ways": [b"x-api-key: a", b"authorization: Bearer b"] * 120,
    "a name that is like it": [b"x_api_key: sk-first", b"api-key: sk-first", b"proxy-authorization: Bearer sk-first"],
    "in a cookie": [b"cookie: x-api-key=sk-first"],
    "a digest": [b"x-api-key: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
}


@pytest.fixture(scope="module", params=PARSERS)
def locked(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service("--simulate", *AT_ONCE, ANTHRO_ASGI_API_KEYS=",".join(KEYS), kind=request.param) as service:
        yield service


@pytest.mark.parametrize("lines", WRONG.values(), ids=WRONG)
def test_any_invalid_key_is_a_401_at_once(locked: Service, lines: list[bytes]) -> None:
    begun = perf_counter()
    for method, path in ((b"GET", b"/v1/models"), (b"GET", b"/v1/models/m"), (b"POST", b"/v1/messages")):
        answer = ask(locked, *lines, method=method, path=path)
        assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert perf_counter() - begun < PROMPTLY


@pytest.mark.parametrize("key", KEYS)
def test_a_valid_key_is_accepted_beside_any_number_of_wrong_ones(locked: Service, key: str) -> None:
    right = f"authorization: bearer {key}".encode()
    assert ask(locked, b"x-api-key: unused", right).status == 200
    assert ask(locked, right, b"x-api-key: unused", b"authorization: Bearer unused").status == 200


def test_only_health_metrics_and_probe_routes_need_no_key(locked: Service) -> None:
    for path in (b"/healthz", b"/readyz", b"/metrics", b"/", b"/api/hello"):
        assert ask(locked, path=path).status == 200, path


# --- secrecy ---


def test_no_repr_or_str_shows_a_key() -> None:
    settings = load_settings({}, {"ANTHRO_ASGI_API_KEYS": ",".join(KEYS), "ANTHRO_ASGI_UPSTREAM_KEY": "sk-engine"})
    assert settings.api_keys == KEYS
    origin = Origin.parse("http://127.0.0.1:1")
    chat, messages = OpenAIEngine(origin, key="sk-engine"), MessagesEngine(origin, key="sk-engine")
    engine = AutoEngine(chat, messages)
    app = MessagesApp(engine, keys=KEYS)
    shown = "".join(map(repr, (settings, app, engine, chat, messages, origin, app._keys)))
    shown += str(settings) + "".join(map(str, vars(app).values()))
    assert "sk-" not in shown


# --- replacement ---


def write(path: Path, *keys: str) -> None:
    """Replace the file atomically, as Kubernetes updates a secret."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{key}\n" for key in keys))
    new.replace(path)


def hang_up(service: Service) -> int:
    """Send SIGHUP; returns the number of log lines before that."""
    lines = len(service.lines)
    service.send_signal(signal.SIGHUP)
    return lines


HELLO = json.dumps({"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.mark.parametrize("workers", [1, 2])
def test_keys_are_read_again_on_sighup(tmp_path: Path, workers: int) -> None:
    """The old key is refused and the new one accepted; an open stream continues to its end."""
    clients, engine = tmp_path / "clients", tmp_path / "engine"
    write(clients, "sk-old")
    write(engine, "sk-engine-old")
    files = ("--api-key-file", str(clients), "--upstream-key-file", str(engine), "--workers", str(workers))
    with (
        RecordingEngine() as recorder,
        Service("--upstream", recorder.url, "--upstream-api", "chat", *files) as service,
    ):
        old, new = b"x-api-key: sk-old", b"x-api-key: sk-new"
        assert (ask(service, old).status, ask(service, new).status) == (200, 401)
        write(clients, "sk-new")
        write(engine, "sk-engine-new")
        lines = hang_up(service)
        for _ in range(workers):
            lines = service.event_logged(lines)
        for _ in range(4 * workers):  # reach every worker
            assert (ask(service, old).status, ask(service, new).status) == (401, 200)
            assert ask(service, new, method=b"POST", path=b"/v1/messages", body=HELLO).status == 200
        heads = [request.head.lower() for request in recorder.posts[-4 * workers :]]
        assert all(b"bearer sk-engine-new" in head for head in heads)
        assert not any(b"sk-engine-old" in head for head in heads)
        assert "sk-" not in "\n".join(service.lines)


@pytest.mark.parametrize("content", [None, b"", b"# none\n", b"\xff\xfe\n", b"sk with spaces\n"])
def test_a_key_file_without_a_key_keeps_the_old_keys_and_logs_one_line(tmp_path: Path, content: bytes | None) -> None:
    clients = tmp_path / "clients"
    write(clients, "sk-old")
    with Service("--simulate", *AT_ONCE, "--api-key-file", str(clients), may_log_errors=True) as service:
        assert ask(service, b"x-api-key: sk-old").status == 200
        if content is None:
            clients.unlink()
        else:
            clients.write_bytes(content)
        service.event_logged(hang_up(service))
        assert ask(service, b"x-api-key: sk-old").status == 200
        assert ask(service, b"x-api-key: sk-new").status == 401
    (told,) = [line for line in service.lines if '"event":"log"' in line]
    assert json.loads(told)["level"] in ("warning", "error")
    assert "key" in told
    assert "sk-" not in told
    assert "sk with" not in told
