"""The operator's rules (contract section 3): server tools, client tools, image URLs, the billing header, limits."""

from importlib import import_module
from typing import Any, get_args, get_type_hints

import orjson
import pytest

from anthro_asgi.wire.client_tools import CLIENT_TOOLS
from anthro_asgi.wire.defaults import MAX_DEPTH
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import MessagesRequest, Tool, ToolChoice, parse_request, parse_request_in_steps
from anthro_asgi.wire.request_policy import Rules
from tests.wire.strategies import Json

HI: Json = {"role": "user", "content": "Hi"}
LOOK: Json = {"name": "look", "input_schema": {"type": "object"}}
SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}
TOOLSET: Json = {"type": "mcp_toolset", "mcp_server_name": "s"}
BASH: Json = {"type": "bash_20250124", "name": "bash"}
FETCH: Json = {"type": "web_fetch_20250910", "name": "web_fetch"}
DROPPING = Rules(drop_server_tools=True)
PASSING = Rules(pass_server_tools=True)
FUNCTIONS = Rules(client_tools_as_functions=True)
URLS = Rules(pass_image_urls=True)


def parse(rules: Rules = DROPPING, messages: Any = (HI,), **fields: Any) -> MessagesRequest:
    return parse_request(orjson.dumps({"model": "m", "max_tokens": 9, "messages": messages, **fields}), rules=rules)


def parse_in_steps(rules: Rules, **fields: Any) -> MessagesRequest:
    document = orjson.dumps({"model": "m", "max_tokens": 9, "messages": [HI], **fields})
    return run_to_end(parse_request_in_steps([document[:40], document[40:]], rules=rules, expansion=100.0))


