"""Tool calls that an engine interleaves → deltas in which only one call is open at a time (contract section 5).

A chat stream may extend several calls at once, with text in between; a Messages stream has one block open at a time. So
texts and calls form a queue, in the order in which they began. The head of the queue is released as it arrives. The
other items wait until the head is complete: a text is complete when anything follows it, a call when its arguments are
one whole JSON value. At the end all remaining items are released in order, complete or not. A call without arguments
cannot be told from a call whose arguments are still to come, so the items after it wait until the end.

Nothing is reordered or merged, and an item waits only if its release would break the grammar. What is left out: a call
without name and arguments, the repetition of a call, and a call whose arguments cannot be read (`dropped`). The size of
the waiting items is limited, so that an engine that never ends a call does not fill the memory.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...wire.answer_limits import BLOCK_OVERHEAD, DEFAULT_LIMITS, AnswerLimits, delta_size, utf8_size
from ...wire.deltas import Batch, Delta, ToolJson, ToolStart
from ...wire.errors import BadUpstream
from ...wire.json_codec import dumps
from ...wire.repairs import Repairs
from .tool_arguments import ToolArguments

_NO_INPUT = ("", "{}", "null")
_ITEM_COST = 64  # bytes that a waiting text or an id costs beside its own size


class ToolCall:
    """A tool call that is being received. It is announced when its name is complete: with its arguments, or at the end.

    `engine_id` is the id that the engine uses for it, `id` the one that the client receives. `fields` are further
    fields of its block.
    """

    __slots__ = (
        "_announced",
        "_snapshot",
        "_stopped",
        "_unsent",
        "arguments",
        "engine_id",
        "fields",
        "id",
        "is_ghost",
        "kept",
        "name",
        "queued",
    )

    def __init__(self, identity: str, engine_id: str | None, fields: dict[str, Any] | None = None) -> None:
        self.id = identity
        self.engine_id = engine_id
        self.fields = fields
        self.is_ghost = False  # once it is closed: it had neither a name nor input
        self.name = ""
        self.kept = 0  # bytes of the arguments that are not released yet
        self.queued = False
        self.arguments = ToolArguments()
        self._snapshot: str | None = ""  # all arguments so far, as long as each piece repeats them
        self._unsent = ""
        self._announced = False
        self._stopped = False

    def grow(self, name: str | None, arguments: str) -> None:
        if name and (not self.name or (name != self.name and not self._announced and not self.has_arguments)):
            self.name += name  # the first part of the name, or the next part of a name that is split over chunks
        if arguments and not self.arguments.closed:
            if self._snapshot is not None:
                arguments = self._added_to_snapshot(arguments)
            self.kept += utf8_size(arguments)
            self._unsent += self.arguments.feed(arguments)

    def _added_to_snapshot(self, arguments: str) -> str:
        """What is new in a piece, for an engine whose pieces repeat all that came before them.

        The second piece shows whether they do: an object cannot begin again inside an object, unless a value does.
        """
        known = self._snapshot or ""
        if known.strip() in _NO_INPUT:
            self._snapshot = arguments
            return arguments
        if known.lstrip()[:1] == "{" and known.rstrip()[-1] not in ":[," and arguments.startswith(known):
            self._snapshot = arguments
            return arguments[len(known) :]
        self._snapshot = None
        return arguments

    @property
    def has_arguments(self) -> bool:
        return not self.arguments.is_empty

    def release(self, name_of: Callable[[str], str]) -> list[Delta]:
        """The deltas that may be sent now. `name_of` maps the engine's name of a tool to the client's."""
        out: list[Delta] = []
        if self._unsent and (self._announced or self.name):
            self._announce(name_of, out)
            out.append(ToolJson(self._unsent))
            self._unsent = ""
            self.kept = 0
        return out

    def close(self, name_of: Callable[[str], str], repairs: Repairs, *, cut: bool = False) -> list[Delta]:
        """The last deltas of the call; none for one whose arguments cannot be read, and for one without name and input.

        `cut`: the token limit cut it.
        """
        self.is_ghost = not self.name and self.arguments.is_without_input
        text = self.arguments.close(cut=cut)
        self.kept = 0
        if self.is_ghost:
            return []
        if text is None:
            repairs["call_dropped"] += 1
            return []
        if self.arguments.repaired:
            repairs["call_input"] += 1
        out: list[Delta] = []
        self._announce(name_of, out)
        text = self._unsent + text
        self._unsent = ""
        if text:
            out.append(ToolJson(text))
        return out

    def _announce(self, name_of: Callable[[str], str], out: list[Delta]) -> None:
        if self._announced:
            return
        if not self.name:
            raise BadUpstream("the engine called a tool without its name")
        self._announced = True
        out.append(ToolStart(self.id, name_of(self.name), self.fields))

    def extend(self, arguments: str) -> Batch:
        """The same as `grow` and `release`, for a call that can be extended."""
        text = self.arguments.feed(arguments)
        return ToolJson(text) if text else []

    @property
    def can_extend(self) -> bool:
        """Whether the call is announced, and its arguments are released as they arrive."""
        return self._announced and not self._unsent and self._snapshot is None and self.arguments.is_streamed

    @property
    def announced(self) -> bool:
        return self._announced

    def stop(self) -> None:
        """The engine says that the call is complete."""
        self._stopped = True

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are complete: the engine said so, or they are a whole object, array or string."""
        return self._stopped or self.arguments.is_complete


