"""A recorded chat-completions request → the corresponding Messages request.

Fields without a counterpart in the Messages API are left out (`n`, `logprobs`, switches of one engine). Invalid values
(a temperature of "hot", no messages) are replaced by valid ones.
"""

import json
from typing import Any

from tests.replay import Case

Json = dict[str, Any]
HELLO: Json = {"role": "user", "content": "Hello"}
CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def messages_request(case: Case) -> Json:
    """The body for `POST /v1/messages`, without `stream`."""
    said: Json = case.body if isinstance(case.body, dict) else {}
    request: Json = {"model": said.get("model", "m"), "max_tokens": 64, "messages": []}
    limit = said.get("max_completion_tokens", said.get("max_tokens"))
    if isinstance(limit, int) and limit > 0:
        request["max_tokens"] = limit
    for message in said.get("messages") or [HELLO]:
        if message["role"] == "system":
            request["system"] = message["content"]
        else:
            request["messages"].append(_turn(message))
    request |= {key: said[key] for key in ("temperature", "top_p", "top_k") if isinstance(said.get(key), int | float)}
    if "stop" in said:
        request["stop_sequences"] = said["stop"]
    return request | _thinking(said) | _tools(said)


def _turn(message: Json) -> Json:
    """One message that is not a system prompt. An unknown role becomes `user`."""
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
        return {"role": "user", "content": [result]}
    role = "assistant" if message["role"] == "assistant" else "user"
    content = message["content"] or ""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else [_part(part) for part in content]
    for call in message.get("tool_calls", ()):
        function = call["function"]
        use = {"type": "tool_use", "id": call["id"], "name": function["name"]}
        blocks.append({**use, "input": json.loads(function["arguments"])})
    return {"role": role, "content": blocks}


def _part(part: Json) -> Json:
    if part["type"] == "text":
        return part
    media_type, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _thinking(said: Json) -> Json:
    out: Json = {}
    if "enable_thinking" in said.get("chat_template_kwargs", ()):
        wanted = said["chat_template_kwargs"]["enable_thinking"]
        out["thinking"] = {"type": "enabled", "budget_tokens": 1024} if wanted else {"type": "disabled"}
    if "reasoning_effort" in said:
        out["output_config"] = {"effort": said["reasoning_effort"]}
    return out


def _tools(said: Json) -> Json:
    """The tools, and the choice among them where it is one."""
    functions = [tool["function"] for tool in said.get("tools", ())]
    if not functions:
        return {}
    out: Json = {"tools": [_tool(function) for function in functions]}
    choice = said.get("tool_choice")
    if isinstance(choice, str):
        out["tool_choice"] = {"type": CHOICES[choice]}
    elif choice and choice["function"]["name"] in [function["name"] for function in functions]:
        out["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    return out


def _tool(function: Json) -> Json:
    tool: Json = {"name": function["name"], "input_schema": function["parameters"]}
    return tool | ({"description": function["description"]} if "description" in function else {})
