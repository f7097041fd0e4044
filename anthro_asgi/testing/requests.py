"""The requests that a scripted server has received."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ..wire.request import MessagesRequest

Matcher = Callable[["SeenRequest"], bool]


@dataclass(eq=False)
class SeenRequest:
    """One request, as the client sent it.

    Attributes:
        method, path: of the HTTP request. `path` is without the query string.
        query: the query string, without `?`.
        headers: the headers by name, in lower case. Several values of one name are joined by `, `.
        raw_body: the bytes of the body that the service has read.
        body: the body as JSON values; empty if it is not a JSON object or is compressed and was refused.
        parsed: the validated request; None if the service has refused it, or before it is validated.
        received: when the head of the request arrived, in seconds of `time.monotonic()`.
        status: the HTTP status of the response; None if there is none yet, or a Cut was the first step.
        client_left: whether the client disconnected before the response was complete. Known once the request has ended.
    """

    method: str = "POST"
    path: str = "/v1/messages"
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw_body: bytes = b""
    body: Mapping[str, Any] = field(default_factory=dict)
    parsed: MessagesRequest | None = None
    received: float = 0.0
    status: int | None = None
    client_left: bool = False
    cut: bool = field(default=False, repr=False)
    """Whether the script has cut the connection."""
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def __repr__(self) -> str:
        return f"<SeenRequest {self.method} {self.path} {self.text[:40]!r} status={self.status}>"

    @property
    def api_key(self) -> str | None:
        """The key that the client sent: `x-api-key`, or the token of `authorization: Bearer …`. None without either."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return self.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else None)

    @property
    def model(self) -> str:
        """The model that the client asked for; empty if it named none."""
        return str(self.body.get("model", ""))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the body; empty if it has none."""
        return _objects(self.body.get("messages"))

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.body.get("stream"))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the client offers."""
        return [str(tool.get("name", "")) for tool in _objects(self.body.get("tools"))]

    @property
    def text(self) -> str:
        """The text of the last message: its text blocks, joined by newlines."""
        return _text(self._last_content)

    @property
    def tool_results(self) -> dict[str, str]:
        """The text of each tool result in the last message, by the id of its call."""
        results = [block for block in _objects(self._last_content) if block.get("type") == "tool_result"]
        return {str(block.get("tool_use_id", "")): _text(block.get("content")) for block in results}

    @property
    def _last_content(self) -> object:
        messages = self.messages
        return messages[-1].get("content") if messages else None

    def wait_ended(self, timeout: float = 5.0) -> None:
        """Wait until the service has finished with this request. Call it from another thread than the service's.

        Args:
            timeout: seconds.

        Raises TimeoutError.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.method} {self.path} has not ended within {timeout:g} s")

    def mark_ended(self) -> None:
        """Wake the callers of `wait_ended`."""
        self._ended.set()


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list. A body that was refused may have anything in this place."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _text(content: object) -> str:
    """The text of the content of a message or a tool result."""
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in _objects(content) if block.get("type") == "text")


def matching(
    *,
    model: str = "*",
    text: str = "",
    tool: str | None = None,
    tool_result: str | None = None,
    stream: bool | None = None,
) -> Matcher:
    """A matcher for `when`. All conditions that are given must hold.

    Args:
        model: a pattern for the model; `*` stands for any characters.
        text: is contained in the text of the last message, in any case.
        tool: the name of a tool that the client offers.
        tool_result: is contained in a tool result of the last message, in any case.
        stream: whether the client asked for a stream.

    Raises TypeError for a condition of another type.
    """
    for name, value in (("model", model), ("text", text), ("tool", tool or ""), ("tool_result", tool_result or "")):
        if not isinstance(value, str):
            raise TypeError(f"matching: {name} must be text, not {value!r:.60}")

    def matches(request: SeenRequest) -> bool:
        results = [result.lower() for result in request.tool_results.values()]
        return (
            fnmatchcase(request.model, model)
            and text.lower() in request.text.lower()
            and (tool is None or tool in request.tools)
            and (tool_result is None or any(tool_result.lower() in result for result in results))
            and (stream is None or stream == request.stream)
        )

    return matches
