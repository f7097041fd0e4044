"""Fingerprints of prompts, and the first difference between two of them (contract 3.50). Pure.

An engine keeps the prefix of a prompt in its cache. The next request of a conversation is answered fast if it begins
with the prompt of the request before it, and slowly if something near its beginning has changed. A fingerprint holds
what is needed to say which: digests and estimated lengths, and none of the content.

    model │ system │ tools │ other parameters │ message 0 │ message 1 │ …       each a digest of 8 bytes

`cache_control` marks belong to no digest: clients move them with every request, and no engine receives them. A text and
a list with that one text are the same content.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

from .estimate import CHARACTERS, content_in_steps, estimate_in_steps
from .large.cooperative import Steps
from .request import MessagesRequest

Reason = Literal["model_changed", "system_changed", "tools_changed", "messages_changed", "unavailable"]
REASONS: Final[tuple[Reason, ...]] = (
    "model_changed",
    "system_changed",
    "tools_changed",
    "messages_changed",
    "unavailable",
)
MAX_MESSAGES: Final = 10_000
_DIGEST: Final = 8  # bytes
_PIECE: Final = 128 * 1024  # characters that are hashed in one step
_NODES_PER_STEP: Final = 256
_CHARACTERS_OF_A_NODE: Final = 512  # hashing so many takes as long as hashing a value
_WIDE: Final = 1024  # members or elements that are handled in one step


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of one prompt.

    `messages` holds the digests of all messages, one after the other. `ends` holds, for each message, the estimated
    tokens of the prompt up to the end of this message. `first` identifies the conversation: the digest of its first
    message.
    """

    model: str
    system: bytes
    tools: bytes
    other: bytes
    messages: bytes
    ends: "array[int]"

    @property
    def tokens(self) -> int:
        """The estimated length of the prompt in tokens."""
        return self.ends[-1]

    @property
    def first(self) -> bytes:
        return self.messages[:_DIGEST]

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return 512 + len(self.messages) + self.ends.itemsize * len(self.ends)


@dataclass(frozen=True, slots=True)
class Change:
    """The first difference of a prompt from an earlier one.

    `missed` is the share of the earlier prompt that lies behind it, from 0 to 1. `path` says where it is.
    """

    reason: Reason
    missed: float = 0.0
    path: str | None = None


def first_change(previous: Fingerprint, current: Fingerprint) -> Change | None:
    """The first difference; None if `current` begins with `previous`."""
    if previous.model != current.model:
        return Change("model_changed", 1.0, "model")
    if previous.system != current.system:
        return Change("system_changed", 1.0, "system")
    if previous.tools != current.tools:
        return Change("tools_changed", 1.0, "tools")
    if previous.other != current.other:
        return Change("unavailable")
    if current.messages.startswith(previous.messages):
        return None
    index = _equal_messages(previous.messages, current.messages)
    before = previous.ends[index - 1] if index else 0
    return Change("messages_changed", 1.0 - before / max(1, previous.tokens), f"messages.{index}")


def _equal_messages(one: bytes, other: bytes) -> int:
    """How many messages at the beginning are equal."""
    shorter = min(len(one), len(other)) // _DIGEST
    differs = range(1, shorter + 1)
    return bisect_left(differs, True, key=lambda count: one[: count * _DIGEST] != other[: count * _DIGEST])


def take_fingerprint(request: MessagesRequest) -> Steps[Fingerprint | None]:
    """The fingerprint of a request, in steps; None if it has more than MAX_MESSAGES messages."""
    if len(request.messages) > MAX_MESSAGES:
        return None
    system = yield from _digest(request.system)
    tools = yield from _digest(
        [(tool.name, tool.description, tool.input_schema, tool.strict) for tool in request.tools]
    )
    choice, thinking = request.tool_choice, request.thinking
    parameters = [
        None if choice is None else astuple(choice),
        None if thinking is None else astuple(thinking),
        request.effort,
        request.output_schema,
    ]
    other = yield from _digest(parameters)
    lengths: list[int] = []
    for message in request.messages:
        characters = yield from content_in_steps(message["content"])
        lengths.append(characters // CHARACTERS + 4)
        yield
    total = yield from estimate_in_steps(request)
    total = max(0, total - sum(lengths))  # of what stands before the messages
    digests = []
    ends = array("Q")
    for message, length in zip(request.messages, lengths, strict=True):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        digests.append((yield from _digest([message["role"], blocks])))
        total += length
        ends.append(total)
        yield
    return Fingerprint(request.engine_model, system, tools, other, b"".join(digests), ends)


def _digest(value: Any) -> Steps[bytes]:
    """The digest of a JSON value, without `cache_control`. The order of keys does not matter."""
    digest = blake2b(digest_size=_DIGEST)
    update = digest.update
    left = [value]
    nodes = 0
    while left:
        node = left.pop()
        nodes += 1
        if nodes >= _NODES_PER_STEP:
            nodes = 0
            yield
        if isinstance(node, str):
            nodes += len(node) // _CHARACTERS_OF_A_NODE
            update(b"s%d:" % len(node))
            yield from _update_with_text(update, node)
        elif isinstance(node, Mapping):
            keys = yield from _sorted_in_steps(node)
            update(b"d%d:" % len(keys))
            for number, key in enumerate(keys, 1):
                left += (node[key], key)
                if number % _WIDE == 0:
                    yield
        elif isinstance(node, list | tuple):
            update(b"l%d:" % len(node))
            yield from _extend_reversed(left, node)
        else:
            update(b"v%r:" % (node,))
    return digest.digest()


def _update_with_text(update: Callable[[bytes], None], text: str) -> Steps[None]:
    for at in range(0, len(text), _PIECE):
        update(text[at : at + _PIECE].encode("utf-8", "surrogatepass"))
        if at:
            yield


def _extend_reversed(left: list[Any], values: Sequence[Any]) -> Steps[None]:
    for end in range(len(values), 0, -_WIDE):
        left.extend(reversed(values[max(0, end - _WIDE) : end]))
        if end > _WIDE:
            yield


def _sorted_in_steps(node: Mapping[str, Any]) -> Steps[list[str]]:
    """All keys of an object but `cache_control`, in steps. In this process, equal keys are always in the same order.

    Sorting the keys of a wide object takes more than linear time. Their hashes distribute them over short lists, which
    are sorted.
    """
    if len(node) <= _WIDE:
        return sorted(key for key in node if key != "cache_control")
    count = len(node) - ("cache_control" in node)
    groups: list[list[str]] = [[] for _ in range(1 + count // _WIDE)]
    for number, key in enumerate(node, 1):
        if key != "cache_control":
            groups[hash(key) % len(groups)].append(key)
        if number % _WIDE == 0:
            yield
    keys: list[str] = []
    for group in groups:
        keys += sorted(group)
        yield
    return keys
