"""Which prompts an engine has computed before, in blocks, the way vLLM and SGLang know it. Pure.

A block is known by itself and all that stands before it: its key is the hash of its content and of the key before. So
two prompts share blocks from the first one on, as far as they are equal, and never from the middle. Of the blocks that
are longest unused the one at the end of its prompt goes first, for without the ones before it a block is of no use.
"""

from collections import OrderedDict
from collections.abc import Iterator


class PrefixCache:
    """Holds `blocks` blocks of `size` bytes each at the most; of none it says that nothing is cached."""

    __slots__ = ("_blocks", "_known", "_size")

    def __init__(self, blocks: int, size: int) -> None:
        self._blocks = blocks
        self._size = size
        self._known: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<PrefixCache {len(self._known)}/{self._blocks}>"

    def take(self, model: str, prompt: bytes) -> int:
        """The bytes at the beginning of `prompt` that were known; from now on, all of it is, as far as there is room.

        Only whole blocks are known, and never the last byte: an engine computes something of every prompt.
        """
        if not self._blocks:
            return 0
        keys = list(self._keys(model, prompt))
        known = self._known
        hits = 0
        while hits < len(keys) and keys[hits] in known:
            hits += 1
        for key in reversed(keys[: self._blocks]):
            known[key] = None
            known.move_to_end(key)
        while len(known) > self._blocks:
            known.popitem(last=False)
        return min(hits, (len(prompt) - 1) // self._size) * self._size

    def _keys(self, model: str, prompt: bytes) -> Iterator[int]:
        size, key = self._size, hash(model)
        for start in range(0, len(prompt) - size + 1, size):
            key = hash((key, prompt[start : start + size]))
            yield key
