"""The messages of a request and its system prompt, checked: at once, or in steps where they are long.

In steps, base64 is checked in slices, which takes a millisecond a megabyte. The validators of `blocks` know nothing of
that: `_Patience` decodes for them what is short, and otherwise has them give up with `_Later`, for the message to be
checked anew once it is known what they asked. So faults are found in the same order.
"""

import re
from binascii import a2b_base64
from typing import Any, Final

from .blocks import DEFAULT_BLOCK_CHECKS, RoleChecks, block_checks, check_content, decode_base64
from .field_checks import FieldError, one_of, optional_array, required
from .large.cooperative import Steps
from .request_policy import DEFAULT_RULES, Rules

_AT_ONCE: Final = 8  # messages
_DECODED: Final = 512 * 1024  # characters of base64 that are decoded in a step; a multiple of 4
_ID_KEYS: Final = {"tool_use": "id", "tool_result": "tool_use_id"}
# Claude Code heads its system prompt with a line that changes on every call, which would defeat any prefix cache.
_BILLING_HEADER: Final = re.compile(r"x-anthropic-billing-header:(?:[ \t]*[\w.-]+=[^;\r\n]*;)+")
_PLACES: Final = {role: f"a message of role {role}" for role in DEFAULT_BLOCK_CHECKS}


def check_messages(raw: dict[str, Any], checks: RoleChecks, rules: Rules = DEFAULT_RULES) -> list[dict[str, Any]]:
    """The messages in the request `raw`. Raises FieldError."""
    messages = _listed(raw, rules)
    called: set[str] = set()
    index = 0
    try:
        for index, message in enumerate(messages):  # noqa: B007 - it is used when this has failed
            _check(message, checks, called)
    except FieldError as fault:
        raise fault.within(f"messages.{index}") from None
    return messages


def check_messages_in_steps(
    raw: dict[str, Any], rules: Rules = DEFAULT_RULES, *, deep: bool
) -> Steps[list[dict[str, Any]]]:
    """The same with the checks of `block_checks`. Raises FieldError."""
    messages = _listed(raw, rules)
    patience = _Patience()
    checks = block_checks(rules, deep=deep, decode=patience.decode)
    called: set[str] = set()
    index = 0
    while index < len(messages):
        try:
            _check(messages[index], checks, called)
        except _Later as later:
            yield from patience.settle(later.data)
            continue
        except FieldError as fault:
            raise fault.within(f"messages.{index}") from None
        index += 1
        if index % _AT_ONCE == 0:
            yield
            patience.rest()
    return messages


def _listed(raw: dict[str, Any], rules: Rules) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = required(raw, "messages", list)
    if not messages:
        raise FieldError("messages", "must hold at least one message")
    return optional_array(raw, "messages", rules.max_messages)


def _check(message: Any, checks: RoleChecks, called: set[str]) -> None:
    if type(message) is not dict:
        raise FieldError("", "must be an object")
    role = message.get("role")
    if type(role) is not str or role not in checks:
        role = one_of(message, "role", checks)
    content: Any = message.get("content")
    if type(content) is not str:
        check_content(content, checks[role], _PLACES[role])
        if role != "system":
            _pair_tools(content, called)


def _pair_tools(content: list[dict[str, Any]], called: set[str]) -> None:
    """Every result answers a call made before it, and within one message no id is used twice.

    Over several messages it may be: some engines number the calls of each answer anew.
    """
    here: set[tuple[str, str]] = set()
    for index, block in enumerate(content):
        kind = block["type"]
        key = _ID_KEYS.get(kind)
        if key is None:
            continue
        identity = block[key]
        if kind == "tool_use":
            called.add(identity)
        elif identity not in called:
            raise FieldError(f"content.{index}.{key}", f"no earlier tool_use has the id {identity!r:.80}")
        if (kind, identity) in here:
            raise FieldError(f"content.{index}.{key}", f"a second {kind} for the id {identity!r:.80}")
        here.add((kind, identity))


def check_system(raw: dict[str, Any], *, keep_billing_header: bool) -> list[str]:
    """The texts of the system prompt of the request `raw`, from which it takes the header. Raises FieldError."""
    system = raw.get("system")
    if system is None:
        return []
    if type(system) is str:
        system = [{"type": "text", "text": system}]
    if type(system) is not list:
        raise FieldError("system", "must be a string or an array of text blocks")
    try:
        check_content(system, DEFAULT_BLOCK_CHECKS["system"], "system")
    except FieldError as fault:
        raise FieldError(fault.path.replace("content", "system", 1), fault.reason) from None
    if system and not keep_billing_header and _BILLING_HEADER.fullmatch(system[0]["text"]):
        raw["system"] = system = system[1:]
    return [block["text"] for block in system if block["text"]]


# base64, in steps


class _Later(Exception):
    """Whether `data` is base64 is not known yet."""

    def __init__(self, data: str) -> None:
        super().__init__()
        self.data = data


class _Patience:
    """Decodes for the validators of one request, no more in a step than it should."""

    def __init__(self) -> None:
        self._is_base64: dict[int, bool] = {}  # by the identity of a text that is part of the request
        self._left = _DECODED

    def decode(self, data: str) -> object:
        """See `blocks.Decode`. Raises _Later where it would take too long."""
        is_base64 = self._is_base64.get(id(data))
        if is_base64 is False:
            raise ValueError
        if is_base64 or len(data) <= self._left:
            return is_base64 or self._decode(data)
        raise _Later(data)

    def _decode(self, data: str) -> object:
        self._left -= len(data)
        decoded = decode_base64(data)
        if decoded:
            self._is_base64[id(data)] = True  # a message may be checked more than once
        return decoded

    def rest(self) -> None:
        """A step is over."""
        self._left = _DECODED

    def settle(self, data: str) -> Steps[None]:
        """Find out about `data`."""
        yield
        self._is_base64[id(data)] = yield from is_base64_in_steps(data)
        self.rest()


def is_base64_in_steps(data: str) -> Steps[bool]:
    """Whether `decode_base64` would take `data`, which is not empty."""
    last = max(0, len(data) - 1) // _DECODED * _DECODED
    if data.find("=", 0, last + 1) >= 0:  # padding is for the end, or else it is for the decoder to say what is wrong
        last = 0
    try:
        for start in range(0, last, _DECODED):
            a2b_base64(data[start : start + _DECODED], strict_mode=True)
            yield
        decode_base64(data[last:])
    except ValueError:
        return False
    return True
