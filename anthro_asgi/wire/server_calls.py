"""Finds the calls of server tools in one engine's answer, and sums the usage of several. Pure.

deltas of the engine ─► ServerCallReader.feed ─► deltas for the client, with a whole block for each such call
                                  └─► calls, to be run when the engine is done
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from .deltas import Batch, Block, Delta, Finish, MessageFields, ToolJson, ToolStart, Usage, deltas_of
from .json_codec import dumps
from .tool_input import parse_tool_input

Json = dict[str, Any]

_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@dataclass(frozen=True, slots=True)
class ServerCall:
    """A call of the tool `name`. `input` is None if the engine's arguments cannot be read."""

    id: str
    name: str
    input: Json | None


class ServerCallReader:
    """Reads the answer of an engine that may call the tools in `kinds`.

    Args:
        kinds: for the name of each server tool, the type of the block that shows a call: `server_tool_use` or
            `mcp_tool_use`.
        server_name: the name of the server in an `mcp_tool_use`.
        new_id: returns the id of a call, from the type of its block.

    Attributes:
        calls: the complete calls so far.
        has_client_calls: whether the answer also calls a tool that the client runs.
        finish: how the engine ended; None before that. It is not among the deltas for the client.
    """

    __slots__ = ("_kinds", "_name", "_new_id", "_parts", "_server_name", "calls", "finish", "has_client_calls")

    def __init__(self, kinds: dict[str, str], server_name: str, new_id: Callable[[str], str]) -> None:
        self._kinds = kinds
        self._server_name = server_name
        self._new_id = new_id
        self._name: str | None = None  # the tool of the open call
        self._parts: list[str] = []
        self.calls: list[ServerCall] = []
        self.has_client_calls = False
        self.finish: Finish | None = None

    def feed(self, batch: Batch) -> list[Delta]:
        """The deltas for the client. Counts are not among them: see UsageSum."""
        out: list[Delta] = []
        for delta in deltas_of(batch):
            match delta:
                case Usage():
                    continue
                case MessageFields():
                    out.append(delta)
                    continue
                case ToolJson(fragment) if self._name is not None:
                    self._parts.append(fragment)
                    continue
                case Finish():
                    self.finish = delta
                    if delta.stop_reason != "max_tokens":  # a call that was cut off at `max_tokens` cannot be run
                        self._end_call(out)
                    continue
            self._end_call(out)
            if isinstance(delta, ToolStart):
                if delta.name in self._kinds:
                    self._name = delta.name
                    continue
                self.has_client_calls = True
            out.append(delta)
        return out

    def _end_call(self, out: list[Delta]) -> None:
        if self._name is None:
            return
        kind = self._kinds[self._name]
        call = ServerCall(self._new_id(kind), self._name, parse_tool_input("".join(self._parts)))
        self._name = None
        self._parts.clear()
        self.calls.append(call)
        start: Json = {"type": kind, "id": call.id, "name": call.name, "input": {}}
        if kind == "mcp_tool_use":
            start["server_name"] = self._server_name
        pieces = [{"type": "input_json_delta", "partial_json": dumps(call.input).decode()}] if call.input else []
        out.append(Block({**start, "input": call.input or {}}, start, pieces))


class UsageSum:
    """The usage of an answer that several engine answers make up.

    The counts of a compaction are listed, but are not part of the sum, as Anthropic's API defines it.

    Attributes:
        total: the sum so far, with the list `iterations` in its details.
    """

    def __init__(self) -> None:
        self.total = Usage()
        self._iterations: list[Json] = []
        self._tool_uses: Json = {}

    def add(self, usage: Usage, kind: Literal["message", "compaction"] = "message") -> None:
        """Add the complete usage of one engine answer."""
        counts = {name: getattr(usage, name) for name in _COUNTS}
        self._iterations.append({"type": kind, **{name: count or 0 for name, count in counts.items()}})
        total = self.total
        if kind == "message":
            for name, count in (*counts.items(), ("thinking_tokens", usage.thinking_tokens)):
                if count is not None:
                    setattr(total, name, (getattr(total, name) or 0) + count)
        total.details = {**(total.details or {}), **(usage.details or {}), "iterations": list(self._iterations)}
        if self._tool_uses:
            total.details["server_tool_use"] = dict(self._tool_uses)

    def count_tool_use(self, name: str) -> None:
        """Count one request to a server tool under `name`, such as `web_search_requests`."""
        self._tool_uses = self._tool_uses or {"web_fetch_requests": 0, "web_search_requests": 0}
        self._tool_uses[name] += 1
        self.total.details = {**(self.total.details or {}), "server_tool_use": dict(self._tool_uses)}
