"""LiteLLM, by the loop that its documentation shows: `completion`, the calls, their results, `completion` again.

`model` of a task is the name of the model; LiteLLM sends other fields for the names that it knows.
"""

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise the import asks a server for prices

import litellm

from tests.clients.drivers.lines import REPORT_SCHEMA, Calls, Json, serve

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
REPORT = {"type": "json_schema", "json_schema": {"name": "report", "schema": REPORT_SCHEMA}}


async def run(task: Json, calls: Calls) -> Json:
    messages: list[Any] = [*task.get("history", []), {"role": "user", "content": task.get("prompt", "Hello")}]
    params: Json = {"tools": [WEATHER]} if task.get("tools", ["weather"]) else {}
    params |= {"response_format": REPORT} if task.get("structured") else {}
    while True:
        message = await answer(task, messages, {**params, **task.get("params", {})})
        if not message.tool_calls:
            break
        messages.append(message)
        for call in message.tool_calls:
            result = calls.weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    structured = json.loads(message.content) if task.get("structured") else None
    return {"text": message.content, "structured": structured}


async def answer(task: Json, messages: list[Any], params: Json) -> Any:
    model = f"anthropic/{task.get('model', 'local')}"
    common: Json = {"model": model, "api_base": task["url"], "api_key": "key", "max_tokens": 500, "num_retries": 0}
    stream = task.get("stream", False)
    response: Any = await litellm.acompletion(messages=messages, stream=stream, **common, **params)
    if stream:
        response = litellm.stream_chunk_builder([chunk async for chunk in response], messages=messages)
    return response.choices[0].message


if __name__ == "__main__":
    litellm.telemetry = False
    serve(run)
