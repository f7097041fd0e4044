"""The page at `/` in a real headless Chromium: desktop and phone, light and dark, by keyboard only, with a key.

It needs the program `chromium`, so it is not part of the suite: `python -m pytest` with the path of this file.
With PAGE_SCREENSHOTS=FOLDER it saves what it saw there.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.clients.engine import Json, ScriptedEngine, text
from tests.support.service import PATIENCE, Service

DESKTOP, PHONE = (1280, 900), (360, 740)
OTHER_NAME = "service.test"  # plain http under a name that is not localhost: browsers give it no clipboard
SETTINGS = ("--simulate", "--simulate-ttft", "1ms", "--simulate-itl", "1ms")


class Chromium:
    """One page of a headless Chromium, over the DevTools protocol on a pair of pipes."""

    def __init__(self, folder: Path) -> None:
        program, bash = shutil.which("chromium"), shutil.which("bash")
        assert program is not None, "this check needs the program chromium"
        assert bash is not None
        (ours, theirs), (self._results, out) = os.pipe(), os.pipe()
        # Chromium reads from 3 and writes to 4, which may be in use here
        low = (ours, out)
        ours, out = (fcntl.fcntl(file, fcntl.F_DUPFD, 10) for file in low)
        for file in low:
            os.close(file)
        self._commands = theirs
        arguments = f"{program} --headless=new --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
        arguments += f" --host-resolver-rules='MAP {OTHER_NAME} 127.0.0.1'"
        self._process = subprocess.Popen(
            [bash, "-c", f"exec {arguments} --user-data-dir={folder} about:blank 3<&{ours} 4>&{out}"],
            pass_fds=(ours, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(ours)
        os.close(out)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its helper processes too
        self._process.wait()
        os.close(self._commands)
        os.close(self._results)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command. Events that come before it are kept in `events`."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._results, 1 << 16)
            assert data, "Chromium has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        outcome = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in outcome, outcome
        return outcome["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until the expression is true, and return it."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < end, (script, self.run("document.body.innerText"))
            time.sleep(0.05)
        return value

    def open(self, url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.protocol === 'http:'")

    def press(self, key: str, modifiers: int = 0) -> None:
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        more = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            typed = more if kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                modifiers=modifiers,
                windowsVirtualKeyCode=code,
                **typed,
            )

    def save(self, name: str) -> None:
        folder = os.environ.get("PAGE_SCREENSHOTS")
        if folder:
            shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    @property
    def requested(self) -> set[str]:
        """The URLs that the page requested."""
        sent = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return {event["params"]["request"]["url"] for event in sent}

    def requests(self, path: str) -> int:
        """How often the page requested the path."""
        sent = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return sum(event["params"]["request"]["url"].endswith(path) for event in sent)

    @property
    def complaints(self) -> list[str]:
        """Uncaught exceptions, and what the browser logged: blocked scripts, styles and requests."""
        thrown = [str(event) for event in self.events if event.get("method") == "Runtime.exceptionThrown"]
        logged = [event["params"]["entry"] for event in self.events if event.get("method") == "Log.entryAdded"]
        return thrown + [f"{entry['text']} {entry.get('url')}" for entry in logged]


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "profile") as running:
        yield running


@pytest.fixture(scope="module")
def served() -> Iterator[Service]:
    with Service(*SETTINGS, "--simulate-tool-rate", "1") as service:
        yield service


def fields(element: str) -> str:
    return f"document.getElementById('{element}').textContent"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_shows_what_is_served_and_streams_an_answer(
    chromium: Chromium, served: Service, size: tuple[int, int], dark: bool
) -> None:
    chromium.open(f"{served.url}/", size, dark=dark)
    chromium.until(f"{fields('models')}.includes('simulated')")
    assert f"ANTHROPIC_BASE_URL={served.url} ANTHROPIC_AUTH_TOKEN=unused" in chromium.run(fields("setup"))
    assert chromium.run(fields("setup")).endswith("claude --model simulated")
    chromium.until(f"{fields('ready')} === 'ready'")
    chromium.run("(thinking.checked = tool.checked = true, document.getElementById('send').click())")
    chromium.until(f"{fields('usage')}.includes('output tokens')")
    titles = chromium.run("[...document.querySelectorAll('#answer b')].map((title) => title.textContent)")
    assert titles[0] == "thinking"
    assert titles[-1] == "calls get_weather"
    city = chromium.run("JSON.parse([...document.querySelectorAll('#answer section')].at(-1).lastChild.data).city")
    assert isinstance(city, str)
    chromium.until(f"{fields('ttft')}.endsWith(' ms')")
    assert chromium.run("document.documentElement.scrollWidth") <= size[0], "nothing is wider than the screen"
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 29)" if dark else "rgb(255, 255, 255)")
    chromium.save(f"page-{'phone' if size == PHONE else 'desktop'}-{'dark' if dark else 'light'}")
    assert {url.removeprefix(served.url).partition("?")[0] for url in chromium.requested} <= {
        *("/", "/v1/models", "/v1/messages", "/metrics", "/readyz", "/favicon.ico", "about:blank")
    }
    assert [words for words in chromium.complaints if "favicon" not in words] == []


def focused(chromium: Chromium, press: Callable[[], None], element: str) -> None:
    """Press until the element has the focus."""
    for _ in range(20):
        if chromium.run("document.activeElement.id") == element:
            return
        press()
    pytest.fail(f"the keyboard does not reach {element}")


def test_the_keyboard_alone_sends_a_prompt_and_stops_an_answer(chromium: Chromium, tmp_path: Path) -> None:
    with Service("--simulate", "--simulate-itl", "20ms", "--simulate-output-tokens", "100000") as service:
        chromium.open(f"{service.url}/")
        chromium.until(f"{fields('models')}.includes('simulated')")
        focused(chromium, lambda: chromium.press("Tab"), "prompt")
        assert chromium.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        focused(chromium, lambda: chromium.press("Tab"), "send")
        chromium.press("Enter")
        chromium.until(f"{fields('answer')}.length > 20")
        chromium.run("document.getElementById('send').disabled || (() => { throw 'a second answer could begin' })()")
        focused(chromium, lambda: chromium.press("Tab"), "stop")
        chromium.press("Enter")
        chromium.until(f"{fields('answer')}.endsWith('stopped')")
        service.logged(client_left=True)


def test_the_page_asks_for_the_key_that_the_service_needs(chromium: Chromium) -> None:
    with Service(*SETTINGS, ANTHRO_ASGI_API_KEYS="sk-page") as service:
        chromium.open(f"{service.url}/")
        chromium.until("!document.getElementById('access').hidden")
        assert "no API key" in chromium.run(fields("models"))
        chromium.run("document.getElementById('key').focus()")
        chromium.call("Input.insertText", text="sk-page")
        chromium.press("Enter")
        chromium.until(f"{fields('models')}.includes('simulated')")
        chromium.run("document.getElementById('send').click()")
        chromium.until(f"{fields('usage')}.includes('output tokens')")
        assert "sk-page" not in chromium.run("document.body.innerText")
        assert all("sk-page" not in url for url in chromium.requested)


def serving(model: str) -> Json:
    return {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "tests"}]}


def test_the_page_shows_several_engines_and_asks_the_chosen_one(chromium: Chromium) -> None:
    with (
        ScriptedEngine(lambda body, number: text("I am small"), models=serving("small")) as fast,
        ScriptedEngine(lambda body, number: text("I am big"), models=serving("big")) as gpu,
        Service(
            *("--upstream", f"fast={fast.url}/v1", "--upstream", f"gpu={gpu.url}/v1"),
            *("--upstream", "off=http://127.0.0.1:9/v1"),
        ) as service,
    ):
        chromium.open(f"{service.url}/")
        chromium.until(f"{fields('models')}.includes('big')")
        rows = chromium.run("[...document.querySelectorAll('#models tr')].map((row) => row.cells[0].textContent)")
        assert rows == ["small at fast", "big at gpu"]
        chromium.until("!document.getElementById('engines').hidden")
        shown = "[...document.querySelectorAll('#engines li')].map((line) => [line.textContent, line.className])"
        chromium.until(f"{shown}.some((line) => line[0].startsWith('off') && line[1] === 'bad')")
        assert [line for line in chromium.run(shown) if not line[0].startswith("off")] == [
            ["fast: ready", ""],
            ["gpu: ready", ""],
        ]
        for model in ("small", "big"):
            chromium.run(f"(model.value = '{model}', model.onchange(), document.getElementById('send').click())")
            chromium.until(f"{fields('answer')}.includes('I am {model}')")
            chromium.until("!document.getElementById('send').disabled")
            assert chromium.run(fields("setup")).endswith(f"claude --model {model}")
        assert [len(engine.chats) for engine in (fast, gpu)] == [1, 1]
        chromium.until(f"{fields('ttft')}.endsWith(' ms')")
        chromium.save("page-engines")
        assert [words for words in chromium.complaints if "favicon" not in words] == []


def test_the_page_says_that_the_server_does_not_answer_until_it_does_again(chromium: Chromium) -> None:
    with Service(*SETTINGS, may_log_errors=True) as service:
        chromium.open(f"{service.url}/")
        chromium.until(f"{fields('ready')} === 'ready'")
        chromium.until(f"{fields('running')} === '0'")
        os.kill(service.pid, signal.SIGSTOP)
        chromium.until(f"{fields('ready')} === 'the server does not answer'")
        assert chromium.run("ready.className") == "bad"
        chromium.until(f"{fields('running')} === '–'")
        os.kill(service.pid, signal.SIGCONT)
        chromium.until(f"{fields('ready')} === 'ready'")
        chromium.until(f"{fields('running')} === '0'")
    chromium.until(f"{fields('ready')} === 'the server does not answer'")
    chromium.until(f"{fields('running')} === '–'")
    chromium.run("models.replaceChildren()")
    with Service(*SETTINGS, "--port", service.url.rpartition(":")[2]):
        chromium.until(f"{fields('ready')} === 'ready'")
        chromium.until(f"{fields('models')}.includes('simulated')")
        assert chromium.run("ready.className") == "dim"


def test_without_the_extra_the_page_names_it_and_asks_for_figures_once(chromium: Chromium) -> None:
    with Service(*SETTINGS, kind="without metrics") as service:
        chromium.open(f"{service.url}/")
        chromium.until("!document.getElementById('no-figures').hidden")
        assert "pip install '.[metrics]'" in chromium.run(fields("no-figures"))
        asked = chromium.requests("/readyz")
        while chromium.requests("/readyz") == asked:  # every 5 s, and for figures every second
            chromium.run("new Promise((resolve) => setTimeout(resolve, 100))")
        assert chromium.requests("/metrics") == 1
        assert len([words for words in chromium.complaints if "favicon" not in words]) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", OTHER_NAME])
def test_the_lines_for_a_client_are_copied_also_over_plain_http(chromium: Chromium, host: str) -> None:
    with Service(*SETTINGS) as service:
        chromium.open(f"{service.url.replace('127.0.0.1', host)}/")
        chromium.until(f"{fields('models')}.includes('simulated')")
        assert chromium.run("isSecureContext") == (host != OTHER_NAME)
        chromium.run("document.getElementById('copy').focus()")
        chromium.press("Enter")
        chromium.until(f"{fields('copied')} === 'copied'")
        chromium.run("((box) => { box.value = ''; box.focus(); })(document.getElementById('prompt'))")
        chromium.call("Input.dispatchKeyEvent", type="keyDown", key="v", modifiers=2, commands=["paste"])
        assert chromium.until("document.getElementById('prompt').value") == chromium.run(fields("setup"))
        assert [words for words in chromium.complaints if "favicon" not in words] == []
