"""What an engine's refusal says about its dialect: the words of the refusal → the dialect to ask in again. Pure.

A refusal is the engine's answer to one request, and it may quote the client's own text. So a rule applies only if the
refused body has what the rule is about, and the caller remembers the change only after the amended request succeeded.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ...wire.lazy_regex import lazy_regex
from .dialects import Dialect
from .sent_messages import SentMessages

Json = dict[str, Any]
Changes = dict[str, Any]
"""Fields of a Dialect and their new values."""

_EXCEPTION: Final = "Jinja Exception: "
_REFUSED: Final = r"(?:unsupported|not (?:supported|permitted|allowed)|unknown|unexpected|unrecognized|forbidden)"
_REASONING: Final = r"\b(?P<key>reasoning_content|reasoning_text|reasoning_details|reasoning)\b"
_REASONING_MISSING: Final = lazy_regex(rf"{_REASONING}.{{0,80}}(?:must be passed back|missing|required)", re.DOTALL)
_REASONING_REFUSED: Final = lazy_regex(
    rf"{_REASONING}.{{0,80}}{_REFUSED}|{_REFUSED}\W.{{0,40}}\b(?:reasoning_content|reasoning_text|reasoning_details|reasoning)\b",
    re.DOTALL | re.IGNORECASE,
)
_AFTER_TOOL: Final = lazy_regex(r"[Uu]nexpected role '(?:user|system)' after role 'tool'")
_ALTERNATE: Final = lazy_regex(r"roles must alternate", re.IGNORECASE)
_LATE_SYSTEM: Final = lazy_regex(
    r"[Ss]ystem message must be at the beginning|[Uu]nexpected role 'system'|roles must alternate", re.IGNORECASE
)
_FORCED_THINKING: Final = lazy_regex(
    r"thinking.{0,80}tool_choice|tool_choice.{0,120}thinking", re.DOTALL | re.IGNORECASE
)
_FORCED: Final = lazy_regex(r"tool_choice.{0,80}(?:only|must be).{0,40}\bauto\b", re.DOTALL | re.IGNORECASE)
_STRICT: Final = lazy_regex(r"\bstrict\b|In context=\(|'additionalProperties' is required")
_NULL_CONTENT: Final = lazy_regex(
    r"NoneType|\bcontent\b.{0,60}\b(?:null|None|string)\b|\bnull\b.{0,60}\bcontent\b", re.DOTALL
)
_NO_REASON: Final = lazy_regex(r"\W*(?:(?:500\W+)?internal(?: server)? error)?\W*", re.IGNORECASE)
_CALL_ID: Final = lazy_regex(r"[Tt]ool call id.{0,200}length of (?P<length>\d{1,3})\b", re.DOTALL)
_PREFILL: Final = lazy_regex(r"[Ee]xpected last role .{0,80} but got assistant")
_TOP_K: Final = lazy_regex(r"\btop_k\b")
_SIGNATURE: Final = lazy_regex(r"missing.{0,20}thought_signature", re.DOTALL)


def amended_dialect(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Dialect | None:
    """The dialect in which to ask again after the engine refused `body`; None if the refusal is of another kind."""
    words = refusal.rpartition(_EXCEPTION)[2]  # before it, llama.cpp quotes the source of the template
    for rule in _RULES:
        changes = rule(dialect, body, sent, words)
        if changes and any(getattr(dialect, name) != value for name, value in changes.items()):
            return replace(dialect, **changes)
    return None


def amended_after_failure(dialect: Dialect, body: Json, sent: SentMessages, words: str) -> Dialect | None:
    """The dialect in which to ask again after the engine failed with status 500, perhaps because of the history.

    Many templates break on a null content, and the server then says no more than that it failed.
    """
    amended = amended_dialect(dialect, body, sent, words)
    if amended is not None or not _NO_REASON.fullmatch(words) or dialect.no_content is not None:
        return amended
    return replace(dialect, no_content="") if sent.has_null_content else None


def changes_between(before: Dialect, after: Dialect) -> Changes:
    """The fields of `after` that differ from those of `before`."""
    pairs = ((name, getattr(after, name)) for name in Dialect.__slots__)
    return {name: value for name, value in pairs if value != getattr(before, name)}


# Rules: each returns the changes that its words ask for, or None.


def _reasoning(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    found = _REASONING_MISSING.search(refusal)
    if found is not None and "assistant" in sent.roles:
        return {"reasoning_key": dialect.reasoning_key or found["key"], "needs_reasoning": True}
    key = dialect.reasoning_key
    if key is not None and key in sent.keys and _REASONING_REFUSED.search(refusal):
        return {"reasoning_key": None, "needs_reasoning": False}
    return None


def _after_tool(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    """Mistral's templates do not count calls and their results, so a user turn behind a result is a second one."""
    named = "tool" in sent.roles and _AFTER_TOOL.search(refusal)
    if named or (sent.has_text_behind_result and _ALTERNATE.search(refusal)):
        return {"text_in_tool_result": True, "late_system": False}
    return None


def _late_system(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    return {"late_system": False} if "system" in sent.late_roles and _LATE_SYSTEM.search(refusal) else None


def _forced_choice(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    if body.get("tool_choice", "auto") in ("auto", "none"):
        return None
    if _FORCED_THINKING.search(refusal) and dialect.forced_choice_while_thinking:
        return {"forced_choice_while_thinking": False}
    return {"forced_choice": False} if _FORCED.search(refusal) else None


def _strict(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    schema = body.get("response_format", {}).get("json_schema", {})
    strict = "strict" in schema or any("strict" in tool["function"] for tool in body.get("tools", ()))
    return {"strict_tools": False, "strict_schema": False} if strict and _STRICT.search(refusal) else None


def _null_content(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    return {"no_content": ""} if sent.has_null_content and _NULL_CONTENT.search(refusal) else None


def _call_id(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    found = _CALL_ID.search(refusal)
    if found is None or "tool_calls" not in sent.keys:
        return None
    return {"call_id_length": int(found["length"])}


def _signature(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    return {"thought_signatures": True} if "tool_calls" in sent.keys and _SIGNATURE.search(refusal) else None


def _prefill(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    is_prefilled = sent.last_role == "assistant"
    return {"prefill_mark": {"prefix": True}} if is_prefilled and _PREFILL.search(refusal) else None


def _top_k(dialect: Dialect, body: Json, sent: SentMessages, refusal: str) -> Changes | None:
    return {"top_k": False} if "top_k" in body and _TOP_K.search(refusal) else None


_RULES: Final[tuple[Callable[[Dialect, Json, SentMessages, str], Changes | None], ...]] = (
    _reasoning,
    _after_tool,
    _late_system,
    _forced_choice,
    _strict,
    _call_id,
    _signature,
    _null_content,
    _top_k,
    _prefill,
)
