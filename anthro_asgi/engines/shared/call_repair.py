"""The tool calls of an engine in this process → calls whose input is one JSON object, as for an upstream. Pure.

An engine in Python may hand on what its model wrote: arguments that are encoded twice, `null`, an array, or JSON with a
mistake. Without repair a stream would carry them to the client, while a whole Message holds the object that they mean.
"""

from ...wire.deltas import Batch, Delta, Finish, MessageFields, ToolJson, ToolStart, Usage, deltas_of
from ...wire.repairs import Repairs
from .tool_arguments import ToolArguments


class CallRepair:
    """Deltas in, deltas out. `repairs` counts the calls that were repaired, and those that were left out.

    A call is announced with the first piece of its input that can be released, so that one whose input cannot be read
    is left out as a whole.
    """

    __slots__ = ("_arguments", "_start", "repairs")

    def __init__(self) -> None:
        self._start: ToolStart | None = None  # of the open call, while it is not announced
        self._arguments: ToolArguments | None = None  # of the open call
        self.repairs = Repairs()

    def feed(self, batch: Batch) -> list[Delta]:
        """The batch with repaired calls."""
        out: list[Delta] = []
        for delta in deltas_of(batch):
            if isinstance(delta, ToolJson) and self._arguments is not None:
                self._release(self._arguments.feed(delta.fragment), out)
                continue
            if self._arguments is not None and not isinstance(delta, Usage | MessageFields):
                self._close(self._arguments, delta, out)
            if isinstance(delta, ToolStart):
                self._start, self._arguments = delta, ToolArguments()
            else:
                out.append(delta)
        return out

    def _close(self, arguments: ToolArguments, after: Delta, out: list[Delta]) -> None:
        """End the open call. `after` is the delta behind it."""
        self._arguments = None
        text = arguments.close(cut=isinstance(after, Finish) and after.stop_reason == "max_tokens")
        if text is None:
            self.repairs["call_dropped"] += 1
            self._start = None
            return
        if arguments.repaired:
            self.repairs["call_input"] += 1
        self._announce(out)
        self._release(text, out)

    def _release(self, text: str, out: list[Delta]) -> None:
        if text:
            self._announce(out)
            out.append(ToolJson(text))

    def _announce(self, out: list[Delta]) -> None:
        if self._start is not None:
            out.append(self._start)
            self._start = None
