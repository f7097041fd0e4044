"""What `serve` reports when it listens: the event `started`, the banner on a terminal, and a late engine."""

import logging
import os
import pty
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from anthro_asgi._native import missing
from anthro_asgi.cli.start_report import StartReport
from anthro_asgi.engines.base import BaseEngine, ModelInfo
from anthro_asgi.factory import build_app, build_engine
from anthro_asgi.observability.logs import LogEvent
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import SIMULATED_BY_DEFAULT
from anthro_asgi.wire.deltas import Batch
from anthro_asgi.wire.request import MessagesRequest
from tests.support.service import COMMAND, ROOT, Service

URL = "http://127.0.0.1:8484"
QWEN = ModelInfo("qwen", max_input_tokens=32768)


class Remote(BaseEngine):
    """An engine whose name and models are known only after it was reached."""

    def __init__(self, name: str | None, models: list[ModelInfo] | None) -> None:
        self.name = name
        self.listed = models
        self.asked = 0

    def describe(self) -> str | None:
        return self.name

    def known_models(self) -> list[ModelInfo] | None:
        return self.listed

    async def models(self) -> list[ModelInfo]:
        self.asked += 1
        return [QWEN]

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        yield request.model


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "anthro_asgi")
    return caplog


def fields(log: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [r.msg.fields() for r in log.records if isinstance(r.msg, LogEvent) and r.msg.name == name]


def report(engine: BaseEngine, *, terminal: bool = False, has_keys: bool = False, **line: str) -> StartReport:
    settings = load_settings({name.replace("_", "-"): [text] for name, text in line.items()}, {})
    return StartReport(engine, settings, has_keys=has_keys, style="json", terminal=terminal)


async def test_started_says_what_is_served_and_how_to_point_claude_code_here(events: pytest.LogCaptureFixture) -> None:
    engine = Remote("vLLM", [QWEN])
    assert await report(engine, upstream="http://secret-host:1", workers="2").started([URL]) == ""
    (started,) = fields(events, "started")
    assert started.pop("version")
    assert started == {
        "event": "started",
        "listening": URL,
        "engine_kind": "upstream",
        "engine": "vLLM",
        "models": "qwen",
        "window": 32768,
        "claude_code": f"ANTHROPIC_BASE_URL={URL} ANTHROPIC_AUTH_TOKEN=unused CLAUDE_CODE_MAX_CONTEXT_TOKENS=32768 "
        "claude --model qwen",
        "auth": "none: every client is served",
        "workers": 2,
        "native": "yes" if missing() is None else "no",
        "log_format": "json",
    }
    assert engine.asked == 0, "the list is known already"


@pytest.mark.parametrize(
    ("alias", "is_missing"),
    [
        ("*=qwen@fast", False),
        ("*=gone@fast", True),
        ("*=big@gpu", False),  # this engine was not reached yet
        ("*=big", False),
        ("*=big@nowhere", False),  # may be the name of a model
    ],
)
async def test_an_alias_for_a_model_of_an_engine_that_was_not_reached_is_not_missing(
    alias: str, is_missing: bool, events: pytest.LogCaptureFixture
) -> None:
    engine = Remote("fast: vLLM; gpu: not reached yet", [ModelInfo("qwen", engine="fast")])
    settings = load_settings({"upstream": ["fast=http://x", "gpu=http://y"], "model-alias": [alias]}, {})
    await StartReport(engine, settings, has_keys=False, style="json", terminal=False).started([URL])
    assert bool(fields(events, "alias_of_unknown_model")) is is_missing


async def test_an_alias_is_missing_when_all_engines_were_reached(events: pytest.LogCaptureFixture) -> None:
    engine = Remote("fast: vLLM; gpu: vLLM", [ModelInfo("qwen", engine="fast"), ModelInfo("other", engine="gpu")])
    for alias in ("*=big@gpu", "*=big", "*=big@nowhere"):
        settings = load_settings({"upstream": ["fast=http://x", "gpu=http://y"], "model-alias": [alias]}, {})
        await StartReport(engine, settings, has_keys=False, style="json", terminal=False).started([URL])
    assert len(fields(events, "alias_of_unknown_model")) == 3


@pytest.mark.parametrize(
    ("alias", "command"),
    [
        ("opus=qwen", "CLAUDE_CODE_MAX_CONTEXT_TOKENS=32768 claude --model opus"),
        ("claude-*=qwen", "CLAUDE_CODE_MAX_CONTEXT_TOKENS=32768 claude --model qwen"),
        ("opus=other", "ANTHROPIC_AUTH_TOKEN=YOUR_KEY claude --model opus"),
        ("opus=gone,haiku=other", "ANTHROPIC_AUTH_TOKEN=YOUR_KEY claude --model haiku"),
    ],
)
async def test_an_alias_decides_which_of_several_models_clients_request(
    alias: str, command: str, events: pytest.LogCaptureFixture
) -> None:
    engine = Remote("vLLM", [QWEN, ModelInfo("other")])
    settings = load_settings({"upstream": ["http://x"]}, {"ANTHRO_ASGI_MODEL_ALIAS": alias})
    await StartReport(engine, settings, has_keys=True, style="json", terminal=False).started([URL])
    (started,) = fields(events, "started")
    assert started["claude_code"].endswith(command)
    shown = alias.replace(",", ", ")
    assert (started["auth"], started["aliases"], started["models"]) == ("API key", shown, "qwen, other")


@pytest.mark.parametrize(
    ("aliases", "model"),
    [
        (["claude-haiku*=small", "*=big"], "big"),
        (["*=big", "claude-haiku*=small"], "big"),
        (["claude-haiku*=small", "claude-*=big"], "big"),
        (["opus=small", "claude-*=big", "*=big"], "big"),
        (["claude-opus*=big", "claude-haiku*=small"], "big"),
        (["claude-haiku*=small", "*=gone"], "small"),
        (["a**=small", "a*=big"], "small"),
    ],
)
async def test_clients_are_pointed_to_the_model_of_the_widest_alias(
    aliases: list[str], model: str, events: pytest.LogCaptureFixture
) -> None:
    windows = {"small": 16384, "big": 131072}
    engine = Remote("vLLM", [ModelInfo(name, max_input_tokens=window) for name, window in windows.items()])
    settings = load_settings({"upstream": ["http://x"], "model-alias": aliases}, {})
    ours = StartReport(engine, settings, has_keys=False, style="json", terminal=True)
    banner = await ours.started([URL])
    command = f"CLAUDE_CODE_MAX_CONTEXT_TOKENS={windows[model]} claude --model {model}"
    assert fields(events, "started")[0]["claude_code"].endswith(command)
    assert banner.endswith(f"CLAUDE_CODE_MAX_CONTEXT_TOKENS={windows[model]}\n           claude --model {model}")


@pytest.mark.parametrize(("window", "small"), [(256, True), (32767, True), (32768, False), (None, False)])
async def test_a_window_that_is_too_small_for_claude_code_is_said(
    window: int | None, small: bool, events: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({"upstream": ["http://x"]}, {})
    engine = Remote("vLLM", [ModelInfo("qwen", max_input_tokens=window)])
    banner = await StartReport(engine, settings, has_keys=False, style="json", terminal=True).started([URL])
    words = f"a window of {window} tokens is too small for Claude Code; give the model at least 32768"
    assert (f"  note     {words}" in banner.splitlines()) == small
    logged = [{"event": "small_window", "model": "qwen", "window": window, "hint": words}]
    assert fields(events, "small_window") == (logged if small else [])


@pytest.mark.parametrize(("wanted", "reduced"), [("100000", True), ("32768", False), ("0", False)])
async def test_a_window_that_the_model_file_does_not_have_is_a_warning(
    wanted: str, reduced: bool, events: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({"model": ["m.gguf"], "model-context": [wanted]}, {})
    ours = StartReport(Remote("llama.cpp", [QWEN]), settings, has_keys=False, style="json", terminal=True)
    banner = await ours.started([URL])
    assert (" --model-context 100000: the model has only 32768 tokens" in banner) == reduced
    logged = [{"event": "window_reduced", "model_context": 100000, "window": 32768}]
    assert fields(events, "window_reduced") == (logged if reduced else [])


async def test_an_alias_for_a_model_that_is_not_there_is_not_proposed_to_clients(
    events: pytest.LogCaptureFixture,
) -> None:
    await report(Remote("vLLM", [QWEN]), upstream="http://x", model_alias="opus=gone").started([URL])
    assert fields(events, "started")[0]["claude_code"].endswith("=32768 claude --model qwen")


@pytest.mark.parametrize("models", [[QWEN, ModelInfo("other")], []])
async def test_without_one_model_or_an_alias_there_is_no_command(
    models: list[ModelInfo], events: pytest.LogCaptureFixture
) -> None:
    await report(Remote("vLLM", models), upstream="http://x").started([URL])
    (started,) = fields(events, "started")
    assert "claude_code" not in started


@pytest.mark.parametrize(
    ("addresses", "url"),
    [
        (["http://0.0.0.0:1"], "http://127.0.0.1:1"),
        (["https://[::]:1", "https://0.0.0.0:1"], "https://[::1]:1"),
        (["unix:/run/a.sock"], None),
    ],
)
async def test_the_command_has_an_address_that_this_machine_reaches(
    addresses: list[str], url: str | None, events: pytest.LogCaptureFixture
) -> None:
    await report(Remote("vLLM", [QWEN]), upstream="http://x").started(addresses)
    command = fields(events, "started")[0].get("claude_code")
    assert (command and command.split()[0]) == (url and f"ANTHROPIC_BASE_URL={url}")


@pytest.mark.parametrize(("log_on_terminal", "level"), [(False, "INFO"), (True, "DEBUG")])
async def test_the_log_line_is_left_out_only_where_the_banner_is_in_the_same_place(
    log_on_terminal: bool, level: str, events: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({"upstream": ["http://x"], "model-alias": ["opus=gone"]}, {})
    ours = StartReport(
        Remote("vLLM", [QWEN]),
        settings,
        has_keys=False,
        style="json",
        terminal=True,
        log_on_terminal=log_on_terminal,
    )
    banner = await ours.started([URL])
    assert banner.splitlines()[:3] == [
        "  engine   vLLM (upstream)",
        "  model    qwen, 32768 tokens",
        "  alias    opus is answered by gone",
    ]
    assert "WARNING" in banner
    assert [record.levelname for record in events.records] == [level] + ["WARNING"] * (not log_on_terminal)


async def test_a_service_that_does_not_speak_messages_has_no_lines_for_its_clients(
    events: pytest.LogCaptureFixture,
) -> None:
    settings = load_settings({"simulate": ["true"]}, {})
    ours = StartReport(Remote("x", [QWEN]), settings, has_keys=False, style="json", terminal=True, messages=False)
    assert "claude" not in await ours.started([URL])
    assert "claude_code" not in fields(events, "started")[0]


async def test_an_engine_that_does_not_list_the_model_of_an_alias_is_a_warning(
    events: pytest.LogCaptureFixture,
) -> None:
    await report(Remote("vLLM", [QWEN]), upstream="http://x", model_alias="opus=gone").started([URL])
    assert fields(events, "alias_of_unknown_model") == [
        {"event": "alias_of_unknown_model", "alias": "opus", "model": "gone", "served": "qwen"}
    ]
    assert [r.levelname for r in events.records] == ["INFO", "WARNING"]


async def test_an_engine_that_is_reached_later_is_reported_once(events: pytest.LogCaptureFixture) -> None:
    engine = Remote(None, None)
    ours = report(engine, upstream="http://x", model_alias="opus=gone")
    await ours.started([URL])
    ours.update()
    (started,) = fields(events, "started")
    assert (started["engine"], engine.asked) == ("not reached yet", 0)
    assert fields(events, "engine_detected") == fields(events, "alias_of_unknown_model") == []
    engine.name, engine.listed = "vLLM", [QWEN]
    ours.update()
    ours.update()
    (detected,) = fields(events, "engine_detected")
    assert (detected["engine"], detected["models"]) == ("vLLM", "qwen")
    assert len(fields(events, "alias_of_unknown_model")) == 1
    engine.name = None
    ours.update()
    engine.name = "llama.cpp"
    ours.update()
    assert [event["engine"] for event in fields(events, "engine_detected")] == ["vLLM", "llama.cpp"]


async def test_several_engines_are_reported_with_their_models(events: pytest.LogCaptureFixture) -> None:
    listed = [ModelInfo("small", max_input_tokens=32768, engine="fast"), ModelInfo("big", engine="gpu")]
    settings = load_settings(
        {"upstream": ["fast=http://a", "gpu=http://b"], "model-alias": ["haiku*=small@fast", "*=huge@gpu"]}, {}
    )
    engine = Remote("fast: vLLM; gpu: not reached yet", listed)
    ours = StartReport(engine, settings, has_keys=False, style="json", terminal=True)
    banner = (await ours.started([URL])).split("\n")
    (started,) = fields(events, "started")
    assert (started["engine"], started["models"], started["window"]) == (engine.name, "small, big", 32768)
    assert [event["alias"] for event in fields(events, "alias_of_unknown_model")] == ["*"]
    assert [line.split(None, 1)[1] for line in banner if line.startswith(("  engine", "  model"))] == [
        "fast: vLLM",
        "gpu: not reached yet",
        "small, 32768 tokens, at fast",
        "big, at gpu",
    ]


async def test_an_engine_that_is_known_without_its_models_is_asked_for_them(events: pytest.LogCaptureFixture) -> None:
    engine = Remote("vLLM", None)
    await report(engine, upstream="http://x", dialect="vllm").started([URL])
    assert (engine.asked, fields(events, "started")[0]["models"]) == (1, "qwen")


def test_answers_simulated_by_default_are_a_warning() -> None:
    with Service() as service:
        started = service.logged(event="started")
    assert (started["level"], started["warning"], started["engine_kind"]) == (
        "warning",
        SIMULATED_BY_DEFAULT,
        "simulator",
    )
    with Service("--simulate") as service:
        started = service.logged(event="started")
    assert (started["level"], started["models"], "warning" in started) == ("info", "simulated", False)
    assert service.url == started["listening"]


def test_readyz_says_that_answers_are_simulated_by_default() -> None:
    assert load_settings({}, {}).simulated_by_default
    for line, notice in (({}, SIMULATED_BY_DEFAULT), ({"simulate": ["true"]}, None)):
        settings = load_settings(line, {})
        assert build_app(build_engine(settings), (), settings).notice == notice


def on_a_terminal(*options: str, **environ: str) -> tuple[str, int]:
    """What the command writes to a terminal until it is interrupted, and its exit status."""
    leader, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), **environ},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # EIO: every process has closed the terminal
            while data := os.read(leader, 65536):
                shown += data
                if b"claude --model" in shown and process.poll() is None:
                    process.send_signal(signal.SIGINT)
                    break
            while data := os.read(leader, 65536):
                shown += data
        os.close(leader)
    return shown.decode().replace("\r\n", "\n"), process.returncode


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_gets_a_banner_and_a_log_in_colour(workers: str) -> None:
    shown, status = on_a_terminal("--workers", workers)
    assert status == 0
    lines = shown.splitlines()
    assert lines[0].startswith("listening on http://127.0.0.1:")
    assert lines[1:4] == ["  engine   the simulator", "  model    simulated", "  auth     none: every client is served"]
    assert f"  \x1b[1;33mWARNING \x1b[0m {SIMULATED_BY_DEFAULT}" in lines
    url = lines[0].removeprefix("listening on ")
    assert f"           export ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=unused" in lines
    assert re.fullmatch(r"\x1b\[2m\S+Z\x1b\[0m \x1b\[32mINFO   \x1b\[0m event=stopped", lines[-1])
    assert "event=started" not in shown, "the banner says the same"


def test_no_color_and_an_explicit_format_are_heeded_on_a_terminal() -> None:
    shown, _ = on_a_terminal("--log-format", "json", NO_COLOR="1")
    assert "\x1b" not in shown
    assert shown.splitlines()[-1].startswith('{"time":')
