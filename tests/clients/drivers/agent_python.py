"""The Claude Agent SDK, which drives a Claude Code that comes with it. `home` of a task is an empty folder.

`result` and `is_error` of an outcome are those of the SDK's ResultMessage.
"""

import os
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ResultMessage,
    TextBlock,
    create_sdk_mcp_server,
    query,
    tool,
)

from tests.clients.drivers.lines import REPORT_SCHEMA, Calls, Json, serve


async def run(task: Json, calls: Calls) -> Json:
    @tool("weather", "The weather of a city", {"city": str})
    async def weather(args: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": calls.weather(args["city"])}]}

    options = ClaudeAgentOptions(
        model="local",
        tools=[],
        mcp_servers={"sky": create_sdk_mcp_server("sky", tools=[weather])},
        allowed_tools=["mcp__sky__weather"],
        strict_mcp_config=True,
        setting_sources=[],
        system_prompt="Be brief.",
        max_turns=5,
        cwd=task["home"],
        include_partial_messages=task.get("stream", False),
        output_format={"type": "json_schema", "schema": REPORT_SCHEMA} if task.get("structured") else None,
        env={
            "HOME": task["home"],
            "PATH": os.environ["PATH"],
            "ANTHROPIC_BASE_URL": task["url"],
            "ANTHROPIC_AUTH_TOKEN": "key",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    )
    texts: list[str] = []
    outcome: Json = {}
    async for message in query(prompt=task.get("prompt", "Hello"), options=options):
        if isinstance(message, AssistantMessage):
            texts += [block.text for block in message.content if isinstance(block, TextBlock)]
        if isinstance(message, ResultMessage):
            outcome = {"result": message.result, "is_error": message.is_error, "structured": message.structured_output}
    return {"text": "".join(texts), **outcome}


if __name__ == "__main__":
    serve(run)