def refusal(rules: Rules, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(rules, **fields)
    return caught.value


@pytest.mark.parametrize("key", ["name", "description"])
@pytest.mark.parametrize("value", [{}, [], 5, True])
def test_a_passed_tool_may_hold_anything(key: str, value: object) -> None:
    """Whether the relayed upstream accepts it is the upstream's business. A deferred tool makes us read it."""
    tools = [{**SEARCH, key: value}, {**SEARCH, key: value, "defer_loading": True}, {**LOOK, "defer_loading": True}]
    request = parse(PASSING, tools=tools)
    assert [path.partition(":")[0] for path in request.relay_only] == ["tools.0.type", "tools.1.type"]
    assert [tool.name for tool in request.tools] == ["look"]


# server tools


@pytest.mark.clause("3.14")
@pytest.mark.parametrize(
    "kind",
    ["web_fetch_20250910", "code_execution_20250825", "tool_search_tool_bm25_20991119", "mcp_toolset", "new"],
)
def test_a_server_tool_is_dropped_and_listed_if_the_rules_say_so(kind: str) -> None:
    request = parse(tools=[LOOK, {"type": kind, "name": "it"}])
    assert (request.tools, request.dropped_tools) == ([Tool("look", None, {"type": "object"})], ("it",))


def test_a_dropped_tool_without_a_name_is_listed_by_its_type() -> None:
    assert parse(tools=[TOOLSET, FETCH, LOOK]).dropped_tools == ("mcp_toolset", "web_fetch")
    assert refusal(DROPPING, tools=[{**FETCH, "name": 1}]).message == "tools.0.name: must be a string"


def test_another_tool_may_have_the_name_of_a_dropped_one() -> None:
    assert parse(tools=[FETCH, {**LOOK, "name": "web_fetch"}]).tools[0].name == "web_fetch"


def test_a_choice_of_a_dropped_tool_is_refused() -> None:
    error = refusal(DROPPING, tools=[LOOK, FETCH], tool_choice={"type": "tool", "name": "web_fetch"})
    assert error.message == "tool_choice.name: no tool is named 'web_fetch'"


@pytest.mark.clause("3.16")
@pytest.mark.parametrize("tools", [[FETCH], [TOOLSET, FETCH]], ids=len)
def test_the_only_tools_of_a_request_are_never_dropped(tools: list[Json]) -> None:
    error = refusal(DROPPING, tools=tools)
    named = tools[0].get("name", "mcp_toolset")
    assert error.message == f"tools: {named!r} does not run here, and no other tool is left"
    assert error.error_code == "unsupported_tool_type"


@pytest.mark.clause("3.16")
@pytest.mark.parametrize("kind", ["web_search_20250305", "web_search_20260318"])
def test_web_search_is_never_dropped(kind: str) -> None:
    error = refusal(DROPPING, tools=[LOOK, {"type": kind, "name": "web_search"}])
    assert error.message == f"tools.1.type: '{kind}' is a server tool, which does not run here"


@pytest.mark.clause("3.16")
@pytest.mark.parametrize("rules", [Rules(), DROPPING, FUNCTIONS], ids=["refusing", "dropping", "functions"])
@pytest.mark.parametrize(
    "kind",
    ["computer_20251124", "computer_toolset_20260801", "browser_toolset_20260801", "bash_20990101", "memory_20990101"],
)
def test_a_tool_that_the_client_runs_is_refused_by_name_and_never_dropped(kind: str, rules: Rules) -> None:
    error = refusal(rules, tools=[LOOK, {"type": kind}])
    assert error.message == f"tools.1.type: '{kind}' is a tool that only Anthropic's models know"
    assert error.error_code == "unsupported_tool_type"


@pytest.mark.clause("3.14", "3.22")
def test_what_only_a_relayed_upstream_can_do_is_passed_if_the_rules_say_so() -> None:
    tools = [LOOK, SEARCH, TOOLSET, BASH]
    servers = [{"type": "url", "url": "https://x.example/", "name": "s"}]
    choice = {"type": "tool", "name": "web_search"}
    request = parse(PASSING, tools=tools, mcp_servers=servers, compaction={"a": 1}, tool_choice=choice)
    assert (request.raw["tools"], request.raw["mcp_servers"]) == (tools, servers)
    assert [tool.name for tool in request.tools] == ["look"]
    assert [reason.partition(":")[0] for reason in request.relay_only] == [
        "tools.1.type",
        "tools.2.type",
        "tools.3.type",
        "compaction",
        "mcp_servers",
    ]
    both = Rules(pass_server_tools=True, client_tools_as_functions=True)
    assert [tool.name for tool in parse(both, tools=[BASH]).tools] == ["bash"]


@pytest.mark.clause("3.33")
def test_tools_of_servers_in_messages_are_passed_if_the_rules_say_so() -> None:
    for tool in (
        {"type": "tool_definition", "definition": SEARCH},
        {"type": "mcp_toolset_reference", "server_name": "s"},
        {"type": "mcp_tool_reference", "server_name": "s", "name": "t"},
    ):
        messages = [HI, {"role": "system", "content": [{"type": "tool_addition", "tool": tool}]}]
        passed = parse(PASSING, messages)
        assert passed.raw["messages"] == messages
        refused = refusal(Rules(), messages=messages).message
        assert refused.startswith("messages.1.content.0.tool_addition.tool.")
        assert passed.relay_only == [refused]


IMAGE_URL: Json = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
IMAGE_FILE: Json = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
PDF: Json = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
PDF_URL: Json = {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}, "title": "A"}
HOLDS_URL: Json = {"type": "document", "source": {"type": "content", "content": [IMAGE_URL]}}
NEW: Json = {"type": "hologram", "depth": {"z": [1]}}
USE: Json = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]}


def result(*content: Json) -> list[Json]:
    return [HI, USE, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [*content]}]}]


