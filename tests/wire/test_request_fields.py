"""Each row of the table of request fields is true: what is validated where, what is consumed, what seeds an answer."""

import ast
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

import anthro_asgi
from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.engines.openai.dialects import DIALECTS, VLLM, Dialect
from anthro_asgi.engines.openai.retry import DROPPABLE, rejected_field
from anthro_asgi.simulator.prompt import prompt
from anthro_asgi.simulator.seeds import request_digest
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import REQUEST_FIELDS, MessagesRequest, Nature, RequestField, parse_request

Json = dict[str, Any]

PACKAGE: Final = Path(anthro_asgi.__file__).parent
TOOLS: Final = [{"name": "look", "input_schema": {"type": "object"}}]
BODY: Final[Json] = {
    "model": "m",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": TOOLS,
    "tool_choice": {"type": "auto"},
}
# For each field, a change to `BODY` that an engine (or the service) has to notice.
CHANGES: Final[dict[str, Json]] = {
    "model": {"model": "n"},
    "max_tokens": {"max_tokens": 11},
    "tools": {"tools": [*TOOLS, {"name": "see"}]},
    "output_config.effort": {"output_config": {"effort": "low"}},
    "output_config.format": {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    "output_format": {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
    "messages": {"messages": [{"role": "user", "content": "Ho"}]},
    "system": {"system": "Be brief."},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "top_k": {"top_k": 5},
    "stop_sequences": {"stop_sequences": ["x"]},
    "stream": {"stream": True},
    "metadata.user_id": {"metadata": {"user_id": "u"}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "tool_choice": {"tool_choice": {"type": "any"}},
    "compaction": {"compaction": {"type": "summarize"}},
    "context_management": {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
    "tool_choice.disable_parallel_tool_use": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
}
# For each field that has a validator, a value of the wrong type.
WRONG: Final[dict[str, Json]] = {
    **{row.path: {row.key: {"wrong": 1}} for row in REQUEST_FIELDS},
    "output_config.effort": {"output_config": {"effort": 1}},
    "output_config.format": {"output_config": {"format": 1}},
    "metadata.user_id": {"metadata": {"user_id": 1}},
    "context_management": {"context_management": 1},
    "tool_choice.disable_parallel_tool_use": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
}
# Attributes of MessagesRequest that do not come from one field of the body.
DERIVED: Final = {
    "applied_edits",
    "deferred_tools",
    "tool_changes",
    "dropped_tools",
    "engine_model",
    "raw",
    "body_size",
    "cuts",
    "estimate",
    "is_batched",
    "is_large",
    "ignored",
    "only_warms_cache",
    "relay_only",
    "relay_headers",
    "response_headers",
    "server_tools",
    "trace_headers",
    "request_id",
    "direct_output",
    "report_engine",
    "cited",
    "cites",
    "has_files",
    "held",
    "has_pdfs",
}
READ: Final = [row for row in REQUEST_FIELDS if row.nature not in (Nature.IGNORED, Nature.REFUSED)]
IGNORED: Final = [row for row in REQUEST_FIELDS if row.nature is Nature.IGNORED]


def path_of(row: RequestField) -> str:
    return row.path


def parse(changes: Json, *, counting: bool = False) -> MessagesRequest:
    return parse_request(orjson.dumps({**BODY, **changes}), counting=counting)


def sent(request: MessagesRequest, dialect: Dialect = VLLM) -> Json:
    return to_chat(request, dialect)


def value_at(request: MessagesRequest, attribute: str) -> Any:
    value: Any = request
    for name in attribute.split("."):
        value = getattr(value, name)
    return value


def attributes_read() -> set[str]:
    """The attributes that code outside the wire package reads from something called `request`."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        if "wire" in path.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                holder = node.value
                name = holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", "")
                if name in ("request", "_request"):
                    names.add(node.attr)
    return names


def test_every_field_is_listed_once() -> None:
    assert len({row.path for row in REQUEST_FIELDS}) == len(REQUEST_FIELDS)


def test_every_attribute_of_a_request_comes_from_a_field_or_is_derived() -> None:
    attributes = {row.attribute.partition(".")[0] for row in REQUEST_FIELDS if row.attribute is not None}
    assert attributes | DERIVED == {field.name for field in fields(MessagesRequest)}
    assert not attributes & DERIVED


def test_every_attribute_of_a_request_is_read_by_an_engine_or_the_service() -> None:
    assert {field.name for field in fields(MessagesRequest)} <= attributes_read()


@pytest.mark.parametrize("row", READ, ids=path_of)
def test_every_field_that_is_not_ignored_changes_its_attribute(row: RequestField) -> None:
    assert row.read is not None
    assert row.attribute is not None
    assert value_at(parse(CHANGES[row.path]), row.attribute) != value_at(parse({}), row.attribute)


@pytest.mark.parametrize("row", READ, ids=path_of)
def test_every_field_that_is_not_ignored_reaches_the_engine(row: RequestField) -> None:
    # Three are read by the service: the engine always streams, and gets messages that are edited already.
    if row.path in ("stream", "context_management", "compaction"):
        assert sent(parse(CHANGES[row.path])) == sent(parse({}))
        assert row.attribute in attributes_read()
    else:
        # Stop sequences are sent only if the answer can hold nothing but text.
        base: Json = {"tools": None, "tool_choice": None} if row.path == "stop_sequences" else {}
        assert sent(parse({**base, **CHANGES[row.path]})) != sent(parse(base))


@pytest.mark.parametrize("row", IGNORED, ids=path_of)
def test_an_ignored_field_changes_nothing(row: RequestField) -> None:
    values: list[Any] = ["x", 1, None, [], {"type": "x"}]
    for value in values:
        assert parse({row.path: value}) == parse({})
        assert sent(parse({row.path: value})) == sent(parse({}))


@pytest.mark.clause("3.22")
@pytest.mark.parametrize("row", [row for row in REQUEST_FIELDS if row.nature is Nature.REFUSED], ids=path_of)
@pytest.mark.parametrize("counting", [False, True])
def test_a_refused_field_is_refused_by_name_unless_it_is_empty(row: RequestField, counting: bool) -> None:
    empty: list[Any] = [None, [], {}]
    for value in empty:
        assert parse({row.path: value}, counting=counting) == parse({}, counting=counting)
    for value in ([{"type": "x"}], {"trigger": 1}):
        with pytest.raises(InvalidRequest, match=f"^{row.path}: this service does not "):
            parse({row.path: value}, counting=counting)


@pytest.mark.clause("3.20", "3.21")
@pytest.mark.parametrize("row", IGNORED, ids=path_of)
def test_an_ignored_field_is_reported_but_for_four(row: RequestField) -> None:
    quiet = row.path in ("thread", "cache_control", "container", "service_tier")
    assert parse({row.path: {"type": "x"}}).ignored == ([] if quiet else [row.path])
    assert parse({row.path: None}).ignored == []


@pytest.mark.parametrize("row", READ, ids=path_of)
def test_create_validates_every_field_that_is_not_ignored(row: RequestField) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(WRONG[row.path])
    assert caught.value.message.startswith((f"{row.path}: ", f"{row.path}."))


@pytest.mark.parametrize("row", READ, ids=path_of)
def test_count_tokens_validates_exactly_the_fields_that_are_not_about_generation(row: RequestField) -> None:
    if row.nature is Nature.GENERATION:
        request = parse(WRONG[row.path], counting=True)
        assert request == parse({}, counting=True)
        assert row.key not in request.raw
    else:
        with pytest.raises(InvalidRequest):
            parse(WRONG[row.path], counting=True)


@pytest.mark.parametrize("row", [row for row in READ if not row.is_required], ids=path_of)
def test_null_in_an_optional_field_means_absent(row: RequestField) -> None:
    body = {key: value for key, value in BODY.items() if key != row.key}
    assert parse_request(orjson.dumps({**body, row.key: None})) == parse_request(orjson.dumps(body))


@pytest.mark.parametrize("row", [row for row in READ if row.is_required], ids=path_of)
def test_a_required_field_may_not_be_absent(row: RequestField) -> None:
    body = {key: value for key, value in BODY.items() if key != row.key}
    with pytest.raises(InvalidRequest, match=rf"^{row.key}: required$"):
        parse_request(orjson.dumps(body))


@pytest.mark.parametrize("row", READ, ids=path_of)
def test_the_simulated_answer_depends_on_exactly_the_fields_that_seed_it(row: RequestField) -> None:
    plain, changed = parse({}), parse(CHANGES[row.path])
    differs = request_digest(changed, prompt(changed), 1) != request_digest(plain, prompt(plain), 1)
    assert differs is row.seeds_answer


def test_only_comfort_fields_can_be_dropped_and_every_comfort_field_can() -> None:
    comforts = {row.path for row in REQUEST_FIELDS if row.nature is Nature.COMFORT}
    assert {path for path in DROPPABLE.values() if path is not None} == comforts


@pytest.mark.parametrize("field", DROPPABLE)
def test_a_droppable_chat_field_is_dropped_when_the_engine_names_it(field: str) -> None:
    assert rejected_field({field: 1, "messages": []}, f"unknown parameter: '{field}'") == field
    assert rejected_field({"messages": []}, f"unknown parameter: '{field}'") is None


def test_a_field_that_is_not_a_comfort_is_never_dropped() -> None:
    body = sent(parse({}))
    for field in body.keys() - DROPPABLE.keys():
        assert rejected_field(body, f"unknown parameter: '{field}'") is None


def test_every_droppable_chat_field_is_sent_by_some_dialect() -> None:
    everything = parse(
        {
            **CHANGES["metadata.user_id"],
            **CHANGES["tool_choice.disable_parallel_tool_use"],
            **CHANGES["thinking"],
            **CHANGES["output_config.effort"],
        }
    )
    disabled = replace(everything, thinking=parse({"thinking": {"type": "disabled"}}).thinking)
    stopped = parse({"tools": None, "tool_choice": None, **CHANGES["stop_sequences"]})
    requests, dialects = (everything, disabled, stopped), DIALECTS.values()
    seen = {key for request in requests for dialect in dialects for key in sent(request, dialect)}
    assert seen >= DROPPABLE.keys()
