"""Content blocks: each is accepted by its rule, or refused with its path."""

from typing import Any

import orjson
import pytest

from anthro_asgi.wire.blocks import DEFAULT_BLOCK_CHECKS, SERVER_RESULTS
from anthro_asgi.wire.defaults import MAX_DEPTH
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import MessagesRequest, parse_request
from tests.wire.strategies import Json

PIXEL = "iVBORw0KGgo="
CALL = {"type": "tool_use", "id": "toolu_1", "name": "w", "input": {}}
# Turns before the tested block, so that there is a call to answer. The tested block is messages.2.content.0.
BEFORE: list[Json] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [CALL]}]


def parse(role: str, block: Any) -> MessagesRequest:
    messages = [*BEFORE, {"role": role, "content": [block]}]
    return parse_request(orjson.dumps({"model": "m", "max_tokens": 1, "messages": messages}))


def image(**changes: Any) -> Json:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL, **changes}}


def document(**source: Any) -> Json:
    return {"type": "document", "source": source}


def result(**changes: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": "toolu_1", **changes}


def call(**changes: Any) -> Json:
    return {"type": "tool_use", "id": "toolu_2", "name": "w", "input": {}, **changes}


def nested(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


TEXT = {"type": "text", "text": "a"}
VIDEO = {"type": "video", "source": {"type": "base64", "media_type": "video/mp4", "data": PIXEL}}

TAKEN: list[tuple[str, Json]] = [
    ("user", TEXT),
    ("user", {"type": "text", "text": ""}),
    ("user", {**TEXT, "cache_control": {"type": "ephemeral"}, "citations": [{"any": 1}], "new": None}),
    *[("user", image(media_type=f"image/{kind}")) for kind in ("jpeg", "png", "webp", "gif")],
    ("user", {**image(), "cache_control": 1}),
    ("user", VIDEO),
    ("user", document(type="text", media_type="text/plain", data="")),
    ("user", {**document(type="text", data="a"), "title": "t", "context": "c", "citations": {"enabled": True}}),
    ("user", {**document(type="text", data="a"), "title": None, "context": None}),
    ("user", document(type="content", content="a")),
    ("user", document(type="content", content=[TEXT, image()])),
    ("user", {"type": "search_result", "title": "t", "source": "s", "content": [TEXT]}),
    ("user", {"type": "search_result"}),
    ("user", {"type": "container_upload", "file_id": "file_1"}),
    ("user", result()),
    ("user", result(content=None, is_error=None)),
    ("user", result(content="", is_error=True)),
    ("user", result(content=[])),
    (
        "user",
        result(
            content=[
                TEXT,
                image(),
                document(type="text", data="a"),
                {"type": "search_result", "title": "t", "source": "s", "content": [TEXT]},
                {"type": "tool_reference", "tool_name": "w"},
            ]
        ),
    ),
    ("assistant", TEXT),
    ("assistant", call(cache_control={}, caller={"type": "direct"})),
    ("assistant", call(input=nested(MAX_DEPTH))),
    ("assistant", {"type": "thinking", "thinking": "a", "signature": "s"}),
    ("assistant", {"type": "thinking", "thinking": ""}),
    ("assistant", {"type": "redacted_thinking", "data": "x"}),
    ("assistant", {"type": "container_upload"}),
    ("assistant", {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}),
    ("assistant", {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "w", "server_name": "s", "input": {}}),
    *[("assistant", {"type": kind, "tool_use_id": "srvtoolu_1", "content": {"a": 1}}) for kind in SERVER_RESULTS],
    ("assistant", {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "content": "a", "is_error": True}),
    ("assistant", {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1"}),
    *[("assistant", {"type": kind, "tool_use_id": "srvtoolu_1", "content": []}) for kind in SERVER_RESULTS],
    ("system", TEXT),
]
# Blocks of today's API that become something else for an engine: the tests are in `test_history_folding`.
FOLDED: list[tuple[str, Json]] = [
    ("assistant", {"type": "compaction", "content": "So far.", "tool_changes": []}),
    ("assistant", {"type": "compaction", "content": None}),
    ("assistant", {"type": "connector_text", "connector_text": "a", "signature": "s"}),
    ("assistant", {"type": "connector_text", "text": "a"}),
    ("assistant", {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}),
    ("assistant", {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []}),
    (
        "system",
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "look"}}},
    ),
    ("system", {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "w"}}),
]

