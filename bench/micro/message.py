"""An answer that is not streamed: 500 text deltas and a tool call → one Message, against writing that Message alone."""

import json
from collections.abc import Sequence
from typing import Any, Final

import orjson

from anthro_asgi.wire.deltas import Delta, Finish, ToolJson, ToolStart, Usage
from anthro_asgi.wire.json_codec import dumps
from anthro_asgi.wire.message import MessageBuilder

from ..timing import always
from .case import Case, same
from .texts import varied

GROUP: Final = "message"
FLOOR: Final = "orjson.dumps of the message"
_TEXTS: Final = varied(500)
_ARGUMENTS: Final = ('{"path": "src/', "größe.py", '", "lines": [1, ', '40], "text": "a \\"b\\"\\n"}')
_ANSWERS: Final = 20  # in a round


def cases() -> list[Case]:
    deltas: list[Delta] = [Usage(input_tokens=9), *_TEXTS, ToolStart("toolu_bench", "read")]
    deltas += [*map(ToolJson, _ARGUMENTS), Usage(output_tokens=600), Finish("tool_use")]
    answers = [deltas] * _ANSWERS
    floor = always(orjson.dumps, [_message()] * _ANSWERS)
    name = f"{len(_TEXTS)} deltas and a call"
    return [Case(GROUP, name, FLOOR, floor, always(built, answers), _ANSWERS, lambda: _check(deltas, name))]


def built(deltas: Sequence[Delta]) -> bytes:
    """The Message, from deltas that come one by one."""
    builder = MessageBuilder("msg_bench", "bench", lambda: 1)
    for delta in deltas:
        builder.feed(delta)
    return dumps(builder.message(len(deltas)))


def _message() -> dict[str, Any]:
    """The oracle: what the deltas come to."""
    call = {"type": "tool_use", "id": "toolu_bench", "name": "read", "input": json.loads("".join(_ARGUMENTS))}
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [{"type": "text", "text": "".join(_TEXTS)}, call],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 600},
    }


def _check(deltas: Sequence[Delta], name: str) -> None:
    same(json.loads(built(deltas)), _message(), f"{GROUP}, {name}")
