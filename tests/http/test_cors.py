"""Web pages of other origins (contract 1.7): preflights, and the headers of every response."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.testing.driver import Driver, Response
from tests.docs.pages import PAGES

PAGE = "https://app.example"
HELLO = b'{"model":"m","max_tokens":9,"stream":%s,"messages":[{"role":"user","content":"Hi"}]}'
# what a browser asks for on behalf of the TypeScript SDK with dangerouslyAllowBrowser
ASKED = "anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key,x-stainless-lang"

pytestmark = pytest.mark.clause("1.7")


async def engine(request: Any) -> AsyncIterator[str]:
    yield "Hello"


def app(*origins: str) -> MessagesApp:
    return MessagesApp(engine, keys=["k"], cors_origins=origins)


async def preflight(app: MessagesApp, origin: str = PAGE, **more: str) -> Response:
    headers = {"origin": origin, "access-control-request-method": "POST", **more}
    listed = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await Driver(app).request("OPTIONS", "/v1/messages", headers=listed)


async def test_a_preflight_is_answered_without_a_key_and_allows_the_headers_of_the_sdk() -> None:
    response = await preflight(app(PAGE), access_control_request_headers=ASKED)
    assert (response.status, response.body) == (204, b"")
    headers = {name: ", ".join(values) for name, values in response.headers.items()}
    del headers["request-id"]
    assert headers == {
        "vary": "origin",
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-allow-headers": ASKED,
        "access-control-max-age": "600",
    }


async def test_a_preflight_for_a_private_address_is_allowed() -> None:
    response = await preflight(app(PAGE), access_control_request_private_network="true")
    assert response.header("access-control-allow-private-network") == "true"
    assert (await preflight(app(PAGE))).header("access-control-allow-private-network") is None


@pytest.mark.parametrize("names", ["x\r\nset-cookie: a", "a b", "x" * 5000, "a,,b", ""])
async def test_names_of_headers_that_are_none_are_not_repeated(names: str) -> None:
    response = await preflight(app(PAGE), access_control_request_headers=names)
    assert (response.status, response.header("access-control-allow-headers")) == (204, None)


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil", "http://app.example", "null"])
async def test_another_origin_gets_no_permission(origin: str) -> None:
    response = await preflight(app(PAGE), origin)
    assert response.status == 403
    assert not [name for name in response.headers if name.startswith("access-control-")]
    headers = [("origin", origin), ("x-api-key", "k")]
    response = await Driver(app(PAGE)).request("POST", "/v1/messages", body=HELLO % b"false", headers=headers)
    assert response.status == 200, "a client that is no browser may send any origin"
    assert response.header("access-control-allow-origin") is None
    assert response.header("vary") == "origin"


async def test_a_page_may_read_each_header_of_ours_that_the_contract_names() -> None:
    response = await Driver(app(PAGE)).request("GET", "/healthz", headers=[("origin", PAGE)])
    exposed = (response.header("access-control-expose-headers") or "").split(", ")
    ours = set(re.findall(r"`(anthro-asgi-[a-z-]+)`", PAGES["reference/wire-contract.md"]))
    assert {"anthro-asgi-engine", "anthro-asgi-compacted"} <= ours <= set(exposed)


@pytest.mark.parametrize("stream", [b"false", b"true"])
@pytest.mark.parametrize(("key", "status"), [("k", 200), ("wrong", 401)])
async def test_every_response_to_the_page_may_be_read_by_it(stream: bytes, key: str, status: int) -> None:
    headers = [("origin", PAGE), ("x-api-key", key)]
    response = await Driver(app(PAGE)).request("POST", "/v1/messages", body=HELLO % stream, headers=headers)
    assert response.status == status
    assert response.header("access-control-allow-origin") == PAGE
    exposed = response.header("access-control-expose-headers") or ""
    assert {"request-id", "retry-after", "anthro-asgi-ignored"} <= set(exposed.split(", "))


async def test_every_origin_is_allowed_by_an_asterisk() -> None:
    response = await preflight(app("*"), "https://anything.example")
    assert (response.status, response.header("access-control-allow-origin")) == (204, "*")
    assert response.header("vary") is None


async def test_several_origins_may_be_allowed() -> None:
    for origin in ("https://a.example", "https://b.example"):
        response = await preflight(app("https://a.example", "https://b.example"), origin)
        assert response.header("access-control-allow-origin") == origin


async def test_a_request_without_an_origin_is_served_as_before() -> None:
    response = await Driver(app(PAGE)).request("GET", "/healthz")
    assert (response.status, response.header("access-control-allow-origin")) == (200, None)


async def test_options_that_is_no_preflight_is_a_wrong_method() -> None:
    response = await Driver(app(PAGE)).request("OPTIONS", "/v1/messages", headers=[("origin", PAGE)])
    assert (response.status, response.header("access-control-allow-origin")) == (405, PAGE)


async def test_without_configured_origins_nothing_changes() -> None:
    response = await preflight(app())
    assert response.status == 405
    response = await Driver(app()).request("GET", "/healthz", headers=[("origin", PAGE)])
    assert not [name for name in response.headers if name.startswith("access-control-") or name == "vary"]
