"""Removes thinking from an answer when the client asked not to see it. Pure.

`thinking.display: omitted` keeps an empty thinking block that holds only the signature: the engine's own signature, or
the placeholder when the engine gave none. The client sends that block back with the conversation, like any other.
"""

from .deltas import Batch, Delta, Signature, Thinking, Usage, deltas_of
from .message import PLACEHOLDER_SIGNATURE


class ThinkingFilter:
    """Deltas in, deltas out. `keep_signatures` keeps an empty, signed block for each that was left out."""

    __slots__ = ("_keep_signatures", "_open")

    def __init__(self, *, keep_signatures: bool) -> None:
        self._keep_signatures = keep_signatures
        self._open = False  # a block whose signature is still to come

    def feed(self, batch: Batch) -> list[Delta]:
        """The batch without its thinking. The last one must hold a Finish, which ends every block."""
        out: list[Delta] = []
        for delta in deltas_of(batch):
            match delta:
                case Thinking(text):
                    self._open |= self._keep_signatures and text != ""
                case Signature(value):
                    if self._keep_signatures and value:
                        out.append(delta)
                        self._open = False
                case Usage() | "":  # writes nothing, so ends nothing
                    out.append(delta)
                case _:
                    if self._open:
                        out.append(Signature(PLACEHOLDER_SIGNATURE))
                        self._open = False
                    out.append(delta)
        return out
