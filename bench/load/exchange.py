"""One request, from the moment it was due to the end of its answer: what is heard, and what the tally gets of it."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns

from ..client import Connection, Ending
from ..counting import Api, Counter, whole
from .tally import Tally


class Exchange:
    """An Asker. Latency is counted from `due`. `finish` is called when all is over.

    It is called once before, with `over` still 0, if the connection was closed just when the request was written to it:
    such a request is repeated on a new one, as clients do.

    All moments are values of `time.monotonic_ns`, 0 for what has not happened. `error` is the kind of failure.
    """

    __slots__ = (
        "_counter",
        "_ended",
        "_finish",
        "_status",
        "_type",
        "_whole",
        "api",
        "connection",
        "counted",
        "due",
        "error",
        "first",
        "last",
        "number",
        "over",
        "retried",
        "sent",
        "stream",
        "tally",
        "tokens",
    )

    def __init__(
        self,
        number: int,
        api: Api,
        stream: bool,
        counted: bool,
        tally: Tally,
        finish: "Callable[[Exchange], None]",
        due: int = 0,
    ) -> None:
        self.number = number
        self.api = api
        self.stream = stream
        self.counted = counted
        self.tally = tally
        self.due = due
        self.sent = self.first = self.last = self.over = self.tokens = 0
        self.error: str | None = None
        self.retried = False
        self.connection: Connection | None = None
        self._finish = finish
        self._counter = Counter(api)
        self._ended = 0  # when the API's last event came
        self._status = 0
        self._type = b""
        self._whole: list[bytes] = []

    # ---- the answer

    def headed(self, status: int, content_type: bytes) -> None:
        self._status = status
        self._type = content_type

    def took(self, data: bytes, now: int) -> None:
        if self._status != 200 or not self.stream:
            self._whole.append(data)
            return
        counter = self._counter
        count = counter.feed(data)
        if count:
            self._count(count, now)
        if counter.ended and not self._ended:
            self._ended = now

    def _count(self, count: int, now: int) -> None:
        tally = self.tally
        last, self.last = self.last, now
        self.tokens += count
        if not last:
            self.first = now
            if self.counted:
                tally.ttft.add(now - self.due)
        if not tally.counting:
            return
        tally.tokens += count
        if last:
            tally.itl.add(now - last)
        if count > 1:
            tally.itl.zeros += count - 1
        stamps = self._counter.stamps
        if stamps:
            self._transit(stamps, now)

    def _transit(self, stamps: list[bytes], now: int) -> None:
        # A server may join texts, or cut them anew: what is no moment since the request went out is no stamp.
        add, sent = self.tally.transit.add, self.sent
        for text in stamps:
            for part in text.split():
                with suppress(ValueError):
                    stamp = int(part)
                    if sent <= stamp <= now:
                        add(now - stamp)

    # ---- the end

    def ended(self, ending: Ending, now: int) -> None:
        if ending == "stale" and not self.retried:
            self.retried = True
            self._finish(self)
            return
        self.error = self._judge(ending)
        self.finish(self._ended or now)

    def fail(self, error: str) -> None:
        """It is over without an answer, or without the rest of it."""
        self.error = error
        if self.connection is not None:
            self.connection.abort()
        self.finish(monotonic_ns())

    def finish(self, now: int) -> None:
        self.over = now
        self._finish(self)

    def _judge(self, ending: Ending) -> str | None:
        if ending == "garbled" or not self._status:
            return "garbled" if ending == "garbled" else "cut"
        if self._status != 200:
            return f"http {self._status}"
        if not self.stream:
            return self._judge_whole(ending)
        if self._counter.error is not None:
            return self._counter.error
        if not self._type.lower().startswith(b"text/event-stream"):
            return "not a stream"
        return None if self._counter.ended else "cut"

    def _judge_whole(self, ending: Ending) -> str | None:
        if ending != "complete":
            return "cut"
        try:
            self.tokens = whole(self.api, b"".join(self._whole))
        except ValueError:
            return "garbled"
        if self.tally.counting:
            self.tally.tokens += self.tokens
        return None
