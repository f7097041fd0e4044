"""Tool calls as engines interleave them → deltas in which one call at a time is open (contract section 5).

A chat stream may grow several calls at once, with text in between; a Messages stream has one block open at a time. So
what arrives is a queue of items, texts and calls in the order they began. The head of the queue streams as it arrives.
The rest waits, and moves up the moment the head can grow no more: a text when anything follows it, a call when its
arguments are one whole JSON value. At the end everything left goes out in order, whole or not. A call without arguments
is `{}` and can't be told from one whose arguments are still to come, so it holds back what follows it to the end.

Nothing is reordered, merged or lost; what waits is only what could not be sent without breaking the grammar. It is
weighed, so that an engine that never ends a call does not fill the memory.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...wire.answer_limits import BLOCK_OVERHEAD, DEFAULT_LIMITS, AnswerLimits, delta_size, utf8_size
from ...wire.deltas import Delta, ToolJson, ToolStart
from ...wire.errors import BadUpstream
from ...wire.repairs import Repairs

_MAX_UNREAD = 64  # pieces that may wait to be looked at, so that a long call does not keep them all
_LONG_PIECE = 64 * 1024  # characters of a piece that does not
_ITEM_COST = 64  # bytes that a text costs beside what it says, and an id
_STRUCTURE = re.compile(r'["{}\[\]]|\\.?', re.DOTALL)


class ToolCall:
    """A tool call on its way. It is announced once its name is whole: when arguments follow it, or at the end.

    `said` is the id the engine uses for it, `id` the one the client sees.
    """

    __slots__ = (
        *("_announced", "_depth", "_in_string", "_stopped", "_unread", "_unsent", "_complete"),
        *("id", "kept", "name", "engine_id"),
    )

    def __init__(self, identity: str, engine_id: str | None) -> None:
        self.id = identity
        self.engine_id = engine_id
        self.name = ""
        self.kept = 0  # bytes of arguments that wait
        self._unsent: list[str] = []
        self._announced = False
        self._unread: list[str] = []  # not yet looked at for where the JSON ends: it is asked only when something waits
        self._depth = 0
        self._in_string = False
        self._complete = False
        self._stopped = False

    def grow(self, name: str | None, arguments: str) -> None:
        if name and (not self.name or (name != self.name and not self._announced and not self._unsent)):
            self.name += name  # the first part of a name, or the next where it is split over chunks
        if arguments:
            self.kept += utf8_size(arguments)
            self._unsent.append(arguments)
            self._unread.append(arguments)
            if len(self._unread) > _MAX_UNREAD or len(arguments) > _LONG_PIECE:
                self._scan()

    def release(self, name_of: Callable[[str], str], *, at_end: bool = False) -> list[Delta]:
        """What may go out now. `name_of` tells the tool that the engine calls so."""
        out: list[Delta] = []
        if not self._announced:
            if not (self._unsent and self.name) and not at_end:
                return out
            if not self.name:
                raise BadUpstream("the engine called a tool without its name")
            self._announced = True
            out.append(ToolStart(self.id, name_of(self.name)))
        if self._unsent:
            out.append(ToolJson("".join(self._unsent)))
            self._unsent.clear()
            self.kept = 0
        return out

    def extend(self, arguments: str) -> ToolJson:
        """The same as `grow` and `release`, for a call that was announced and has nothing waiting."""
        self._unread.append(arguments)
        if len(self._unread) > _MAX_UNREAD:
            self._scan()
        return ToolJson(arguments)

    @property
    def can_extend(self) -> bool:
        return self._announced and not self._unsent

    def stop(self) -> None:
        """The engine says that no more will come."""
        self._stopped = True

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are all there: the engine said so, or they are an object, an array, a string of one."""
        if not self._stopped:
            self._scan()
        return self._stopped or self._complete

    def _scan(self) -> None:
        text = "".join(self._unread)
        # a backslash at the very end waits for what it escapes
        self._unread = ["\\"] if (len(text) - len(text.rstrip("\\"))) % 2 else []
        for match in _STRUCTURE.finditer(text[: len(text) - len(self._unread)]):
            mark = match[0]
            if mark == '"':
                self._in_string = not self._in_string
                self._complete = not self._in_string and self._depth == 0
            elif self._in_string or mark[0] == "\\":
                continue
            else:
                self._depth += 1 if mark in "{[" else -1
                self._complete = self._depth == 0


