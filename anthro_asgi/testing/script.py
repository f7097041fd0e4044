"""The script of a server: which reply each request gets.

A request gets its reply from the first of these that has one:

1. the rules (`when`), in the order in which they were added;
2. the replies in order (`add`), of which each is used once;
3. the reply for all other requests (`otherwise`).

Requests arrive in the thread of the server, while the test adds to the script in its own.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .replies import Reply, check_reply
from .requests import Matcher, SeenRequest


@dataclass(slots=True)
class _Rule:
    matcher: Matcher
    replies: deque[Reply]

    def next_reply(self) -> Reply:
        """The next reply; the last one is repeated."""
        return self.replies.popleft() if len(self.replies) > 1 else self.replies[0]


class Script:
    """The replies that are not used yet, and what went wrong.

    Attributes:
        is_empty: whether nothing has been scripted since the start or the last `clear`.
        unexpected: the requests for which there was no reply.
        failures: the exceptions of matchers and of functions that make replies.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all replies, rules, unexpected requests and failures."""
        with self._lock:
            self._rules: list[_Rule] = []
            self._queue: deque[Reply] = deque()
            self._otherwise: Reply | None = None
            self.is_empty = True
            self.unexpected: list[SeenRequest] = []
            self.failures: list[Exception] = []

    @property
    def unused(self) -> list[Reply]:
        """The replies in order that no request has got yet."""
        with self._lock:
            return list(self._queue)

    def add(self, *replies: Reply) -> None:
        """Add replies to those in order. Raises TypeError for something that is not a reply."""
        _check(replies)
        with self._lock:
            self._queue.extend(replies)
            self.is_empty = False

    def when(self, matcher: Matcher, *replies: Reply) -> None:
        """Use these replies for requests that `matcher` accepts: one after the other, and the last for all further.

        Raises TypeError for something that is not a reply, and for a matcher that is not a function; ValueError without
        replies.
        """
        if not callable(matcher):
            raise TypeError(f"a matcher is matching(…) or a function of the request, not {matcher!r:.60}")
        _check(replies)
        if not replies:
            raise ValueError("a rule needs a reply")
        with self._lock:
            self._rules.append(_Rule(matcher, deque(replies)))
            self.is_empty = False

    def otherwise(self, reply: Reply) -> None:
        """Use this reply for all requests that get no other. Raises TypeError for something that is not a reply."""
        _check([reply])
        with self._lock:
            self._otherwise = reply
            self.is_empty = False

    def next_reply(self, request: SeenRequest) -> Reply | None:
        """The reply to this request; None if there is none. Raises what a matcher raises."""
        with self._lock:
            for rule in self._rules:
                if rule.matcher(request):
                    return rule.next_reply()
            if self._queue:
                return self._queue.popleft()
            return self._otherwise


def _check(replies: Iterable[object]) -> None:
    for reply in replies:
        check_reply(reply)
