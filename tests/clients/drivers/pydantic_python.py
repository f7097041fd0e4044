"""pydantic-ai, by an Agent over its Anthropic model. `settings` of a task are the settings of that model."""

from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from tests.clients.drivers.lines import Calls, Json, serve


class Report(BaseModel):
    city: str
    degrees: int


OUTPUTS: dict[str, Any] = {"native": NativeOutput(Report), "tool": ToolOutput(Report)}


async def run(task: Json, calls: Calls) -> Json:
    provider = AnthropicProvider(base_url=task["url"], api_key="key")
    model = AnthropicModel(task.get("model", "claude-sonnet-4-5"), provider=provider, settings=task.get("settings"))
    output = OUTPUTS[task["structured"]] if task.get("structured") else str
    tools = [getattr(calls, name) for name in task.get("tools", ["weather"])]
    agent: Any = Agent(model, output_type=output, tools=tools, retries=0)
    prompt = task.get("prompt", "Hello")
    if task.get("stream"):
        async with agent.run_stream(prompt) as result:
            said = await result.get_output()
    else:
        said = (await agent.run(prompt)).output
    return {"text": said, "structured": None} if isinstance(said, str) else {"structured": said.model_dump()}


if __name__ == "__main__":
    serve(run)
