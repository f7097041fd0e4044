"""The six scripts. Each takes a fresh machine, follows its page, and raises StepFailed where the page is wrong."""

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from tests.checks.first_hour.fresh import Fresh, StepFailed
from tests.clients.install import NPM
from tests.support.llama.model import write_model


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise StepFailed(message)


def developer(machine: Fresh) -> None:
    """Install the package and pytest, save the first test of the page, run it."""
    machine.run(machine.line("pip install"))
    (machine.home / "test_first.py").write_text(machine.code("python", "def test_"))
    expect("1 passed" in machine.run("pytest"), "the first test of the page does not pass")


def operator(machine: Fresh) -> None:
    """Install llama.cpp with the package, serve a model file, wait until it is ready, send the request of the page."""
    machine.run(machine.line("pip install"))
    write_model(machine.home / "model.gguf")
    serve = machine.line("--model model.gguf")
    with machine.served(serve, machine.answers("/readyz")):
        events = machine.run(machine.code("sh", "curl"))
    expect(events.startswith("event: message_start"), f"no stream: {events[:300]}")
    expect('"type":"message_stop"' in events, f"the stream does not end: {events[-300:]}")


def embedder(machine: Fresh) -> None:
    """Install FastAPI and the package, save `host.py`, run it under its prefix, then serve it by the command."""
    (machine.home / "host.py").write_text(machine.code("python", "FastAPI"))
    machine.run(machine.line("pip install"))
    with machine.served(machine.line("uvicorn host:app"), machine.answers("/llm/healthz", port="8080")):
        message = json.loads(machine.run(machine.code("sh", "/llm/v1/messages")))
    expect(message["content"][0]["text"] == "Hello, world", f"not the engine's answer: {message}")
    with machine.served("anthro-asgi serve --engine host:engine", machine.answers("/readyz")):
        machine.run("anthro-asgi health --ready", ANTHRO_ASGI_PORT=machine.url.rpartition(":")[2])


def performance_engineer(machine: Fresh) -> None:
    """Install the package, put the service before the simulator, measure both, and make the report."""
    machine.run(machine.line("pip install"))
    engine, service = machine.line("simulate-openai"), machine.line("serve --upstream")
    with (
        machine.served(engine, machine.answers("/v1/models", port="8000")),
        machine.served(service, machine.answers("/readyz")),
    ):
        gateway, direct = machine.line("--label gateway"), machine.line("--label engine")
        for command in (gateway, direct):
            machine.run(f"{command} --duration 3")
        machine.run(machine.line("--rate 5,20").replace("--duration 60", "--duration 3"))
    machine.run(machine.line("bench report engine.jsonl"))
    machine.run(machine.line("bench report load.jsonl"))
    page = (machine.home / "report.html").read_text()
    expect("gateway, as a multiple of engine" in page, "the report does not compare the two servers")
    expect((machine.home / "load.html").stat().st_size > 1000, "the report is empty")


def claude_code_user(machine: Fresh) -> None:
    """Check an engine, serve it under every name, start Claude Code with the lines of the page, and ask it something.

    Claude Code is installed by npm.
    """
    machine.run("pip install '.[fast]'")
    machine.run(f"npm install --no-audit --no-fund @anthropic-ai/claude-code@{NPM['@anthropic-ai/claude-code']}")
    engine = "anthro-asgi simulate-openai --port 8000"
    with machine.served(engine, machine.answers("/v1/models", port="8000")):
        checked = machine.run(machine.line("anthro-asgi check"))
        expect("claude --model simulated" in checked, f"check does not say how to start Claude Code: {checked}")
        service = machine.line("--model-alias").replace("name-of-the-served-model", "simulated")
        with machine.served(service, machine.answers("/readyz")):
            lines = machine.code("sh", "CLAUDE_CODE_MAX_CONTEXT_TOKENS").replace(
                "name-of-the-served-model", "simulated"
            )
            asked = lines.rstrip() + " --print 'Say hello.'"
            path = machine.home / "node_modules" / ".bin"
            said = machine.run(f'export PATH="{path}:$PATH"\n{asked}')
    expect(said.strip() != "", "Claude Code printed no answer")
    expect('"stop_reason":"end_turn"' in machine.log, "no answer of the service was complete")


def browser_user(machine: Fresh) -> None:
    """Serve the simulator, open the page in Chromium, and read what is served."""
    chromium = shutil.which("chromium")
    expect(chromium is not None, "this step needs the program chromium")
    machine.run("pip install '.[fast,metrics]'")
    with machine.served(machine.line("anthro-asgi serve --simulate"), machine.answers("/readyz")):
        command = f"{chromium} --headless=new --no-sandbox --disable-gpu --virtual-time-budget=5000 --dump-dom"
        page = machine.run(f"{command} --user-data-dir={machine.home / 'profile'} {machine.url}/")
    expect("simulated" in page, "the page does not name the model")
    expect(f"ANTHROPIC_BASE_URL={machine.url}" in page, "the page does not say how to point a client here")


class Kind(NamedTuple):
    """A kind of user: the page to follow, and the script."""

    page: str
    script: Callable[[Fresh], None]


KINDS: Final[Mapping[str, Kind]] = {
    "developer": Kind("how-to/testing-your-client.md", developer),
    "operator": Kind("how-to/llama-cpp.md", operator),
    "embedder": Kind("how-to/embedding.md", embedder),
    "performance": Kind("how-to/load-test.md", performance_engineer),
    "claude-code": Kind("how-to/claude-code.md", claude_code_user),
    "browser": Kind("how-to/browser.md", browser_user),
}
