"""The edits that a request asks for in `context_management.edits`, checked (contract 3.45). Pure.

`context_editing` applies them.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .compaction import COMPACT, Compaction, read_compact_edit
from .field_checks import FieldError, one_of, optional, optional_array, optional_integer

Json = dict[str, Any]

MAX_EDITS: Final = 32
MAX_NAMES: Final = 10_000
_TRIGGER_TOKENS: Final = 100_000  # the defaults are those of Anthropic's API
_KEEP_TOOL_USES: Final = 3
_KEEP_THINKING_TURNS: Final = 1
CLEAR_TOOL_USES: Final = "clear_tool_uses_20250919"
CLEAR_THINKING: Final = "clear_thinking_20251015"


@dataclass(frozen=True, slots=True)
class ClearToolUses:
    """Clears the results of the oldest tool uses.

    The edit is applied if the prompt is longer than `trigger_tokens`, or holds more than `trigger_uses` tool uses; one
    of the two is None. The last `keep` tool uses stay, and those of the tools named in `excluded`. The edit is not
    applied if it would clear fewer than `clear_at_least` tokens. `clear_inputs` says of which tools the inputs are
    cleared too: of all, of none, or of those it names.
    """

    trigger_tokens: int | None = _TRIGGER_TOKENS
    trigger_uses: int | None = None
    keep: int = _KEEP_TOOL_USES
    clear_at_least: int = 0
    excluded: frozenset[str] = frozenset()
    clear_inputs: bool | frozenset[str] = False

    def clears_input_of(self, name: str) -> bool:
        """Whether the input of a call of this tool is cleared together with its result."""
        return self.clear_inputs if isinstance(self.clear_inputs, bool) else name in self.clear_inputs


@dataclass(frozen=True, slots=True)
class ClearThinking:
    """Removes thinking from all assistant turns but the last `keep` that have some. None keeps all."""

    keep: int | None = _KEEP_THINKING_TURNS


ContextEdit = ClearToolUses | ClearThinking


class ContextEdits(NamedTuple):
    """The edits in the object `context_management`.

    `compaction` is the path of the edit that compacts, and its meaning. `unknown` are paths and types of the edits that
    this service does not know. Paths begin in the object.
    """

    clearing: list[ContextEdit]
    compaction: tuple[str, Compaction] | None
    unknown: list[tuple[str, str]]


def read_context_edits(config: Json) -> ContextEdits:
    """Raises FieldError, whose path begins in `config`."""
    edits: list[ContextEdit] = []
    compaction: tuple[str, Compaction] | None = None
    unknown: list[tuple[str, str]] = []
    for index, entry in enumerate(optional_array(config, "edits", MAX_EDITS)):
        try:
            edit = _edit(entry)
        except FieldError as error:
            raise error.within(f"edits.{index}") from None
        if edit is None:
            unknown.append((f"edits.{index}", entry["type"]))
        elif not isinstance(edit, Compaction):
            edits.append(edit)
        elif compaction is None:
            compaction = f"edits.{index}", edit
        else:
            raise FieldError(f"edits.{index}.type", f"a second edit of type {COMPACT!r}")
    return ContextEdits(edits, compaction, unknown)


def _edit(entry: Any) -> ContextEdit | Compaction | None:
    if type(entry) is not dict:
        raise FieldError("", "must be an object")
    match optional(entry, "type", str):
        case "clear_tool_uses_20250919":
            tokens, uses = _trigger(entry)
            return ClearToolUses(
                tokens,
                uses,
                _KEEP_TOOL_USES if (keep := _amount(entry, "keep", {"tool_uses"}, 0)) is None else keep[1],
                0 if (least := _amount(entry, "clear_at_least", {"input_tokens"}, 0)) is None else least[1],
                _names(entry, "exclude_tools"),
                _inputs(entry),
            )
        case "clear_thinking_20251015":
            return ClearThinking(_thinking_turns(entry))
        case "compact_20260112":
            return read_compact_edit(entry)
        case None:
            raise FieldError("type", "required")
    return None


def _trigger(entry: Json) -> tuple[int | None, int | None]:
    """The two triggers, in tokens and in tool uses; one is None."""
    match _amount(entry, "trigger", {"input_tokens", "tool_uses"}, 1):
        case None:
            return _TRIGGER_TOKENS, None
        case ("input_tokens", value):
            return value, None
        case (_, value):
            return None, value


def _thinking_turns(entry: Json) -> int | None:
    keep = entry.get("keep")
    if keep == "all" or (type(keep) is dict and keep.get("type") == "all"):
        return None
    amount = _amount(entry, "keep", {"thinking_turns"}, 1)
    return _KEEP_THINKING_TURNS if amount is None else amount[1]


def _inputs(entry: Json) -> bool | frozenset[str]:
    if type(entry.get("clear_tool_inputs")) is list:
        return _names(entry, "clear_tool_inputs")
    return bool(optional(entry, "clear_tool_inputs", bool))


def _amount(entry: Json, key: str, kinds: set[str], least: int) -> tuple[str, int] | None:
    """The `type` and `value` of an object such as `{"type": "tool_uses", "value": 3}`; None if it is absent."""
    amount = optional(entry, key, dict)
    if amount is None:
        return None
    try:
        kind = one_of(amount, "type", kinds)
        value = optional_integer(amount, "value", least)
        if value is None:
            raise FieldError("value", "required")
    except FieldError as error:
        raise error.within(key) from None
    return kind, value


def _names(entry: Json, key: str) -> frozenset[str]:
    names = optional_array(entry, key, MAX_NAMES)
    for index, name in enumerate(names):
        if type(name) is not str:
            raise FieldError(f"{key}.{index}", "must be a string")
    return frozenset(names)
