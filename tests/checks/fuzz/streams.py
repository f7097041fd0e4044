"""Mutated answers of engines, and the rules for each.

- It is read to its end or to an error for the client. No other exception is raised.
- The fast path yields the same deltas as the general path, which parses every chunk.
- The stream to the client keeps the grammar. It means the same as the Message of a client that does not stream, also
  when the bytes arrive in other pieces.
- A share goes through the service itself.
- Refusals and model lists are tried as well (see `beside`).
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import orjson

from anthro_asgi import MessagesApp
from anthro_asgi.engines.messages.event_reader import EventReader
from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.engines.openai.think_tags import ThinkTagFilter
from anthro_asgi.upstream.sse import EventTooLarge, SSEParser
from anthro_asgi.wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from anthro_asgi.wire.deltas import Batch, Delta, deltas_of
from anthro_asgi.wire.errors import AnswerTooLarge
from anthro_asgi.wire.request import MessagesRequest
from tests.checks.fuzz import answers, beside, served
from tests.checks.fuzz.answers import Answer, Wish, judge, new_ids
from tests.checks.fuzz.mutation import Stock, cut, mangle, mutate, written
from tests.checks.fuzz.recordings import Api, Recorded, chunks, payload_of, recorded
from tests.checks.fuzz.running import Breach
from tests.checks.fuzz.served import post, serving

SERVED = 1 / 12  # of the trials
SLOWLY = 1 / 3
BESIDE = 0.04
STOPS = ("STOP", "\n\n", "the", "wörld", "a", "aab", "🙂")
WORDS = (
    *(
        "<think>",
        "</think>",
        "<thi",
        "STOP",
        "ST",
        "OP",
        "\n",
        "[DONE]",
        '{"a":1',
        "}",
        "{}",
        '{"city":"Paris"}',
        "[1]",
    ),
    *("stop", "length", "tool_calls", "function_call", "content_filter", "abort", "error", "end_turn", "max_tokens"),
    {"error": {"message": "no", "code": 503}},
    {"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "f", "arguments": "{"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"x":'}}]},
    {"tool_calls": [{"id": "c2", "type": "function", "function": {"name": "g", "arguments": {"n": 10**20}}}]},
    {"function_call": {"name": "f", "arguments": "{}"}},
    {"content": None, "reasoning": "hm"},
    {"refusal": "no"},
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A body and the settings of its trial. `at_random` seeds the places where it is cut. A status other than 200 is no
    answer (see `beside`).
    """

    data: bytes
    status: int
    api: Api
    streamed: bool
    wish: Wish
    tags: bool | None
    """Whether think tags are read, and whether thinking is open from the start; None: they are not read."""
    taken: tuple[str, ...]
    calls: bool
    limits: AnswerLimits
    served: bool
    slowly: bool
    at_random: int


class Streams:
    """See the module."""

    name = "streams"

    def __init__(self) -> None:
        self._recorded = recorded()
        self._beside = beside.recorded()
        self._stocks = {api: Stock(chunks(api), WORDS) for api in ("chat", "messages")}

    def draw(self, rng: Random) -> Trial:
        answer = rng.choice(self._recorded)
        stock = self._stocks[answer.api]
        status = rng.choice(beside.STATUSES) if rng.random() < BESIDE else 200
        if status != 200:
            body = _mutated(rng.choice(self._beside), stock, rng)
        elif answer.streamed:
            other = rng.choice(self._recorded)
            body = _written(changed(shortened(answer, rng), other, stock, rng), rng)
        else:
            body = _mutated(answer.events[0], stock, rng)
        if rng.random() < 0.2:
            body = mangle(body, rng)
        sealed = rng.choice((True, False)) if rng.random() < 0.1 else None
        stops = tuple(rng.sample(STOPS, rng.choice((1, 1, 3)))) if rng.random() < 0.3 else ()
        return Trial(
            body,
            status,
            answer.api,
            answer.streamed,
            Wish(stops, sealed),
            tags=rng.choice((True, False)) if rng.random() < 0.2 else None,
            taken=("call_0", "call_1", "c1") if rng.random() < 0.1 else (),
            calls=rng.random() < 0.95,
            limits=_limits(rng),
            served=rng.random() < SERVED,
            slowly=rng.random() < SLOWLY,
            at_random=rng.getrandbits(32),
        )

    def check(self, trial: Trial) -> str:
        if trial.status != 200:
            return f"beside, {beside.check(trial.data, trial.status)}"
        rng = Random(trial.at_random)
        ways = cut(trial.data, rng), cut(trial.data, rng)
        if trial.slowly and trial.api == "chat" and trial.streamed:
            _must_be_the_same(trial, ways[0])
        if trial.served:
            pair = served.finished(_served(trial, *ways))
        else:
            pair = (
                answers.streamed(said(trial, ways[0]), trial.wish),
                answers.whole(said(trial, ways[1]), trial.wish, trial.limits),
            )
        # what follows the end of the text may stay unread, and with it the counts
        outcome = judge(*pair, counts=not trial.wish.stops and trial.limits == DEFAULT_LIMITS)
        return f"{trial.api}, {outcome}{', served' if trial.served else ''}"