class ToolCallQueue:
    """The queue. `new_id` makes an id for a call that comes without one, or with one of those `taken`.

    `names` are those that a tool has for the engine, where they are not its own. `repairs` counts what is mended.
    What takes in raises AnswerTooLarge when too much waits.
    """

    __slots__ = (
        *("_by_key", "_ids", "_kept", "_last", "_limits", "_names", "_new_id", "_queue", "_untangled"),
        *("repairs", "has_calls"),
    )

    def __init__(
        self,
        new_id: Callable[[], str],
        taken: Iterable[str] = (),
        names: Mapping[str, str] | None = None,
        *,
        limits: AnswerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._new_id = new_id
        self._names = names or {}
        self._limits = limits
        self._kept = 0  # bytes of all that waits, and of what every call leaves behind
        self._untangled = False
        self.repairs = Repairs()
        self._queue: deque[ToolCall | Delta] = deque()
        self._by_key: dict[object, ToolCall] = {}
        self._ids = set(taken)
        self._last: ToolCall | None = None
        self.has_calls = False  # whether any call was seen at all

    def add(self, delta: Delta) -> None:
        """Anything that is no call, for its turn."""
        self._queue.append(delta)
        self._account(_ITEM_COST + delta_size(delta))

    def stop(self, index: int | None) -> None:
        """The call with this index is whole, whatever its arguments look like."""
        call = self._by_key.get(index)
        if call is not None:
            call.stop()

    def add_call(self, index: int | None, identity: str | None, name: str | None, arguments: str) -> None:
        """A piece of a call, as a chat delta has it: any part of it may be missing or said again."""
        key: object = index if index is not None else identity
        call = self._last if key is None else self._by_key.get(key)
        cost = utf8_size(arguments)
        if call is None or self._begins_new_call(call, key, identity, name, arguments):
            call = ToolCall(self._unique_id(identity), identity)
            self._queue.append(call)
            self.has_calls = True
            cost += BLOCK_OVERHEAD
        elif not self._untangled and self._queue and self._queue[-1] is not call:
            self._untangled = True
            self.repairs["call_order"] += 1
        call.engine_id = call.engine_id or identity
        cost -= len(call.name)
        call.grow(name, arguments)
        cost += len(call.name)
        keys = len(self._by_key)
        self._by_key[key] = self._last = call
        if index is not None and identity is not None:
            self._by_key[identity] = call  # the next piece may leave out the index
        if len(self._by_key) > keys:
            cost += _ITEM_COST + utf8_size(identity or "")
        self._limits.check_tool_input(call.kept)
        self._account(cost)

    def _account(self, cost: int) -> None:
        self._kept += cost
        self._limits.check_answer(self._kept)

    def extender(self, entry: dict[str, Any]) -> Callable[[str], Delta] | None:
        """What takes further arguments that come as this piece did, if they go straight to the client."""
        function = entry.get("function") or entry
        index, identity = entry.get("index"), entry.get("id")
        if not isinstance(identity, str | None):
            return None
        key = index if isinstance(index, int) else identity or None
        call = self._last if key is None else self._by_key.get(key)
        if function.get("name") or call is None or list(self._queue) != [call] or not call.can_extend:
            return None
        return call.extend if identity in (None, "", call.engine_id) else None

    def _begins_new_call(
        self, call: ToolCall, key: object, identity: str | None, name: str | None, arguments: str
    ) -> bool:
        """Whether a piece under a known key begins a new call: a new id, or a name where a call is already whole.

        Some repeat id and name in every piece, so the same name again, with no arguments to it, says nothing new; and
        some number every piece anew, so arguments without a name go on where there is something to go on with.
        """
        if identity and call.engine_id is not None and identity != call.engine_id:
            return bool(name) or not arguments or call.is_complete
        if not name or not call.is_complete:
            return False
        return bool(arguments.strip()) or name != call.name or key is None

    def _unique_id(self, identity: str | None) -> str:
        """The engine's id, unless it was used before: some number the calls of every answer alike, from `call_0` on."""
        own = identity or self._new_id()
        while own in self._ids:
            own = self._new_id()
        self._ids.add(own)
        if own != identity:
            self.repairs["call_id"] += 1
        return own

    def _name(self, called: str) -> str:
        """The tool that the engine calls so."""
        name = self._names.get(called, called)
        if name != called:
            self.repairs["call_name"] += 1
        return name

    def release(self, *, at_end: bool = False) -> list[Delta]:
        """What may go out now, in order."""
        out: list[Delta] = []
        queue = self._queue
        while queue:
            head = queue[0]
            if not isinstance(head, ToolCall):
                out.append(head)
                queue.popleft()
                self._kept -= _ITEM_COST + delta_size(head)
                continue
            leaves = at_end or (len(queue) > 1 and head.is_complete)
            self._kept -= head.kept
            out += head.release(self._name, at_end=leaves)
            self._kept += head.kept
            if not leaves:
                break
            queue.popleft()
        return out

    @property
    def busy(self) -> bool:
        """Whether text must queue behind calls."""
        return bool(self._queue)