@pytest.mark.clause("3.14")
@pytest.mark.parametrize(
    ("messages", "path"),
    [
        ([{"role": "user", "content": [IMAGE_URL]}], "messages.0.content.0.image.source.type"),
        ([{"role": "user", "content": [IMAGE_FILE]}], "messages.0.content.0.image.source.type"),
        ([{"role": "user", "content": [PDF]}], "messages.0.content.0.document.source.type"),
        ([{"role": "user", "content": [PDF_URL, PDF]}], "messages.0.content.0.document.source.type"),
        (
            [{"role": "user", "content": [HOLDS_URL]}],
            "messages.0.content.0.document.source.content.0.image.source.type",
        ),
        ([{"role": "user", "content": [NEW]}], "messages.0.content.0.type"),
        ([HI, {"role": "assistant", "content": [NEW]}], "messages.1.content.0.type"),
        ([HI, {"role": "system", "content": [NEW]}], "messages.1.content.0.type"),
        (result(PDF), "messages.2.content.0.tool_result.content.0.document.source.type"),
        (result(NEW), "messages.2.content.0.tool_result.content.0.type"),
    ],
)
def test_content_that_only_a_relayed_upstream_may_know_is_passed_if_the_rules_say_so(
    messages: list[Json], path: str
) -> None:
    refused = refusal(Rules(), messages=messages).message
    assert refused.partition(": ")[0] == path
    for request in (parse(PASSING, messages), parse_in_steps(PASSING, messages=messages)):
        assert request.raw["messages"] == messages
        assert request.relay_only == [refused]
        assert estimate_tokens(request) > 0


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {}},
        {"type": "image"},
        {"type": "document", "source": {"type": "text", "data": 1}},
        {"type": 1},
        {"type": ""},
        {"type": ["image"]},
        "text",
        {"type": "tool_result", "tool_use_id": "unknown"},
    ],
    ids=str,
)
def test_content_that_is_wrong_for_every_engine_is_refused_in_any_case(block: Any) -> None:
    messages = [{"role": "user", "content": [IMAGE_URL, block]}]
    for read in (parse, parse_in_steps):
        with pytest.raises(InvalidRequest, match=r"^messages\.0\.content\.1"):
            read(PASSING, messages=messages)


def test_by_default_nothing_is_dropped() -> None:
    error = refusal(Rules(), tools=[LOOK, SEARCH])
    assert error.message == "tools.1.type: 'web_search_20250305' is a server tool, which does not run here"
    assert error.error_code == "unsupported_tool_type"


# client tools


@pytest.mark.clause("3.15")
@pytest.mark.parametrize("kind", CLIENT_TOOLS)
@pytest.mark.parametrize("rules", [Rules(), DROPPING], ids=["by default", "where server tools are dropped"])
def test_a_client_tool_is_refused_and_never_dropped(kind: str, rules: Rules) -> None:
    error = refusal(rules, tools=[{"type": kind, "name": CLIENT_TOOLS[kind].name}])
    assert error.message == f"tools.0.type: '{kind}' is a tool that only Anthropic's models know"
    assert error.error_code == "unsupported_tool_type"


@pytest.mark.clause("3.15")
@pytest.mark.parametrize("kind", CLIENT_TOOLS)
def test_a_client_tool_becomes_a_function_under_its_own_name(kind: str) -> None:
    known = CLIENT_TOOLS[kind]
    for name in ({"name": known.name}, {}, {"name": None}):
        request = parse(FUNCTIONS, tools=[LOOK, {"type": kind, "cache_control": {"type": "ephemeral"}, **name}])
        assert request.tools[1] == Tool(known.name, known.description, known.input_schema)
    chosen = parse(FUNCTIONS, tools=[{"type": kind}], tool_choice={"type": "tool", "name": known.name})
    assert chosen.tool_choice == ToolChoice("tool", known.name)


def test_a_client_tool_under_another_name_is_refused() -> None:
    assert refusal(FUNCTIONS, tools=[{**BASH, "name": "sh"}]).message == "tools.0.name: must be 'bash'"
    assert refusal(FUNCTIONS, tools=[BASH, {**BASH, "type": "bash_20241022"}]).message == (
        "tools.1.name: two tools have the name 'bash'"
    )


@pytest.mark.parametrize("kind", ["bash_20990101", "computer_20250124", "web_search_20250305", "text_editor"])
def test_a_tool_without_a_documented_schema_does_not_become_a_function(kind: str) -> None:
    assert refusal(FUNCTIONS, tools=[{"type": kind, "name": "x"}]).error_code == "unsupported_tool_type"


SDK = "anthropic.types.beta.beta"


