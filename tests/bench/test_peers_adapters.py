"""What each peer is told: its command line, its configuration, its environment."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.peers import litellm, nginx, router
from bench.peers.litellm import LiteLLM
from bench.peers.nginx import Nginx
from bench.peers.ours import Ours
from bench.peers.peer import Missing
from bench.peers.relay import Relay
from bench.peers.router import Router
from bench.peers.runner import peers

UPSTREAM = "http://127.0.0.1:4321"


def test_names_are_unique_and_the_floor_comes_first() -> None:
    names = [peer.name for peer in peers()]
    assert names == ["relay", "nginx", "ours-fast", "ours-h11", "ccr", "litellm"]
    assert [peer.name for peer in peers() if peer.api == "chat"] == ["relay", "nginx"]


def test_the_relay_is_given_an_address(tmp_path: Path) -> None:
    launch = Relay().launch(UPSTREAM, 99, tmp_path)
    assert launch.command == [sys.executable, "-m", "bench.relay", "127.0.0.1:4321", "--port", "99"]


def which(path: str | None) -> Callable[..., str | None]:
    return lambda *_, **__: path


def test_nginx_passes_each_read_on_over_connections_that_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx.shutil, "which", which("/opt/nginx"))
    launch = Nginx().launch(UPSTREAM, 99, tmp_path)
    assert launch.command[0] == "/opt/nginx"
    text = Path(launch.command[-1]).read_text()
    lines = {line.strip() for line in text.splitlines()}
    assert {"proxy_buffering off;", "proxy_http_version 1.1;", 'proxy_set_header Connection "";'} <= lines
    assert {"worker_processes 1;", "daemon off;", "listen 127.0.0.1:99 backlog=4096;"} <= lines
    assert "upstream engine { server 127.0.0.1:4321; keepalive 128; }" in lines
    assert text.count("{") == text.count("}")
    assert all(str(tmp_path) in line for line in lines if "_temp_path" in line or line.startswith("pid"))


def test_nginx_that_is_not_there_comes_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx.shutil, "which", which(None))
    with pytest.raises(Missing, match=r"^not installed: apt-get install --no-install-recommends nginx$"):
        Nginx().prepare(tmp_path, refresh=False)


def test_we_are_served_as_our_command_serves(tmp_path: Path) -> None:
    ours = Ours("ours", "us", "fast", python=sys.executable)
    assert ours.prepare(tmp_path, refresh=True) == "checkout"
    command = ours.launch(UPSTREAM, 99, tmp_path).command
    assert command[:4] == [sys.executable, "-m", "anthro_asgi", "serve"]
    assert command[command.index("--upstream") + 1] == f"{UPSTREAM}/v1"
    assert int(command[command.index("--max-concurrency") + 1]) >= 8_000
    assert list(tmp_path.iterdir()) == []


def test_we_are_installed_from_the_checkout_with_and_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, tuple[list[str], bool]] = {}

    def venv(folder: Path, requirements: list[str], *, editable: bool, refresh: bool) -> dict[str, str]:
        asked[folder.name] = (requirements, editable)
        return {"anthro-asgi": "9"}

    monkeypatch.setattr("bench.peers.ours.venv", venv)
    both = [peer for peer in peers() if isinstance(peer, Ours)]
    assert [ours.prepare(tmp_path, refresh=False) for ours in both] == ["9", "9"]
    (fast, editable), (bare, bare_editable) = asked["ours-fast"], asked["ours-h11"]
    assert editable
    assert bare_editable
    assert fast == [f"{bare[0]}[fast]"]
    assert both[1].python == str(tmp_path / "envs" / "ours-h11" / "bin" / "python")


def test_litellm_translates_to_chat_completions_and_stays_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "venv", lambda *_, **__: {"litellm": "9.9"})
    peer = LiteLLM()
    assert peer.prepare(tmp_path, refresh=False) == "9.9"
    launch = peer.launch(UPSTREAM, 99, tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    assert "model: openai/scripted" in text
    assert f"api_base: {UPSTREAM}/v1\n" in text
    assert "telemetry: false" in text
    assert launch.environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert launch.command[-2:] == ["--num_workers", "1"]


def test_the_router_is_given_a_provider_whose_model_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "node_modules", lambda *_, **__: {"@musistudio/llms": "1.0.53"})
    peer = Router()
    peer.prepare(tmp_path, refresh=False)
    (tmp_path / "envs" / "ccr").mkdir(parents=True)
    launch = peer.launch(UPSTREAM, 99, tmp_path)
    assert launch.command[0] == "node"
    assert launch.command[2:] == [f"{UPSTREAM}/v1/chat/completions", "99"]
    provider, _, model = peer.model.partition(",")
    text = Path(launch.command[1]).read_text()
    assert f'name: "{provider}"' in text
    assert f'models: ["{model}"]' in text
