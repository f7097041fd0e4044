"""Inspect, by its model's own loop (`generate_loop`). `config` of a task holds fields of its GenerateConfig."""

import os

os.environ["INSPECT_DISPLAY"] = "none"

from inspect_ai.model import ChatMessageUser, GenerateConfig, ResponseSchema, get_model
from inspect_ai.tool import Tool, tool
from inspect_ai.util import json_schema
from pydantic import BaseModel

from tests.clients.drivers.lines import Calls, Json, serve


class Report(BaseModel):
    city: str
    degrees: int


@tool
def weather(calls: Calls) -> Tool:
    async def execute(city: str) -> str:
        """The weather of a city.

        Args:
            city: the name of the city
        """
        return calls.weather(city)

    return execute


async def run(task: Json, calls: Calls) -> Json:
    options: Json = {"max_tokens": 500, "max_retries": 0, **task.get("config", {})}
    if task.get("structured"):
        options["response_schema"] = ResponseSchema(name="report", json_schema=json_schema(Report))
    model = get_model(
        f"anthropic/{task.get('model', 'claude-sonnet-4-5')}",
        config=GenerateConfig(**options),
        base_url=task["url"],
        api_key="key",
        memoize=False,
        streaming=task.get("stream", False),
    )
    tools = [weather(calls)] if task.get("tools", ["weather"]) else []
    _, output = await model.generate_loop([ChatMessageUser(content=task.get("prompt", "Hello"))], tools=tools)
    structured = Report.model_validate_json(output.completion).model_dump() if task.get("structured") else None
    return {"text": output.completion, "structured": structured, "error": output.error and {"message": output.error}}


if __name__ == "__main__":
    serve(run)
