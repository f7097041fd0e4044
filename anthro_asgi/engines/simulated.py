"""Tokens on a clock, seeded: an engine without a model, for clients' tests and for latency benchmarks.

Theory. An answer is planned whole before its first token: the prompt and the seed pick every token, so the loop that
plays them does nothing but wait and yield, and what is measured is the service around it. Token n, from 0, is due at
`start + ttft + n * itl` on an absolute clock: a late token does not make the next one late, and who was kept waiting
gets all that is due as one batch, as from an engine whose chunks piled up in a socket.

Rules. Only what an engine would read decides: two requests that differ in `stream`, `user_id` or `stop_sequences` get
the same tokens, and a smaller `max_tokens` cuts the same answer sooner. Every delta but Usage and Finish counts as one
token, a call's head included. Stop sequences are matched by the service, over any engine's text.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterable
from hashlib import blake2b
from random import Random
from typing import Any, Protocol

import orjson

from ..wire.deltas import Batch, Delta, Finish, StopReason, Thinking, ToolJson, ToolStart, Usage
from ..wire.errors import InvalidRequest
from ..wire.request import MessagesRequest, Tool
from . import ModelInfo
from .schema import example, tool_input

_TURN = 32  # tokens between two turns for the other tasks, when no token is waited for
_PICTURE = 1_500  # tokens of an image or a video, whatever its size
_CREATED = 1_735_689_600  # 2025-01-01, in Unix seconds
_ID = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # what a tool may be called


class Clock(Protocol):
    """When it is and how to wait. `time` in seconds from any origin."""

    def time(self) -> float: ...

    async def sleep_until(self, when: float) -> None:
        """Return at `when` or later. Gives other tasks a turn even if `when` has passed."""


class LoopClock:
    """The running event loop's clock."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(when - asyncio.get_running_loop().time())


class SimulatedEngine:
    """Answers any request with seeded text, thinking, a tool call or JSON, at a given pace.

    `ttft` and `itl` are seconds to the first token and between tokens. `output_tokens` is the length of a text answer,
    24 to 96 by seed when None; a call and JSON are as long as they are, and thinking comes on top. Raises ValueError
    for a negative time or a length below 1.
    """

    def __init__(
        self,
        *,
        ttft: float = 0.02,
        itl: float = 0.005,
        output_tokens: int | None = None,
        seed: int = 0,
        clock: Clock | None = None,
        model: str = "simulated",
    ) -> None:
        if not (ttft >= 0 and itl >= 0):
            raise ValueError(f"ttft and itl must be 0 or more seconds, not {ttft} and {itl}")
        if output_tokens is not None and output_tokens < 1:
            raise ValueError(f"output_tokens must be 1 or more, not {output_tokens}")
        self.ttft = ttft
        self.itl = itl
        self.output_tokens = output_tokens
        self.seed = seed
        self.model = model
        self.streaming = 0  # answers being given now: a client that left must not stay in it
        self._clock: Clock = clock or LoopClock()

    def __repr__(self) -> str:
        pace = f"ttft={self.ttft:g} itl={self.itl:g} seed={self.seed}"
        return f"<SimulatedEngine {self.model} {pace} streaming={self.streaming}>"

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self.model, display_name="Simulated", created=_CREATED, owned_by="anthro-asgi")]

    async def ready(self) -> bool:
        return True

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length, the same as its stream's `Usage.input_tokens`."""
        return prompt_tokens(request)

    async def stream(self, request: MessagesRequest) -> AsyncGenerator[Batch, None]:
        """The answer. Raises InvalidRequest for a prompt that is nested too deeply to be read."""
        start = self._clock.time() + self.ttft
        rng = Random(self._digest(request))  # noqa: S311  # it must repeat itself, which is what it is for
        tokens, stop_reason = _plan(request, rng, self.output_tokens)
        usage = Usage(input_tokens=prompt_tokens(request))
        self.streaming += 1
        try:
            await self._clock.sleep_until(start)
            yield [usage, tokens[0]]
            if self.itl:
                sent, total = 1, len(tokens)
                while sent < total:
                    await self._clock.sleep_until(start + sent * self.itl)
                    due = _due(self._clock.time() - start, self.itl, total)
                    yield tokens[sent] if due <= sent + 1 else tokens[sent:due]
                    sent = max(due, sent + 1)
            else:
                for turn in range(1, len(tokens), _TURN):
                    await asyncio.sleep(0)
                    for token in tokens[turn : turn + _TURN]:
                        yield token
            yield [Usage(output_tokens=len(tokens)), Finish(stop_reason)]
        finally:
            self.streaming -= 1

    def _digest(self, request: MessagesRequest) -> bytes:
        read = (
            str(self.seed),
            request.engine_model,
            request.system,
            request.messages,
            _tools(request),
            request.tool_choice and (request.tool_choice.type, request.tool_choice.name),
            request.thinking and (request.thinking.type, request.thinking.budget_tokens),
            (request.temperature, request.top_p, request.top_k, request.effort),
            request.output_schema,
        )
        return blake2b(_json(read, orjson.OPT_SORT_KEYS), digest_size=16).digest()


def _due(elapsed: float, itl: float, total: int) -> int:
    """How many of `total` tokens should be out `elapsed` seconds after the first."""
    return total if elapsed >= (total - 1) * itl else int(elapsed / itl) + 1


# What is asked: the prompt, and how long it is


def prompt_tokens(request: MessagesRequest) -> int:
    """The tokens of everything an engine would read; four UTF-8 bytes are one. Raises InvalidRequest like `stream`."""
    total = 3 + sum(map(_weight, request.system))
    try:
        total += sum(4 + _weight(message["content"]) for message in request.messages)
    except RecursionError as exc:
        raise InvalidRequest("messages: nested too deeply") from exc
    total += sum(8 + _weight(_json(tool)) for tool in _tools(request))
    return total + (_weight(_json(request.output_schema)) if request.output_schema is not None else 0)


