"""The token estimate: all content of a prompt raises it, and nothing lowers it."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.estimate import estimate_in_steps, estimate_tokens
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import parse_request
from tests.wire.strategies import Json, examples

LONG = "some more words, " * 20
PIXEL = "iVBORw0KGgo="


def estimate(*messages: Json, **options: Any) -> int:
    body = {"model": "m", "max_tokens": 1, "messages": list(messages), **options}
    request = parse_request(orjson.dumps(body))
    tokens = estimate_tokens(request)
    assert run_to_end(estimate_in_steps(request)) == tokens
    return tokens


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


HI = {"role": "user", "content": "Hi"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "w", "input": {}}


def image(data: str = PIXEL) -> Json:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def document(**source: Any) -> Json:
    return {"type": "document", "source": source}


def result(content: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


def served(kind: str, content: Any) -> Json:
    return {"type": kind, "tool_use_id": "srvtoolu_1", "content": content}


# Each place where a prompt can hold text, without and with text in it.
PLACES: dict[str, Any] = {
    "message": lambda words: [user(text("Hi")), {"role": "user", "content": words}],
    "text block": lambda words: [user(text(words))],
    "late system message": lambda words: [HI, {"role": "system", "content": [text(words)]}],
    "assistant text": lambda words: [HI, assistant(text(words))],
    "thinking": lambda words: [HI, assistant({"type": "thinking", "thinking": words, "signature": ""})],
    "tool input": lambda words: [HI, assistant({**CALL, "input": {"deep": [{"er": words}]}})],
    "tool input key": lambda words: [HI, assistant({**CALL, "input": {words: 1}})],
    "tool name": lambda words: [HI, assistant({**CALL, "name": words or "w"})],
    "tool result": lambda words: [HI, assistant(CALL), user(result(words))],
    "tool result block": lambda words: [HI, assistant(CALL), user(result([text(words)]))],
    "tool reference": lambda words: [
        HI,
        assistant(CALL),
        user(result([{"type": "tool_reference", "tool_name": words}])),
    ],
    "document in a result": lambda words: [HI, assistant(CALL), user(result([document(type="text", data=words)]))],
    "document text": lambda words: [user(document(type="text", data=words))],
    "document content": lambda words: [user(document(type="content", content=words))],
    "document blocks": lambda words: [user(document(type="content", content=[text(words)]))],
    "document title": lambda words: [user({**document(type="text", data=""), "title": words})],
    "document context": lambda words: [user({**document(type="text", data=""), "context": words})],
    "search result": lambda words: [user({"type": "search_result", "content": [text(words)]})],
    "search result title": lambda words: [user({"type": "search_result", "title": words})],
    "search result source": lambda words: [user({"type": "search_result", "source": words})],
    "server tool": lambda words: [HI, assistant({**CALL, "type": "server_tool_use", "input": {"query": words}})],
    "web search": lambda words: [HI, assistant(served("web_search_tool_result", [{"title": words, "url": ""}]))],
    "web search url": lambda words: [HI, assistant(served("web_search_tool_result", [{"title": "", "url": words}]))],
    "web page": lambda words: [
        HI,
        assistant(
            served("web_fetch_tool_result", {"content": {"source": {"type": "text", "data": words}, "title": "a"}})
        ),
    ],
    "code output": lambda words: [HI, assistant(served("code_execution_tool_result", {"stdout": words}))],
    "code errors": lambda words: [HI, assistant(served("bash_code_execution_tool_result", {"stderr": words}))],
    "edited file": lambda words: [
        HI,
        assistant(served("text_editor_code_execution_tool_result", {"content": words, "file_type": "text"})),
    ],
}


@pytest.mark.clause("10.4")
@pytest.mark.parametrize("place", PLACES)
def test_text_is_counted_in_every_place(place: str) -> None:
    grown = estimate(*PLACES[place](LONG)) - estimate(*PLACES[place](""))
    assert abs(grown - len(LONG) // 4) <= 1


@pytest.mark.clause("10.4")
@pytest.mark.parametrize(
    ("without", "having"),
    [
        ({}, {"system": LONG}),
        ({}, {"system": [text(LONG)]}),
        ({"tools": [{"name": "w"}]}, {"tools": [{"name": "w", "description": LONG}]}),
        (
            {"tools": [{"name": "w", "input_schema": {"d": ""}}]},
            {"tools": [{"name": "w", "input_schema": {"d": LONG}}]},
        ),
        ({"tools": [{"name": "w"}]}, {"tools": [{"name": "w" * 128}]}),
    ],
    ids=["system", "system blocks", "tool description", "tool schema", "tool name"],
)
def test_system_and_tools_are_counted(without: Json, having: Json) -> None:
    assert estimate(HI, **having) - estimate(HI, **without) >= 127 // 4


def test_another_tool_raises_the_estimate() -> None:
    one, two = [{"name": "a"}], [{"name": "a"}, {"name": "bcdef"}]
    assert estimate(HI, tools=two) > estimate(HI, tools=one) > estimate(HI)


@pytest.mark.clause("10.4")
def test_an_image_has_a_fixed_price_in_every_place() -> None:
    small, large = estimate(user(image())), estimate(user(image(PIXEL[:8] * 10_000)))
    assert small == large
    assert small - estimate(user()) == 1500
    assert estimate(user(image(), image())) - small == 1500
    pictured = [HI, assistant(CALL), user(result([image()]))]
    assert estimate(*pictured) - estimate(HI, assistant(CALL), user(result([]))) == 1500
    assert estimate(user(document(type="content", content=[image()]))) == small


def test_a_video_has_a_fixed_price() -> None:
    video = {"type": "video", "source": {"type": "base64", "media_type": "video/mp4", "data": PIXEL}}
    assert estimate(user(video)) == estimate(user(image()))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "redacted_thinking", "data": LONG},
        {"type": "container_upload", "file_id": LONG},
        served("tool_search_tool_result", {"content": LONG}),
        served("web_search_tool_result", [{"encrypted_content": LONG}]),
        {"type": "thinking", "thinking": "", "signature": LONG},
    ],
    ids=lambda block: block["type"],
)
def test_what_never_reaches_an_engine_costs_nothing(block: Json) -> None:
    assert estimate(HI, assistant(block)) == estimate(HI, assistant())


def test_unvalidated_keys_are_not_read() -> None:
    deep = b'{"content":' * 900 + b"1" + b"}" * 900
    block = b'{"type":"text","text":"Hi","content":%b,"source":%b}' % (deep, deep)
    raw = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[%b]}]}' % block
    assert estimate_tokens(parse_request(raw)) == estimate(user(text("Hi")))


def test_the_estimate_is_never_zero() -> None:
    assert estimate({"role": "user", "content": ""}) >= 1
    assert estimate(user()) >= 1


@examples(60)
@given(st.lists(st.sampled_from(list(PLACES)), min_size=1, max_size=4), st.integers(0, 3), st.text("ab é", max_size=60))
def test_more_content_never_lowers_the_estimate(places: list[str], chosen: int, words: str) -> None:
    def conversation(grown: str) -> list[Json]:
        messages: list[Json] = []
        for index, place in enumerate(places):
            messages += copy.deepcopy(PLACES[place](grown if index == chosen % len(places) else "x"))
        return messages

    shorter, longer = conversation(words[: len(words) // 2]), conversation(words)
    assert estimate(*shorter) <= estimate(*longer)
    assert estimate(*longer) < estimate(*longer, HI)