REFUSED: list[tuple[str, Any, str]] = [
    # not a block
    ("user", None, ": must be an object"),
    ("user", "text", ": must be an object"),
    ("user", [], ": must be an object"),
    ("user", {}, ".type: required"),
    ("user", {"type": None}, ".type: required"),
    ("user", {"type": 1}, ".type: 1 is not supported in a message of role user; supported: text, image, "),
    ("user", {"type": ["text"]}, ".type: an array is not supported"),
    ("user", {"type": "audio"}, ".type: 'audio' is not supported in a message of role user"),
    # not allowed in a message of this role
    ("user", call(), ".type: 'tool_use' is not supported in a message of role user"),
    ("user", {"type": "thinking", "thinking": "a"}, ".type: 'thinking' is not supported"),
    ("assistant", result(), ".type: 'tool_result' is not supported in a message of role assistant"),
    ("assistant", image(), ".type: 'image' is not supported in a message of role assistant"),
    ("system", image(), ".type: 'image' is not supported in a message of role system; supported: text"),
    # text
    ("user", {"type": "text"}, ".text: required"),
    ("user", {"type": "text", "text": None}, ".text: required"),
    ("user", {"type": "text", "text": 1}, ".text: must be a string"),
    # image and video
    ("user", {"type": "image"}, ".source: required"),
    ("user", {"type": "image", "source": "x"}, ".source: must be an object"),
    ("user", image(type=None), ".source.type: could not process image: required"),
    ("user", image(type="url", url="http://x/"), ".source.type: could not process image: url sources are not fetched"),
    ("user", image(type="file"), ".source.type: could not process image: 'file' is not supported"),
    ("user", image(media_type=None), ".source.media_type: could not process image: required"),
    (
        "user",
        image(media_type="image/bmp"),
        ".source.media_type: could not process image: must be one of image/gif, image/jpeg, image/png",
    ),
    ("user", image(media_type=["image/png"]), ".source.media_type: could not process image: must be one of "),
    ("user", image(data=None), ".source.data: could not process image: required"),
    ("user", image(data=1), ".source.data: could not process image: must be a string"),
    ("user", image(data=""), ".source.data: could not process image: must not be empty"),
    ("user", image(data="no!"), ".source.data: could not process image: must be base64"),
    ("user", image(data="aaa!a"), ".source.data: could not process image: must be base64"),
    ("user", image(data="aaaaa"), ".source.data: could not process image: must be base64"),
    ("user", image(data="é==="), ".source.data: could not process image: must be base64"),
    ("user", image(data="data:image/png;base64,aaaa"), ".source.data: could not process image: must be base64"),
    ("user", {**VIDEO, "source": {**image()["source"]}}, ".source.media_type: must be one of video/mp4"),
    ("user", {**VIDEO, "source": {"type": "url", "url": "x"}}, ".source.type: url sources are not fetched"),
    # document
    ("user", {"type": "document"}, ".source: required"),
    ("user", document(), ".source.type: required"),
    (
        "user",
        document(type="base64", media_type="application/pdf", data=PIXEL),
        ".source.type: 'base64' is not supported: this service does not support PDFs",
    ),
    ("user", document(type="url", url="http://x/"), ".source.type: 'url' is not supported"),
    ("user", document(type="file", file_id="x"), ".source.type: 'file' is not supported"),
    ("user", document(type="text"), ".source.data: required"),
    ("user", document(type="content"), ".source.content: required"),
    ("user", document(type="content", content=1), ".source.content: must be a string or an array of blocks"),
    (
        "user",
        document(type="content", content=[VIDEO]),
        ".source.content.0.type: 'video' is not supported in a document",
    ),
    (
        "user",
        document(type="content", content=[image(data="")]),
        ".source.content.0.image.source.data: could not process image: must not be empty",
    ),
    ("user", {**document(type="text", data="a"), "title": 1}, ".title: must be a string"),
    ("user", {**document(type="text", data="a"), "context": []}, ".context: must be a string"),
    # search_result
    ("user", {"type": "search_result", "title": 1}, ".title: must be a string"),
    ("user", {"type": "search_result", "source": {}}, ".source: must be a string"),
    (
        "user",
        {"type": "search_result", "content": [TEXT, image()]},
        ".content.1.type: 'image' is not supported in a search",
    ),
    ("user", {"type": "search_result", "content": 1}, ".content: must be a string or an array of blocks"),
    # tool_result
    ("user", {"type": "tool_result"}, ".tool_use_id: required"),
    ("user", result(tool_use_id=1), ".tool_use_id: must be a string"),
    ("user", result(tool_use_id="toolu_9"), ".tool_use_id: no earlier tool_use has the id 'toolu_9'"),
    ("user", result(is_error="yes"), ".is_error: must be a boolean"),
    ("user", result(content=1), ".content: must be a string or an array of blocks"),
    ("user", result(content={"type": "text"}), ".content: must be a string or an array of blocks"),
    ("user", result(content=["a"]), ".content.0: must be an object"),
    ("user", result(content=[TEXT, VIDEO]), ".content.1.type: 'video' is not supported in a tool result"),
    ("user", result(content=[result()]), ".content.0.type: 'tool_result' is not supported in a tool result"),
    (
        "user",
        result(content=[image(type="url")]),
        ".content.0.image.source.type: could not process image: url sources are not fetched",
    ),
    (
        "user",
        result(content=[document(type="url")]),
        ".content.0.document.source.type: 'url' is not supported: this service does not support PDFs",
    ),
    ("user", result(content=[{"type": "tool_reference"}]), ".content.0.tool_reference.tool_name: required"),
    # tool_use and server_tool_use
    ("assistant", call(id=None), ".id: required"),
    ("assistant", call(id=""), ".id: must not be empty"),
    ("assistant", call(id=1), ".id: must be a string"),
    ("assistant", call(name=None), ".name: required"),
    ("assistant", call(name=""), ".name: must not be empty"),
    ("assistant", call(input="[]"), ".input: must be an object"),
    ("assistant", call(input='{"a":1'), ".input: must be an object"),
    ("assistant", call(input="1"), ".input: must be an object"),
    ("assistant", call(input=[]), ".input: must be an object"),
    ("assistant", call(input='{"a":' * 101 + "1" + "}" * 101), ".input: must not be nested deeper than 100 levels"),
    ("assistant", call(input=nested(MAX_DEPTH + 1)), ".input: must not be nested deeper than 100 levels"),
    ("assistant", {"type": "server_tool_use", "id": "x", "name": "y"}, ".input: required"),
    # blocks of today's API
    ("assistant", {"type": "compaction", "content": 1}, ".content: must be a string"),
    ("assistant", {"type": "compaction", "tool_changes": [TEXT]}, ".tool_changes.0.type: must be one of tool_addition"),
    (
        "assistant",
        {"type": "compaction", "tool_changes": [{"type": {}}]},
        ".tool_changes.0.type: must be one of tool_addition",
    ),
    ("assistant", {"type": "connector_text"}, ".connector_text: required"),
    ("assistant", {"type": "connector_text", "text": 1}, ".text: must be a string"),
    ("user", result(content=[{"type": "browser_state"}]), ".content.0.browser_state.tabs: required"),
    ("user", result(content=[{"type": "browser_state", "tabs": [1]}]), ".content.0.browser_state.tabs.0: must be an"),
    ("system", {"type": "tool_addition"}, ".tool: required"),
    ("system", {"type": "tool_addition", "tool": {"type": "custom"}}, ".tool.type: must be one of mcp_tool_reference"),
    ("system", {"type": "tool_addition", "tool": {"type": "tool_reference"}}, ".tool.name: required"),
    ("system", {"type": "tool_addition", "tool": {"type": "tool_definition"}}, ".tool.definition: required"),
    ("system", {"type": "tool_removal", "tool": {"type": "tool_definition"}}, ".tool.type: must be one of mcp_tool"),
    ("system", {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "x"}}, ".tool.name: no tool is "),
    # thinking
    ("assistant", {"type": "thinking"}, ".thinking: required"),
    ("assistant", {"type": "thinking", "thinking": "a", "signature": 1}, ".signature: must be a string"),
    # results of server tools
    ("assistant", {"type": "web_search_tool_result", "content": []}, ".tool_use_id: required"),
    ("assistant", {"type": "mcp_tool_result"}, ".tool_use_id: required"),
    ("assistant", {"type": "mcp_tool_result", "tool_use_id": "x", "content": 1}, ".content: must be an object or"),
    ("assistant", {"type": "mcp_tool_use", "id": "x", "name": "y"}, ".input: required"),
    ("assistant", {"type": "web_search_tool_result", "tool_use_id": "x"}, ".content: required"),
    (
        "assistant",
        {"type": "web_search_tool_result", "tool_use_id": "x", "content": 1},
        ".content: must be an object or",
    ),
    (
        "assistant",
        {"type": "web_fetch_tool_result", "tool_use_id": "x", "content": nested(MAX_DEPTH + 1)},
        ".content: must not be nested deeper than 100 levels",
    ),
]


