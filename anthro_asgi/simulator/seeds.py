"""The random seed of a request: the same in every run, whatever other requests there are. Pure.

The content of an answer depends on the profile's seed and on what an engine would read of the request, its *digest*:
equal requests get equal answers. The timing and the failure of an answer also depend on how often an equal request came
before, so a client that asks again after a failure can succeed.
"""

from collections import OrderedDict
from hashlib import blake2b

from ..wire.request import MessagesRequest
from .prompt import canonical

_REMEMBERED = 1 << 14  # digests that are counted; the least recently used one is dropped first


def request_digest(request: MessagesRequest, prompt: bytes, seed: int) -> bytes:
    """16 bytes that are equal for requests with equal `prompt` and equal fields that shape an answer."""
    shaping = (
        str(seed),
        request.engine_model,
        request.tool_choice and (request.tool_choice.type, request.tool_choice.name),
        request.thinking and (request.thinking.type, request.thinking.budget_tokens),
        (request.temperature, request.top_p, request.top_k, request.effort),
        len(request.tools),
        request.output_schema is not None,
    )
    return blake2b(canonical(shaping) + prompt, digest_size=16).digest()


class RequestCounts:
    """Counts how often each digest was requested."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: OrderedDict[bytes, int] = OrderedDict()

    def count(self, digest: bytes) -> int:
        """How often it was requested before this call."""
        before = self._asked.get(digest, 0)
        self._asked[digest] = before + 1
        self._asked.move_to_end(digest)
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        return before
