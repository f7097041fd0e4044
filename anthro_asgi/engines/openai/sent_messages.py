"""The roles and keys of the messages in a chat request that was sent: to read a refusal, and to count tokens. Pure."""

from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from ...wire.large.cooperative import Steps
from ...wire.large.cuts import Cuts
from ...wire.large.json_reader import ANY_MEMBER, loads_in_steps
from ...wire.large.json_writer import StoredArray

Json = dict[str, Any]
_MESSAGES: Final = [ANY_MEMBER]


@dataclass(slots=True)
class SentMessages:
    """Which roles and keys the messages have.

    Attributes:
        late_roles: the roles of all messages but the first.
        last_role: "" if there are no messages.
        has_parts: the content of a message is an array.
    """

    roles: set[str] = field(default_factory=set)
    late_roles: set[str] = field(default_factory=set)
    last_role: str = ""
    keys: set[str] = field(default_factory=set)
    has_null_content: bool = False
    has_parts: bool = False
    has_text_behind_result: bool = False

    def add(self, message: Json) -> None:
        """Look at the next message. If its content is an array, the mark of a value may stand in its place."""
        role, content = message["role"], message["content"]
        self.has_text_behind_result |= self.last_role == "tool" and role in ("user", "system")
        self.has_null_content |= content is None
        self.has_parts |= type(content) is list or type(content) is dict
        if self.roles:
            self.late_roles.add(role)
        self.roles.add(role)
        self.last_role = role
        self.keys.update(message)


def look_in_steps(messages: list[Json] | StoredArray) -> Steps[SentMessages]:
    """Look at all messages, in steps. A StoredArray was written before: the JSON text of its messages is parsed."""
    sent = SentMessages()
    if not isinstance(messages, StoredArray):
        for message in messages:
            sent.add(message)
        return sent
    for pieces in messages.stored():
        some, _ = yield from loads_in_steps([b"[", *pieces, b"]"], Cuts(), expansion=inf, shape=_MESSAGES)
        for message in some:
            sent.add(message)
        yield
    return sent