def typed(block: Any, reason: str) -> str:
    """The reason with the type of the block before it, unless it is about the type itself."""
    return reason if reason.startswith((".type: ", ": ")) else f".{block['type']}{reason}"


@pytest.mark.clause("3.25", "3.29")
@pytest.mark.parametrize(("role", "block"), TAKEN, ids=repr)
def test_a_valid_block_is_accepted_unchanged(role: str, block: Json) -> None:
    assert parse(role, block).messages[2] == {"role": role, "content": [block]}


@pytest.mark.clause("3.24", "3.25", "3.26", "7.3", "7.8")
@pytest.mark.parametrize(("role", "block", "reason"), REFUSED, ids=lambda value: repr(value)[:60])
def test_an_invalid_block_is_refused_with_its_path(role: str, block: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(role, block)
    assert refusal.value.message.startswith(f"messages.2.content.0{typed(block, reason)}")


@pytest.mark.clause("3.32", "3.33")
@pytest.mark.parametrize(("role", "block"), FOLDED, ids=repr)
def test_a_block_of_todays_api_stays_as_it_is_for_a_relayed_upstream(role: str, block: Json) -> None:
    messages = [*BEFORE, {"role": role, "content": [TEXT, block]}]
    raw = {"model": "m", "max_tokens": 1, "messages": messages, "tools": [{"name": "w"}]}
    assert parse_request(orjson.dumps(raw)).raw["messages"] == messages


@pytest.mark.clause("3.35")
@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use", "mcp_tool_use"])
@pytest.mark.parametrize(
    ("value", "read"),
    [('{"a":1}', {"a": 1}), ('"{\\"a\\":1}"', {"a": 1}), (None, {}), ("", {}), (" \n", {}), ("{}", {})],
)
def test_an_input_that_a_model_once_wrote_is_read_as_an_object(kind: str, value: Any, read: Json) -> None:
    (block,) = parse("assistant", call(type=kind, input=value)).messages[2]["content"]
    assert block["input"] == read


@pytest.mark.parametrize(("role", "block"), TAKEN, ids=repr)
def test_a_valid_block_is_accepted_in_a_deep_request(role: str, block: Json) -> None:
    assert parse(role, {**block, "unknown": nested(2 * MAX_DEPTH)}).messages[2]["role"] == role


@pytest.mark.parametrize(("role", "block", "reason"), REFUSED, ids=lambda value: repr(value)[:60])
def test_an_invalid_block_is_refused_for_the_same_reason_in_a_deep_request(role: str, block: Any, reason: str) -> None:
    if isinstance(block, dict):
        block = {**block, "unknown": nested(2 * MAX_DEPTH)}
    with pytest.raises(InvalidRequest) as refusal:
        parse(role, block)
    assert refusal.value.message.startswith(f"messages.2.content.0{typed(block, reason)}")


@pytest.mark.clause("3.25")
def test_every_block_type_has_a_valid_example_here() -> None:
    assert {(role, kind) for role, kinds in DEFAULT_BLOCK_CHECKS.items() for kind in kinds} == {
        (role, block["type"]) for role, block in [*TAKEN, *FOLDED]
    }


@pytest.mark.clause("7.2", "7.3")
def test_an_error_names_the_index_of_its_block() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse("user", result(content=[TEXT, TEXT, image(media_type="image/tiff")]))
    assert refusal.value.message.startswith(
        "messages.2.content.0.tool_result.content.2.image.source.media_type: could not process image: must be one of"
    )


def test_a_long_name_is_cut_in_an_error() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse("user", {"type": "x" * 10_000})
    assert len(refusal.value.message) < 300
