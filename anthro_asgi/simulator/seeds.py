"""What chance a request has: the same in every run, whatever else is asked meanwhile. Pure.

An answer is drawn by the seed and what an engine would read of the request, its *digest*: the same request has the same
answer. What befalls it (how the tokens are spread in time, and whether it fails) is drawn by these and by how often
the very same request came before: who asks again is not bound to fail again.
"""

from collections import OrderedDict
from hashlib import blake2b

from ..wire.request import MessagesRequest
from .prompt import canonical

_REMEMBERED = 1 << 14  # requests whose number of times is known; longest unasked are forgotten first


def digest(request: MessagesRequest, prompt: bytes, seed: int) -> bytes:
    """Equal for equal requests: for `prompt` and what else an engine would heed."""
    heeded = (
        str(seed),
        request.engine_model,
        request.tool_choice and (request.tool_choice.type, request.tool_choice.name),
        request.thinking and (request.thinking.type, request.thinking.budget_tokens),
        (request.temperature, request.top_p, request.top_k, request.effort),
        len(request.tools),
        request.output_schema is not None,
    )
    return blake2b(canonical(heeded) + prompt, digest_size=16).digest()


class Times:
    """How often each digest was asked for."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: OrderedDict[bytes, int] = OrderedDict()

    def count(self, digest: bytes) -> int:
        """How often it was before, and once more from now on."""
        before = self._asked.get(digest, 0)
        self._asked[digest] = before + 1
        self._asked.move_to_end(digest)
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        return before
