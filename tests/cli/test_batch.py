"""`anthro-asgi batch`: submit, status and results, against the service as a process."""

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from anthro_asgi.cli.batch import bar
from tests.support.service import AT_ONCE, Service

LINES = [
    {
        "custom_id": f"r{at}",
        "params": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    }
    for at in range(12)
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    store = tmp_path_factory.mktemp("batches") / "batches.db"
    with Service("--simulate", *AT_ONCE, "--batch-store", str(store), ANTHRO_ASGI_API_KEYS="sk-cli") as one:
        yield one


def command(service: Service, action: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "anthro_asgi", "batch", action, "--url", service.url, *words]


ENVIRON = {**os.environ, "ANTHROPIC_API_KEY": "sk-cli"}


def run(service: Service, action: str, *words: str, text: str = "", status: int = 0) -> str:
    done = subprocess.run(
        command(service, action, *words), input=text, env=ENVIRON, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def test_a_batch_is_submitted_watched_and_read(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "batch.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)) + "\n\n")
    identity = run(service, "submit", str(file), "--wait").strip()
    batch = json.loads(run(service, "status", identity))
    assert (batch["processing_status"], batch["request_counts"]["succeeded"]) == ("ended", 12)
    assert identity in [json.loads(line)["id"] for line in run(service, "status").splitlines()]
    results = [json.loads(line) for line in run(service, "results", identity).splitlines()]
    assert [result["custom_id"] for result in results] == [line["custom_id"] for line in LINES]


def test_waiting_needs_a_batch(service: Service) -> None:
    assert "--wait has no effect without the ID of a batch" in run(service, "status", "--wait", status=2)


def test_what_did_not_succeed_is_counted(service: Service) -> None:
    wrong = {**LINES[0], "custom_id": "wrong", "params": {"model": "m", "max_tokens": 9, "messages": []}}
    words = command(service, "submit", "-", "--wait")
    text = "\n".join(map(json.dumps, [LINES[0], wrong]))
    done = subprocess.run(words, input=text, env=ENVIRON, capture_output=True, text=True, check=False)
    identity = done.stdout.strip()
    shown = f"`anthro-asgi batch results {identity} --url {service.url}` prints the reasons"
    assert (done.returncode, done.stderr) == (1, f"of 2 requests, 1 errored: {shown}\n")


@pytest.mark.parametrize("line", ["{", "5", "[]", '{"a":1}, {"b":2}', "\udcff"])
def test_a_line_that_is_no_json_object_is_named(line: str, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "batch.jsonl"
    file.write_bytes(b"\n" + json.dumps(LINES[0]).encode() + b"\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    said = run(service, "submit", str(file), status=1)
    assert said == f"anthro-asgi: error: {file}, line 3: is not a JSON object\n"


def test_a_key_may_be_a_token_and_a_wrong_one_points_to_the_variable(service: Service) -> None:
    words = command(service, "status")
    clean = {name: value for name, value in ENVIRON.items() if not name.startswith("ANTHROPIC_")}
    for given, status in (({"ANTHROPIC_AUTH_TOKEN": "sk-cli"}, 0), ({"ANTHROPIC_API_KEY": "sk-no"}, 1), ({}, 1)):
        done = subprocess.run(words, env={**clean, **given}, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert done.stderr.endswith(
            "the key is read from the variable ANTHROPIC_API_KEY, else from ANTHROPIC_AUTH_TOKEN\n" * status
        )


def test_errors_are_one_line(service: Service) -> None:
    lines = json.dumps(LINES[0]) + "\n\n" + json.dumps({"custom_id": "no params"})
    said = run(service, "submit", "-", text=lines, status=1)
    assert said.startswith("anthro-asgi: error: the server answered 400: requests.1.custom_id: must have 1 to 64 ")
    assert said.endswith(" (standard input, line 3)\n")
    assert said.count("\n") == 1
    assert "the server answered 404: " in run(service, "results", "msgbatch_none", status=1)
    assert "No such file" in run(service, "submit", "absent.jsonl", status=1)


def test_a_server_that_is_not_there_and_a_file_that_is_not_there_are_named(service: Service, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = run(service, "status", "--url", f"http://{address}", status=1)
    assert said == f"anthro-asgi: error: cannot connect to {address}: Connection refused\n"
    for url in ("http://127.0.0.1:99999", "http://[::1", "ftp://127.0.0.1", "nowhere"):
        assert run(service, "status", "--url", url, status=1).endswith(f"--url: {url!r} is not a URL of a server\n")
    absent = tmp_path / "absent"
    assert run(service, "submit", str(absent), status=1) == f"anthro-asgi: error: {absent}: No such file or directory\n"


def test_a_refusal_is_read_although_the_body_was_not_sent_completely() -> None:
    def refuse() -> None:
        client, _ = server.accept()
        with client:
            client.recv(100)
            content = b'{"type":"error","error":{"type":"api_error","message":"no more"}}'
            client.sendall(b"HTTP/1.1 503 a\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=refuse)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        words = [sys.executable, "-m", "anthro_asgi", "batch", "submit", "--url", url, "-"]
        text = json.dumps({"custom_id": "a", "params": {"model": "m" * 20_000_000}})
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
        thread.join()
    assert (done.returncode, done.stderr) == (1, "anthro-asgi: error: the server answered 503: no more\n")


def test_a_terminal_shows_a_bar(service: Service) -> None:
    parent, child = pty.openpty()
    words = command(service, "submit", "-", "--wait")
    done = subprocess.run(
        words, input=json.dumps(LINES[0]).encode(), env=ENVIRON, stdout=subprocess.DEVNULL, stderr=child, check=True
    )
    os.close(child)
    shown = os.read(parent, 4096).decode()
    os.close(parent)
    assert done.returncode == 0
    assert f"{bar(1, 1)} ended" in shown


def test_the_bar_is_as_long_as_what_is_done() -> None:
    assert bar(0, 4) == f"[{'.' * 30}] 0/4"
    assert bar(2, 4) == f"[{'#' * 15}{'.' * 15}] 2/4"
    assert bar(4, 4) == f"[{'#' * 30}] 4/4"