def _weight(content: Any) -> int:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if isinstance(content, bytes):
        return -(-len(content) // 4)
    if isinstance(content, list):
        return sum(map(_weight, content))
    return _block_weight(content) if isinstance(content, dict) else 0


def _block_weight(block: dict[str, Any]) -> int:
    """A block by what is read of it. Its type, ids, signature and cache marks are no part of the prompt."""
    if block.get("type") in ("image", "video"):
        return _PICTURE
    read = ("text", "thinking", "title", "context", "name", "tool_name", "source", "data", "content")
    weight = sum(_weight(block[key]) for key in read if key in block)
    return weight + (_weight(_json(block["input"])) if "input" in block else 0)


def _tools(request: MessagesRequest) -> list[tuple[str, str | None, dict[str, Any] | None]]:
    return [(tool.name, tool.description, tool.input_schema) for tool in request.tools]


def _json(value: Any, option: int = 0) -> bytes:
    try:
        return orjson.dumps(value, option=option)
    except TypeError:  # the two ways parsed JSON fails: an integer beyond 64 bit, and more than 254 levels
        pass
    try:
        return json.dumps(value, sort_keys=bool(option)).encode()
    except RecursionError as exc:
        raise InvalidRequest("body: nested too deeply") from exc


# What is answered


def _plan(request: MessagesRequest, rng: Random, length: int | None) -> tuple[list[Delta], StopReason]:
    """Every token of the answer, at least one and `max_tokens` at most, and why it ends."""
    room = request.max_tokens
    tokens: list[Delta] = []
    stop_reason: StopReason = "end_turn"
    thought = rng.randint(8, 24)
    if request.thinking is not None and request.thinking.type != "disabled":
        thought = min(thought, request.thinking.budget_tokens or thought)
        tokens += map(Thinking, _prose(rng, thought))
    tool, forced = _called(request, rng)
    if tool is not None:
        tokens += [] if forced else _prose(rng, rng.randint(5, 9))
        tokens += _call(tool, rng)
        stop_reason = "tool_use"
    elif request.output_schema is not None:
        tokens += _pieces(_json(example(request.output_schema, rng)).decode(), rng)
    else:
        length = length or rng.randint(24, 96)
        tokens += _prose(rng, min(length, room + 1))
    return (tokens, stop_reason) if len(tokens) <= room else (tokens[:room], "max_tokens")


def _called(request: MessagesRequest, rng: Random) -> tuple[Tool | None, bool]:
    """The tool to call, if any, and whether the client forced a call."""
    choice = request.tool_choice.type if request.tool_choice else "auto"
    tools = {tool.name: tool for tool in request.tools}
    if choice == "none" or not tools:
        return None, False
    if choice == "any":
        return rng.choice(request.tools), True
    if choice == "tool" and request.tool_choice:
        return tools.get(request.tool_choice.name or ""), True
    return next((tools[word] for word in _asked(request.messages) if word in tools), None), False


def _asked(messages: list[dict[str, Any]]) -> Iterable[str]:
    """The words of the last user message; none when it brings a tool's result, which is to be answered in words."""
    content = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if any(block["type"] == "tool_result" for block in blocks):
        return []
    return (word for block in blocks if block["type"] == "text" for word in _NAME.findall(block["text"]))


def _call(tool: Tool, rng: Random) -> list[Delta]:
    arguments = _json(tool_input(tool.input_schema, rng)).decode()
    identity = "toolu_" + "".join(rng.choices(_ID, k=24))
    return [ToolStart(identity, tool.name), *map(ToolJson, _pieces(arguments, rng))]


def _pieces(text: str, rng: Random) -> list[str]:
    pieces, start = [], 0
    while start < len(text):
        end = start + rng.randint(2, 6)
        pieces.append(text[start:end])
        start = end
    return pieces


def _tokens(word: str) -> tuple[str, ...]:
    return tuple((word if word == "," else f" {word}").split("|"))


# What words there are. "|" parts a word's tokens; some need several bytes a character, as clients must bear.

_WORDS = {
    "A": "quiet old pale gold|en small wander|ing naïve distant warm crim|son",
    "N": "river light|house café garden lan|tern har|bor 漢字 map|maker orchard 東京 station win|dow traveller 🙂",
    "V": "waits rests changes turns re|members listens glim|mers returns drifts hesi|tates",
    "P": "beside beyond under near with|out behind",
    "D": "slow|ly again soon tonight for|ever déjà",
}
_FRAMES = tuple(
    tuple(tuple(_tokens(word) for word in _WORDS.get(slot, slot).split()) for slot in frame.split())
    for frame in (
        "the A N V P the N",
        "every N V D",
        "a N V P the A N and the N V",
        "when the A N V , the N V D",
        "no N V P a N , but one A N V",
        "the N , the N and the A N V",
    )
)


def _prose(rng: Random, length: int) -> list[str]:
    """Sentences of `length` tokens in all, ended by a full stop. A longer text begins with the shorter one's words."""
    tokens: list[str] = []
    while len(tokens) < length:
        words = [piece for slot in rng.choice(_FRAMES) for piece in rng.choice(slot)]
        tokens.append(words[0].title() if tokens and tokens[-1] != "\n\n" else words[0].title().lstrip())
        tokens += words[1:]
        tokens += (".", "\n\n") if rng.random() < 0.1 else (".",)
    tokens[length - 1 :] = ["."] if length > 1 else tokens[:1]
    return tokens
