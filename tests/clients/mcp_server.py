"""An MCP server on standard input and output with 40 tools: five verbs for eight things of an office.

    python -m tests.clients.mcp_server

Its calls do nothing but say what they were called with. Claude Code starts it, as `OPTIONS` says.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

from tests.clients.install import ROOT

Json = dict[str, Any]

NAME: Final = "office"
_THINGS: Final = ("invoice", "parcel", "meeting", "ticket", "server", "photo", "recipe", "flight")
_VERBS: Final = ("create", "list", "delete", "update", "find")
_RULES: Final = "It must be in the books of this year. Ask before you use it for another department. " * 6


def _tool(verb: str, thing: str) -> Json:
    name = {"type": "string", "description": f"The name of the {thing}."}
    return {
        "name": f"{verb}_{thing}",
        "description": f"{verb.title()} a {thing}. {_RULES}",
        "inputSchema": {"type": "object", "properties": {"name": name}, "required": ["name"]},
    }


TOOLS: Final[list[Json]] = [_tool(verb, thing) for thing in _THINGS for verb in _VERBS]

_SERVER: Final[Json] = {
    "command": sys.executable,
    "args": ["-m", "tests.clients.mcp_server"],
    "env": {"PYTHONPATH": str(ROOT)},
}
OPTIONS: Final = ("--mcp-config", json.dumps({"mcpServers": {NAME: _SERVER}}), "--strict-mcp-config")
"""What Claude Code needs on its command line to start this server, and no other one."""


def called(tool: str, arguments: Json) -> str:
    """The result of a call."""
    return f"{tool} was called with {json.dumps(arguments, sort_keys=True)}"


def serve(requests: TextIO) -> Iterator[Json]:
    """JSON-RPC, one message a line."""
    for line in requests:
        message: Json = json.loads(line)
        if "id" in message:  # all others are notifications
            yield {"jsonrpc": "2.0", "id": message["id"], **_answer(message["method"], message.get("params") or {})}


def _answer(method: str, params: Json) -> Json:
    match method:
        case "initialize":
            told = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
            return {"result": {**told, "serverInfo": {"name": NAME, "version": "1"}}}
        case "ping":
            return {"result": {}}
        case "tools/list":
            return {"result": {"tools": TOOLS}}
        case "tools/call":
            words = called(params["name"], params.get("arguments") or {})
            return {"result": {"content": [{"type": "text", "text": words}]}}
    return {"error": {"code": -32601, "message": f"no method {method}"}}


if __name__ == "__main__":
    for response in serve(sys.stdin):
        print(json.dumps(response), flush=True)
