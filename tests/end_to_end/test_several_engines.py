"""The command with several engines: a big and a small model as Claude Code uses them, `check`, and a lost engine."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.support.client import ask, get
from tests.support.routed_upstream import CHAT, MODELS, asked, routed
from tests.support.service import COMMAND, ROOT, Service
from tests.support.upstream import ScriptedUpstream, json_answer, sse

TO_EACH = ("--model-alias", "claude-haiku*=small@fast", "--model-alias", "*=big@gpu")


def models(name: str) -> bytes:
    return json_answer(200, {"data": [{"id": name, "owned_by": "vllm", "max_model_len": 4096}]})


def says(text: str) -> bytes:
    return sse(
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )


@asynccontextmanager
async def upstreams() -> AsyncIterator[tuple[ScriptedUpstream, ScriptedUpstream, Any]]:
    """Two engines, and a function that runs blocking work beside them."""
    async with (
        ScriptedUpstream(routed({MODELS: models("small"), CHAT: says("small says hello")})) as fast,
        ScriptedUpstream(routed({MODELS: models("big"), CHAT: says("big says hello")})) as gpu,
    ):
        yield fast, gpu, asyncio.to_thread


def play(fast: str, gpu: str) -> list[str]:
    """What two models of the SDK answer, streamed, and how the service reports on its engines."""
    with Service("--upstream", f"fast={fast}", "--upstream", f"gpu={gpu}", *TO_EACH) as service:
        started = service.logged(event="started")
        assert started["engine"] == "fast: vLLM; gpu: vLLM"
        assert started["models"] == "small, big"
        with anthropic.Anthropic(base_url=service.url, api_key="unused", max_retries=0) as client:
            said = []
            for model in ("claude-opus-5", "claude-haiku-4-5-20251001"):
                hello: Any = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
                with client.messages.stream(**hello) as stream:
                    said.append(stream.get_final_text())
        assert get(service.url, "/readyz").json["engines"] == {"fast": "ready", "gpu": "ready"}
        assert b'anthro_asgi_engine_requests_total{engine="fast",result="ok"} 1.0' in get(service.url, "/metrics").body
        assert [
            line["engine"] for line in service.log if line["event"] == "request" and line["path"] == "/v1/messages"
        ] == [
            "gpu",
            "fast",
        ]
        return said


async def test_the_big_and_the_small_model_of_a_client_are_answered_by_two_engines() -> None:
    async with upstreams() as (fast, gpu, aside):
        assert await aside(play, fast.url, gpu.url) == ["big says hello", "small says hello"]
        assert [body["model"] for body in asked(fast)] == ["small"]
        assert [body["model"] for body in asked(gpu)] == ["big"]


def check(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "check", *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("model", "names"), [(None, ["fast", "gpu"]), ("big@gpu", ["gpu"])])
async def test_check_reports_on_each_engine_or_on_the_one_that_is_named(model: str | None, names: list[str]) -> None:
    async with upstreams() as (fast, gpu, aside):
        chosen = () if model is None else ("--try-model", model)
        done = await aside(check, "--upstream", f"fast={fast.url}", "--upstream", f"gpu={gpu.url}", *chosen)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("name ")] == names
    assert sum(line.startswith("message  ok") for line in lines) == len(names)
    assert "--model-alias '*=big@gpu'" in done.stdout


async def test_check_fails_if_one_engine_fails() -> None:
    async with upstreams() as (fast, _, aside):
        done = await aside(check, "--upstream", f"fast={fast.url}", "--upstream", "gone=unix:/nowhere.sock")
    assert done.returncode == 1
    assert "message  ok" in done.stdout
    assert "failed   the engine is not reachable" in done.stdout


def lose(fast: str, config: Path) -> None:
    """A request for an engine that is away goes to its fallback."""
    config.write_text(
        "[[engine]]\nname = 'gone'\nurl = 'unix:/nowhere.sock'\nmodels = ['lost']\nfallback = 'fast'\n"
        f"[[engine]]\nname = 'fast'\nurl = '{fast}'\n"
    )
    with Service("--config", str(config)) as service:
        service.logged(event="engine_not_ready", engine="gone")
        answer = ask(service.url, model="lost")
        assert (answer.status, answer.headers["anthro-asgi-engine"]) == (200, "fast")
        assert answer.json["content"] == [{"type": "text", "text": "small says hello"}]
        assert get(service.url, "/readyz").status == 200
        assert service.logged(event="upstream_error", reason="connect")["engine"] == "gone"


async def test_an_engine_that_is_away_from_the_start_is_replaced_by_its_fallback(tmp_path: Path) -> None:
    async with upstreams() as (fast, _, aside):
        await aside(lose, fast.url, tmp_path / "a.toml")
        assert [body["model"] for body in asked(fast)] == ["small"]
