"""What a scripted server answers: the steps of one reply. Pure.

A reply is one of these:

- a text: it is sent word by word;
- a step, or a list of steps: deltas as engines yield them, a ToolCall, a Stall, a Cut, or an exception;
- a function of the SeenRequest that returns a reply.

An exception before any content is an HTTP error with its own status. After content it is an `error` event in a stream.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from ..wire.deltas import DELTA_TYPES, Delta, ToolJson, ToolStart
from ..wire.errors import ApiError
from .requests import SeenRequest

_WORD: Final = re.compile(r"\s*\S+|\s+")
_FRAGMENT: Final = 12  # characters of a tool's input in one event
_numbers: Final = count(1)


@dataclass(slots=True)
class ToolCall:
    """A tool call. It is streamed like the call of a real model: its input arrives in several events.

    Args:
        name: the name of the tool.
        input: the input of the tool, as JSON values.
        id: the id of the call, which must be unique within the message. By default each ToolCall gets its own.

    Raises TypeError if `name` is no text or `input` no mapping. An input that is no JSON object can be sent with the
    deltas ToolStart and ToolJson.
    """

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"toolu_scripted_{next(_numbers)}")

    def __post_init__(self) -> None:
        for what, value, kind in (("name", self.name, str), ("input", self.input, Mapping)):
            if not isinstance(value, kind):
                wanted = "text" if kind is str else "a mapping, which is sent as a JSON object"
                raise TypeError(f"the {what} of a ToolCall must be {wanted}: {value!r:.60} is not")

    def deltas(self) -> Iterator[Delta]:
        """The call as deltas. Raises TypeError or ValueError if the input is not JSON."""
        text = json.dumps(dict(self.input), ensure_ascii=False, allow_nan=False)
        yield ToolStart(self.id, self.name)
        for start in range(0, len(text), _FRAGMENT):
            yield ToolJson(text[start : start + _FRAGMENT])


@dataclass(frozen=True, slots=True)
class Stall:
    """A pause.

    Args:
        seconds: how long it lasts; None is until the client disconnects. Pings are sent meanwhile, as by the real
            service: every `ping_interval` seconds.

    Raises TypeError if `seconds` is not a number, ValueError if it is negative.
    """

    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.seconds is None:
            return
        if not isinstance(self.seconds, int | float):
            raise TypeError(f"Stall: seconds must be a number, not {self.seconds!r:.60}")
        if not self.seconds >= 0:
            raise ValueError(f"a Stall cannot last {self.seconds} seconds")


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed here. Before any content, the client gets no response at all."""


Step = Delta | ToolCall | Stall | Cut | Exception
Reply = str | Step | Sequence[Step] | Callable[[SeenRequest], Any]
Played = Delta | Stall | Cut | Exception
"""A step as the engine plays it."""
_STEP_TYPES: Final = (*DELTA_TYPES, ToolCall, Stall, Cut, Exception)


def error(
    status: int,
    message: str = "",
    *,
    retry_after: float | None = None,
    type: str | None = None,  # noqa: A002 - the name of the field in the error that the client gets
    headers: Mapping[str, str] | None = None,
) -> ApiError:
    """An error reply, such as `error(429, retry_after=2)`.

    Args:
        status: the HTTP status, from 400 to 599. Inside a stream only the type and the message are sent.
        message: the message for the client.
        retry_after: seconds. `retry-after` is rounded up to whole seconds; a fraction is sent in `retry-after-ms` too.
        type: the type of the error; by default the one that the API uses with this status.
        headers: further headers of the response.

    Raises ValueError for another status, TypeError if it is not a whole number.
    """
    if not isinstance(status, int):
        raise TypeError(f"error: status must be a whole number, not {status!r:.60}")
    if not 400 <= status <= 599:
        raise ValueError(f"{status} is not the status of an error: 400 to 599")
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    if retry_after is not None:
        fields["retry-after"] = str(math.ceil(retry_after))
        if retry_after != math.ceil(retry_after):
            fields["retry-after-ms"] = f"{retry_after * 1000:g}"
    kind = _scripted_error(status, type or _error_type(status))
    return kind(message or f"scripted error {status}", reason="scripted", headers=tuple(fields.items()))


def _scripted_error(status: int, kind: str) -> Callable[..., ApiError]:
    """A class of ApiError with this status and type, which are attributes of the class."""
    return type("ScriptedError", (ApiError,), {"status": status, "type": kind})


def _error_type(status: int) -> str:
    """The type of the API's own error with this status; the nearest one for a status that the API does not use."""
    known = {error.status: error.type for error in _error_classes(ApiError)}
    return known.get(status, "api_error" if status >= 500 else "invalid_request_error")


def _error_classes(base: type[ApiError]) -> Iterator[type[ApiError]]:
    for error_class in base.__subclasses__():
        if error_class.__module__ == ApiError.__module__:
            yield error_class
            yield from _error_classes(error_class)


def check_reply(reply: object) -> None:
    """What a function returns is checked when it is called.

    Raises TypeError if `reply` is not a Reply, and TypeError or ValueError if the input of a ToolCall is not JSON.
    """
    if reply is error:
        raise TypeError("error is a function: write error(status)")
    if callable(reply) and not isinstance(reply, type):
        return
    for step in reply if isinstance(reply, Sequence) and not isinstance(reply, str | bytes) else (reply,):
        if not isinstance(step, _STEP_TYPES):
            raise TypeError(
                f"{step!r:.90} is not a step of a reply: use str, a delta, ToolCall, Stall, Cut or error(…)"
            )
        if isinstance(step, ToolCall):
            next(step.deltas())


def steps_of(reply: Reply, request: SeenRequest) -> Iterator[Played]:
    """The steps of a reply to this request, with tool calls as deltas. Raises TypeError."""
    while callable(reply):
        reply = reply(request)
        check_reply(reply)
    if isinstance(reply, str):
        yield from words(reply)
        return
    for step in reply if isinstance(reply, Sequence) else (reply,):
        if isinstance(step, ToolCall):
            yield from step.deltas()
        else:
            yield step


def words(text: str) -> list[str]:
    """The text in pieces of one word, each with the space before it."""
    return _WORD.findall(text) or [""]