def sdk_type(module: str, name: str) -> Any:
    return getattr(import_module(f"{SDK}_{module}"), name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("bash_20241022", "tool_bash_20241022_param", "BetaToolBash20241022Param"),
        ("bash_20250124", "tool_bash_20250124_param", "BetaToolBash20250124Param"),
        ("text_editor_20241022", "tool_text_editor_20241022_param", "BetaToolTextEditor20241022Param"),
        ("text_editor_20250124", "tool_text_editor_20250124_param", "BetaToolTextEditor20250124Param"),
        ("text_editor_20250429", "tool_text_editor_20250429_param", "BetaToolTextEditor20250429Param"),
        ("text_editor_20250728", "tool_text_editor_20250728_param", "BetaToolTextEditor20250728Param"),
        ("memory_20250818", "memory_tool_20250818_param", "BetaMemoryTool20250818Param"),
    ],
)
def test_the_names_of_client_tools_are_those_of_the_sdk(kind: str, module: str, name: str) -> None:
    hints = get_type_hints(sdk_type(module, name))
    assert (get_args(hints["type"]), get_args(hints["name"])) == ((kind,), (CLIENT_TOOLS[kind].name,))


@pytest.mark.slow
def test_the_memory_tool_has_every_field_of_every_command_of_the_sdk() -> None:
    schema = CLIENT_TOOLS["memory_20250818"].input_schema
    fields: set[str] = set()
    for command in schema["properties"]["command"]["enum"]:
        title = "".join(word.title() for word in command.split("_"))
        model = sdk_type(f"memory_tool_20250818_{command}_command", f"BetaMemoryTool20250818{title}Command")
        fields |= set(model.model_fields)
    assert fields == set(schema["properties"])


def test_only_old_editors_have_undo_and_only_the_newest_has_insert_text() -> None:
    for kind, tool in CLIENT_TOOLS.items():
        if kind.startswith("text_editor"):
            old = tool.name == "str_replace_editor"
            assert ("undo_edit" in tool.input_schema["properties"]["command"]["enum"]) is old
            assert ("insert_text" in tool.input_schema["properties"]) is (kind == "text_editor_20250728")


@pytest.mark.parametrize("tool", CLIENT_TOOLS.values(), ids=CLIENT_TOOLS)
def test_a_client_tools_schema_describes_every_field_and_requires_only_known_ones(tool: Any) -> None:
    schema = tool.input_schema
    assert set(schema["required"]) <= set(schema["properties"])
    assert all(field["description"] for field in schema["properties"].values())
    assert tool.description


# images by URL


def image(url: Any) -> Json:
    return {"type": "image", "source": {"type": "url", "url": url}}


def holding(block: Json) -> list[list[Json]]:
    """The block in every place where an image is allowed."""
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}]}
    document = {"type": "document", "source": {"type": "content", "content": [block]}}
    return [
        [{"role": "user", "content": [block]}],
        [{"role": "user", "content": [document]}],
        [call, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [block]}]}],
    ]


@pytest.mark.clause("3.25")
@pytest.mark.parametrize("url", ["http://x/a.png", "https://x/a?b=c#d", "HTTPS://X/", "data:image/png;base64,aGk="])
def test_an_image_url_is_accepted_in_every_place_if_the_rules_say_so(url: str) -> None:
    for messages in holding(image(url)):
        assert parse(URLS, messages).messages == messages
        assert "url sources are not fetched by this service" in refusal(Rules(), messages=messages).message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "x.png", "//x/a.png", "", "https://a b", "http://"])
def test_other_addresses_are_refused(url: str) -> None:
    reason = "messages.0.content.0.image.source.url: could not process image: must be an http, https or data URL"
    assert refusal(URLS, messages=holding(image(url))[0]).message == reason


def test_an_image_that_is_not_a_url_is_checked_as_usual() -> None:
    for source, reason in (
        ({"type": "url"}, ".url: could not process image: required"),
        ({"type": "url", "url": 1}, ".url: could not process image: must be a string"),
        ({"type": "base64", "media_type": "image/png", "data": "!"}, ".data: could not process image: must be base64"),
        (
            {"type": "file", "file_id": "f"},
            ".type: could not process image: 'file' is not supported: "
            "this service keeps no files; it was started without --batch-store",
        ),
        (None, ": required"),
    ):
        messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        assert refusal(URLS, messages=messages).message == f"messages.0.content.0.image.source{reason}"


