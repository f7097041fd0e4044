"""Anthropic's SDK for Python.

    field of a task     meaning
    kind                "loop" (the tool runner), "changing" (a runner whose tools change), "compacting" (one that
                        compacts after the first call, too), "create" or "count" (one request with `params`), "models"
                        (the list, with `params`), "strict" (one request to the beta API, with `params`)
    search              a tool search over the tools of the runner, which are deferred then
    history             messages before the prompt
    params              further parameters of the request

"loop", "changing", "compacting" and "create" put `message`, the last message as it came, and `headers` into the
outcome. "compacting" adds `stops`, the stop reasons of all its messages. "strict" validates the answer, its count, an
error and the list of models against the SDK's types, as strictly as pydantic can. Its outcome has the answer's
`objects` as they came, the count as `tokens`, and `unknown`, the fields that the types do not have.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic
from anthropic import APIStatusError, AsyncAnthropic, beta_async_tool
from anthropic.types import BetaErrorResponse
from anthropic.types.beta import (
    BetaMessage,
    BetaMessageTokensCount,
    BetaModelInfo,
    BetaRawMessageStreamEvent,
)
from pydantic import BaseModel, TypeAdapter

from tests.clients.drivers.lines import Calls, Json, serve


class Report(BaseModel):
    city: str
    degrees: int


def tools_of(calls: Calls) -> dict[str, Any]:
    @beta_async_tool
    async def weather(city: str) -> str:
        """The weather of a city."""
        return calls.weather(city)

    @beta_async_tool
    async def clock() -> str:
        """The time of day."""
        return calls.clock()

    return {"weather": weather, "clock": clock}


async def run(task: Json, calls: Calls) -> Json:
    async with AsyncAnthropic(base_url=task["url"], api_key="key", max_retries=task.get("retries", 0)) as client:
        return await KINDS[task.get("kind", "loop")](client, task, calls)


async def loop(client: AsyncAnthropic, task: Json, calls: Calls) -> Json:
    tools = tools_of(calls)
    messages: Any = client.beta.messages
    offered = [tools[name] for name in task.get("tools", ["weather"])]
    if "search" in task:
        offered = [task["search"], *(beta_async_tool(tool.func, defer_loading=True) for tool in offered)]
    runner = messages.tool_runner(
        model="local",
        max_tokens=500,
        tools=offered,
        messages=[*task.get("history", []), {"role": "user", "content": task.get("prompt", "Hello")}],
        stream=task.get("stream", False),
        **({"output_format": Report} if task.get("structured") else {}),
        **task.get("params", {}),
    )
    message: Any = None
    stops = []
    async for turn in runner:
        message = await turn.get_final_message() if task.get("stream") else turn
        stops.append(message.stop_reason)
        if task.get("kind") in ("changing", "compacting"):
            change(runner, tools, message)
        if task.get("kind") == "compacting" and len(stops) == 1:
            runner.compact_before_next_turn()  # when the tool of the call has run
    return {**outcome_of(message), "stops": stops}


def change(runner: Any, tools: dict[str, Any], message: Any) -> None:
    """After a call of `weather` the runner gets `clock`; after a call of `clock` it loses `weather`."""
    called = {block.name for block in message.content if block.type == "tool_use"}
    if "weather" in called:
        runner.add_tools(tools["clock"])
    if "clock" in called:
        runner.remove_tools("weather")


async def create(client: AsyncAnthropic, task: Json, calls: Calls) -> Json:
    params = {"model": "local", "max_tokens": 500, **task["params"]}
    params.setdefault("messages", [{"role": "user", "content": task.get("prompt", "Hello")}])
    resource: Any = client.beta.messages if task.get("beta") else client.messages
    if task.get("stream"):
        async with resource.stream(**params) as stream:
            message = await stream.get_final_message()
            headers = stream.response.headers
    else:
        raw = await resource.with_raw_response.create(**params)
        message, headers = await raw.parse(), raw.headers
    return {**outcome_of(message), "headers": dict(headers)}


async def count(client: AsyncAnthropic, task: Json, calls: Calls) -> Json:
    counted = await client.messages.count_tokens(model="local", **task["params"])
    return {"tokens": counted.input_tokens}


async def models(client: AsyncAnthropic, task: Json, calls: Calls) -> Json:
    return {"models": [model.id async for model in client.models.list(**task["params"])]}


def outcome_of(message: Any) -> Json:
    parsed = getattr(message, "parsed_output", None)
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "structured": parsed.model_dump() if isinstance(parsed, BaseModel) else None,
        "message": message.model_dump(mode="json", exclude={"content": {"__all__": {"parsed_output"}}}),
    }


# Strict validation

MESSAGE: Final = TypeAdapter[Any](BetaMessage)
EVENT: Final = TypeAdapter[Any](BetaRawMessageStreamEvent)
COUNT: Final = TypeAdapter[Any](BetaMessageTokensCount)
ERROR: Final = TypeAdapter[Any](BetaErrorResponse)
MODEL: Final = TypeAdapter[Any](BetaModelInfo)
COUNTED: Final = ("model", "messages", "system", "tools", "tool_choice", "thinking", "context_management", "betas")


async def strict(client: AsyncAnthropic, task: Json, calls: Calls) -> Json:
    params = {"model": "local", "max_tokens": 500, **task["params"]}
    params.setdefault("messages", [{"role": "user", "content": task.get("prompt", "Hello")}])
    beta: Any = client.beta.messages
    objects: list[Any] = []
    unknown: list[str] = []

    def check(kind: TypeAdapter[Any], data: str | bytes) -> Any:
        unknown.extend(unknown_fields(kind.validate_json(data, strict=True)))
        return json.loads(data)

    if task.get("stream"):
        async with beta.with_streaming_response.create(**params, stream=True) as response:
            lines = [line async for line in response.iter_lines() if line.startswith("data: ")]
        data = (line.removeprefix("data: ") for line in lines)
        objects += [check(EVENT, event) for event in data if event != '{"type":"ping"}']
    else:
        raw = await beta.with_raw_response.create(**params)
        objects.append(check(MESSAGE, await raw.http_response.aread()))
    fields = {name: params[name] for name in COUNTED if name in params}
    raw = await beta.with_raw_response.count_tokens(**fields)
    counted = check(COUNT, await raw.http_response.aread())
    try:
        await beta.create(**{**params, "max_tokens": -1})
    except APIStatusError as error:
        check(ERROR, error.response.content)
    page = await client.beta.models.with_raw_response.list()
    for model in json.loads(await page.http_response.aread())["data"]:
        check(MODEL, json.dumps(model))
    return {"objects": objects, "tokens": counted["input_tokens"], "unknown": sorted(set(unknown))}


def unknown_fields(value: Any) -> Iterator[str]:
    """The fields in a validated object, and in the objects in it, that their classes in the SDK do not have."""
    if isinstance(value, BaseModel):
        yield from (f"{type(value).__name__}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from unknown_fields(getattr(value, name))
    elif isinstance(value, list):
        for entry in value:
            yield from unknown_fields(entry)


KINDS = {
    "loop": loop,
    "changing": loop,
    "compacting": loop,
    "create": create,
    "count": count,
    "models": models,
    "strict": strict,
}

if __name__ == "__main__":
    assert anthropic.__version__
    serve(run)
