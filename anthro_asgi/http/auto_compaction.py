"""Keeps conversations below the engine's window for clients that ask for no compaction (contract 3.52).

    request ─► a prompt below `share` of the window ──────────────────────► the engine, unchanged
           └─► a longer prompt ─► the summary of its beginning is known ──► the engine, with the summary
                             └──► it is not known ─► the answer loop asks the engine for a summary, and keeps it

The client notices nothing but a header. It sends the whole conversation with the next request, too, so summaries are
kept by the digests of the messages that they stand for, and of the API key.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

from ..engines.base import BaseEngine
from ..observability.logs import log_event
from ..wire.compaction import Compaction, summary_message
from ..wire.estimate import CHARACTERS, content_in_steps
from ..wire.large.cooperative import Steps, run_with_yields
from ..wire.prompt_fingerprint import take_fingerprint
from ..wire.request import MessagesRequest, raw_with_messages

Json = dict[str, Any]
IsLonger = Callable[[MessagesRequest, int], Awaitable[bool]]

HEADER: Final = "anthro-asgi-compacted"
"""Response header: `made` or `reused`, if a summary stands for the beginning of the conversation."""
_MAX_SUMMARIES: Final = 1_000
_MAX_CHARACTERS: Final = 8 << 20
_DIGEST: Final = 8  # bytes of a message's digest in a fingerprint
_TAIL: Final = 0.25  # share of the trigger that the messages may have which stay as they are


class AutoCompaction:
    """Compacts a conversation when its prompt reaches `share` of the engine's window.

    Args:
        is_longer: whether a request's prompt has at least so many tokens.
    """

    def __init__(self, engine: BaseEngine, share: float, is_longer: IsLonger) -> None:
        self._engine = engine
        self._share = share
        self._is_longer = is_longer
        self._summaries: OrderedDict[tuple[bytes | None, bytes, bytes], str] = OrderedDict()
        self._characters = 0

    async def apply(self, request: MessagesRequest, key: bytes | None) -> Callable[[str], None] | None:
        """Shorten the messages by a kept summary, or let the answer loop make one.

        Returns what keeps the summary that the loop makes; None if it makes none.
        """
        window = self._window(request.engine_model)
        if window is None or not await self._is_longer(request, trigger := int(window * self._share)):
            return None
        fingerprint = await run_with_yields(take_fingerprint(request), perf_counter)
        if fingerprint is None:
            return None
        whole = request.messages
        digests = fingerprint.messages
        reused, summary = self._find(key, fingerprint.system, digests)
        if summary is not None:
            self._show(request, [summary_message(summary), *whole[reused:]])
            if not await self._is_longer(request, trigger):
                self._report(request, "reused", reused, window)
                return None
        cut = await run_with_yields(_cut(whole, int(trigger * _TAIL)), perf_counter)
        if cut <= reused:  # what has come since is too long by itself
            return None
        kept = len(whole) - cut
        request.compaction = Compaction(pauses=False, kept=kept, is_shown=False)
        self._report(request, "made", cut, window)
        place = (key, fingerprint.system, digests[: cut * _DIGEST])

        def keep(made: str) -> None:
            self._keep(place, made)

        return keep

    def _window(self, model: str) -> int | None:
        listed = self._engine.known_models() or []
        return next((one.max_input_tokens for one in listed if one.id == model), None)

    def _find(self, key: bytes | None, system: bytes, digests: bytes) -> tuple[int, str | None]:
        """The longest beginning for which a summary is kept: its number of messages, and the summary.

        Each kept summary is looked at: comparing digests takes less time than hashing every beginning of the messages.
        """
        begins = [place for place in self._summaries if place[:2] == (key, system) and digests.startswith(place[2])]
        if not begins:
            return 0, None
        place = max(begins, key=lambda place: len(place[2]))
        self._summaries.move_to_end(place)
        return len(place[2]) // _DIGEST, self._summaries[place]

    def _keep(self, place: tuple[bytes | None, bytes, bytes], summary: str) -> None:
        self._characters += len(summary) - len(self._summaries.pop(place, ""))
        self._summaries[place] = summary
        while len(self._summaries) > _MAX_SUMMARIES or self._characters > _MAX_CHARACTERS:
            self._characters -= len(self._summaries.popitem(last=False)[1])

    def _show(self, request: MessagesRequest, messages: list[Json]) -> None:
        """Let the engine see these messages."""
        request.messages = messages
        request.raw = raw_with_messages(request, messages)

    def _report(self, request: MessagesRequest, summary: str, messages: int, window: int) -> None:
        request.response_headers.append((HEADER, summary))
        log_event(
            "compacted",
            logging.INFO,
            request_id=request.request_id,
            model=request.model,
            summary=summary,
            messages=messages,
            window=window,
        )


def _cut(messages: list[Json], most: int) -> Steps[int]:
    """How many messages a summary shall replace, so that the rest has at most `most` tokens; 0 if that is impossible.

    It is found in steps.

    The rest begins with a message of the assistant, or of the user without tool results: a result needs its call.
    """
    cut = 0
    tokens = 0
    for index in range(len(messages) - 1, 0, -1):
        tokens += (yield from content_in_steps(messages[index]["content"])) // CHARACTERS
        yield
        if tokens > most and cut:
            break
        if _may_begin(messages[index]):
            cut = index
            if tokens > most:
                break
    return cut


def _may_begin(message: Json) -> bool:
    content = message["content"]
    return message["role"] == "assistant" or (
        message["role"] == "user" and (type(content) is str or all(block["type"] != "tool_result" for block in content))
    )