def test_videos_and_documents_by_url_are_always_refused() -> None:
    for kind in ("video", "document"):
        messages = [{"role": "user", "content": [{"type": kind, "source": {"type": "url", "url": "https://x/a"}}]}]
        assert refusal(URLS, messages=messages).message.startswith(f"messages.0.content.0.{kind}.source.type: ")


# the billing header

BILLING = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=4f1b2;"


def texts(*words: str) -> list[Json]:
    return [{"type": "text", "text": text} for text in words]


@pytest.mark.parametrize("system", [BILLING, texts(BILLING), texts(BILLING, "")])
def test_a_system_prompt_that_is_only_the_billing_header_becomes_empty(system: Any) -> None:
    assert parse(Rules(), system=system).system == []
    assert parse(Rules(keep_billing_header=True), system=system).system == [BILLING]


def test_the_billing_header_is_removed_only_as_the_first_block() -> None:
    assert parse(Rules(), system=texts(BILLING, "Be.", BILLING)).system == ["Be.", BILLING]
    assert parse(Rules(), system=texts("", BILLING)).system == [BILLING]
    assert parse(Rules(), system=texts(BILLING, BILLING)).system == [BILLING]


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", " ", "\nBe kind."])
def test_a_billing_header_with_other_text_is_kept(end: str) -> None:
    assert parse(Rules(), system=BILLING + end).system == [BILLING + end]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_billing_header_is_one_line(end: str) -> None:
    two_lines = BILLING.replace("cli;", f"cli{end}Be kind;")
    assert parse(Rules(), system=two_lines).system == [two_lines]


def test_a_message_that_is_a_billing_header_is_kept() -> None:
    messages = [{"role": "system", "content": BILLING}, {"role": "user", "content": BILLING}]
    assert parse(Rules(), messages).messages == messages


# the raw body, for an engine that speaks Messages


def test_the_raw_body_holds_what_the_rules_left_of_it() -> None:
    custom = {**LOOK, "cache_control": {"type": "ephemeral"}}
    rules = Rules(drop_server_tools=True, client_tools_as_functions=True)
    raw = parse(rules, tools=[FETCH, custom, BASH], system=texts(BILLING, "Be.")).raw
    bash = CLIENT_TOOLS["bash_20250124"]
    assert raw["tools"] == [
        custom,
        {"name": "bash", "description": bash.description, "input_schema": bash.input_schema},
    ]
    assert raw["system"] == texts("Be.")
    assert [tool.get("type") for tool in parse(FUNCTIONS, tools=[LOOK, BASH]).raw["tools"]] == [None, None]
    untouched = parse(Rules(keep_billing_header=True), tools=[custom], system=BILLING).raw
    assert (untouched["tools"], untouched["system"]) == ([custom], BILLING)
    assert "tools" not in parse(Rules()).raw


# numbers


@pytest.mark.parametrize(
    "huge", [2**64, -(2**63) - 1, -(2**64), 10**40, 10**300], ids=["2^64", "-2^63-1", "-2^64", "10^40", "10^300"]
)
def test_an_integer_beyond_64_bit_stays_exact_in_tool_data(huge: int) -> None:
    uses = [{"type": "tool_use", "id": "a", "name": "b", "input": {"n": "HUGE"}}]
    tools = [{"name": "t", "input_schema": {"enum": ["HUGE"]}}]
    messages = [{"role": "assistant", "content": uses}]
    body = orjson.dumps({"model": "m", "max_tokens": 9, "messages": messages, "tools": tools})
    request = parse_request(body.replace(b'"HUGE"', b"%d" % huge))
    assert request.messages[0]["content"][0]["input"] == {"n": huge}
    assert request.tools[0].input_schema == {"enum": [huge]}
    assert type(request.messages[0]["content"][0]["input"]["n"]) is int


def test_text_full_of_digits_is_read_as_text() -> None:
    digits = "0123456789" * 9
    said = r"\ud83d " + digits
    body = orjson.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": digits}]})
    assert parse_request(body).messages == [{"role": "user", "content": digits}]
    broken = body.replace(digits.encode(), said.encode())
    assert parse_request(broken).messages == [{"role": "user", "content": f"\ufffd {digits}"}]


# limits

