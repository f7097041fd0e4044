"""Removes thinking from an answer when the client asked not to see it. Pure.

`thinking.display: omitted` keeps an empty thinking block that holds only the signature: the engine's own signature, or
the placeholder when the engine gave none. The client sends that block back with the conversation, like any other.
"""

from typing import assert_never

from .deltas import (
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
    deltas_of,
)
from .message import PLACEHOLDER_SIGNATURE


class ThinkingFilter:
    """Deltas in, deltas out, without thinking. `keep_signatures` leaves an empty, signed block for each removed one."""

    __slots__ = ("_keep_signatures", "_unsigned")

    def __init__(self, *, keep_signatures: bool) -> None:
        self._keep_signatures = keep_signatures
        self._unsigned = False  # a block was removed and its signature has not been written yet

    def feed(self, batch: Batch) -> list[Delta]:
        """The batch without its thinking. A Finish must come last: it ends the open block."""
        out: list[Delta] = []
        for delta in deltas_of(batch):
            match delta:
                case OtherDelta("thinking"):
                    pass
                case str() | ToolStart() | ToolJson() | Citation() | OtherDelta() | BlockStop() | Block() | Finish():
                    if self._unsigned and delta != "":  # an empty text writes nothing, so it does not end the block
                        out.append(Signature(PLACEHOLDER_SIGNATURE))
                        self._unsigned = False
                    out.append(delta)
                case ThinkingEstimate():
                    if self._keep_signatures:
                        out.append(delta)
                        self._unsigned = True
                case Usage() | MessageFields():
                    out.append(delta)
                case Thinking(text):
                    self._unsigned |= self._keep_signatures and text != ""
                case Signature(value):
                    if self._keep_signatures and value:
                        out.append(delta)
                        self._unsigned = False
                case _:
                    assert_never(delta)
        return out
