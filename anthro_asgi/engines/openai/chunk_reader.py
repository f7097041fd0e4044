"""Chunks of a chat-completions stream → deltas. Pure. The peculiarities of engines (contract section 6) end here.

A reader receives the payloads of events as they arrive, and is told when the body ends. The answer is complete when the
engine has sent a finish reason. `[DONE]` alone, or the end of the body, is not enough: such an answer broke off, which
is an error. Chunks after the finish reason are read for their usage only.

This is the general path, which parses every chunk. `fast_path` stands in front of it and passes on chunks that only
continue a text without parsing them (`read_delta`, `skip`). Tests compare the two paths.
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
from ..shared.upstream_errors import error_from_chunk
from .call_ids import signed_call_id
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
    """Reads one answer.

    `stops` are the client's stop sequences. `new_id` returns an id for a call without one, or whose id is `taken` by a
    call of the history. `names` maps the engine's names of tools to the client's. `tags` finds thinking in the text.
    `limits` bound the calls that wait.

    Raises ApiError for an error that the engine reports in the stream, BadUpstream for chunks that cannot be read.
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
        "reasoning_key",
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
        self._payload = b""  # the latest chunk
        self._chunk: Any = None  # the same, parsed
        self._finish: Finish | None = None
        self._modern = False  # the engine uses `tool_calls`, so `function_call` is a duplicate
        self._refused = False
        self._prompt: int | None = None  # tokens, including the cached ones
        self._cached: int | None = None
        self._output: int | None = None
        self._counted = 0  # chunks with content, used if the engine reports no usage
        self.done = False  # `[DONE]` was read
        self.reasoning_key: str | None = None  # the field in which the engine sent its latest reasoning

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if self.done or payload == DONE:
                self.done = True  # nothing after it belongs to the answer
                break
            try:
                chunk = loads(payload)
            except orjson.JSONDecodeError as exc:
                if self._finish is not None or not payload.strip():
                    continue
                raise BadUpstream("the engine sent a chunk that is not JSON") from exc
            self._payload, self._chunk = payload, chunk
            try:
                self._read_chunk(chunk, out)
            except (AttributeError, LookupError, RecursionError, TypeError) as exc:
                if self._finish is None:
                    raise BadUpstream("the engine sent a chunk of an unknown shape") from exc

    def _rest(self) -> list[Delta]:
        assert self._finish is not None  # noqa: S101 - for the type checker
        out: list[Delta] = []
        self._end_text(out)
        out += self._calls.release(at_end=True, cut=self._finish.stop_reason == "max_tokens")
        out += (self._usage(self._counted if self._output is None else self._output), self._finish)
        if self._output is None or self._prompt is None:
            self.repairs["usage"] += 1
        if final_finish(self._finish, self._calls.has_calls) != self._finish:
            self.repairs["finish_reason"] += 1
        return out

    # for the fast path

    @property
    def last(self) -> tuple[bytes, Any]:
        """The latest chunk: its payload, and the same parsed."""
        return self._payload, self._chunk

    def continuation(self, delta: dict[str, Any], key: str) -> Callable[[str], Delta] | None:
        """A function from the text of a chunk like the latest one to the only delta of that chunk.

        `delta` and `key` are those of the chunk's template. None if such a chunk gives more than one delta or needs
        more than its text: then `read_delta` reads it.
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
        """The deltas of a chunk whose only content is `delta`. Raises as `feed`."""
        out: list[Delta] = []
        self._count_delta(delta, out)
        return out

    def skip(self, chunks: int, last: dict[str, Any] | None) -> None:
        """Note `chunks` chunks that the fast path has read. `last` has the latest usage among them, if any."""
        self._counted += chunks
        if last is not None:
            self._note_usage(last, [])

    # one chunk

    def _read_chunk(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        error = error_from_chunk(chunk)
        if error is not None and self._finish is None:
            raise error
        self._note_usage(chunk, out)
        choices = chunk.get("choices")
        if not choices or self._finish is not None:
            return
        choice = choices[0]
        if choice.get("index"):  # a second answer to the same request, which was not asked for
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
        thinking = delta.get("reasoning_content")
        key = "reasoning_content" if thinking else "reasoning"
        thinking = thinking or delta.get("reasoning")
        if thinking:
            self.reasoning_key = key
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
        elif not self._modern and delta.get("function_call"):  # beside tool_calls it is a duplicate
            self._end_text(out)
            self._function_call(delta["function_call"])
        if self._calls.busy:
            out += self._calls.release()

    def _content(self, content: Any, out: list[Delta]) -> None:
        """Text, or from some engines a part or a list of parts, each of which may be thinking or a refusal."""
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
            self._emit(text, out)
        else:
            for delta in self._tags.feed(text):
                self._emit(delta, out)

    def _end_text(self, out: list[Delta]) -> None:
        """Release text that was held for a tag: the text ends here."""
        if self._tags is not None:
            for delta in self._tags.flush():
                self._emit(delta, out)

    def _think(self, thinking: Any, out: list[Delta]) -> None:
        if self._tags is not None:
            for delta in self._tags.stop():
                self._emit(delta, out)
        for text in _texts(thinking):
            self._emit(Thinking(text), out)

    def _refuse(self, refusal: Any, out: list[Delta]) -> None:
        self._refused = True
        self._end_text(out)
        for text in _texts(refusal):
            self._emit(text, out)

    def _emit(self, delta: str | Thinking, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.add(delta)
        else:
            out.append(delta)

    # calls

    def _tool_calls(self, calls: list[dict[str, Any]]) -> None:
        for position, entry in enumerate(calls):
            index = entry.get("index")
            if index is None and not entry.get("id") and len(calls) > 1:
                index = position  # the only difference between them
            identity = signed_call_id(entry.get("id"), entry)
            self._call(index, identity, entry.get("function") or entry, ("tool_calls", position))

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
        """Arguments that are an object, as JSON text. Read again, for orjson rounds integers over 64 bits."""
        choice = json.loads(self._payload)["choices"][0]
        found = choice.get("delta") or choice["message"]
        for step in where:
            found = found[step]
        return json.dumps((found.get("function") or found)["arguments"], ensure_ascii=False, separators=(",", ":"))

    # the finish reason and the usage

    def _note_finish(self, reason: Any, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        if reason in _BROKEN_OFF:
            raise BadUpstream("the engine aborted the answer", reason="ended_early")
        if self._refused:
            self._finish = Finish("refusal")
            return
        matched = self._matched(choice, chunk)
        if matched is not None and reason not in _REASONS:
            self._finish = Finish("stop_sequence", matched)
        else:
            self._finish = Finish(_REASONS.get(reason, "end_turn"))

    def _matched(self, choice: dict[str, Any], chunk: dict[str, Any]) -> str | None:
        """The client's stop sequence that matched, from the fields of vLLM, SGLang and llama.cpp."""
        verbose = chunk.get("__verbose")
        reported = (
            choice.get("stop_reason"),
            choice.get("matched_stop"),
            verbose.get("stopping_word") if isinstance(verbose, dict) else None,
        )
        for word in reported:
            if isinstance(word, str) and word in self._stops:
                return word
        return None

    def _note_usage(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """Keep the latest of each count, and add a Usage as soon as the length of the prompt is known."""
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
        """The usage as the Messages API counts it: the cached tokens of a prompt apart from the others."""
        fresh = None if self._prompt is None else max(0, self._prompt - (self._cached or 0))
        return Usage(fresh, output, self._cached)


_LEGACY: Final = -1  # the index of the only call that the legacy `function_call` can make


def _texts(value: Any) -> list[str]:
    """The texts in a value that is a text, a part or a list of parts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    if isinstance(value, dict):
        return next((_texts(value[key]) for key in _TEXT_KEYS if value.get(key)), [])
    return []


_TEXT_KEYS: Final = ("text", "content", "thinking", "reasoning", "summary", "refusal")
