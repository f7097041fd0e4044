"""Chunks of a chat-completions stream → deltas. Pure; the engines' peculiarities (contract section 6) end here.

A reader is fed the payloads of events as they arrive and told when the body is over. It is done when the engine has
given a finish reason: `[DONE]` alone, or the end of the body, is no finish, and an answer that broke off is an error.
What comes after the finish is read for its usage only.

This is the slow and obvious way, in which every chunk is parsed. In front of it stands `splice`, which hands over what
goes on and on without parsing it (`read_delta`, `skip`); tests hold the two against each other.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from ...wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from ...wire.deltas import Delta, Finish, StopReason, Thinking, Usage
from ...wire.errors import BadUpstream
from ...wire.json_codec import loads
from ...wire.message import final_finish
from ..shared.reader import Reader
from ..shared.tool_calls import ToolCallQueue
from ..shared.upstream_errors import failure_in_stream
from .think_tags import ThinkTagFilter
from .usage import NO_COUNTS, token_counts

DONE: Final = b"[DONE]"
_BROKEN_OFF: Final = frozenset({"abort", "error"})
_REASONS: Final[dict[str, StopReason]] = {
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class ChunkReader(Reader):
    """Reads one answer. `stops` are the client's stop sequences; `new_id` makes ids for calls that have none, or one of
    those that are `taken` by the calls of the history. `names` are those that a tool has for the engine, where they are
    not its own. `tags` finds thinking in the text. `limits` are those of what waits for its turn.

    Raises ApiError for what the engine reports in the stream, and BadUpstream for what makes no sense.
    """

    __slots__ = (
        "_cached",
        "_calls",
        "_chunk",
        "_counted",
        "_finish",
        "_modern",
        "_output",
        "_payload",
        "_prompt",
        "_refused",
        "_stops",
        "_tags",
        "done",
    )

    def __init__(
        self,
        stops: Iterable[str],
        new_id: Callable[[], str],
        taken: Iterable[str] = (),
        *,
        names: Mapping[str, str] | None = None,
        tags: ThinkTagFilter | None = None,
        limits: AnswerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._calls = ToolCallQueue(new_id, taken, names, limits=limits)
        super().__init__(self._calls.repairs)
        self._stops = frozenset(stops)
        self._tags = tags
        self._payload = b""  # the chunk that was read last
        self._chunk: Any = None  # the same, parsed
        self._finish: Finish | None = None
        self._modern = False  # the engine speaks `tool_calls`
        self._refused = False
        self._prompt: int | None = None  # tokens, the cached ones too
        self._cached: int | None = None
        self._output: int | None = None
        self._counted = 0  # chunks that carried something, in place of a usage that never comes
        self.done = False  # `[DONE]` was read

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if self.done or payload == DONE:
                self.done = True  # nothing that follows is of the answer
                break
            try:
                chunk = loads(payload)
            except orjson.JSONDecodeError:
                if self._finish is not None or not payload.strip():
                    continue
                raise BadUpstream("the engine sent a chunk that is not JSON") from None
            self._payload, self._chunk = payload, chunk
            try:
                self._take(chunk, out)
            except (AttributeError, LookupError, RecursionError, TypeError):
                if self._finish is None:
                    raise BadUpstream("the engine sent a chunk of an unknown shape") from None

    def _rest(self) -> list[Delta]:
        assert self._finish is not None  # noqa: S101 - for the type checker
        out: list[Delta] = []
        self._end_text(out)
        out += self._calls.release(at_end=True)
        out += (self._usage(self._counted if self._output is None else self._output), self._finish)
        if self._output is None or self._prompt is None:
            self.repairs["usage"] += 1
        if final_finish(self._finish, self._calls.has_calls) != self._finish:
            self.repairs["finish_reason"] += 1
        return out

    # for who reads what goes on and on by itself

    @property
    def last(self) -> tuple[bytes, Any]:
        """The chunk that was read last, and the same parsed."""
        return self._payload, self._chunk

    def continuation(self, delta: dict[str, Any], key: str) -> Callable[[str], Delta] | None:
        """What makes of another text, in the place of that of the chunk read last, all that such a chunk would say.

        None where that takes more than this text and one delta for it; then `say` does it.
        """
        if self._tags is not None or self._refused:
            return None
        if key == "arguments":
            return self._calls.extender(delta["tool_calls"][0])
        if self._calls.busy:
            return None
        if key == "content":
            return str
        return Thinking if delta.get("content") is None else None

    def read_delta(self, delta: dict[str, Any]) -> list[Delta]:
        """What a chunk says that has this delta and nothing else of interest. Raises as `feed`."""
        out: list[Delta] = []
        self._count_delta(delta, out)
        return out

    def skip(self, chunks: int, last: dict[str, Any] | None) -> None:
        """So many chunks with nothing but text were read elsewhere; the last that told the usage is `last`."""
        self._counted += chunks
        if last is not None:
            self._note_usage(last, [])

    # one chunk

    def _take(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        error = failure_in_stream(chunk)
        if error is not None and self._finish is None:
            raise error
        self._note_usage(chunk, out)
        choices = chunk.get("choices")
        if not choices or self._finish is not None:
            return
        choice = choices[0]
        if choice.get("index"):  # a second answer to the same question was never asked for
            return
        delta = choice.get("delta") or choice.get("message")
        if delta:
            self._count_delta(delta, out)
        reason = choice.get("finish_reason")
        if reason:
            self._note_finish(reason.get("type") if isinstance(reason, dict) else reason, choice, chunk)

    def _count_delta(self, delta: dict[str, Any], out: list[Delta]) -> None:
        before = len(out)
        self._delta(delta, out)
        if self._calls.busy or (len(out) > before and out[-1] != ""):
            self._counted += 1

    def _delta(self, delta: dict[str, Any], out: list[Delta]) -> None:
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        if thinking:
            self._think(thinking, out)
        content = delta.get("content")
        if content is not None:
            self._content(content, out)
        refusal = delta.get("refusal")
        if refusal:
            self._refuse(refusal, out)
        calls = delta.get("tool_calls")
        if calls:
            self._modern = True
            self._end_text(out)
            self._tool_calls(calls)
        elif not self._modern and delta.get("function_call"):  # beside tool_calls it is their twin
            self._end_text(out)
            self._function_call(delta["function_call"])
        if self._calls.busy:
            out += self._calls.release()

    def _content(self, content: Any, out: list[Delta]) -> None:
        """Text, or (from some) a part or a list of parts, of which one may be thinking or a refusal."""
        if isinstance(content, str):
            if content or not self._calls.has_calls:
                self._text(content, out)
            return
        for part in content if isinstance(content, list) else (content,):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("thinking", "reasoning"):
                self._think(part, out)
            elif kind == "refusal":
                self._refuse(part, out)
            else:
                for text in _texts(part):
                    self._text(text, out)

    def _text(self, text: str, out: list[Delta]) -> None:
        if self._tags is None:
            self._say(text, out)
        else:
            for delta in self._tags.feed(text):
                self._say(delta, out)

    def _end_text(self, out: list[Delta]) -> None:
        """Something else follows the text, or nothing."""
        if self._tags is not None:
            for delta in self._tags.flush():
                self._say(delta, out)

    def _think(self, thinking: Any, out: list[Delta]) -> None:
        if self._tags is not None:
            for delta in self._tags.stop():
                self._say(delta, out)
        for text in _texts(thinking):
            self._say(Thinking(text), out)

    def _refuse(self, refusal: Any, out: list[Delta]) -> None:
        self._refused = True
        self._end_text(out)
        for text in _texts(refusal):
            self._say(text, out)

    def _say(self, delta: str | Thinking, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.add(delta)
        else:
            out.append(delta)

    # calls

    def _tool_calls(self, calls: list[dict[str, Any]]) -> None:
        for position, entry in enumerate(calls):
            index = entry.get("index")
            if index is None and not entry.get("id") and len(calls) > 1:
                index = position  # nothing else tells them apart
            self._call(index, entry.get("id"), entry.get("function") or entry, ("tool_calls", position))

    def _function_call(self, function: dict[str, Any]) -> None:
        self._call(_LEGACY, None, function, ("function_call",))

    def _call(self, index: Any, identity: Any, function: dict[str, Any], where: tuple[str | int, ...]) -> None:
        name = function.get("name")
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = self._exactly(where)
            self.repairs["call_input"] += 1
        self._calls.add_call(
            index if isinstance(index, int) else None,
            identity if isinstance(identity, str) and identity else None,
            name if isinstance(name, str) else None,
            arguments or "",
        )

    def _exactly(self, where: tuple[str | int, ...]) -> str:
        """Arguments that came as an object, read again: orjson makes a float of an integer beyond 64 bit."""
        choice = json.loads(self._payload)["choices"][0]
        found = choice.get("delta") or choice["message"]
        for step in where:
            found = found[step]
        return json.dumps((found.get("function") or found)["arguments"], ensure_ascii=False, separators=(",", ":"))

    # the end, and what it cost

    def _note_finish(self, reason: Any, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        if reason in _BROKEN_OFF:
            raise BadUpstream("the engine gave up on this answer")
        if self._refused:
            self._finish = Finish("refusal")
            return
        matched = self._matched(choice, chunk)
        if matched is not None and reason not in _REASONS:
            self._finish = Finish("stop_sequence", matched)
        else:
            self._finish = Finish(_REASONS.get(reason, "end_turn"))

    def _matched(self, choice: dict[str, Any], chunk: dict[str, Any]) -> str | None:
        """The client's stop sequence that matched, as vLLM, SGLang and llama.cpp say it, each in their own words."""
        verbose = chunk.get("__verbose")
        told = (
            choice.get("stop_reason"),
            choice.get("matched_stop"),
            verbose.get("stopping_word") if isinstance(verbose, dict) else None,
        )
        for word in told:
            if isinstance(word, str) and word in self._stops:
                return word
        return None

    def _note_usage(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """Keeps the newest of each count, and passes on the prompt's length as soon as it is known."""
        counts = token_counts(chunk)
        if counts is NO_COUNTS:
            return
        first = self._prompt is None
        prompt, output, cached = counts
        self._prompt = self._prompt if prompt is None else prompt
        self._output = self._output if output is None else output
        self._cached = self._cached if cached is None else cached
        if first and prompt is not None:
            out.append(self._usage(None))

    def _usage(self, output: int | None) -> Usage:
        """The Messages API counts the cached tokens of a prompt apart from the others."""
        fresh = None if self._prompt is None else max(0, self._prompt - (self._cached or 0))
        return Usage(fresh, output, self._cached)


_LEGACY: Final = -1  # the index of the one call that the `function_call` of old could make


def _texts(value: Any) -> list[str]:
    """The text in what should be one and may be a part, or a list of parts, as each engine has them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    if isinstance(value, dict):
        return next((_texts(value[key]) for key in _TEXT_KEYS if value.get(key)), [])
    return []


_TEXT_KEYS: Final = ("text", "content", "thinking", "reasoning", "summary", "refusal")
