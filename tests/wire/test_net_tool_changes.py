"""The `tool_changes` of a compaction block have the effect of the messages that it stands for (contract 3.51)."""

import random
from typing import Any

import orjson
import pytest

from anthro_asgi.wire.request import MessagesRequest, parse_request

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
SEARCH: Json = {"name": "ToolSearch", "description": "Finds deferred tools."}
DECLARED: list[Json] = [
    SEARCH,
    {"name": "plain"},
    {"name": "other"},
    {"name": "far", "defer_loading": True},
    {"name": "farther", "defer_loading": True},
]


def reference(kind: str, name: str) -> Json:
    return {"type": kind, "tool": {"type": "tool_reference", "name": name}}


def defined(name: str, words: str, **fields: Any) -> Json:
    definition = {"name": name, "description": words, **fields}
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}


def change(block: Json) -> list[Json]:
    return [{"role": "system", "content": [block]}]


def loaded(*names: str) -> list[Json]:
    """A search of the client's own whose result loads tools."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {}}
    found = [{"type": "tool_reference", "tool_name": name} for name in names]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": found}
    return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]


def parsed(*messages: Json) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 9, "messages": [HI, *messages], "tools": DECLARED}
    return parse_request(orjson.dumps(body))


def offered(request: MessagesRequest) -> dict[str, str | None]:
    """The names and descriptions of the tools that the engine sees."""
    return {tool.name: tool.description for tool in request.tools}


def compacted(request: MessagesRequest) -> MessagesRequest:
    block = {"type": "compaction", "content": "So far.", "tool_changes": request.tool_changes}
    return parsed({"role": "assistant", "content": [block]})


@pytest.mark.clause("3.51")
@pytest.mark.parametrize(
    ("messages", "changes"),
    [
        ([HI], []),
        (loaded("far"), [reference("tool_addition", "far")]),
        (loaded("far", "plain", "unknown"), [reference("tool_addition", "far")]),
        (change(reference("tool_removal", "plain")), [reference("tool_removal", "plain")]),
        ([*change(reference("tool_removal", "plain")), *change(reference("tool_addition", "plain"))], []),
        ([*loaded("far"), *change(reference("tool_removal", "far"))], [reference("tool_removal", "far")]),
        (change(defined("new", "One.", cache_control={"type": "ephemeral"})), [defined("new", "One.")]),
        ([*change(defined("new", "One.")), *change(defined("new", "Two."))], [defined("new", "Two.")]),
        ([*change(defined("new", "One.")), *change(reference("tool_removal", "new"))], []),
        (
            [*change(defined("plain", "One.")), *change(reference("tool_removal", "plain"))],
            [reference("tool_removal", "plain")],
        ),
        (
            [
                *change(defined("new", "One.")),
                *change(reference("tool_removal", "new")),
                *change(reference("tool_addition", "new")),
            ],
            [defined("new", "One.")],
        ),
    ],
)
def test_changes_are_summed_up(messages: list[Json], changes: list[Json]) -> None:
    request = parsed(*messages)
    assert request.tool_changes == changes
    assert offered(compacted(request)) == offered(request)


@pytest.mark.parametrize("seed", range(20))
def test_random_changes_have_the_same_effect_when_they_are_summed_up(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        names = ["plain", "other", "far", "farther"]
        messages: list[Json] = []
        for number in range(rng.randrange(1, 12)):
            match rng.randrange(4):
                case 0:
                    messages += change(reference("tool_addition", rng.choice(names)))
                case 1:
                    messages += change(reference("tool_removal", rng.choice(names)))
                case 2:
                    messages += loaded(*rng.sample(names, 2))
                case _:
                    name = rng.choice([*names, f"new{number}"])
                    messages += change(defined(name, f"Number {number}."))
                    names = sorted({*names, name})
        once = parsed(*messages)
        twice = compacted(once)
        assert offered(twice) == offered(once), messages
        assert offered(compacted(twice)) == offered(once), messages
