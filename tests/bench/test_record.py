"""Recording a server's answers as a trace: the content of events, and failures."""

import argparse
import ssl
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

from anthro_asgi.bench import record
from anthro_asgi.bench.record import of_chat, of_messages
from anthro_asgi.simulator import read_trace
from bench.process import serving
from tests.support.upstream import ThreadedUpstream, framed, json_answer

MESSAGES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"type": "message_start", "message": {}}, []),
    ({"type": "ping"}, []),
    ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, []),
    ({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}}, [("call", "f")]),
    ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, [("text", "a")]),
    ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "b"}}, [("thinking", "b")]),
    ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "c"}}, [("json", "c")]),
    ({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "s"}}, []),
    ({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, [("stop", "max_tokens")]),
    ({"type": "message_stop"}, []),
]


@pytest.mark.parametrize(("event", "said"), MESSAGES)
def test_the_content_of_messages_events(event: dict[str, Any], said: list[tuple[str, str]]) -> None:
    assert list(of_messages(event)) == said


def test_the_content_of_chat_chunks() -> None:
    call = {"index": 0, "id": "x", "function": {"name": "f", "arguments": "{}"}}
    delta = {"reasoning": "a", "content": "b", "tool_calls": [call]}
    chunk = {"choices": [{"delta": delta, "finish_reason": "tool_calls"}]}
    said = [pair for pair in of_chat(chunk) if pair[1]]
    assert said == [("thinking", "a"), ("text", "b"), ("call", "f"), ("json", "{}"), ("stop", "tool_use")]
    assert list(of_chat({"choices": [], "usage": {}})) == []


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    record.add_arguments(parser)
    return record.main(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("fail", "words"), [("429=1", "status 429"), ("error=1", "an error in the stream"), ("cut=1", "")]
)
def test_a_failed_answer_ends_the_recording_with_a_reason(
    fail: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("serve", "--port", "0", "--simulate-ttft", "0", "--simulate-itl", "0", "--simulate-fail", fail)
    with serving((sys.executable, "-m", "anthro_asgi", *command)) as (url, _):
        assert run(url, "--out", str(tmp_path / "trace")) == 1
    said = capsys.readouterr().err
    assert said.startswith("anthro-asgi bench record: ")
    assert words in said


def test_bodies_from_a_file_are_stored_with_the_answers(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello?"}]}
    bodies.write_bytes(orjson.dumps(asked) + b"\n\n" + orjson.dumps({**asked, "max_tokens": 7}))
    out = tmp_path / "trace"
    command = ("serve", "--port", "0", "--simulate-ttft", "0", "--simulate-itl", "0")
    with serving((sys.executable, "-m", "anthro_asgi", *command)) as (url, _):
        assert run(url, "--bodies", str(bodies), "--out", str(out)) == 0
    lines = out.read_bytes().splitlines()
    assert [len(answer.parts) for answer in read_trace(lines)] == [5, 7]
    assert orjson.loads(lines[1])["request"] == {**asked, "max_tokens": 7, "stream": True}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("http://192.0.2.1",), "192.0.2.1 is not on this machine; --allow-remote"),
        (("http://127.0.0.1:9", "--bodies", "x", "--requests", "3"), "--requests has no effect with --bodies"),
        (
            ("http://127.0.0.1:9", "--bodies", "x", "--prompt-tokens", "3"),
            "--prompt-tokens has no effect with --bodies",
        ),
        (("http://127.0.0.1:9", "--bodies", "x", "--seed", "3"), "--seed has no effect with --bodies"),
        (("http://127.0.0.1:9", "--bodies", "/nowhere"), "cannot read /nowhere: no such file or directory"),
        (("http://127.0.0.1:9", "--out", "/nowhere/trace"), "cannot write /nowhere/trace: no such file or directory"),
    ],
)
def test_invalid_options_are_refused(
    arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(f"anthro-asgi bench record: {reason}")


def test_invalid_options_leave_an_earlier_trace(tmp_path: Path) -> None:
    out = tmp_path / "trace"
    out.write_text("earlier")
    assert run("http://127.0.0.1:9", "--bodies", str(tmp_path / "absent"), "--out", str(out)) == 2
    assert run("ftp://127.0.0.1", "--out", str(out)) == 2
    assert out.read_text() == "earlier"


def test_an_earlier_trace_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "trace"
    out.write_text("earlier")
    assert run("http://127.0.0.1:9", "--out", str(out)) == 2
    assert f"{out} has a trace already: name another file" in capsys.readouterr().err
    assert out.read_text() == "earlier"


def test_a_server_behind_a_unix_socket_is_recorded(tmp_path: Path) -> None:
    out, path = tmp_path / "trace", tmp_path / "s"
    command = ("serve", "--uds", str(path), "--simulate-ttft", "0", "--simulate-itl", "0")
    with serving((sys.executable, "-m", "anthro_asgi", *command)):
        assert run(f"unix:{path}", "--requests", "2", "--out", str(out)) == 0
    assert len(read_trace(out.read_bytes().splitlines())) == 2


@pytest.mark.parametrize(("api", "name"), [("messages", "x-api-key"), ("chat", "authorization")])
def test_the_key_is_sent_as_the_api_has_it(api: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadedUpstream(json_answer(401, {"error": {"message": "no"}})) as server:
        assert run(server.url, "--api", api, "--key", "sk-1", "--requests", "1") == 1
        headers = dict(server.requests[0].headers)
    assert headers[name].endswith("sk-1")
    assert ("anthropic-version" in headers) is (api == "messages")
    assert "status 401" in capsys.readouterr().err


@pytest.mark.parametrize(
    "event", [b"data: no JSON\n\n", b"data: []\n\n", b'data: {"type": "content_block_start", "index": 0}\n\n']
)
def test_an_event_that_is_not_one_of_the_api_ends_the_recording(
    event: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadedUpstream(framed(200, [("content-type", "text/event-stream")], [event], "length")) as server:
        assert run(server.url, "--requests", "1") == 1
    assert "an event that is not one of the API: " in capsys.readouterr().err


def test_a_server_that_is_not_there_or_has_an_untrusted_certificate_ends_the_recording_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"unix:{tmp_path}/absent") == 1
    assert f"cannot connect to unix:{tmp_path}/absent: no such file or directory" in capsys.readouterr().err
    assert run("http://absent.invalid") == 1
    assert "absent.invalid cannot be resolved: " in capsys.readouterr().err
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadedUpstream(json_answer(401, {}), ssl=context) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        assert run(url) == 1
        assert "its certificate is not trusted: " in capsys.readouterr().err
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert run(url) == 1
        assert "status 401" in capsys.readouterr().err, "the certificate is for the name, not for an address"
