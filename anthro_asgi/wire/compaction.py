"""Compaction: a summary takes the place of a conversation that has become too long (contract 3.51). Pure.

    the messages, and SUMMARY_PROMPT ─► the engine ─► `summary_of` its text ─► a `compaction` block for the client
                                                             └─► the message that stands for the conversation

The words for the model are in `compaction_prompt`.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from .compaction_prompt import SUMMARY_PROMPT
from .field_checks import FieldError, one_of, optional, optional_integer

Json = dict[str, Any]

COMPACT: Final = "compact_20260112"
SUMMARY_TOKENS: Final = 4_096
"""Output tokens of a summary at most."""
_TRIGGER_TOKENS: Final = 150_000  # the default of Anthropic's API
_SUMMARY: Final = re.compile(r"<summary>(.*?)(?:</summary>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Compaction:
    """Asks for a summary of the conversation.

    Args:
        trigger: length of the prompt in tokens from which to compact; None compacts in any case.
        pauses: whether the answer ends after the summary.
        prompt: what the model is asked.
        kept: the number of messages at the end that stay as they are.
        is_shown: whether the client gets a `compaction` block.
    """

    trigger: int | None = None
    pauses: bool = True
    prompt: str = SUMMARY_PROMPT
    kept: int = 0
    is_shown: bool = True


def read_compaction(config: Json) -> Compaction:
    """The field `compaction` of a request. Raises FieldError."""
    one_of(config, "type", {"summarize"})
    return Compaction(prompt=(optional(config, "instructions", str) or "").strip() or SUMMARY_PROMPT)


def read_compact_edit(entry: Json) -> Compaction:
    """An edit of type `compact_20260112`. Raises FieldError."""
    tokens = None
    trigger = optional(entry, "trigger", dict)
    if trigger is not None:
        try:
            one_of(trigger, "type", {"input_tokens"})
            tokens = optional_integer(trigger, "value", 1)
            if tokens is None:
                raise FieldError("value", "required")
        except FieldError as error:
            raise error.within("trigger") from None
    instructions = (optional(entry, "instructions", str) or "").strip()
    return Compaction(
        _TRIGGER_TOKENS if tokens is None else tokens,
        bool(optional(entry, "pause_after_compaction", bool)),
        f"{SUMMARY_PROMPT}\n{instructions}\n" if instructions else SUMMARY_PROMPT,
    )


def summary_of(text: str) -> str | None:
    """The summary in the engine's text: what stands between the tags, or all of it; None if there is nothing."""
    found = _SUMMARY.search(text)
    return (text if found is None else found[1]).strip() or None


def summary_message(summary: str) -> Json:
    """The message that stands for everything before a `compaction` block."""
    return {"role": "user", "content": f"<summary>\n{summary}\n</summary>"}


def compaction_block(summary: str | None, changes: list[Json] | None = None) -> Json:
    """The block for the client. `changes` are those of the tool list in the conversation; None is unknown."""
    block: Json = {"type": "compaction", "content": summary}
    if changes is not None:
        block["tool_changes"] = changes
    return block
