"""Says why an engine's prefix cache cannot answer a request fast (contract 3.50).

    request ──► fingerprint ──► compared with that of an earlier answer ──► `diagnostics`, metric, debug log
                     └─ kept under the id of its own answer

What a client asks for (`diagnostics` in its request) is compared with the answer that it names. With `every`, each
request is compared, too, with the last one of the same conversation: the same key, the same `metadata.user_id` and the
same first message.

The fingerprints of this process are kept here, so with several workers an answer may be known to another worker only.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Literal

from ..observability.logs import log_event
from ..wire.deltas import Usage
from ..wire.errors import InvalidRequest
from ..wire.large.cooperative import Steps, run_with_yields
from ..wire.prompt_fingerprint import Change, Fingerprint, first_change, take_fingerprint
from ..wire.request import MessagesRequest

Key = bytes | None
CacheDiagnosticsMode = Literal["off", "asked", "all"]
_MAX_BYTES: Final = 32 << 20  # of all fingerprints
_FIELD: Final = "diagnostics"
_SEARCHED: Final = 256 * 1024  # bytes of a body that are searched in a step
_INPUT_COUNTS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_NOT_FOUND: Final = "previous_message_not_found"
_UNAVAILABLE: Final = "unavailable"


@dataclass(frozen=True, slots=True)
class _Kept:
    """The fingerprint of an answer's prompt, and the length of the prompt in tokens as the engine counted it."""

    fingerprint: Fingerprint
    tokens: int


class CacheDiagnostics:
    """Keeps the fingerprints of at most `answers` answers, those of the last ones.

    `every`: compare every request, also where the client did not ask. `note` is called with "cache_diagnosis" and the
    result: one of `wire.prompt_fingerprint.REASONS`, "kept", "first" or "previous_message_not_found".
    """

    def __init__(self, answers: int, note: Callable[[str, str], object], *, every: bool = False) -> None:
        self.every = every
        self._answers = answers
        self._note = note
        self._kept: OrderedDict[tuple[Key, str], _Kept] = OrderedDict()
        self._bytes = 0
        self._last: OrderedDict[tuple[Key, str | None, bytes], str] = OrderedDict()  # the last answer by conversation

    def __repr__(self) -> str:
        return f"<CacheDiagnostics {len(self._kept)}/{self._answers} answers, {self._bytes} bytes>"

    def reads_all_of(self, body: Sequence[bytes]) -> Steps[bool]:
        """Whether this body, in pieces, is to be compared: then all of its prompt must be parsed.

        It is searched in steps.
        """
        if self.every:
            return True
        field = _FIELD.encode()
        before = b""
        for piece in body:
            for start in range(0, len(piece), _SEARCHED):
                part = before + piece[start : start + _SEARCHED]
                if field in part:
                    return True
                before = part[-len(field) :]
                yield
        return False

    async def diagnose(self, request: MessagesRequest, key: Key) -> "Diagnosis | None":
        """Compare the request, if the client asks or every request is compared. Raises InvalidRequest."""
        asked = request.raw.get(_FIELD)
        if not isinstance(asked, dict):
            if not self.every:
                return None
            asked = None
        previous = None if asked is None else asked.get("previous_message_id")
        if previous is not None and not isinstance(previous, str):
            raise InvalidRequest(f"{_FIELD}.previous_message_id: must be a string")
        if asked is not None:
            request.raw.pop(_FIELD)  # a relayed upstream does not know the ids of this service
            request.ignored[:] = [path for path in request.ignored if path != _FIELD]
        fingerprint = await run_with_yields(take_fingerprint(request), perf_counter)
        conversation = None if fingerprint is None or not self.every else (key, request.user_id, fingerprint.first)
        if previous is None and asked is None and conversation is not None:
            previous = self._last.get(conversation)
        reason = self._reason(request.request_id, key, previous, fingerprint)
        fields = None
        if asked is not None:
            fields = {_FIELD: None if reason is None else {"cache_miss_reason": reason}}
        return Diagnosis(self, key, fingerprint, conversation, fields)

    def _reason(
        self, request_id: str, key: Key, previous: str | None, fingerprint: Fingerprint | None
    ) -> dict[str, Any] | None:
        """The `cache_miss_reason`, counted and logged; None if the prompt begins with the previous one."""
        if fingerprint is None:
            result, change, tokens = _UNAVAILABLE, None, 0
        elif previous is None:
            result, change, tokens = "first", None, 0
        elif (kept := self._kept.get((key, previous))) is None:
            result, change, tokens = _NOT_FOUND, None, 0
        else:
            self._kept.move_to_end((key, previous))
            change = first_change(kept.fingerprint, fingerprint)
            result, tokens = ("kept" if change is None else change.reason), kept.tokens
        missed = _missed(change, tokens)
        self._note("cache_diagnosis", result)
        log_event(
            "cache_diagnosis",
            logging.DEBUG,
            request_id=request_id,
            result=result,
            previous=previous,
            changed=None if change is None else change.path,
            missed_tokens=missed,
        )
        if result in ("kept", "first"):
            return None
        return {"type": result} if missed is None else {"type": result, "cache_missed_input_tokens": missed}

    def keep(
        self, answer: str, key: Key, fingerprint: Fingerprint, tokens: int, conversation: tuple[Any, ...] | None
    ) -> None:
        """Keep the fingerprint of the prompt of an answer. The oldest ones go."""
        replaced = self._kept.pop((key, answer), None)  # a relayed upstream may give an id twice
        self._bytes += fingerprint.size - (0 if replaced is None else replaced.fingerprint.size)
        self._kept[key, answer] = _Kept(fingerprint, tokens)
        while len(self._kept) > self._answers or (self._bytes > _MAX_BYTES and len(self._kept) > 1):
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.fingerprint.size
        if conversation is not None:
            self._last[conversation] = answer
            self._last.move_to_end(conversation)
            while len(self._last) > self._answers:
                self._last.popitem(last=False)


def _missed(change: Change | None, tokens: int) -> int | None:
    """The tokens of the previous prompt behind the change; None for a reason without a count."""
    return None if change is None or change.reason == _UNAVAILABLE else round(tokens * change.missed)


class Diagnosis:
    """The diagnosis of one request.

    Attributes:
        fields: the field `diagnostics` of the answer; None if the client did not ask.
    """

    __slots__ = ("_conversation", "_diagnostics", "_fingerprint", "_key", "fields")

    def __init__(
        self,
        diagnostics: CacheDiagnostics,
        key: Key,
        fingerprint: Fingerprint | None,
        conversation: tuple[Any, ...] | None,
        fields: dict[str, Any] | None,
    ) -> None:
        self._diagnostics = diagnostics
        self._key = key
        self._fingerprint = fingerprint
        self._conversation = conversation
        self.fields = fields

    def answered(self, answer: str, usage: Usage) -> None:
        """Keep the fingerprint under the id of the answer. Call it once the engine has given output."""
        if self._fingerprint is None:
            return
        tokens = _prompt_tokens(usage) or self._fingerprint.tokens
        self._diagnostics.keep(answer, self._key, self._fingerprint, tokens, self._conversation)


def _prompt_tokens(usage: Usage) -> int | None:
    """The length of the prompt; None if it is not known. Of an answer in several rounds, that of the first round."""
    rounds = (usage.details or {}).get("iterations")
    if isinstance(rounds, list) and rounds and isinstance(rounds[0], dict):
        counts = [rounds[0].get(key) for key in _INPUT_COUNTS]
    else:
        counts = [usage.uncached_input_tokens, usage.cache_read_input_tokens]
    return sum(count for count in counts if isinstance(count, int)) or None
