"""Thinking as the client wants it shown: not at all, or as a sealed block (`thinking.display: omitted`). Pure.

Of a sealed block only the signature is left, at the moment the block would have ended: an engine's own, or the one that
stands for none. The client hands it back with the conversation, as it would the whole block.
"""

from .deltas import Batch, Delta, Signature, Thinking, Usage, each
from .message import SIGNATURE


class ThoughtFilter:
    """Deltas in, deltas out. `sealed` keeps an empty, signed block for each that was left out."""

    __slots__ = ("_open", "_sealed")

    def __init__(self, *, sealed: bool) -> None:
        self._sealed = sealed
        self._open = False  # a block whose signature is still to come

    def feed(self, batch: Batch) -> list[Delta]:
        """The batch without its thinking. The last one must hold a Finish, which ends every block."""
        out: list[Delta] = []
        for delta in each(batch):
            match delta:
                case Thinking(text):
                    self._open |= self._sealed and text != ""
                case Signature(value):
                    if self._sealed and value:
                        out.append(delta)
                        self._open = False
                case Usage() | "":  # writes nothing, so ends nothing
                    out.append(delta)
                case _:
                    if self._open:
                        out.append(Signature(SIGNATURE))
                        self._open = False
                    out.append(delta)
        return out