# drawing


def _limits(rng: Random) -> AnswerLimits:
    """The default limits, or low ones."""
    if rng.random() < 0.9:
        return DEFAULT_LIMITS
    return AnswerLimits(rng.choice((300, 600, 5000)), rng.choice((1, 20, 500)), rng.choice((1, 600, 5000)))


def shortened(answer: Recorded, rng: Random) -> list[bytes]:
    """The events, usually without many similar ones."""
    events = list(answer.events)
    most = rng.choice((4, 8, 8, 16, 16, 200))
    if len(events) > most:
        head = rng.randrange(1, most)
        events[head : len(events) - (most - head)] = []
    return events


def changed(events: list[bytes], other: Recorded, stock: Stock, rng: Random) -> list[bytes]:
    """Some events changed, moved, duplicated or removed."""
    if rng.random() < 0.05:
        return events
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.randrange(len(events))
        head, payload = payload_of(events[at])
        if payload[:1] == b"{":
            events[at] = head + b"data: " + _mutated(payload, stock, rng)
    for _ in range(rng.choice((0, 0, 1, 2))):
        at, to = (rng.randrange(len(events)) for _ in range(2))
        match rng.randrange(5):
            case 0:
                events.insert(at, events[to])
            case 1:
                events[at], events[to] = events[to], events[at]
            case 2:
                events[at : at + rng.choice((1, 1, 3))] = []
            case 3:
                events[at:at] = rng.choices(other.events, k=rng.choice((1, 2, 5)))
            case _:
                events[at:] = []
        if not events:
            break
    return events


def _mutated(payload: bytes, stock: Stock, rng: Random) -> bytes:
    try:
        value = json.loads(payload)
    except ValueError:
        return payload
    mutate(value, stock, rng)
    return written(value, rng)


def _written(events: list[bytes], rng: Random) -> bytes:
    """The events as a body, plainly or in any allowed form."""
    if rng.random() < 0.7:
        return b"".join(event + b"\n\n" for event in events)
    return b"".join(rng.choice(_STYLES)(event) for event in events).removesuffix(b"\n" * rng.choice((0, 0, 1, 2)))


_STYLES: tuple[Callable[[bytes], bytes], ...] = (
    lambda event: event + b"\n\n",
    lambda event: event.replace(b"\n", b"\r\n") + b"\r\n\r\n",
    lambda event: event.replace(b"data: ", b"data:") + b"\n\n",
    lambda event: b": note\n" + event + b"\nid: 7\n\n",
    lambda event: b"retry: 9\n\n\n" + event + b"\n\n",
    lambda event: b"event: other\n" + event.replace(b",", b",\ndata: ", 1) + b"\n\n",
    lambda event: b"\xef\xbb\xbf" + event + b"\n\n",
    lambda event: b"data:\n\n" + event + b"\ndata\n\n",
)


# reading, as the engine classes do


