"""Anthropic's SDK for Python.

    field of a task     meaning
    kind                "loop" (the tool runner), "changing" (a runner whose tools change), "create" or "count" (one
                        request with `params`), "models" (the list, with `params`)
    history             messages before the prompt
    params              further parameters of the request

"loop", "changing" and "create" put `message`, the last message as it came, and `headers` into the outcome.
"""

from typing import Any

import anthropic
from anthropic import AsyncAnthropic, beta_async_tool
from pydantic import BaseModel

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
    runner = messages.tool_runner(
        model="local",
        max_tokens=500,
        tools=[tools[name] for name in task.get("tools", ["weather"])],
        messages=[*task.get("history", []), {"role": "user", "content": task.get("prompt", "Hello")}],
        stream=task.get("stream", False),
        **({"output_format": Report} if task.get("structured") else {}),
        **task.get("params", {}),
    )
    message: Any = None
    async for turn in runner:
        message = await turn.get_final_message() if task.get("stream") else turn
        if task.get("kind") == "changing":
            change(runner, tools, message)
    return outcome_of(message)


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


KINDS = {"loop": loop, "changing": loop, "create": create, "count": count, "models": models}

if __name__ == "__main__":
    assert anthropic.__version__
    serve(run)