class ToolCallQueue:
    """The queue of the texts and calls of one answer.

    `new_id` returns an id for a call without one, or whose id is in `taken`. `names` maps the engine's names of tools
    to the client's. With `hold` no part of a call is released before it is complete, so that a call which a stop
    sequence cuts can be left out. `repairs` counts the repairs. `add` and `add_call` raise AnswerTooLarge
    if too much is waiting.
    """

    __slots__ = (
        "_by_key",
        "_ghosts",
        "_holds",
        "_ids",
        "_kept",
        "_last",
        "_limits",
        "_names",
        "_new_id",
        "_next_ids",
        "_queue",
        "_released",
        "_untangled",
        "has_calls",
        "repairs",
    )

    def __init__(
        self,
        new_id: Callable[[], str],
        taken: Iterable[str] = (),
        names: Mapping[str, str] | None = None,
        *,
        limits: AnswerLimits = DEFAULT_LIMITS,
        hold: bool = False,
    ) -> None:
        self._new_id = new_id
        self._holds = hold
        self._names = names or {}
        self._limits = limits
        self._kept = 0  # bytes of the waiting items, and of what is remembered of every call
        self._untangled = False
        self.repairs = Repairs()
        self._queue: list[ToolCall | Delta] = []
        self._by_key: dict[object, ToolCall] = {}
        self._next_ids: dict[object, str] = {}  # by key: an id that came alone, perhaps of a call whose name follows
        self._ids = set(taken)
        self._last: ToolCall | None = None
        self._ghosts = False  # whether any call was closed that had neither a name nor input
        self._released = False  # whether any call was announced and closed
        self.has_calls = False  # whether there is any call in this answer

    def add(self, delta: Delta) -> None:
        """Add a delta that is not part of a call."""
        self._queue.append(delta)
        self._account(_ITEM_COST + delta_size(delta))

    def stop(self, index: int | None) -> None:
        """The call with this index is complete, whatever its arguments look like."""
        call = self._by_key.get(index)
        if call is not None:
            call.stop()

    def add_call(
        self,
        index: int | None,
        identity: str | None,
        name: str | None,
        arguments: str,
        before: Callable[[], list[Delta]] | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Add a piece of a call. Any field may be missing, or may repeat the value of an earlier piece.

        If the piece begins a call, `before` returns the deltas that go into the queue before it, and `fields` are
        further fields of its block.
        """
        key: object = index if index is not None else identity
        call = self._last if key is None else self._by_key.get(key)
        is_ghost = not identity and not name and (not arguments or (call is None and arguments.strip() in _NO_INPUT))
        if is_ghost or self._is_repetition(call, identity, name, arguments):
            return
        if call is not None and call.queued and index is not None:
            if identity and not name and not arguments and call.engine_id not in (None, identity):
                self._note_next_id(index, identity)
                return
            next_id = self._next_ids.pop(index, None)
            if next_id is not None and (name or (call.is_complete and arguments.strip())):
                identity = identity or next_id
        cost = utf8_size(arguments)
        if call is None or self._begins_new_call(call, key, identity, name, arguments):
            call = ToolCall(self._unique_id(identity), identity, fields or None)
            cost += BLOCK_OVERHEAD + (len(dumps(fields)) if fields else 0)
        elif call.queued and not self._untangled and self._queue and self._queue[-1] is not call:
            self._untangled = True
            self.repairs["call_order"] += 1
        if identity and call.engine_id is None:
            self._adopt(call, identity)
        cost -= len(call.name)
        call.grow(name, arguments)
        cost += len(call.name)
        if not call.queued and (name or arguments):
            call.queued = True
            for delta in before() if before is not None else ():
                self.add(delta)
            self._queue.append(call)
            self.has_calls = True
        keys = len(self._by_key)
        self._by_key[key] = self._last = call
        if index is not None and identity is not None:
            self._by_key[identity] = call  # the next piece may omit the index
        if len(self._by_key) > keys:
            cost += _ITEM_COST + utf8_size(identity or "")
        self._limits.check_tool_input(call.kept)
        self._account(cost)

    def _note_next_id(self, index: int, identity: str) -> None:
        """Keep an id that came alone, with the index of another call.

        If a name follows, it is the id of a new call. Otherwise it is dropped, and the other call goes on.
        """
        self._next_ids[index] = identity
        self._account(_ITEM_COST + utf8_size(identity))

    def _adopt(self, call: ToolCall, identity: str) -> None:
        """The engine's id of a call that came without one."""
        call.engine_id = identity
        if not call.announced:
            call.id = self._unique_id(identity)

    def _is_repetition(self, call: ToolCall | None, identity: str | None, name: str | None, arguments: str) -> bool:
        """Whether this is a complete call that was received before, as some engines repeat all calls at the end."""
        if not identity or not name:
            return False
        if call is None or call.engine_id != identity or call.name != name or not call.is_complete:
            return False
        return call.arguments.equals(arguments)

    def _account(self, cost: int) -> None:
        self._kept += cost
        self._limits.check_answer(self._kept)

    def extender(self, entry: dict[str, Any]) -> Callable[[str], Batch] | None:
        """A function for further arguments in chunks like `entry`, if they can be released at once; else None."""
        function = entry.get("function") or entry
        index, identity = entry.get("index"), entry.get("id")
        if not isinstance(identity, str | None):
            return None
        key = index if isinstance(index, int) else identity or None
        call = self._last if key is None else self._by_key.get(key)
        if function.get("name") or call is None or list(self._queue) != [call] or not call.can_extend:
            return None
        return call.extend if identity in (None, "", call.engine_id) else None

    def place(self) -> bytes:
        """Where the arguments of the open call go on (see `JsonObject.place`), if `extender` returned a function."""
        call = self._queue[0]
        return call.arguments.place() if isinstance(call, ToolCall) else b""

    def _begins_new_call(
        self, call: ToolCall, key: object, identity: str | None, name: str | None, arguments: str
    ) -> bool:
        """Whether a piece with a known key begins a new call: it has a new id, or a name after complete arguments.

        Some engines repeat id and name in every piece, so the same name without arguments is not a new call. Some give
        every piece a new id, so arguments without a name continue a call that is incomplete.
        """
        if identity and call.engine_id is not None and identity != call.engine_id:
            return bool(name) or not arguments or call.is_complete
        if not name or not call.is_complete:
            return False
        if not arguments.strip() or key is None or name != call.name:
            return bool(arguments.strip()) or name != call.name or key is None
        # the same call again with more arguments: the first ones were a placeholder, or a snapshot
        return not ((identity or call.arguments.is_empty_object()) and call.arguments.grows_into(arguments))

    def _unique_id(self, identity: str | None) -> str:
        """The engine's id, or a new one if it was used before: some engines begin each answer with `call_0`."""
        own = identity or self._new_id()
        while own in self._ids:
            own = self._new_id()
        self._ids.add(own)
        if own != identity:
            self.repairs["call_id"] += 1
        return own

    def _name(self, called: str) -> str:
        """The client's name of the tool that the engine calls `called`."""
        name = self._names.get(called, called)
        if name != called:
            self.repairs["call_name"] += 1
        return name

    def release(self, *, at_end: bool = False, cut: bool = False) -> list[Delta]:
        """The deltas that may be sent now, in order. `at_end`: all that is left. `cut`: the token limit was reached."""
        out: list[Delta] = []
        queue = self._queue
        gone = 0  # items to remove from its front
        try:
            while gone < len(queue):
                head = queue[gone]
                if not isinstance(head, ToolCall):
                    out.append(head)
                    gone += 1
                    self._kept -= _ITEM_COST + delta_size(head)
                    continue
                is_last = gone + 1 == len(queue)
                leaves = at_end or (not is_last and head.is_complete)
                self._kept -= head.kept
                if leaves:
                    deltas = head.close(self._name, self.repairs, cut=cut and is_last)
                    self._released |= head.announced
                    self._ghosts |= head.is_ghost
                    out += deltas
                elif not self._holds:
                    out += head.release(self._name)
                self._kept += head.kept
                if not leaves:
                    break
                gone += 1
        finally:
            del queue[:gone]
        if at_end:
            self.has_calls = self._released
            if self._ghosts and not self._released:  # perhaps the name of the only call was lost
                raise BadUpstream("the engine called a tool without its name")
        return out

    @property
    def has_unfinished(self) -> bool:
        """Whether a call is waiting or open whose arguments are incomplete."""
        return any(isinstance(item, ToolCall) and not item.is_complete for item in self._queue)

    def drop_unfinished(self) -> None:
        """Leave out the calls that are not complete. Raises BadUpstream if the client has already seen one begin."""
        for item in list(self._queue):
            if isinstance(item, ToolCall) and not item.is_complete:
                if item.announced:
                    raise BadUpstream("a stop sequence cut a tool call")
                self._queue.remove(item)
                self._kept -= item.kept
                self.repairs["call_dropped"] += 1
        self.has_calls = self._released or any(isinstance(item, ToolCall) for item in self._queue)

    @property
    def held(self) -> int:
        """About how many bytes are waiting, with what is remembered of each call."""
        return self._kept

    @property
    def busy(self) -> bool:
        """Whether a text must wait in the queue."""
        return bool(self._queue)
