"""Checks the pages of `docs/` against the code: their tables, their examples and their links."""

import re
from typing import Any, get_args

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.simulator.failures import FAILURE_KINDS
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.deltas import StopReason
from anthro_asgi.wire.errors import UPSTREAM_ERROR_KINDS
from tests.docs.pages import DOCS, PAGES, README, ROOT, marked

pytestmark = pytest.mark.slow


def test_every_kind_of_upstream_error_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", PAGES["reference/errors.md"]))
    assert explained >= set(UPSTREAM_ERROR_KINDS)


def test_every_reason_that_the_package_gives_is_explained() -> None:
    """`scripted` is the test kit's own; a stop reason is something else."""
    given = set()
    for path in (ROOT / "anthro_asgi").rglob("*.py"):
        given |= set(re.findall(r'\breason\b[^=\n]{0,20}=\s*"(\w+)"', path.read_text("utf-8")))
    assert len(given) > 15
    assert given - {"scripted", *get_args(StopReason)} <= set(re.findall(r"`(\w+)`", PAGES["reference/errors.md"]))


def test_the_table_of_simulated_failures_has_every_kind_and_no_other() -> None:
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|",
        PAGES["simulator.md"].partition("## Failures")[2].partition("\n## ")[0],
        re.MULTILINE,
    )
    described = {kind for row in rows for kind in re.findall(r"`(\w+)`", row)}
    assert described == set(FAILURE_KINDS)


async def test_the_example_of_a_rich_engine_does_what_it_says() -> None:
    names: dict[str, object] = {}
    exec(marked(PAGES["reference/engine-protocol.md"], "engine"), names)
    app = names["app"]
    assert isinstance(app, MessagesApp)
    driver = Driver(app)
    async with driver.lifespan():
        body = b'{"model":"parrot","max_tokens":9,"messages":[{"role":"user","content":"%s"}]%s}'
        whole = (await driver.request("POST", "/v1/messages", body=body % (b"a b", b""))).json()
        assert (whole["content"][0]["text"], whole["usage"]) == ("a b", {"input_tokens": 2, "output_tokens": 2})
        tools = b',"tools":[{"name":"look","input_schema":{"type":"object"}}]'
        whole = (await driver.request("POST", "/v1/messages", body=body % (b"a b", tools))).json()
        assert (whole["content"][0]["name"], whole["stop_reason"]) == ("look", "tool_use")
        refused = await driver.request("POST", "/v1/messages", body=body % (b"a " * 200, b""))
        assert (refused.status, refused.json()["error"]["message"]) == (
            400,
            "prompt is too long: 200 tokens > 100 maximum",
        )
        assert (await driver.request("GET", "/readyz")).status == 200
        assert (await driver.request("GET", "/v1/models")).json()["data"][0]["max_input_tokens"] == 100


async def test_the_example_of_a_mounted_application_answers_under_its_prefix() -> None:
    names: dict[str, Any] = {}
    exec(marked(PAGES["how-to/embedding.md"], "mount"), names)
    host = Driver(names["app"])
    body = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'
    async with host.lifespan():
        answer = await host.request("POST", "/llm/v1/messages", body=body)
    assert (answer.status, answer.json()["content"][0]["text"]) == (200, "Hello, world")


async def test_the_example_without_http_gives_the_message_that_the_service_gives() -> None:
    names: dict[str, Any] = {}
    exec(marked(PAGES["how-to/embedding.md"], "no http"), names)
    engine = SimulatedEngine(ttft=0, itl=0)
    body = b'{"model":"m","max_tokens":40,"stop_sequences":["e"],"messages":[{"role":"user","content":"Hi"}]}'
    message = await names["answer"](engine, body)
    served = (await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=body)).json()
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == (
        served["content"],
        served["stop_reason"],
        served["stop_sequence"],
    )
    assert message["stop_sequence"] == "e"


def test_the_list_of_folders_has_every_folder_of_the_package_and_no_other() -> None:
    found = re.search(r"```text\n(anthro_asgi/.*?)\nbench/", PAGES["explanation/architecture.md"], re.DOTALL)
    assert found is not None
    package = ROOT / "anthro_asgi"
    folders = {path.parent.name for path in package.rglob("*.py") if path.parent != package}
    assert set(re.findall(r"^ +(\w+)/", found[1], re.MULTILINE)) == folders


def test_every_test_that_a_page_names_is_there() -> None:
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", README + "".join(PAGES.values())))
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in written} == set()


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(name: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        file = (DOCS / name).parent / path if path else DOCS / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


def test_the_examples_on_the_first_page_are_those_of_the_readme() -> None:
    page = PAGES["getting-started.md"]
    marks = re.findall(r"<!-- (\w+) -->\n```", page)
    assert marks == ["run", "test", "curl", "sdk", "embedded"]
    assert [marked(page, mark) for mark in marks] == [marked(README, mark) for mark in marks]


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    config = (DOCS / "site" / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    assert set(PAGES) <= set(re.findall(r": ([\w/-]+\.md)$", config, re.MULTILINE))
