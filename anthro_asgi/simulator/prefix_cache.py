"""A cache of prompt prefixes in blocks, like that of vLLM and SGLang. Pure.

The key of a block is the hash of its content and of the key of the block before, so two prompts share blocks from the
beginning up to their first difference. Of the least recently used blocks the last one of a prompt is evicted first,
because a block is useless without the blocks before it.
"""

from collections import OrderedDict
from collections.abc import Iterator


class PrefixCache:
    """Holds at most `blocks` blocks of `size` bytes each. With 0 blocks nothing is ever cached."""

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
        """The number of leading bytes of `prompt` that are cached; then the whole prompt is, as far as there is room.

        Only whole blocks count, and never the last byte: an engine computes at least one token of each prompt.
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
