"""What the scenarios share: the service as a process before a scripted engine, and plays that many of them use.

with served(play, "--dialect", "vllm") as s:
    client.run(s.url, prompt="Hello")
    s.engine.chats
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.clients.engine import (
    USAGE,
    Json,
    Play,
    ScriptedEngine,
    call,
    delta,
    finish,
    last_role,
    text,
    tool_results,
)
from tests.support.service import Service
from tests.support.upstream import sse


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    engine: ScriptedEngine
    service: Service


@contextmanager
def served(play: Play, *options: str, **engine: object) -> Iterator[Served]:
    """`options` are those of `anthro-asgi serve`, `engine` the keywords of ScriptedEngine."""
    with (
        ScriptedEngine(play, **engine) as scripted,  # type: ignore[arg-type]  # its own keywords
        Service("--upstream", f"{scripted.url}/v1", *options, may_log_errors=True) as service,
    ):
        yield Served(service.url, scripted, service)


def weather(body: Json, number: int) -> bytes:
    """Call the weather tool, then say its result; or write a report, when the request has a schema for one."""
    if last_role(body) == "tool":
        return text(f"The tool said: {tool_results(body)[0]}")
    if "response_format" in body:
        return text(json.dumps(REPORT))
    return call(offered(body, "weather"), json.dumps(PARIS))


PARIS: Json = {"city": "Paris"}
REPORT: Json = {"city": "Paris", "degrees": 21}
SUNNY = "The tool said: Sunny in Paris"


def offered(body: Json, name: str) -> str:
    """The name of the offered tool whose name contains `name`: some clients put a prefix before it."""
    names: list[str] = [tool["function"]["name"] for tool in body["tools"]]
    return next(offered for offered in names if name in offered)


def said(body: Json) -> str:
    """The text of the last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def calls_in_styles(name: str, arguments: Json) -> dict[str, bytes]:
    """One tool call, in each form that engines send. A client must execute it once."""
    good = json.dumps(arguments)

    def first(arguments: object) -> Json:
        return {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}

    def stream(*parts: Json) -> bytes:
        deltas = [delta(tool_calls=[part]) for part in parts]
        return sse(delta(role="assistant", content=None), *deltas, finish("tool_calls"), USAGE)

    ghost = {"index": 1, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    return {
        "encoded twice": stream(first(json.dumps(good))),
        "an empty object first": stream(first("{}"), {"index": 0, "function": {"arguments": good}}),
        "an object instead of a text": stream(first(arguments)),
        "repeated by a last chunk": stream(first(good), first(good)),
        "beside a ghost call": stream(first(good), ghost),
        "a trailing comma": stream(first(good[:-1] + ",}")),
        "in a fence": stream(first(f"```json\n{good}\n```")),
    }