def said(trial: Trial, reads: list[bytes]) -> Iterator[Batch]:
    """What the engine class yields for these reads. Raises ApiError."""
    pieces = [read for read in reads if read]
    return (_chat if trial.api == "chat" else _messages)(trial, pieces)


def _chat(trial: Trial, reads: list[bytes]) -> Iterator[Batch]:
    reader = FastChunkReader(_reader(trial), trial.limits.max_event)
    rest = iter(reads)
    try:
        if not trial.streamed:
            yield reader.whole(b"".join(rest))
        else:
            for data in rest:
                batch = reader.read(data)
                if batch:
                    yield batch
                    if type(batch) is str:
                        continue
                if reader.over():
                    break
            tail: list[Delta] = []
            while not reader.done and (data := next(rest, b"")):
                tail += deltas_of(reader.read(data))
            yield tail + reader.rest()
    except EventTooLarge:
        if not reader.finished:
            raise AnswerTooLarge("an event") from None
    yield reader.end()


def _reader(trial: Trial) -> ChunkReader:
    tags = None if trial.tags is None else ThinkTagFilter(opened=trial.tags)
    names = {"get_weather": "w" * 128}
    return ChunkReader(trial.wish.stops, new_ids(), trial.taken, names=names, tags=tags, limits=trial.limits)


def _messages(trial: Trial, reads: list[bytes]) -> Iterator[Batch]:
    reader = EventReader(new_ids(), calls=trial.calls, limits=trial.limits)
    parser = SSEParser(trial.limits.max_event)
    rest = iter(reads)
    try:
        if not trial.streamed:
            yield reader.whole(b"".join(rest))
        else:
            while not reader.done and (data := next(rest, b"")):
                deltas = reader.feed(parser.feed(data))
                if deltas:
                    yield deltas
                    reader.feed(())
            yield reader.feed(parser.end())
    except EventTooLarge:
        if not reader.finished:
            raise AnswerTooLarge("an event") from None
    yield reader.end()


def _slowly(trial: Trial, reads: list[bytes]) -> Iterator[Batch]:
    reader, parser = _reader(trial), SSEParser(trial.limits.max_event)
    for data in reads:
        yield reader.feed(parser.feed(data))
    yield reader.feed(parser.end())
    yield reader.end()


def _shortly(trial: Trial, reads: list[bytes]) -> Iterator[Batch]:
    reader = FastChunkReader(_reader(trial), trial.limits.max_event)
    for data in reads:
        yield reader.read(data)
    yield reader.rest()
    yield reader.end()


def _must_be_the_same(trial: Trial, reads: list[bytes]) -> None:
    short, slow = answers.deltas(_shortly(trial, reads)), answers.deltas(_slowly(trial, reads))
    if (
        short != slow and trial.limits == DEFAULT_LIMITS
    ):  # only the general path counts a piece that is passed on at once
        raise Breach(f"the short way says what the slow one says\n{short}\n{slow}")


# through the service


class _Engine:
    """Yields the configured deltas for every request."""

    said: Iterator[Batch] = iter(())

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        for batch in self.said:
            yield batch


@cache
def _service(hide_thinking: bool) -> tuple[_Engine, MessagesApp]:
    """Shared by many trials, because it is slow to create."""
    engine = _Engine()
    return engine, MessagesApp(engine, hide_thinking=hide_thinking)


async def _served(trial: Trial, *ways: list[bytes]) -> tuple[Answer, Answer]:
    return await _asked(trial, ways[0], stream=True), await _asked(trial, ways[1], stream=False)


async def _asked(trial: Trial, reads: list[bytes], *, stream: bool) -> Answer:
    wish: dict[str, Any] = {"stream": stream, "stop_sequences": trial.wish.stops}
    if trial.wish.sealed is not None:
        wish["thinking"] = {"type": "disabled"} | ({"display": "omitted"} if trial.wish.sealed else {})
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **wish}
    engine, service = _service(trial.wish.sealed is False)
    engine.said = said(trial, reads)
    async with serving(service) as driver:
        response = await post(driver, "/v1/messages", [orjson.dumps(body)])
    return Answer(response.status, response.body)