both_ways = pytest.mark.parametrize("parse", [parse, parse_in_steps], ids=["at once", "in steps"])


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


def deep(levels: int) -> Json:
    return {"properties": nested(levels - 1)}


def conversation(levels: int) -> list[Json]:
    call = {"type": "tool_use", "id": "t", "name": "look", "input": deep(levels)}
    return [HI, {"role": "assistant", "content": [call]}]


def stops(count: int) -> list[str]:
    return [f"stop {number}" for number in range(count)]


def tools(count: int) -> list[Json]:
    return [{**LOOK, "name": f"look_{number}"} for number in range(count)]


AMOUNTS: list[tuple[str, Any, str, str]] = [
    ("max_messages", lambda count: {"messages": [HI] * count}, "messages", "must hold at most {} elements"),
    ("max_tools", lambda count: {"tools": tools(count)}, "tools", "must hold at most {} elements"),
    ("max_tools", lambda count: {"tools": [LOOK, *[FETCH] * (count - 1)]}, "tools", "must hold at most {} elements"),
    (
        "max_stop_sequences",
        lambda count: {"stop_sequences": stops(count)},
        "stop_sequences",
        "must hold at most {} elements",
    ),
    *(
        ("max_depth", made, path, "must not be nested deeper than {} levels")
        for made, path in (
            (lambda levels: {"messages": conversation(levels)}, "messages.1.content.0.tool_use.input"),
            (lambda levels: {"tools": [{"name": "look", "input_schema": deep(levels)}]}, "tools.0.input_schema"),
            (
                lambda levels: {"output_config": {"format": {"type": "json_schema", "schema": deep(levels)}}},
                "output_config.format.schema",
            ),
        )
    ),
]
amounts = pytest.mark.parametrize(
    ("rule", "made", "path", "reason"), AMOUNTS, ids=lambda value: "made" if callable(value) else str(value)[:30]
)


@both_ways
@amounts
@pytest.mark.parametrize("most", [1, 7, 200])
def test_a_request_may_reach_each_limit_and_not_exceed_it(
    parse: Any, rule: str, made: Any, path: str, reason: str, most: int
) -> None:
    limit: dict[str, Any] = {rule: most}
    rules = Rules(drop_server_tools=True, **limit)
    assert parse(rules, **made(most))
    with pytest.raises(InvalidRequest) as caught:
        parse(rules, **made(most + 1))
    assert caught.value.message == f"{path}: {reason.format(most)}"


@pytest.mark.slow
@both_ways
@amounts
def test_the_default_limits_accept_large_requests(parse: Any, rule: str, made: Any, path: str, reason: str) -> None:
    most = {"max_messages": 100_000, "max_tools": 1024, "max_stop_sequences": 64, "max_depth": MAX_DEPTH}[rule]
    assert parse(DROPPING, **made(most))
    with pytest.raises(InvalidRequest, match=f"{path}: {reason.format(most)}"):
        parse(DROPPING, **made(most + 1))


@both_ways
def test_absent_and_empty_fields_are_within_every_limit(parse: Any) -> None:
    """Null means absent, and an empty array is within every limit."""
    rules = Rules(max_messages=1, max_tools=1, max_stop_sequences=1, max_depth=1)
    absent: list[Any] = [None, []]
    for nothing in absent:
        assert parse(rules, tools=nothing, stop_sequences=nothing).tools == []


@both_ways
@pytest.mark.parametrize("field", ["tools", "stop_sequences"])
def test_a_value_that_is_not_an_array_is_refused_before_it_is_counted(parse: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}: must be an array"):
        parse(Rules(), **{field: {"a": 1}})


@pytest.mark.parametrize(("role", "kind"), [("user", "tool_use"), ("assistant", "tool_result")])
def test_a_call_or_result_in_the_wrong_role_is_refused_for_a_relayed_upstream_too(role: str, kind: str) -> None:
    raw = {"model": "m", "max_tokens": 9, "messages": [{"role": role, "content": [{"type": kind}]}]}
    with pytest.raises(InvalidRequest, match=rf"messages\.0\.content\.0\.type: '{kind}' is not supported"):
        parse_request(orjson.dumps(raw), rules=PASSING)
