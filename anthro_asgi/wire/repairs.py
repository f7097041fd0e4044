"""The mends that an engine's answer may need on its way to a client, by kind, for whoever counts them. Pure."""

from collections import Counter
from typing import Final, Literal, get_args

Repair = Literal[
    "call_id",  # made here: the engine gave none, or one that another call had
    "call_name",  # given back in full to a tool whose name was too long for the engine
    "call_input",  # closed where it broke off, unpacked, or put into an object
    "call_order",  # calls, or text between them, that came interleaved
    "call_dropped",  # left out: its input made no sense, or none was allowed
    "block_order",  # of a Messages server: a block that went on behind another had begun
    "signature",  # of a Messages server: empty, or too late
    "finish_reason",  # one that its answer contradicts, or that nobody knows
    "stop_sequence",  # matched and cut off here
    "usage",  # tokens that were counted or estimated here, for want of a word about them
]
REPAIRS: Final[tuple[Repair, ...]] = get_args(Repair)

Repairs = Counter[Repair]
