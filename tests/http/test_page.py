"""The page at `GET /`. That it works in a browser is checked in `tests/checks/apart/page_in_chromium.py`."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.http.page import accepts_html
from anthro_asgi.testing.driver import Driver, Response

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


async def engine(request: Any) -> AsyncIterator[str]:
    yield "Hello"


async def get(app: MessagesApp, accept: str | None, method: str = "GET") -> Response:
    headers = [] if accept is None else [("accept", accept)]
    return await Driver(app).request(method, "/", headers=headers)


@pytest.mark.parametrize("keys", [(), ("k",)])
async def test_a_browser_gets_the_page(keys: tuple[str, ...]) -> None:
    response = await get(MessagesApp(engine, keys=keys), CHROMIUM)
    assert (response.status, response.header("content-type")) == (200, "text/html; charset=utf-8")
    assert response.body.startswith(b"<!doctype html>")
    assert response.header("vary") == "accept"
    assert (await get(MessagesApp(engine), CHROMIUM, "HEAD")).body == b""


@pytest.mark.clause("1.5")
@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/plain, application/xhtml+xml", "text/htmlx"])
async def test_every_other_client_gets_json(accept: str | None) -> None:
    response = await get(MessagesApp(engine), accept)
    assert (response.status, response.json()) == (200, {"status": "ok"})


async def test_the_page_can_be_turned_off() -> None:
    assert (await get(MessagesApp(engine, page=False), CHROMIUM)).json() == {"status": "ok"}


async def test_the_page_loads_nothing_and_its_policy_allows_its_own_script_and_style_only() -> None:
    response = await get(MessagesApp(engine), CHROMIUM)
    text, policy = response.body.decode(), response.header("content-security-policy") or ""
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert not re.search(r"https?://|\bsrc=|\bon\w+=|style=|@import|url\(|innerHTML|eval\(", text)


async def test_every_control_of_the_page_has_a_name() -> None:
    text = (await get(MessagesApp(engine), CHROMIUM)).body.decode()
    named = set(re.findall(r'<label for="(\w+)"', text)) | set(
        re.findall(r'<label class="box"><input id="(\w+)"', text)
    )
    assert set(re.findall(r'<(?:input|select|textarea) id="(\w+)"', text)) == named
    assert '<html lang="en">' in text


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (b"text/html", True),
        (b"TEXT/HTML;q=0.9", True),
        (b"a/b , text/html", True),
        (b"x-text/html", False),
        (b"", False),
    ],
)
def test_an_accept_header_names_html_or_not(accept: bytes, html: bool) -> None:
    assert accepts_html(accept) is html
