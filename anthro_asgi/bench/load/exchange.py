"""One request, from the moment it was due to the end of its answer; and the connections of a run."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Final

import orjson

from ...upstream.connect_errors import connection_error
from ..client import Connection, Ending
from ..counting import Api, Counter, answer_text, error_message, whole
from .tally import Tally
from .target import Target
from .workload import Conversation

# A listener with a full backlog drops connections, which the kernel retries after a second. asyncio's backlog is 100.
_DIALLING: Final = 64
_NO_ANSWER: Final = "the connection was closed without an answer, as an https:// server does with http://"
_NO_END: Final = "the answer ended before it was complete"
_PAUSE: Final = 0.1  # seconds between attempts to reach a server that is not there


@dataclass(slots=True, eq=False)
class Exchange:
    """A Receiver. Latency counts from `due`. `finish` is called at the end.

    `finish` is called once before, with `over` still 0, when a reused connection was closed just as the request was
    written: such a request is repeated on a new connection, as clients do.

    Moments are values of `time.monotonic_ns`, 0 for what has not happened. `error` is the kind of failure, `detail`
    what the server or the system says about it.
    """

    conversation: Conversation
    api: Api
    stream: bool
    counted: bool
    tally: Tally
    finish: "Callable[[Exchange], None]"
    due: int = 0
    sent: int = 0
    first: int = 0
    last: int = 0
    over: int = 0
    chunks: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None
    detail: str = ""
    retried: bool = False
    next_turn: bool = False  # the conversation is ready to go on
    connection: Connection | None = None
    _ended: int = 0  # when the API's last event was read
    _status: int = 0
    _type: bytes = b""
    _pieces: list[bytes] = field(default_factory=list)  # of an answer that is read as a whole at its end
    _counter: Counter = field(init=False)

    def __post_init__(self) -> None:
        self._counter = Counter(self.api)

    def headed(self, status: int, content_type: bytes) -> None:
        self._status = status
        self._type = content_type

    def took(self, data: bytes, now: int) -> None:
        if self._status != 200 or not self.stream:
            self._pieces.append(data)
            return
        if self.conversation.goes_on:
            self._pieces.append(data)
        counter = self._counter
        count = counter.feed(data)
        if count:
            self._count(count, now)
        if counter.ended and not self._ended:
            self._ended = now

    def _count(self, count: int, now: int) -> None:
        tally = self.tally
        last, self.last = self.last, now
        self.chunks += count
        if not last:
            self.first = now
            if self.counted:
                tally.ttft.add(now - self.due)
        if not tally.counting:
            return
        tally.chunks += count
        if last:
            tally.icl.add(now - last)
        if count > 1:
            tally.icl.zeros += count - 1
        stamps = self._counter.stamps
        if stamps:
            self._transit(stamps, now)

    def _transit(self, stamps: list[bytes], now: int) -> None:
        # A server may join or split texts, so a number that is not a moment since the request was sent is no stamp.
        add, sent = self.tally.transit.add, self.sent
        for text in stamps:
            for part in text.split():
                with suppress(ValueError):
                    stamp = int(part)
                    if sent <= stamp <= now:
                        add(now - stamp)

    def ended(self, ending: Ending, now: int) -> None:
        if ending == "stale" and not self.retried:
            self.retried = True
            self.finish(self)
            return
        self.input_tokens, self.output_tokens = self._counter.input_tokens, self._counter.output_tokens
        self.error = self._failure(ending)
        if self.error is None and self.conversation.goes_on:
            self._answered()
        self._finish_at(self._ended or now)

    def _answered(self) -> None:
        body = b"".join(self._pieces)
        try:
            self.conversation.answered(answer_text(self.api, body, stream=self.stream))
            self.next_turn = True
        except (ValueError, TypeError, KeyError, IndexError) as exc:
            self.error, self.detail = "garbled", f"{type(exc).__name__}: {exc}"

    def fail(self, error: str, detail: str = "") -> None:
        """End it without an answer, or without the rest of it."""
        self.error, self.detail = error, detail
        if self.connection is not None:
            self.connection.abort()
        self._finish_at(monotonic_ns())

    def _finish_at(self, now: int) -> None:
        self.over = now
        self.finish(self)

    def _failure(self, ending: Ending) -> str | None:
        if ending == "garbled":
            self.detail = "the response is not valid HTTP"
            return "garbled"
        if not self._status:
            return self._cut(_NO_ANSWER)
        if self._status != 200:
            self.detail = _body_in_short(b"".join(self._pieces))
            return f"http {self._status}"
        if not self.stream:
            return self._whole_failure(ending)
        if self._counter.error is not None:
            self.detail = self._counter.message
            return self._counter.error
        if not self._type.lower().startswith(b"text/event-stream"):
            self.detail = f"content-type: {self._type.decode(errors='replace') or 'none'}"
            return "not a stream"
        return None if self._counter.ended else self._cut(_NO_END)

    def _cut(self, detail: str) -> str:
        self.detail = detail
        return "cut"

    def _whole_failure(self, ending: Ending) -> str | None:
        if ending != "complete":
            return self._cut(_NO_END)
        try:
            self.input_tokens, self.output_tokens = whole(b"".join(self._pieces))
        except ValueError as exc:
            self.detail = f"not a whole answer: {exc}"
            return "garbled"
        self.chunks = 1
        self.tally.chunks += self.tally.counting
        return None


def _body_in_short(body: bytes) -> str:
    """What the body of an error says."""
    try:
        return error_message(orjson.loads(body))
    except ValueError:
        return error_message(body.decode(errors="replace"))


class Connections:
    """Sends exchanges over connections, the most recently used first. Needs a running event loop.

    A connection attempt fails after `timeout` seconds. A bounded number of attempts is made at once.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._timeout = timeout
        self._hosts = list(target.hosts)
        self._idle: list[Connection] = []
        self._waiting: deque[Exchange] = deque()
        self._dialling: set[asyncio.Task[None]] = set()
        self._closed = False

    def send(self, exchange: Exchange) -> None:
        """Send it over an idle connection or a new one. An exchange without a due moment is due when it is sent."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                exchange.due = exchange.due or monotonic_ns()
                self._ask(connection, exchange)
                return
        self.send_anew(exchange)

    def send_anew(self, exchange: Exchange) -> None:
        """Send it over a new connection."""
        self._waiting.append(exchange)
        self._dial_more()

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange has ended for the next one."""
        if connection.usable:
            self._idle.append(connection)

    async def reach(self, seconds: float) -> None:
        """Connect, and keep the connection for a request. Tries again for `seconds`, then raises OSError.

        A TLS error is raised at once: the server is there.
        """
        end = self._loop.time() + seconds
        reason: OSError | None = None
        while True:
            try:
                async with asyncio.timeout_at(end):
                    self._idle.append(await self._connect())
                return
            except TimeoutError as exc:
                raise (reason or exc) from None  # a refusal before the time was over says more
            except OSError as exc:
                reason = exc
                if isinstance(exc, ssl.SSLError) or self._loop.time() + _PAUSE >= end:
                    raise
            await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Close all idle connections and cancel the attempts."""
        self._closed = True
        self._waiting.clear()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        for connection in self._idle:
            if connection.usable:
                connection.abort()
        self._idle.clear()

    def _ask(self, connection: Connection, exchange: Exchange) -> None:
        exchange.connection = connection
        exchange.sent = monotonic_ns()
        connection.ask(exchange.conversation.request(), exchange)

    def _dial_more(self) -> None:
        while self._waiting and len(self._dialling) < _DIALLING:
            exchange = self._waiting.popleft()
            if exchange.over:
                continue
            exchange.due = exchange.due or monotonic_ns()
            task = self._loop.create_task(self._dial(exchange))
            self._dialling.add(task)
            task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        if not self._closed:
            self._dial_more()

    async def _dial(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connect()
        except OSError as exc:
            if not exchange.over:
                exchange.fail("timeout" if isinstance(exc, TimeoutError) else "connect", connection_error(exc))
            return
        if exchange.over:
            self.give_back(connection)
        else:
            self._ask(connection, exchange)

    async def _connect(self) -> Connection:
        target = self._target
        if not target.port:
            return (await self._loop.create_unix_connection(Connection, target.hosts[0]))[1]
        failure = OSError("no address")
        for host in tuple(self._hosts):
            try:
                _, connection = await self._loop.create_connection(
                    Connection, host, target.port, ssl=target.tls, server_hostname=target.name if target.tls else None
                )
            except OSError as exc:
                failure = exc
                continue
            if self._hosts[0] != host:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
            return connection
        raise failure
