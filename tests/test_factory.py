"""What the factory builds from settings: the application of `create_app`, and the engines that the command names."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi import create_app
from anthro_asgi.factory import build_app, build_engine, reload_keys
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import SIMULATED_BY_DEFAULT, ConfigError
from anthro_asgi.testing.driver import Driver
from tests.support.client import ask_both_ways, connect, get, post
from tests.support.llama.model import write_model
from tests.support.service import COMMAND, ROOT, Service
from tests.support.upstream import ScriptedUpstream, json_answer

HELLO = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'


def environ(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"ANTHRO_ASGI_{name.upper()}", value)


async def test_create_app_builds_the_application_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environ(monkeypatch, api_keys="one,two", simulate_ttft="0", simulate_itl="0", model_alias="claude-*=m")
    driver = Driver(create_app())
    assert (await driver.request("POST", "/v1/messages", body=HELLO)).status == 401
    answer = await driver.request("POST", "/v1/messages", headers=[("x-api-key", "two")], body=HELLO)
    assert (answer.status, answer.json()["type"]) == (200, "message")


def test_create_app_warns_that_answers_are_simulated_by_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ(monkeypatch, no_auth="true")
    create_app()
    assert SIMULATED_BY_DEFAULT in caplog.text
    caplog.clear()
    environ(monkeypatch, simulate="true")
    create_app()
    assert not caplog.text


def test_create_app_warns_about_variables_without_effect(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ(monkeypatch, no_auth="true", simulate="true", batch_lease="5s")
    create_app()
    assert 'option_without_effect option=ANTHRO_ASGI_BATCH_LEASE reason="without --batch-store"' in caplog.text


@pytest.mark.parametrize("mode", ["images", "both"])
def test_a_way_to_read_pdfs_that_is_named_needs_the_extra(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"pdf": [mode]}, {})
    build_app(build_engine(settings), (), settings)
    monkeypatch.setitem(sys.modules, "pypdfium2", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=rf"^--pdf {mode} needs an extra: pip install 'anthro-asgi\[pdf\]'$"):
        build_app(build_engine(settings), (), settings)
    default = load_settings({}, {})
    build_app(build_engine(default), (), default)


def test_create_app_needs_keys_or_no_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no API key"):
        create_app()
    environ(monkeypatch, no_auth="true")
    assert repr(create_app()).endswith("<ApiKeys open>>")


@pytest.mark.slow  # the core tests have no other server than uvicorn
@pytest.mark.parametrize(
    "server",
    [
        ("uvicorn", "--factory", "anthro_asgi:create_app", "--port", "0"),
        ("hypercorn", "anthro_asgi.factory:create_app()", "-b", "127.0.0.1:0"),
        ("granian", "--interface", "asgi", "--factory", "anthro_asgi:create_app", "--port", "0"),
    ],
    ids=lambda server: server[0],
)
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "no API key is configured: set ANTHRO_ASGI_API_KEYS or "),
        ({"NO_AUTH": "true", "UPSTREAM": ""}, "ANTHRO_ASGI_UPSTREAM: is empty, so it names no engine; "),
        ({"NO_AUTH": "true", "ENGINE": "no.such:thing"}, "engine 'no.such:thing': No module named 'no'"),
        ({"API_KEY_FILE": "/no/such/file"}, "cannot read the key file /no/such/file: No such file or directory"),
    ],
    ids=lambda value: next(iter(value), "no keys") if isinstance(value, dict) else None,
)
def test_a_server_that_calls_the_factory_ends_with_one_line(
    server: tuple[str, ...], variables: dict[str, str], reason: str
) -> None:
    folder = Path(sys.executable).parent
    given = {f"ANTHRO_ASGI_{name}": text for name, text in variables.items()}
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ANTHRO_ASGI_")}
    environ = inherited | {"PYTHONPATH": str(ROOT)} | given
    ended = subprocess.run(
        [str(folder / server[0]), *server[1:]], env=environ, capture_output=True, text=True, timeout=60
    )
    assert f"anthro-asgi: error: {reason}" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_several_upstreams_are_engines_with_their_own_settings(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-1")
    config = tmp_path / "a.toml"
    config.write_text(
        "[[engine]]\nname = 'fast'\nurl = 'http://127.0.0.1:1/v1'\ndialect = 'vllm'\nfallback = 'm@gpu'\n"
        "max-concurrency = 3\nmodels = ['small']\n"
        f"[[engine]]\nname = 'gpu'\nurl = 'http://127.0.0.1:2/v1'\napi = 'messages'\nkey-file = '{key}'\n"
    )
    settings = load_settings({"config": [str(config)]}, {})
    engine = build_engine(settings)
    assert engine.engine_names == ("fast", "gpu")
    shown = repr(engine)
    assert "<Member fast ready <AutoEngine" in shown
    assert "<Member gpu ready <MessagesEngine <Pool http://127.0.0.1:2 " in shown
    assert [model.id for model in engine.known_models() or ()] == ["small"]
    app = build_app(engine, (), settings)
    key.write_text("two words")
    with pytest.raises(ConfigError, match="a key must be one word"):
        reload_keys(app, settings)
    key.write_text("secret-2")
    reload_keys(app, settings)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["a=http://x:99999"], "engine a: upstream URL: the port must be 1 to 65535"),
        (["a=http://x", "b=http://y:0"], "engine b: upstream URL: the port must be 1 to 65535"),
    ],
)
def test_an_engine_that_cannot_be_built_is_named(line: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_engine(load_settings({"upstream": line}, {}))


@pytest.mark.slow
def test_uvicorn_serves_the_create_app_factory() -> None:
    command = [sys.executable, "-m", "uvicorn", "--factory", "anthro_asgi:create_app", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={"ANTHRO_ASGI_NO_AUTH": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        url = next(line for line in process.stderr if "running on" in line).split()[4]
        assert get(url, "/healthz").status == 200
        process.terminate()
        process.stderr.read()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return path


@pytest.mark.parametrize(("reuse", "connections"), [("always", 1), ("never", 3)])
async def test_connections_to_the_upstream_are_used_again_as_configured(reuse: str, connections: int) -> None:
    async with ScriptedUpstream(json_answer(200, {"data": []})) as upstream:
        variables = {"UPSTREAM": upstream.url, "UPSTREAM_API": "messages", "UPSTREAM_REUSE": reuse}
        settings = load_settings({}, {f"ANTHRO_ASGI_{name}": value for name, value in variables.items()})
        engine = build_engine(settings)
        for _ in range(3):
            await engine.ready()
        await engine.stop()
        assert upstream.accepted == connections


@pytest.mark.slow
def test_a_model_file_is_served_without_another_engine(model: Path) -> None:
    options = ("--model", str(model), "--model-context", "1024", "--model-slots", "2", "--model-threads", "1")
    with Service(*options) as service:
        message = ask_both_ways(service.url)
        assert message["content"]
        assert get(service.url, "/readyz").status == 200
        assert [one["id"] for one in get(service.url, "/v1/models").json["data"]] == ["tiny"]
        assert service.logged(message=f"llama.cpp has loaded {model}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_lets_the_answers_of_a_model_file_end(model: Path, number: int) -> None:
    options = ("--model", str(model), "--model-context", "2048", "--model-slots", "1", "--model-threads", "1")
    with Service(*options, group_leader=True) as service, closing(connect(service.url)) as connection:
        post(connection, max_tokens=1500, stream=True)
        response = connection.getresponse()
        first = response.read1(1)
        (child,) = service.children
        os.killpg(service.pid, number)
        os.kill(child, number)  # as a service manager does, which knows all processes
        service.logged(event="draining")
        events = (first + response.read()).decode()
        assert '"type":"message_stop"' in events
        assert "event: error" not in events
        assert service.ended() == 0
        assert not [line for line in service.log if "Traceback" in line.get("message", "")]


def refused(*options: str) -> subprocess.CompletedProcess[str]:
    command: Any = [*COMMAND, "serve", "--port", "0", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_an_invalid_model_file_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a model")
    ended = refused("--model", str(bad))
    assert (ended.returncode, ended.stderr) == (2, f"anthro-asgi: error: {bad} is not a GGUF file\n")


@pytest.mark.slow
def test_a_model_file_that_llama_cpp_cannot_load_ends_the_start(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(1000))
    ended = refused("--model", str(bad))
    assert ended.returncode == 1
    assert f"llama.cpp could not load {bad}: gguf_init_from_reader: bad GGUF version: 0" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_model_file_needs_a_single_worker(model: Path) -> None:
    ended = refused("--model", str(model), "--workers", "2")
    assert ended.returncode == 2
    assert "--model needs --workers 1" in ended.stderr
