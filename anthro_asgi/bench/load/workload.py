"""What the requests of a run say: prompts, lengths, shared prefixes, turns, tools, thinking, or a file of requests.

A prompt consists of short words, about one token each, drawn from a seed. Prompts begin with the number of their
conversation, so that no two share a prefix and no server gains from a prefix cache; with `prefix_tokens` they begin
with one of `prefixes` system prompts instead, and the number comes after it.
"""

import random
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from ...simulator.distributions import Distribution
from ..counting import Api
from ..options import unusable
from .target import BadRun, Target

_TEXT: Final = (
    "a an and are as at be but by can do for from get go had has he her his how I if in is it its just like me my no "
    "not now of on one or our out over say she so some than that the them then they this time to two up us use was we "
    "well what when who will with work year you"
)
_WORDS: Final = _TEXT.split()
_MARK: Final = "\x00"
_PROMPTS: Final = ("prompt", "text")

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What is asked. Lengths are in tokens. `extra` is merged into each body. `dataset` replaces the prompts."""

    api: Api
    model: str
    key: str | None
    stream: bool
    prompt_tokens: Distribution
    output_tokens: Distribution
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    prefix_tokens: int = 0
    prefixes: int = 1
    turns: int = 1
    tools: int = 0
    thinking_tokens: int = 0
    dataset: Sequence[Body] = ()

    @property
    def same(self) -> bool:
        """Whether all requests are equal but for their number."""
        lengths = {self.prompt_tokens.shape, self.output_tokens.shape}
        return lengths == {"constant"} and not self.dataset and self.turns == 1 and not self.prefix_tokens


class Conversation:
    """The requests of one client that follow each other. `goes_on`: another turn follows the answer to this one."""

    __slots__ = ("_body", "_left", "_workload", "number")

    def __init__(self, workload: "Workload", number: int, body: Body, turns: int) -> None:
        self.number = number
        self._workload = workload
        self._body = body
        self._left = turns - 1

    @property
    def goes_on(self) -> bool:
        return self._left > 0

    def request(self) -> bytes:
        """The HTTP request of this turn."""
        return self._workload.framed(orjson.dumps(self._body))

    def answered(self, text: str) -> None:
        """Go on to the next turn, which holds the answer to the last one."""
        self._left -= 1
        said = [{"role": "assistant", "content": text or "."}, {"role": "user", "content": self._workload.prompt()}]
        self._body = {**self._body, "messages": [*self._body["messages"], *said]}


class _Numbered(Conversation):
    """One request that differs from all others in its number only."""

    __slots__ = ()

    goes_on = False

    def request(self) -> bytes:
        return self._workload.numbered(self.number)


class Workload:
    """Makes conversations, by number, the same ones for the same seed.

    `run` is the number of the run in a sweep. Runs share no conversation number, so no run gains from a prefix cache
    that an earlier one has filled.
    """

    def __init__(self, target: Target, content: Content, run: int = 0) -> None:
        self._content = content
        self._draws = random.Random(content.seed)  # noqa: S311 (nothing secret)
        first = random.Random(content.seed).randrange(10**6) + run  # noqa: S311 (nothing secret)
        self._numbers = count(first * 10**6)
        self._head = _head(target, content)
        self._prefixes = [self._words(content.prefix_tokens) for _ in range(content.prefixes)]
        self._before = self._after = b""
        if content.same:
            self._before, self._after = orjson.dumps(self._body(_MARK)).split(orjson.dumps(_MARK)[1:-1])

    def begin(self) -> Conversation:
        """The next conversation."""
        number, content = next(self._numbers), self._content
        if content.same:
            return _Numbered(self, number, {}, 1)
        return Conversation(self, number, self._body(str(number)), content.turns)

    def prompt(self) -> str:
        """The words of the next turn."""
        return self._words(self._content.prompt_tokens.whole(self._draws))

    def framed(self, body: bytes) -> bytes:
        """The HTTP request with this body."""
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def numbered(self, number: int) -> bytes:
        """The HTTP request with this number, if all are equal but for it."""
        return self.framed(b"%b%d%b" % (self._before, number, self._after))

    def _words(self, tokens: int) -> str:
        return " ".join(self._draws.choices(_WORDS, k=tokens))

    def _body(self, mark: str) -> Body:
        content = self._content
        length = content.output_tokens.whole(self._draws)
        body: Body = {"model": content.model, "max_tokens": length + content.thinking_tokens, "stream": content.stream}
        if content.api == "chat" and content.stream:
            body["stream_options"] = {"include_usage": True}
        if content.thinking_tokens:
            body["thinking"] = {"type": "enabled", "budget_tokens": content.thinking_tokens}
        if content.tools:
            body["tools"] = [_tool(number, content.api) for number in range(content.tools)]
        if content.dataset:
            chosen = self._draws.choice(content.dataset)
            return {**body, **chosen, "stream": content.stream, **content.extra}
        words = self._words(content.prompt_tokens.whole(self._draws) - 1)
        messages = [{"role": "user", "content": f"{mark} {words}".rstrip()}]
        if content.prefix_tokens:
            prefix = self._draws.choice(self._prefixes)
            if content.api == "messages":
                body["system"] = prefix
            else:
                messages.insert(0, {"role": "system", "content": prefix})
        return {**body, "messages": messages, **content.extra}


def _tool(number: int, api: Api) -> Body:
    """A tool as an agent has it: some hundred bytes of description and schema."""
    name, text = f"tool_{number}", f"Reads part {number} of the project. Use it before you change a file of that part."
    properties = {
        "path": {"type": "string", "description": "The path of the file, from the root of the project."},
        "from_line": {"type": "integer", "description": "The first line to read, counted from 1."},
    }
    schema = {"type": "object", "properties": properties, "required": ["path"]}
    if api == "chat":
        return {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    return {"name": name, "description": text, "input_schema": schema}


def read_dataset(path: Path) -> list[Body]:
    """A file of JSON lines: bodies with `messages`, or objects with a `prompt` or `text`. Raises BadRun.

    An object with a prompt may have `max_tokens`. Whether answers are streamed is a matter of the run.
    """
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as exc:
        raise BadRun(f"cannot read {unusable(path, exc)}") from exc
    found = [_read_body(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadRun(f"{path}: the file of requests is empty")
    return found


def _read_body(line: bytes, where: str) -> Body:
    try:
        value = orjson.loads(line)
    except ValueError as exc:
        raise BadRun(f"{where}: is not JSON; each line must be a JSON object") from exc
    if not isinstance(value, dict):
        raise BadRun(f"{where}: is not a JSON object")
    if "messages" in value:
        if not isinstance(value["messages"], list):
            raise BadRun(f"{where}: messages is not a list")
        return value
    text = next((value[name] for name in _PROMPTS if isinstance(value.get(name), str)), None)
    if text is None:
        raise BadRun(f"{where}: has neither messages nor a prompt, which is text")
    limit = {"max_tokens": value["max_tokens"]} if "max_tokens" in value else {}
    return {"messages": [{"role": "user", "content": text}], **limit}


def request_headers(api: Api, key: str | None, *, stream: bool) -> dict[str, str]:
    """The headers of a request that do not depend on the server and on the body."""
    headers = {"content-type": "application/json", "accept": "text/event-stream" if stream else "application/json"}
    if api == "messages":
        headers["anthropic-version"] = "2023-06-01"
    if key:
        headers |= {"x-api-key": key} if api == "messages" else {"authorization": f"Bearer {key}"}
    return headers


def _head(target: Target, content: Content) -> bytes:
    headers = {"host": target.authority} | request_headers(content.api, content.key, stream=content.stream)
    lines = [f"POST {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "content-length: "]).encode()
