"""The request body, field by field: what is accepted, what is refused, and the path in each error."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.engines.openai.dialects import DIALECTS
from anthro_asgi.wire.errors import ApiError, InvalidRequest, NotFound
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.json_codec import dumps
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import (
    MessagesRequest,
    ThinkingConfig,
    Tool,
    ToolChoice,
    parse_request,
    parse_request_in_steps,
)
from tests.wire.strategies import VALUES, Json, examples

HI: Json = {"role": "user", "content": "Hi"}
HELLO: Json = {"model": "m", "max_tokens": 100, "messages": [HI]}
ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "absent"})()
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def body(**changes: Any) -> bytes:
    return orjson.dumps({key: value for key, value in {**HELLO, **changes}.items() if value is not ABSENT})


def parse(**changes: Any) -> MessagesRequest:
    return parse_request(body(**changes))


def refusal(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_request(raw)
    return caught.value


def call(identity: str) -> Json:
    return {"type": "tool_use", "id": identity, "name": "w", "input": {}}


def result(identity: str) -> Json:
    return {"type": "tool_result", "tool_use_id": identity}


def assistant(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


# accepted


@pytest.mark.clause("3.1", "3.24")
def test_a_minimal_request_has_defaults_for_everything_else() -> None:
    assert parse() == MessagesRequest("m", 100, [HI])
    assert parse().engine_model == "m"


@pytest.mark.clause("3.5", "3.7", "3.8")
@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"max_tokens": 1}, "max_tokens", 1),
        ({"max_tokens": 2**53}, "max_tokens", 2**53),
        ({"system": ""}, "system", []),
        ({"system": []}, "system", []),
        ({"system": "a"}, "system", ["a"]),
        (
            {
                "system": [
                    {"type": "text", "text": "a", "cache_control": {}, "citations": []},
                    {"type": "text", "text": ""},
                ]
            },
            "system",
            ["a"],
        ),
        ({"temperature": 0}, "temperature", 0.0),
        ({"temperature": 2}, "temperature", 2.0),
        ({"temperature": 0.5}, "temperature", 0.5),
        ({"top_p": 0}, "top_p", 0.0),
        ({"top_p": 1}, "top_p", 1.0),
        ({"top_k": 0}, "top_k", None),
        ({"top_k": 7}, "top_k", 7),
        ({"stop_sequences": []}, "stop_sequences", ()),
        ({"stop_sequences": ["a", " ", "a"]}, "stop_sequences", ("a", " ", "a")),
        ({"stream": True}, "stream", True),
        ({"stream": False}, "stream", False),
        ({"metadata": {}}, "user_id", None),
        ({"metadata": {"user_id": None}}, "user_id", None),
        ({"metadata": {"user_id": "u", "other": [1]}}, "user_id", "u"),
        ({"thinking": {"type": "disabled", "budget_tokens": "any"}}, "thinking", ThinkingConfig("disabled")),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking", ThinkingConfig("enabled", 5)),
        ({"thinking": {"type": "adaptive"}}, "thinking", ThinkingConfig("adaptive")),
        ({"thinking": {"type": "adaptive", "budget_tokens": None}}, "thinking", ThinkingConfig("adaptive")),
        ({"thinking": {"type": "adaptive", "budget_tokens": 5}}, "thinking", ThinkingConfig("adaptive", 5)),
        ({"thinking": {"type": "adaptive", "display": "any"}}, "thinking", ThinkingConfig("adaptive", None, "any")),
        ({"tools": []}, "tools", []),
        ({"tools": [{"name": "a"}]}, "tools", [Tool("a")]),
        ({"tools": [{"name": "a", "type": "custom"}]}, "tools", [Tool("a")]),
        (
            {"tools": [{"name": "a", "type": None, "description": None, "input_schema": None}]},
            "tools",
            [Tool("a")],
        ),
        (
            {"tools": [{"name": "a-B_9", "description": "d", "input_schema": {"type": "nonsense", "$ref": 1}}]},
            "tools",
            [Tool("a-B_9", "d", {"type": "nonsense", "$ref": 1})],
        ),
        ({"tools": [{"name": "a" * 128}]}, "tools", [Tool("a" * 128)]),
        (
            {
                "tools": [
                    {
                        "name": "a",
                        "cache_control": {"type": "ephemeral"},
                        "strict": True,
                        "defer_loading": True,
                        "allowed_callers": ["direct"],
                        "eager_input_streaming": True,
                        "input_examples": [{}],
                    }
                ]
            },
            "tools",
            [Tool("a", strict=True)],
        ),
        ({"tool_choice": {"type": "auto"}}, "tool_choice", ToolChoice("auto")),
        ({"tool_choice": {"type": "none"}}, "tool_choice", ToolChoice("none")),
        ({"tool_choice": {"type": "any"}, "tools": [{"name": "a"}]}, "tool_choice", ToolChoice("any")),
        (
            {"tool_choice": {"type": "tool", "name": "a"}, "tools": [{"name": "a"}]},
            "tool_choice",
            ToolChoice("tool", "a"),
        ),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True, "name": 1}},
            "tool_choice",
            ToolChoice("auto", None, parallel=False),
        ),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": False}}, "tool_choice", ToolChoice("auto")),
        ({"output_config": {}}, "effort", None),
        ({"output_config": {"effort": "xhigh", "new": 1}}, "effort", "xhigh"),
        ({"output_config": {"format": None}}, "output_schema", None),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"a": [1]}, "name": "x"}}},
            "output_schema",
            {"a": [1]},
        ),
    ],
    ids=repr,
)
def test_each_field_is_read_into_its_attribute(changes: Json, name: str, value: Any) -> None:
    read = getattr(parse(**changes), name)
    assert read == value
    assert type(read) is type(value)


OPTIONAL = [
    "system",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "stream",
    "metadata",
    "thinking",
    "tools",
    "tool_choice",
    "output_config",
    "thread",
]


@pytest.mark.clause("3.24")
@pytest.mark.parametrize("name", OPTIONAL)
def test_null_means_absent(name: str) -> None:
    assert parse(**{name: None}) == parse()


@pytest.mark.clause("3.11", "3.20")
@pytest.mark.parametrize(
    "changes",
    [
        {"service_tier": "auto"},
        {"service_tier": "standard_only"},
        {"container": "c"},
        {"cache_control": {"type": "ephemeral"}},
        {"context_management": {"edits": []}},
        {"diagnostics": None},
        {"inference_geo": "eu"},
        {"speed": "fast"},
        {"mcp_servers": []},
        {"anthropic-version": "2023-06-01"},
        {"thread": {"type": "create"}},
        {"thread": "continue"},
        {"never heard of": {"a": 1}},
    ],
    ids=repr,
)
def test_fields_without_effect_are_accepted_and_ignored(changes: Json) -> None:
    assert parse(**changes) == parse()


@pytest.mark.clause("3.2", "3.3")
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@pytest.mark.parametrize("content", ["", "a", [], [{"type": "text", "text": "a"}]], ids=repr)
def test_content_is_a_string_or_an_array_for_every_role(role: str, content: Any) -> None:
    messages = [HI, {"role": role, "content": content, "new": 1}]
    assert parse(messages=messages).messages == messages


def test_a_request_may_be_a_single_assistant_turn() -> None:
    messages = [{"role": "assistant", "content": "It is"}]
    assert parse(messages=messages).messages == messages


# refused


@pytest.mark.clause("3.1", "3.2", "3.5", "3.7", "3.8", "3.11", "3.17")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": ABSENT}, "model: required"),
        ({"model": None}, "model: required"),
        ({"model": ""}, "model: must not be empty"),
        ({"model": "m" * 4097}, "model: must have at most 4096 characters"),
        ({"model": 1}, "model: must be a string"),
        ({"max_tokens": ABSENT}, "max_tokens: required"),
        ({"max_tokens": None}, "max_tokens: required"),
        ({"max_tokens": True}, "max_tokens: must be an integer"),
        ({"max_tokens": 1.0}, "max_tokens: must be an integer"),
        ({"max_tokens": "1"}, "max_tokens: must be an integer"),
        ({"max_tokens": -1}, "max_tokens: must be 0 or more"),
        ({"messages": ABSENT}, "messages: required"),
        ({"messages": None}, "messages: required"),
        ({"messages": {}}, "messages: must be an array"),
        ({"messages": "Hi"}, "messages: must be an array"),
        ({"messages": []}, "messages: must hold at least one message"),
        ({"messages": ["Hi"]}, "messages.0: must be an object"),
        ({"messages": [HI, None]}, "messages.1: must be an object"),
        ({"messages": [{"content": "a"}]}, "messages.0.role: required"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: must be one of assistant, system, user"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "messages.0.role: must be one of assistant, system, user"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: required"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: required"),
        (
            {"messages": [HI, {"role": "user", "content": 1}]},
            "messages.1.content: must be a string or an array of blocks",
        ),
        (
            {"messages": [{"role": "user", "content": {"type": "text"}}]},
            "messages.0.content: must be a string or an array",
        ),
        (
            {"messages": [user({"type": "text", "text": "a"}, {"type": "text"})]},
            "messages.0.content.1.text.text: required",
        ),
        ({"system": 1}, "system: must be a string or an array of text blocks"),
        ({"system": {}}, "system: must be a string or an array of text blocks"),
        ({"system": ["a"]}, "system.0: must be an object"),
        ({"system": [{"text": "a"}]}, "system.0.type: required"),
        (
            {"system": [{"type": "text", "text": "a"}, {"type": "image"}]},
            "system.1.type: 'image' is not supported in system",
        ),
        ({"system": [{"type": "text"}]}, "system.0.text: required"),
        ({"temperature": "1"}, "temperature: must be a number"),
        ({"temperature": True}, "temperature: must be a number"),
        ({"temperature": -0.1}, "temperature: must be between 0 and 2"),
        ({"temperature": 2.01}, "temperature: must be between 0 and 2"),
        ({"top_p": False}, "top_p: must be a number"),
        ({"top_p": -1}, "top_p: must be between 0 and 1"),
        ({"top_p": 1.1}, "top_p: must be between 0 and 1"),
        ({"top_k": 0.5}, "top_k: must be an integer"),
        ({"top_k": True}, "top_k: must be an integer"),
        ({"top_k": -1}, "top_k: must be 0 or more"),
        ({"stop_sequences": "a"}, "stop_sequences: must be an array"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences.1: must be a non-empty string"),
        ({"stop_sequences": [None]}, "stop_sequences.0: must be a non-empty string"),
        ({"stream": 1}, "stream: must be a boolean"),
        ({"stream": "true"}, "stream: must be a boolean"),
        ({"metadata": "u"}, "metadata: must be an object"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id: must be a string"),
        ({"thinking": "enabled"}, "thinking: must be an object"),
        ({"thinking": {}}, "thinking.type: required"),
        (
            {"thinking": {"type": "sometimes"}},
            "thinking.type: must be one of adaptive, between_tools, disabled, enabled",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens: required"),
        ({"thinking": {"type": "enabled", "budget_tokens": "5"}}, "thinking.budget_tokens: must be an integer"),
        ({"thinking": {"type": "enabled", "budget_tokens": True}}, "thinking.budget_tokens: must be an integer"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 1.5}}, "thinking.budget_tokens: must be an integer"),
        ({"thinking": {"type": "adaptive", "display": 1}}, "thinking.display: must be a string"),
        ({"tools": {}}, "tools: must be an array"),
        ({"tools": [None]}, "tools.0: must be an object"),
        ({"tools": [{}]}, "tools.0.name: required"),
        ({"tools": [{"name": "a"}, {"name": ""}]}, "tools.1.name: must be 1 to 128 letters, digits, _ or -"),
        ({"tools": [{"name": "a" * 129}]}, "tools.0.name: must be 1 to 128"),
        ({"tools": [{"name": "a.b"}]}, "tools.0.name: must be 1 to 128"),
        ({"tools": [{"name": "é"}]}, "tools.0.name: must be 1 to 128"),
        ({"tools": [{"name": "a\n"}]}, "tools.0.name: must be 1 to 128"),
        ({"tools": [{"name": 1}]}, "tools.0.name: must be a string"),
        ({"tools": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "tools.2.name: two tools have the name 'a'"),
        ({"tools": [{"name": "a", "description": 1}]}, "tools.0.description: must be a string"),
        ({"tools": [{"name": "a", "input_schema": []}]}, "tools.0.input_schema: must be an object"),
        ({"tools": [{"name": "a", "type": 1}]}, "tools.0.type: must be a string"),
        ({"tools": [{"name": "a"}, SEARCH]}, "tools.1.type: 'web_search_20250305' is a server tool"),
        ({"tool_choice": "auto"}, "tool_choice: must be an object"),
        ({"tool_choice": {}}, "tool_choice.type: required"),
        ({"tool_choice": {"type": "required"}}, "tool_choice.type: must be one of any, auto, none, tool"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: required"),
        (
            {"tool_choice": {"type": "tool", "name": "b"}, "tools": [{"name": "a"}]},
            "tool_choice.name: no tool is named 'b'",
        ),
        ({"tool_choice": {"type": "tool", "name": "a"}}, "tool_choice.name: no tool is named 'a'"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type: any needs tools"),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
            "tool_choice.disable_parallel_tool_use: must be a boolean",
        ),
        ({"output_config": []}, "output_config: must be an object"),
        ({"output_config": {"effort": 1}}, "output_config.effort: must be a string"),
        ({"output_config": {"format": "json"}}, "output_config.format: must be an object"),
        ({"output_config": {"format": {}}}, "output_config.format.type: required"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format.type: must be one of json_schema"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema: required"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": True}}},
            "output_config.format.schema: must be an object",
        ),
    ],
    ids=lambda value: repr(value)[:70],
)
def test_an_invalid_field_is_refused_with_its_path(changes: Json, reason: str) -> None:
    error = refusal(body(**changes))
    assert type(error) is InvalidRequest
    assert error.message.startswith(reason)


@pytest.mark.clause("3.1")
def test_too_many_messages_are_refused() -> None:
    longest = b'{"model":"m","max_tokens":1,"messages":[' + b",".join([orjson.dumps(HI)] * 100_000) + b"%b]}"
    assert len(parse_request(longest % b"").messages) == 100_000
    assert refusal(longest % b',{"role":"user"}').message == "messages: must hold at most 100000 elements"


@pytest.mark.clause("3.14")
@pytest.mark.parametrize("kind", ["web_search_20250305", "code_execution_20250825", "bash_20250124", "mcp_toolset"])
def test_a_server_tool_is_refused_with_a_code(kind: str) -> None:
    error = refusal(body(tools=[{"type": kind, "name": "x"}]))
    assert error.status == 400
    assert error.error_code == "unsupported_tool_type"


def test_other_refusals_have_no_code() -> None:
    assert refusal(body(model="")).error_code is None


@pytest.mark.clause("3.23")
def test_thread_continue_is_not_found_whatever_else_is_wrong() -> None:
    """SDKs then send the whole conversation again, so that nothing is lost."""
    others: list[Json] = [{}, {"messages": []}, {"model": None}]
    for changes in others:
        error = refusal(body(thread={"type": "continue", "id": "thread_1"}, **changes))
        assert type(error) is NotFound
        assert (error.status, error.error_code) == (404, "thread_not_found")


@pytest.mark.parametrize("field", ["input_schema", "schema"])
def test_a_schema_that_is_too_deep_to_write_is_refused(field: str) -> None:
    deep: Json = {}
    for _ in range(200):
        deep = {"properties": deep}
    cases: dict[str, tuple[Json, str]] = {
        "input_schema": ({"tools": [{"name": "a", "input_schema": deep}]}, "tools.0.input_schema"),
        "schema": (
            {"output_config": {"format": {"type": "json_schema", "schema": deep}}},
            "output_config.format.schema",
        ),
    }
    changes, path = cases[field]
    assert refusal(body(**changes)).message == f"{path}: must not be nested deeper than 100 levels"


# calls and their results


@pytest.mark.clause("3.27")
@pytest.mark.parametrize(
    "messages",
    [
        [HI, assistant(call("a"), call("b")), user(result("b"), result("a"))],
        [HI, assistant(call("a")), user({"type": "text", "text": "and"}, result("a"))],
        [HI, assistant(call("a")), user(result("a")), HI, user(result("a"))],
        [HI, assistant(call("a")), HI],
        [HI, assistant(call("call_0")), user(result("call_0")), assistant(call("call_0")), user(result("call_0"))],
    ],
    ids=["in another order", "after a text", "said again", "never answered", "numbered anew in each answer"],
)
def test_tool_results_with_an_earlier_call_are_accepted(messages: list[Json]) -> None:
    assert parse(messages=messages).messages == messages


@pytest.mark.clause("3.27")
@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([user(result("a"))], "messages.0.content.0.tool_result.tool_use_id: no earlier tool_use has the id 'a'"),
        (
            [HI, assistant(call("a")), user(result("b"))],
            "messages.2.content.0.tool_result.tool_use_id: no earlier tool_use has the id 'b'",
        ),
        (
            [HI, user(result("a")), assistant(call("a"))],
            "messages.1.content.0.tool_result.tool_use_id: no earlier tool_use",
        ),
        (
            [HI, assistant(call("a")), user(result("a"), result("a"))],
            "messages.2.content.1.tool_result.tool_use_id: a second tool_result for the id 'a'",
        ),
        ([HI, assistant(call("a"), call("a"))], "messages.1.content.1.tool_use.id: a second tool_use for the id 'a'"),
        (
            [HI, assistant({**call("a"), "type": "server_tool_use"}), user(result("a"))],
            "messages.2.content.0.tool_result.tool_use_id: no earlier tool_use has the id 'a'",
        ),
    ],
    ids=["no call", "another call", "call comes later", "twice", "one id for two calls", "the call of a server"],
)
def test_tool_results_without_an_earlier_call_are_refused(messages: list[Json], reason: str) -> None:
    assert refusal(body(messages=messages)).message.startswith(reason)


# counting


@pytest.mark.clause("10.1")
def test_counting_needs_no_max_tokens_and_ignores_generation_fields() -> None:
    wrong = {"max_tokens": "x", "temperature": 9, "top_p": 9, "top_k": -1, "stop_sequences": 1, "stream": "x"}
    assert parse_request(body(**wrong), counting=True) == parse_request(body(max_tokens=ABSENT), counting=True)


@pytest.mark.clause("10.1")
def test_counting_validates_everything_else() -> None:
    wrong: list[Json] = [{"messages": []}, {"tools": [{}]}, {"system": 1}, {"thinking": {}}]
    for changes in wrong:
        with pytest.raises(InvalidRequest):
            parse_request(body(**changes), counting=True)


# invalid bodies


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "body: not valid JSON: "),
        (b"{", "body: not valid JSON: "),
        (body() + b"x", "body: not valid JSON: "),
        (b"\xef\xbb\xbf" + body(), "body: not valid JSON: "),
        (body().decode().encode("utf-16"), "body: not valid JSON: "),
        (b'{"model":"\xff"}', "body: not valid JSON: "),
        (b'{"temperature":NaN}', "body: not valid JSON: "),
        (b'{"temperature":1e999}', "body: not valid JSON: "),
        (b"[" * 100_000, "body: not valid JSON: "),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "body: not valid JSON: "),
        (b"[]", "body: must be a JSON object"),
        (b"null", "body: must be a JSON object"),
        (b'"{}"', "body: must be a JSON object"),
        (b"{}", "model: required"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_is_not_a_request_is_refused(raw: bytes, reason: str) -> None:
    error = refusal(raw)
    assert type(error) is InvalidRequest
    assert error.message.startswith(reason)


def test_the_error_for_a_byte_order_mark_names_it() -> None:
    assert "byte order mark" in refusal(b"\xef\xbb\xbf" + body()).message


def test_the_error_for_invalid_json_names_the_position() -> None:
    assert refusal(b'{"model": oops}').message.endswith(" at character 10")


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parse_request(b'{"model":"a","max_tokens":1,"messages":[],' + body()[1:]) == parse()


@pytest.mark.parametrize("number", ["9" * 30, "18446744073709551616", "1e2"])
def test_a_number_beyond_64_bit_is_not_an_integer(number: str) -> None:
    raw = body(max_tokens=ABSENT)[:-1] + f',"max_tokens":{number}}}'.encode()
    assert refusal(raw).message == "max_tokens: must be an integer"


def test_a_lone_surrogate_does_not_fail_a_request() -> None:
    raw = rb'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"cut \ud83d here \ud83d\ude00"}]}'
    assert parse_request(raw).messages == [{"role": "user", "content": "cut \ufffd here 😀"}]


# random bodies

RICH: Json = {
    "model": "m",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        user(
            {"type": "text", "text": "Look"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {
                "type": "document",
                "source": {"type": "content", "content": [{"type": "text", "text": "a"}]},
                "title": "t",
            },
            {"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "a"}]},
        ),
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"title": "t", "url": "u"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "w", "input": {"city": "Paris"}},
        ),
        user({**result("toolu_1"), "content": [{"type": "text", "text": "20 °C"}], "is_error": False}),
        {"role": "system", "content": "Hurry."},
    ],
    "tools": [{"name": "w", "description": "d", "input_schema": {"type": "object"}, "type": "custom"}],
    "tool_choice": {"type": "tool", "name": "w", "disable_parallel_tool_use": True},
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "stop_sequences": ["END"],
    "stream": True,
    "metadata": {"user_id": "u"},
    "thinking": {"type": "enabled", "budget_tokens": 50},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "thread": {"type": "create"},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside `value`."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


PLACES = places(RICH)[1:]


def outcome(raw: bytes, *, counting: bool) -> MessagesRequest | ApiError:
    try:
        return parse_request(raw, counting=counting)
    except ApiError as error:
        return error


def accepted_or_refused(raw: bytes) -> None:
    """Only an ApiError is raised; an accepted request can be counted and written again."""
    for counting in (False, True):
        told = outcome(raw, counting=counting)
        if isinstance(told, ApiError):
            assert told.status in (400, 404)
            assert orjson.loads(told.body("req_1"))["error"]["message"]
        else:
            assert estimate_tokens(told) >= 1
            assert dumps([told.messages, [tool.input_schema for tool in told.tools], told.output_schema])


def test_a_request_with_every_field_is_accepted() -> None:
    assert parse_request(orjson.dumps(RICH)).tool_choice == ToolChoice("tool", "w", parallel=False)


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, True, 0, -1, 1.5, "", "x", [], {}, [None], {"type": None}, 10**19], ids=repr)
def test_any_value_in_any_place_is_accepted_or_refused(value: Any) -> None:
    for path in PLACES:
        changed = copy.deepcopy(RICH)
        holder = changed
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = value
        accepted_or_refused(orjson.dumps(changed))


@pytest.mark.slow
@examples(100)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES | st.just(ABSENT)), min_size=1, max_size=3))
def test_any_change_of_a_valid_request_is_accepted_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    changed = copy.deepcopy(RICH)
    for path, value in changes:
        holder: Any = changed
        for step in path[:-1]:
            holder = holder[step] if isinstance(holder, dict) and step in holder else None
        if not isinstance(holder, dict):
            continue
        if value is ABSENT:
            holder.pop(path[-1], None)
        else:
            holder[path[-1]] = value
    accepted_or_refused(orjson.dumps(changed))


@pytest.mark.clause("3.24")
@examples(60)
@given(VALUES)
def test_any_json_is_accepted_or_refused(value: Any) -> None:
    accepted_or_refused(orjson.dumps(value))


@pytest.mark.clause("3.24")
@examples(100)
@given(st.binary(max_size=20), st.integers(0, len(orjson.dumps(RICH))), st.integers(0, 30))
def test_any_bytes_are_accepted_or_refused(inserted: bytes, start: int, removed: int) -> None:
    raw = orjson.dumps(RICH)
    accepted_or_refused(inserted)
    accepted_or_refused(raw[:start] + inserted + raw[start + removed :])
    accepted_or_refused(raw[:start])


@pytest.mark.slow
def test_endless_nesting_in_any_place_is_accepted_or_refused() -> None:
    for path in PLACES:
        changed = copy.deepcopy(RICH)
        holder: Any = changed
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = "DEEP"
        raw = orjson.dumps(changed)
        for opening, closing in ((b'{"content":', b"}"), (b"[", b"]"), (b'{"source":{"content":', b"}}")):
            accepted_or_refused(raw.replace(b'"DEEP"', opening * 450 + b"1" + closing * 450))


# forms of other clients


@pytest.mark.clause("3.19")
def test_a_top_level_output_format_means_the_same_as_the_one_in_output_config() -> None:
    older = {"type": "json_schema", "schema": {"type": "array"}}
    newer = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert parse(output_format=older).output_schema == {"type": "array"}
    assert parse(output_format=older, output_config={"effort": "low"}).output_schema == {"type": "array"}
    assert parse(output_format=older, output_config=newer).output_schema == {"type": "object"}
    assert parse(output_format=None, output_config=newer).output_schema == {"type": "object"}
    assert parse_request(body(output_format=older), counting=True).output_schema == {"type": "array"}
    assert refusal(body(output_format={"type": "text"})).message == "output_format.type: must be one of json_schema"
    assert refusal(body(output_format={"type": "json_schema"})).message == "output_format.schema: required"


@pytest.mark.clause("3.9")
def test_thinking_between_tools_is_adaptive_where_tools_are_given() -> None:
    thinking = {"type": "between_tools"}
    assert parse(thinking=thinking).thinking == ThinkingConfig("disabled")
    assert parse(thinking=thinking, tools=[]).thinking == ThinkingConfig("disabled")
    assert parse(thinking=thinking, tools=[{"name": "w"}]).thinking == ThinkingConfig("adaptive")
    assert parse(thinking=thinking).raw["thinking"] == thinking


@pytest.mark.clause("3.9")
def test_disabled_thinking_wins_over_an_effort() -> None:
    for kind in ("disabled", "between_tools"):
        request = parse(thinking={"type": kind}, output_config={"effort": "high"})
        for dialect in DIALECTS.values():
            chat = to_chat(request, dialect)
            assert {key: chat.get(key) for key in dialect.thinking_off} == dialect.thinking_off
            assert "reasoning_effort" in dialect.thinking_off or "reasoning_effort" not in chat


# fields without effect


@pytest.mark.clause("3.21")
def test_unknown_fields_are_reported_if_their_names_are_harmless() -> None:
    assert parse(new_field=1, another={"a": 1}, absent=None, empty=[]).ignored == ["new_field", "another"]
    strange = {"a\r\nset-cookie: x": 1, "ä": 1, "": 1, "x" * 65: 1, "1": 1}
    assert parse_request(orjson.dumps({**HELLO, **strange})).ignored == []
    assert len(parse_request(orjson.dumps({**HELLO, **{f"f{n}": n for n in range(1, 99)}})).ignored) == 16
    many = {f"no name {n}": n for n in range(1, 999)}
    assert parse_request(orjson.dumps({**HELLO, **many, "new_field": 1})).ignored == []


@pytest.mark.clause("3.21")
def test_citations_are_reported_wherever_a_search_result_asks_for_them() -> None:
    document = {"type": "document", "source": {"type": "text", "data": "a"}, "citations": {"enabled": True}}
    cited = {"type": "search_result", "content": [], "citations": {"enabled": True}}
    plain = {"type": "search_result", "content": [], "citations": {"enabled": False}}
    held = {**result("a"), "content": [cited]}
    for messages, ignored in (
        ([user(cited)], ["citations"]),
        ([user(plain)], []),
        ([user(document)], []),
        ([HI, assistant(call("a")), user(held)], ["citations"]),
    ):
        assert parse(messages=messages).ignored == ignored
        assert run_to_end(parse_request_in_steps([body(messages=messages)])).ignored == ignored


@pytest.mark.clause("3.22")
def test_unknown_edits_that_compact_are_refused() -> None:
    clearing = {"type": "clear_thinking_20251015", "keep": "all"}
    assert parse(context_management={"edits": [clearing]}).ignored == []
    error = refusal(body(context_management={"edits": [clearing, {"type": "compact_20990101"}]}))
    assert error.message == (
        "context_management.edits.1: 'compact_20990101' is an edit that this service does not know"
    )
