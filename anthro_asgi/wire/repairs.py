"""The repairs that an engine's answer may need on its way to a client, counted by kind. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

Repair = Literal[
    "call_id",
    "call_name",
    "call_input",
    "call_order",
    "call_dropped",
    "block_order",
    "signature",
    "finish_reason",
    "stop_sequence",
    "usage",
]
REPAIRS: Final[Mapping[Repair, str]] = {
    "call_id": "generated here: the engine sent none, or one that another call has",
    "call_name": "a tool name that was shortened for the engine, restored",
    "call_input": "input that broke off and was closed, was encoded twice, or was not an object",
    "call_order": "interleaved tool calls, or text between their pieces, put in order",
    "call_dropped": "a call left out: its input was unreadable, or no call was allowed",
    "block_order": "from a Messages server: a block that continued after another one had begun",
    "signature": "from a Messages server: empty, or too late",
    "finish_reason": "unknown, or contradicted by the answer",
    "stop_sequence": "matched here, and the answer cut there",
    "usage": "tokens counted or estimated here, because the engine reported none",
}
"""What each repair does."""


class Repairs(Counter[Repair]):
    """How often each repair was made. A class of its own: an instance of `Counter[Repair]` stores that type, too."""
