"""A model list in pages: every page is read, in the form of the Messages API and of OpenAI's lists."""

from typing import Any

import pytest

from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared.remote import RemoteEngine
from anthro_asgi.upstream.origin import Origin
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer

Json = dict[str, Any]
FORMS = pytest.mark.parametrize(
    ("kind", "entry", "after"),
    [
        (MessagesEngine, {"type": "model"}, "limit=1000&after_id="),
        (OpenAIEngine, {"object": "model", "owned_by": "vllm"}, "after="),
    ],
    ids=["messages", "chat"],
)


def page(entry: Json, *names: str, more: bool) -> bytes:
    return json_answer(200, {"data": [entry | {"id": name} for name in names], "has_more": more, "last_id": names[-1]})


async def listed(kind: type[RemoteEngine], answer: Answer) -> tuple[list[str], list[str]]:
    """The names of the engine's models, and the queries of the requests for them."""
    async with ScriptedUpstream(answer) as upstream:
        engine = kind(Origin.parse(upstream.url))
        try:
            names = [model.id for model in await engine.models()]
        finally:
            await engine.stop()
        return names, [request.target.partition("?")[2] for request in upstream.requests]


@FORMS
async def test_every_page_is_read(kind: type[RemoteEngine], entry: Json, after: str) -> None:
    async def pages(wire: Wire) -> None:
        query = wire.target.partition("?")[2]
        following = {"": ("a", "b/1"), f"{after}b%2F1": ("c",), f"{after}c": ("d",)}
        await wire.send(page(entry, *following[query], more=following[query] != ("d",)))

    names, queries = await listed(kind, pages)
    assert names == ["a", "b/1", "c", "d"]
    assert queries == ["", f"{after}b%2F1", f"{after}c"]


@FORMS
async def test_a_server_that_ignores_the_cursor_is_asked_once_more(
    kind: type[RemoteEngine], entry: Json, after: str
) -> None:
    names, queries = await listed(kind, page(entry, "a", "b", more=True))
    assert names == ["a", "b"]
    assert queries == ["", f"{after}b"]


@FORMS
@pytest.mark.parametrize("broken", [json_answer(500, {}), json_answer(200, [])], ids=["status", "shape"])
async def test_a_page_that_cannot_be_read_ends_the_list(
    kind: type[RemoteEngine], entry: Json, after: str, broken: bytes
) -> None:
    async def pages(wire: Wire) -> None:
        await wire.send(broken if "?" in wire.target else page(entry, "a", more=True))

    assert await listed(kind, pages) == (["a"], ["", f"{after}a"])


@FORMS
async def test_the_number_of_pages_is_limited(kind: type[RemoteEngine], entry: Json, after: str) -> None:
    numbers = iter(range(1000))

    async def endless(wire: Wire) -> None:
        await wire.send(page(entry, f"m{next(numbers)}", more=True))

    names, queries = await listed(kind, endless)
    assert len(queries) == 33
    assert len(names) == 32
    assert queries[1] == f"{after}m0"
