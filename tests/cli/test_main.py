"""The command as an operator runs it: a process, its output, its exit status, real sockets."""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

from anthro_asgi.cli import check
from anthro_asgi.cli.main import main
from anthro_asgi.engines.openai import dialects
from anthro_asgi.factory import build_upstream_engine
from anthro_asgi.settings import options
from anthro_asgi.settings.loader import load_settings
from tests.support.service import Service as SimulatedService

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(options.PREFIX)} | {
    "PYTHONPATH": str(ROOT)
}
COMMAND = [sys.executable, "-W", "error", "-m", "anthro_asgi"]
PATIENCE = 20  # seconds until a process that hangs fails its test
ASKED = {"model": "m", "max_tokens": 10_000, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


class Service:
    """A running `serve`. `address` is the address that it printed."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    def connection(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if self.address.startswith("unix:"):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(self.address.removeprefix("unix:"))
            return connection
        host, _, port = self.address.rpartition("://")[2].rpartition(":")
        host = host.strip("[]")
        if context is not None:
            return http.client.HTTPSConnection(host, int(port), timeout=PATIENCE, context=context)
        return http.client.HTTPConnection(host, int(port), timeout=PATIENCE)

    def get(self, path: str, headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None) -> int:
        with contextlib.closing(self.connection(context)) as connection:
            connection.request("GET", path, headers=headers or {})
            return connection.getresponse().status

    @contextlib.contextmanager
    def stream(self) -> Iterator[http.client.HTTPResponse]:
        """A streamed response whose first line has arrived."""
        with contextlib.closing(self.connection()) as connection:
            connection.request("POST", "/v1/messages", json.dumps(ASKED), {"content-type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200
            assert response.readline() == b"event: message_start\n"
            yield response

    def end(self, number: int | None = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit status, the rest of stdout, stderr."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextlib.contextmanager
def process(*arguments: str, cwd: Path = ROOT, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=ENVIRONMENT | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def service(*arguments: str, cwd: Path = ROOT, **environ: str) -> Iterator[Service]:
    where = () if "--uds" in arguments else ("--port", "0")
    with process("serve", *where, *arguments, cwd=cwd, **environ) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("listening on "), running.communicate(timeout=PATIENCE)
        yield Service(running, line.removeprefix("listening on ").rstrip("\n"))


def refusal(status: int, *arguments: str, cwd: Path = ROOT, **environ: str) -> str:
    """The one line on stderr of a command that cannot run."""
    with process(*arguments, cwd=cwd, **environ) as running:
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (status, "")
    assert err.startswith("anthro-asgi: error: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("anthro-asgi: error: ").rstrip("\n")


# --- the command line ---


@pytest.mark.parametrize(
    "arguments",
    [["completion", "bash"], ["conformance", "--list"], ["serve", "--help-all"], ["bench", "load", "--help"]],
    ids=" ".join,
)
def test_a_reader_that_has_enough_ends_the_command_quietly(arguments: list[str]) -> None:
    """As `anthro-asgi completion bash | head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(writer)
    # argparse itself ignores that the reader of a help text has left
    assert (done.returncode, done.stderr) == (0 if arguments[-1].startswith("--help") else 141, b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [],
            "name one of serve|check|health|simulate-openai|conformance|batch|bench|completion; --help describes them",
        ),
        (
            ["sevre"],
            "'sevre' is not one of serve|check|health|simulate-openai|conformance|batch|bench|completion; "
            "did you mean serve?",
        ),
        (["zzz"], "'zzz' is not one of serve|check|health|simulate-openai|conformance|batch|bench|completion\n"),
        (["--port", "1", "serve"], "name a command before '--port': one of serve|check|health|simulate-openai|"),
        (["--port=1"], "name a command before '--port': one of serve|check|health|simulate-openai|"),
        (["serve", "--bogus"], "serve: unknown option '--bogus'\n"),
        (["serve", "my_engine.py"], "serve: unexpected argument 'my_engine.py'; did you mean --engine my_engine:NAME?"),
        (["serve", "--web-search", "ftp://x"], "--web-search: 'ftp://x' is not http://…, https://… or module:function"),
        (["completion"], "name one of bash|zsh|fish"),
        (["serve", "--simulate=x"], "--simulate: takes no value"),
        (["serve", "--host", " "], "--host: is empty; give it a value, or remove it"),
        (["serve", "--prot", "1"], "serve: unknown option '--prot'; did you mean --port?"),
        (["serve", "--hos", "x"], "serve: unknown option '--hos'; did you mean --host?"),
        (["serve", "stray"], "serve: unexpected argument 'stray'"),
        (["serve", "my.gguf"], "serve: unexpected argument 'my.gguf'; did you mean --model my.gguf?"),
        (["serve", "my.engines:one"], "did you mean --engine my.engines:one?"),
        (["serve", "http://u:sk-secret@x:1/v1"], "serve: unexpected address; name an engine's address with --upstream"),
        (["serve", "localhost:8000"], "serve: unexpected address; name an engine's address with --upstream URL"),
        (["check", "unix:/a.sock"], "check: unexpected address; name an engine's address with --upstream URL"),
        (["check", "my.gguf"], "check: unexpected argument 'my.gguf'"),
        (["serve", "--upstream", "http://x", "--simulate-ttft", "1s"], "--simulate-ttft has no effect with --upstream"),
        (["serve", "--upstream-ca", "ca.pem"], "has no effect with the simulator, which answers because no engine is"),
        (["serve", "--simulate", "--upstream-ca", "ca.pem"], "--upstream-ca has no effect with the simulator; remove"),
        (["serve", "--max-concurrency-per-key", "5"], "has no effect without API keys (ANTHRO_ASGI_API_KEYS or --api-"),
        (
            ["check", "--upstream", "https://x", "--upstream-api", "messages", "--dialect", "vllm"],
            "--dialect has no effect with --upstream-api messages; remove it",
        ),
        (["serve", "--ping-interval", "10"], "--ping-interval: '10' has no unit; write for example 10s or 10ms"),
        (
            ["serve", "--api-keys=sk-secret"],
            "serve: --api-keys can only be set as the environment variable ANTHRO_ASGI_API_KEYS; did you mean --api-",
        ),
        (["serve", "--try-model", "m"], "serve: unknown option '--try-model'"),
        (["check", "--port", "1"], "check: unknown option '--port'"),
        (["serve", "--port"], "--port: needs a value"),
        (["serve", "--port", "-1"], "--port: '-1' is not a whole number"),
        (["serve", "--simulate", "--upstream", "http://x"], "--simulate and --upstream cannot be used together"),
        (["serve", "--upstream", "http://u:sk-secret@x"], "user and password are not supported"),
        (["serve", "--upstream", "ftp://u:sk-secret@x"], "--upstream: must be http://…"),
        (["serve", "--engine", "no.such:thing"], "engine 'no.such:thing': No module named 'no'"),
        (["serve", "--engine", "json:nothing"], "engine 'json:nothing': json has no nothing"),
        (["serve", "--engine", "json:dumps"], "engine 'json:dumps': "),
        (["serve", "--host", "0.0.0.0"], "other machines can connect to 0.0.0.0, but no API key is configured"),
        (["serve", "--simulate-fail", "cut=0.6", "--simulate-fail", "429=0.6"], "add up to more than 1"),
        (["simulate-openai", "--simulate-fail", "cut=0.6", "--simulate-fail", "cut=0.1"], "each once"),
        (["simulate-openai", "--upstream", "http://x"], "simulate-openai: unknown option '--upstream'"),
        (
            ["simulate-openai", "--host", "0.0.0.0"],
            "other machines can connect to 0.0.0.0, but no API key is configured",
        ),
        (["serve", "--cors-origin", "*"], "every web page can connect because of --cors-origin '*', but no API key is"),
        (["check"], "check needs an upstream: name it with --upstream URL"),
        (["check", "--upstream", "http://x:99999"], "the port must be 1 to 65535"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", ENVIRONMENT)
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("anthro-asgi: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert "sk-secret" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "load", "http://x", "--concurency", "3"], "'--concurency'; did you mean --concurrency?"),
        (["bench", "load", "http://x", "--concurency=3"], "'--concurency'; did you mean --concurrency?"),
        (["bench", "report", "a.jsonl", "--htlm", "b"], "'--htlm'; did you mean --html?"),
        (["batch", "status", "--ulr", "http://x"], "'--ulr'; did you mean --url?"),
        (["conformance", "http://x", "--profil2", "server"], "'--profil2'; did you mean --profile?"),
        (["conformance", "http://x", "--zzz"], "unknown option '--zzz'\n"),
        (["conformance", "http://x", "y"], "unrecognized arguments: y"),
    ],
)
def test_a_misspelt_option_of_every_command_is_named_with_the_most_similar_one(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_wrong_value_ends_the_process_with_status_2(tmp_path: Path) -> None:
    assert refusal(2, "serve", "--port", "x") == "--port: 'x' is not a whole number"
    assert refusal(2, "serve", ANTHRO_ASGI_PORT="x") == "ANTHRO_ASGI_PORT: 'x' is not a whole number"
    file = tmp_path / "a.toml"
    file.write_text("port = 'x'")
    assert refusal(2, "serve", "--config", str(file)) == f"{file}: port: 'x' is not a whole number"


@pytest.mark.parametrize("command", ["serve", "check", "simulate-openai"])
def test_help_all_names_every_option_and_every_secret_variable(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = help_of(capsys, command, "--help-all")
    for option in options.OPTIONS:
        name = option.variable if option.secret else f"--{option.name} "
        assert (name in shown.replace("\n", " ")) is (command in option.commands), option.name


@pytest.mark.parametrize("arguments", [[], ["serve"], ["bench"], ["batch"]])
def test_the_word_help_is_the_same_as_the_option(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(capsys, "help", *arguments) == help_of(capsys, *arguments, "--help")


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["serve", "check", "health", "simulate-openai"])
def test_help_names_the_common_options_and_how_to_see_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, command, "--help").replace("\n", " ")
    ours = [option for option in options.OPTIONS if command in option.commands and "line" in option.channels]
    for option in ours:
        assert (f"--{option.name} " in shown) is option.common, option.name
    assert (f"--help-all            show all {len(ours)} options" in shown) is any(not one.common for one in ours)
    assert "see below" not in shown


def test_the_help_of_serve_fits_on_three_screens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_of(capsys, "serve", "--help")
    assert shown.count("\n") < 90
    assert max(map(len, shown.splitlines())) <= 90


@pytest.mark.parametrize("command", ["serve", "health", "simulate-openai"])
def test_windows_gets_one_sentence_that_says_what_works(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main([command]) == 2
    assert capsys.readouterr().err == (
        f"anthro-asgi: error: {command} needs Linux or macOS; on Windows, use WSL, or serve with plain uvicorn: "
        "uvicorn --factory anthro_asgi:create_app\n"
    )


WITHOUT_POSIX = """
import asyncio, os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "uvloop"):
    sys.modules[name] = None
for name in ("fork", "register_at_fork", "setpgid", "geteuid"):
    delattr(os, name)
for name in ("SIGHUP", "SIGCHLD", "SIGALRM", "setitimer", "pthread_sigmask"):
    delattr(signal, name)
from anthro_asgi import create_app
from anthro_asgi.testing.driver import Driver

async def main():
    driver = Driver(create_app())
    async with driver.lifespan():
        body = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}'
        print((await driver.request("POST", "/v1/messages", body=body)).status)

asyncio.run(main())
"""


@pytest.mark.parametrize("engine", [{}, {"ANTHRO_ASGI_UPSTREAM": "http://127.0.0.1:1"}], ids=["simulator", "upstream"])
def test_the_application_needs_no_posix_functions(engine: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX],
        cwd=ROOT,
        env=ENVIRONMENT | {"ANTHRO_ASGI_NO_AUTH": "1"} | engine,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.stdout == ("529\n" if engine else "200\n"), done.stderr


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("anthro-asgi")


def test_a_wrong_option_is_reported_before_a_server_is_imported() -> None:
    program = (
        "import sys; from anthro_asgi.cli.main import main; main(['serve', '--port', 'x']); "
        "print(*sys.modules, sep=chr(10))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert "anthro_asgi.cli.main" in done.stdout.split()
    assert not {"uvicorn", "uvloop", "anthro_asgi.simulator", "anthro_asgi.upstream"} & set(done.stdout.split())


def test_the_start_imports_nothing_that_only_later_requests_or_other_commands_need() -> None:
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("listening on ")
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=PATIENCE)
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "anthro_asgi.http.messages_app" in imported
    parser = "h11" if find_spec("httptools") is None else "httptools"
    assert {name for name in imported if name.startswith("uvicorn.protocols.http.")} == {
        "uvicorn.protocols.http.flow_control",
        f"uvicorn.protocols.http.{parser}_impl",
    }
    later = {
        "anthro_asgi.batches.sql_store",
        "anthro_asgi.conformance",
        "anthro_asgi.engines.messages",
        "anthro_asgi.engines.openai.engine",
        "anthro_asgi.http.openapi",
        "anthro_asgi.simulator.chat_app",
        "anthro_asgi.upstream",
        "importlib.metadata",
        "importlib.resources",
        "opentelemetry",
        "pypdfium2",
    }
    assert later & imported == set()


def test_every_dialect_is_a_value_of_the_option() -> None:
    assert set(options.DIALECTS) == {"auto", *dialects.DIALECTS}


# --- listening ---


def test_the_address_is_printed_when_the_server_accepts_connections() -> None:
    with service() as running:
        assert running.address.startswith("http://127.0.0.1:")
        assert running.get("/healthz") == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_with_status_0(number: int) -> None:
    with service() as running:
        running.get("/healthz")
        assert running.end(number)[:2] == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_without_requests_logs_started_draining_and_stopped(number: int) -> None:
    with service() as running:
        status, more, log = running.end(number)
    assert (status, more) == (0, "")
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["started", "draining", "stopped"]


def test_localhost_listens_on_every_address_of_that_name() -> None:
    addresses = {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with service("--host", "localhost") as running:
        port = int(running.address.rpartition(":")[2])
        reached = 0
        for address in addresses:
            with contextlib.suppress(OSError), socket.create_connection((address, port), PATIENCE):
                reached += 1
    assert reached >= 1
    assert reached == len(addresses) or not _has_ipv6()


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_printed_in_brackets() -> None:
    with service("--host", "::1") as running:
        assert running.address.startswith("http://[::1]:")
        assert running.get("/healthz") == 200


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = refusal(1, "serve", "--port", str(port))
    assert words == f"cannot listen on 127.0.0.1 port {port}: Address already in use"


def test_an_invalid_host_name_is_one_line() -> None:
    assert "cannot listen on a..b port 8484: " in refusal(1, "serve", "--host", "a..b", "--no-auth")


def test_an_https_address_is_printed_and_served(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    both = str(tmp_path / "both.pem")
    with service("--tls-cert", both, "--tls-key", both) as running:
        assert running.address.startswith("https://127.0.0.1:")
        assert running.get("/healthz", context=context) == 200
        assert running.end()[0] == 0


def test_each_unreadable_file_is_one_line(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    words = f"cannot read {gone}: No such file or directory"
    assert refusal(1, "serve", "--tls-cert", gone, "--tls-key", gone) == f"--tls-cert: {words}"
    assert refusal(1, "serve", "--config", gone) == f"--config: {words}"
    key_words = f"cannot read the key file {gone}: No such file or directory"
    assert refusal(1, "serve", "--api-key-file", gone) == key_words
    upstream = ("--upstream", "https://127.0.0.1:1")
    assert refusal(1, "serve", "--port", "0", *upstream, "--upstream-key-file", gone) == key_words
    assert refusal(1, "serve", "--port", "0", *upstream, "--upstream-ca", gone) == f"--upstream-ca: {words}"
    assert refusal(1, "serve", "--port", "0", *upstream, "--tokenizer", gone) == f"--tokenizer: {words}"


def test_an_invalid_tokenizer_file_is_one_line(tmp_path: Path) -> None:
    junk = tmp_path / "tokenizer.json"
    junk.write_text("{}")
    words = refusal(1, "serve", "--port", "0", "--upstream", "http://127.0.0.1:1", "--tokenizer", str(junk))
    assert words.startswith(f"--tokenizer: {junk} is not a valid tokenizer.json: ")


def test_a_certificate_without_its_key_is_one_line(tmp_path: Path) -> None:
    authority = trustme.CA()
    ours, theirs = (authority.issue_cert("127.0.0.1") for _ in range(2))
    cert, key, junk, locked = (tmp_path / name for name in ("cert", "key", "junk", "locked"))
    ours.cert_chain_pems[0].write_to_path(cert)
    theirs.private_key_pem.write_to_path(key)
    junk.write_text("no PEM")
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    for other in (key, junk, locked):
        words = refusal(1, "serve", "--tls-cert", str(cert), "--tls-key", str(other))
        assert words.startswith(f"{cert} and {other} are not a PEM certificate and its unencrypted key: ")


def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with service("--uds", str(path)) as running:
        assert running.address == f"unix:{path}"
        assert running.get("/healthz") == 200
        assert running.end()[0] == 0
    assert not path.exists()


def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with service("--uds", str(path)) as running:
        assert running.get("/healthz") == 200


def test_the_socket_of_a_running_server_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with service("--uds", str(path)) as running:
        assert refusal(1, "serve", "--uds", str(path)) == f"cannot listen on {path}: another server is listening there"
        assert running.get("/healthz") == 200


def test_a_file_that_is_not_a_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert refusal(1, "serve", "--uds", str(path)) == f"cannot listen on {path}: the file exists and is not a socket"
    assert path.read_text() == "data"


def test_a_socket_that_another_server_has_replaced_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with service("--uds", str(path)) as running, socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(tmp_path / "b.sock"))
        os.rename(tmp_path / "b.sock", path)
        assert running.end()[0] == 0
        assert path.exists()


def test_an_impossible_socket_path_is_one_line(tmp_path: Path) -> None:
    assert "No such file" in refusal(1, "serve", "--uds", str(tmp_path / "no" / "a.sock"))
    assert "path too long" in refusal(1, "serve", "--uds", str(tmp_path / ("x" * 200)))


# --- serving ---


def test_an_option_without_effect_in_the_environment_is_a_warning() -> None:
    with service("--simulate", ANTHRO_ASGI_UPSTREAM_KEY="sk-secret") as running:
        _, _, err = running.end()
    (warning,) = [line for line in map(json.loads, err.splitlines()) if line["level"] == "warning"]
    del warning["time"]
    assert warning == {
        "level": "warning",
        "event": "option_without_effect",
        "option": "ANTHRO_ASGI_UPSTREAM_KEY",
        "reason": "with the simulator",
    }


def test_an_option_without_the_option_that_it_needs_is_a_warning_in_the_environment() -> None:
    with service("--simulate", ANTHRO_ASGI_BATCH_LEASE="5s", ANTHRO_ASGI_MAX_CONCURRENCY_PER_KEY="5") as running:
        _, _, err = running.end()
    warnings = [line for line in map(json.loads, err.splitlines()) if line["level"] == "warning"]
    assert sorted((line["event"], line["option"], line["reason"]) for line in warnings) == [
        ("option_without_effect", "ANTHRO_ASGI_BATCH_LEASE", "without --batch-store"),
        (
            "option_without_effect",
            "ANTHRO_ASGI_MAX_CONCURRENCY_PER_KEY",
            "without API keys (ANTHRO_ASGI_API_KEYS or --api-key-file)",
        ),
    ]


def test_an_option_that_another_one_makes_useless_is_a_warning_on_the_command_line() -> None:
    with service(
        "--simulate", "--batch-lease", "5s", "--simulate-text", "echo", "--simulate-output-tokens", "7"
    ) as running:
        _, _, err = running.end()
    warnings = [line for line in map(json.loads, err.splitlines()) if line["level"] == "warning"]
    assert [(line["event"], line["option"], line["reason"]) for line in warnings] == [
        ("option_without_effect", "--batch-lease", "without --batch-store"),
        ("option_without_effect", "--simulate-output-tokens", "with --simulate-text echo"),
    ]


def test_keys_from_the_environment_are_required_and_never_logged() -> None:
    with service("--log-level", "debug", ANTHRO_ASGI_API_KEYS="sk-right,sk-other") as running:
        assert running.get("/v1/models") == 401
        assert running.get("/v1/models", {"x-api-key": "sk-wrong"}) == 401
        assert running.get("/v1/models", {"x-api-key": "sk-right"}) == 200
        assert running.get("/v1/models", {"authorization": "Bearer sk-other"}) == 200
        status, out, err = running.end()
    assert (status, out) == (0, "")
    assert "sk-" not in err


def test_keys_from_a_file_are_required(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-filed\n")
    with service("--api-key-file", str(file)) as running:
        assert running.get("/v1/models") == 401
        assert running.get("/v1/models", {"x-api-key": "sk-filed"}) == 200


def test_each_request_is_one_json_line_on_stderr() -> None:
    with service() as running:
        assert running.get("/v1/models") == 200
        _, out, err = running.end()
    assert not out
    lines = [orjson.loads(line) for line in err.splitlines()]
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/v1/models"]


def test_an_engine_is_imported_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("async def engine(request):\n    yield 'From mine'\n")
    with service("--engine", "mine:engine", cwd=tmp_path) as running, running.stream() as response:
        assert b"From mine" in response.read()


def test_an_engine_that_fails_to_start_ends_the_server_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "class Engine:\n"
        "    async def start(self):\n"
        "        raise RuntimeError('no GPU here')\n"
        "    async def stream(self, request):\n"
        "        yield 'x'\n"
    )
    with process("serve", "--port", "0", "--engine", "broken:Engine", cwd=tmp_path) as running:
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (1, "")
    assert "no GPU here" in err
    assert err.splitlines()[-1] == "anthro-asgi: error: the engine failed to start; see the log"


SLOW_START = """
import asyncio
class Engine:
    async def start(self):
        print("starting", flush=True)
        await asyncio.Event().wait()
    async def stream(self, request):
        yield "x"
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_slow_start(tmp_path: Path, number: int) -> None:
    (tmp_path / "slow.py").write_text(SLOW_START)
    with process("serve", "--port", "0", "--engine", "slow:Engine", cwd=tmp_path) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "starting\n"
        running.send_signal(number)
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (0, "")
    assert "Traceback" not in err


# --- the end of open responses ---

ENDLESS = ("--simulate-output-tokens", "10000", "--simulate-itl", "20ms")


def test_an_open_response_is_completed_after_a_signal() -> None:
    with service("--simulate-output-tokens", "30", "--simulate-itl", "20ms") as running:
        with running.stream() as response:
            running.process.send_signal(signal.SIGTERM)
            assert b"event: message_stop" in response.read()
        assert running.end(None)[0] == 0


@pytest.mark.clause("1.5")
def test_no_connection_is_accepted_after_a_signal() -> None:
    with service(*ENDLESS) as running, running.stream() as response:
        running.process.send_signal(signal.SIGTERM)
        refused = False
        while not refused:
            assert response.readline(), "the open answer goes on"
            try:
                running.get("/healthz")
            except ConnectionError:
                refused = True


def test_an_endless_response_ends_with_an_error_event_after_the_drain_timeout() -> None:
    with service(*ENDLESS, "--drain-timeout", "200ms") as running, running.stream() as response:
        begun = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        *_, last = response.read().rstrip().split(b"\n\n")
        assert last.startswith(b"event: error\n")
        assert b"overloaded_error" in last
        status, _, err = running.end(None)
        assert time.monotonic() - begun < PATIENCE / 2
    assert status == 0
    assert "drain timeout of" in err
    assert "Traceback" not in err


def test_a_second_interrupt_ends_open_responses_at_once() -> None:
    with service(*ENDLESS, "--drain-timeout", "1h") as running, running.stream() as response:
        running.process.send_signal(signal.SIGINT)
        for _ in range(100):  # two seconds of tokens: it had time to end, and goes on
            assert response.readline()
        status, out, err = running.end(signal.SIGINT)
    assert (status, out) == (130, "")
    assert "Traceback" not in err


# --- check ---


class Upstream:
    """An OpenAI-compatible engine with a few fixed responses. It answers 404 to requests for engine-specific paths."""

    def __init__(self, models: object = None, answer: bytes | None = None, status: int = 200) -> None:
        self.models = {"data": []} if models is None else models
        self.answer = answer
        self.status = status
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status, body, kind = self.status, b'{"count":7}', "application/json"
            if head.startswith("get /v1/models"):
                body = orjson.dumps(self.models)
            elif head.startswith("get "):
                status = 404
            else:
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                asked = orjson.loads(await reader.readexactly(length))
                if head.startswith("post /v1/chat/completions "):
                    self.asked.append(asked)
                    body, kind = self.answer or b"", "text/event-stream"
            writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()


async def checked(upstream: Upstream, *arguments: str) -> tuple[int, str]:
    """Exit status and report of `check`."""
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running = await asyncio.create_subprocess_exec(
            *COMMAND, "check", "--upstream", url, *arguments, cwd=ROOT, env=ENVIRONMENT, stdout=-1, stderr=-1
        )
        out, err = await running.communicate()
    assert not err
    assert running.returncode is not None
    return running.returncode, out.decode()


ONE_TOKEN = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
    b"data: [DONE]\n\n"
)
TWO_MODELS = {
    "data": [
        {"id": "qwen", "object": "model", "owned_by": "vllm", "max_model_len": 4096},
        {"id": "lla\u001bma\n", "object": "model", "owned_by": "vllm"},
    ]
}


async def test_check_reports_an_engine_that_works() -> None:
    upstream = Upstream(TWO_MODELS, ONE_TOKEN)
    status, report = await checked(upstream)
    assert status == 0
    native, *lines = report.splitlines()
    assert native.startswith("native   ")
    assert lines[0] == "engine   vLLM"
    assert lines[1] == "models   2"
    assert lines[2].startswith("         qwen (context 4096 tokens")
    assert lines[3].startswith("         lla\\u001bma\\u000a")
    assert lines[4].startswith("message  ok (max_tokens), first output after ")
    assert lines[4].endswith(" ms")
    assert lines[5].startswith("tools    not called, although it was forced; vLLM calls tools only with ")
    assert lines[6] == "tokens   counted by the engine"
    assert lines[7].endswith("--model-alias '*=qwen'")
    assert [line.strip() for line in lines[8:]] == [
        "for Claude Code:",
        "export ANTHROPIC_BASE_URL=http://127.0.0.1:8484 ANTHROPIC_AUTH_TOKEN=unused",
        "export CLAUDE_CODE_MAX_CONTEXT_TOKENS=4096",
        "claude --model qwen",
        "warning  a window of 4096 tokens is too small for Claude Code; give the model at least 32768",
    ]
    assert [(body["model"], body["max_tokens"]) for body in upstream.asked] == [("qwen", 1), ("qwen", 256)]
    assert upstream.asked[1]["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("environ", "url", "key"),
    [
        ({}, "http://127.0.0.1:8484", "unused"),
        ({"PORT": "9000", "HOST": "0.0.0.0", "API_KEYS": "sk-secret"}, "http://127.0.0.1:9000", "YOUR_KEY"),
        ({"HOST": "::1", "TLS_CERT": "cert.pem", "TLS_KEY": "key.pem"}, "https://[::1]:8484", "unused"),
        ({"UDS": "/run/a.sock"}, "http://HOST:PORT", "unused"),
    ],
)
async def test_check_points_clients_to_the_service_of_the_same_environment(
    environ: dict[str, str], url: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {f"{options.PREFIX}{name}": text for name, text in environ.items()}
    server = await asyncio.start_server(Upstream(TWO_MODELS, ONE_TOKEN), "127.0.0.1", 0)
    async with server:
        upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = load_settings({"upstream": [upstream]}, given)
        assert await check.report(build_upstream_engine(settings), settings) == 0
    assert f"         export ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key}\n" in capsys.readouterr().out


@pytest.mark.parametrize("api", ["auto", "messages"])
async def test_check_works_on_an_upstream_that_speaks_messages(api: str) -> None:
    """The simulator, which refuses a body without messages as every such upstream does."""
    with SimulatedService("--simulate", "--simulate-ttft", "1ms", "--simulate-itl", "1ms") as service:
        running = await asyncio.create_subprocess_exec(
            *COMMAND,
            "check",
            "--upstream",
            f"{service.url}/v1",
            "--upstream-api",
            api,
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=-1,
            stderr=-1,
        )
        out, err = await running.communicate()
    assert (running.returncode, err) == (0, b""), out.decode()
    report = out.decode()
    assert "engine   a Messages API server\n" in report
    assert "message  ok (" in report
    assert "tools    called when it is forced" in report


async def test_check_warns_about_an_option_without_effect(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    _, report = await checked(Upstream(TWO_MODELS), "--upstream-ca", str(ca))
    assert "\nwarning  --upstream-ca has no effect without an https upstream\n" in report


async def test_check_tries_the_model_given_by_try_model() -> None:
    upstream = Upstream({"no": "list"}, ONE_TOKEN)
    status, report = await checked(upstream, "--try-model", "mine")
    assert status == 0
    assert "engine   an OpenAI-compatible server" in report
    assert "models   not listed" in report
    assert "tokens   estimated, because the engine does not count them" in report
    assert "--model-alias '*=mine'" in report
    assert upstream.asked[0]["model"] == "mine"


async def test_check_of_an_engine_without_models_points_to_try_model() -> None:
    status, report = await checked(Upstream())
    assert status == 1
    assert report.endswith("message  not tried: the upstream lists no model; name one with --try-model NAME\n")


@pytest.mark.parametrize("answer", [b"", b'data: {"error":{"message":"out of memory"}}\n\n', b"data: [DONE]\n\n"])
async def test_check_fails_when_the_message_does(answer: bytes) -> None:
    status, report = await checked(Upstream(TWO_MODELS, answer))
    assert status == 1
    assert report.splitlines()[-1].startswith("failed   ")


async def test_check_fails_when_its_key_is_refused() -> None:
    status, report = await checked(Upstream({"error": "who are you"}, status=401))
    assert status == 1
    assert "failed   " in report
    assert "rejected this service's API key" in report
    assert report.endswith("\nremedy   set the upstream's key with ANTHRO_ASGI_UPSTREAM_KEY or --upstream-key-file\n")


@pytest.mark.parametrize("api", ["auto", "chat", "messages"])
async def test_check_names_the_remedy_where_the_path_is_wrong(api: str) -> None:
    status, report = await checked(Upstream({"detail": "Not Found"}, status=404), "--upstream-api", api)
    assert status == 1
    assert report.endswith("\nremedy   check the path in --upstream, which usually ends in /v1, and --upstream-api\n")


async def test_check_names_the_remedy_for_a_certificate_of_an_unknown_authority() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with await asyncio.start_server(Upstream(), "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running = await asyncio.create_subprocess_exec(
            *COMMAND, "check", "--upstream", url, cwd=ROOT, env=ENVIRONMENT, stdout=-1, stderr=-1
        )
        out, err = await running.communicate()
    assert (running.returncode, err) == (1, b"")
    failed, remedy = out.decode().splitlines()[-2:]
    assert failed.startswith(f"failed   the engine is not reachable: {url}: its certificate is not trusted: ")
    assert remedy == "remedy   name the CA with --upstream-ca"


def test_check_names_the_unreachable_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with process("check", "--upstream", url) as running:
            out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, err) == (1, "")
    first, second = out.splitlines()
    assert first.startswith("native   ")
    assert second.startswith("failed   ")
    assert url in second


# --- the native path


def test_native_on_without_what_it_needs_is_an_error_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("anthro_asgi._native._built", None)
    monkeypatch.setattr("anthro_asgi._native.new_pump", None)
    check_command = ["check", "--upstream", "http://127.0.0.1:9"]
    for command, mode in itertools.product((["serve"], check_command), ("on", "loop")):
        assert main([*command, "--native", mode]) == 2
        out, err = capsys.readouterr()
        assert (out, err) == (
            "",
            f"anthro-asgi: error: --native {mode}: the native path cannot be used without its extension module, "
            "which is built on Linux where a C compiler is installed\n",
        )


@pytest.mark.parametrize(
    ("lacking", "mode", "text"),
    [
        (None, "auto", "yes"),
        (None, "loop", "loop"),
        (None, "off", "no: --native off"),
        ("httptools", "auto", "no: needs httptools"),
    ],
)
def test_check_says_whether_the_native_path_is_used(
    lacking: str | None, mode: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anthro_asgi._native.missing", lambda: lacking)
    monkeypatch.setattr("anthro_asgi.cli.check.missing", lambda: lacking)
    assert check._native_path(mode) == text
