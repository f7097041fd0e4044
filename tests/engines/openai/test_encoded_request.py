"""What becomes of a request on its way to an engine: the same at once and in turns, and nothing of it is kept."""

import gc
from typing import Any

import pytest

from anthro_asgi.engines.openai import chat_request
from anthro_asgi.engines.openai.chat_request import encode, to_chat
from anthro_asgi.engines.openai.dialects import PLAIN, Dialect
from anthro_asgi.engines.openai.encoded_request import EncodedRequest, chat_body, earlier_call_ids
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import MessagesRequest
from tests.support.chat_requests import assistant, every_dialect, request, result, text, use, user

Json = dict[str, Any]

LATE: Json = {"role": "system", "content": "Be brief."}
TURNS: list[Json] = [
    *(user("Hi", "there"), LATE, assistant("Look:", use("a", file="x", lines=[1, 2])), user(result("a", "y"), "and?")),
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]},
]


@every_dialect
async def test_a_large_request_converted_in_steps_is_the_same(dialect: Dialect) -> None:
    whole = request(*TURNS * 9, system="Be good.", tools=[{"name": "look", "input_schema": {"type": "object"}}])
    whole.is_large = True
    body = await chat_body(whole, dialect)
    assert repr(body) == repr(to_chat(whole, dialect))
    assert b"".join(await EncodedRequest(whole, body).encoded()) == encode(body)


@every_dialect
async def test_messages_of_many_blocks_are_converted_in_steps_to_the_same(dialect: Dialect) -> None:
    texts = ["x" * 500, "", "y"] * 300
    document = {"type": "document", "source": {"type": "content", "content": [text(words) for words in texts]}}
    whole = request(
        user(*texts),
        assistant(*texts, use("a")),
        user(result("a", [*map(text, texts), document])),
        *(user(words) for words in texts),
        user({"type": "document", "title": "T", "source": document["source"]}),
        assistant(*texts),
        *(assistant(words) for words in texts),
    )
    whole.is_large = True
    body = await chat_body(whole, dialect)
    assert b"".join(await EncodedRequest(whole, body).encoded()) == encode(to_chat(whole, dialect))
    assert len(list(chat_request.to_chat_in_steps(whole, dialect))) > 20
    assert await earlier_call_ids(whole) == {"a"}


async def test_a_small_request_is_sent_in_one_piece() -> None:
    whole = request(*TURNS)
    body = {"messages": [], "model": "m"}
    assert await EncodedRequest(whole, body).encoded() == [encode(body)]


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
async def test_a_request_nested_too_deeply_is_an_invalid_request(large: bool) -> None:
    deep: Any = "x" * 300_000
    for _ in range(100_000):
        deep = [deep]
    asked = request()
    asked.is_large = large
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        await EncodedRequest(asked, {"messages": deep}).encoded()
    while type(deep) is list:  # its own end would go as deep
        deep = deep.pop()


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
async def test_a_released_request_is_dropped_and_not_changed(large: bool) -> None:
    others = requests()
    whole = request(*TURNS)
    whole.is_large = large
    body = await chat_body(whole, PLAIN)
    before = repr((whole, whole.raw, body))
    asked = EncodedRequest(whole, body)
    await asked.release()
    with pytest.raises(AssertionError):
        _ = asked.request
    with pytest.raises(AssertionError):
        _ = asked.body
    assert repr((whole, whole.raw, body)) == before  # somebody else may still need it
    del whole, body
    assert requests() == others


def requests() -> set[int]:
    """Those that anybody in this process has, by their identity."""
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if isinstance(thing, MessagesRequest)}
