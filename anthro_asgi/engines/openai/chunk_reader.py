"""Chunks of a chat-completions stream → deltas. Pure. The peculiarities of engines (contract section 6) end here.

A reader receives the payloads of events as they arrive. `end` is called when the body ends. The answer is complete when
the engine has sent a finish reason. `[DONE]` alone, or the end of the body, is not enough: such an answer broke off,
which is an error. Chunks after the finish reason are read for their usage only.

This is the general path, which parses every chunk. `fast_path` stands in front of it and passes on chunks that only
continue a text without parsing them (`read_delta`, `skip`). Tests compare the two paths.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from ...wire.answer_limits import DEFAULT_LIMITS, AnswerLimits, utf8_size
from ...wire.deltas import Batch, Delta, Finish, StopReason, Thinking
from ...wire.errors import BadUpstream
from ...wire.json_codec import loads
from ...wire.message import final_finish
from ..shared.reader import Reader
from ..shared.tool_calls import ToolCallQueue
from ..shared.upstream_errors import error_from_chunk
from .call_ids import signed_call_id
from .finish_reasons import stop_reason_of
from .think_tags import ThinkTagFilter
from .usage import TokenCounts

DONE: Final = b"[DONE]"


class ChunkReader(Reader):
    """Reads one answer.

    `stops` are the client's stop sequences. `new_id` returns an id for a call without one, or whose id is `taken` by a
    call of the history. `names` maps the engine's names of tools to the client's. `tags` finds thinking in the text.
    `limits` bound the calls that wait.

    Raises ApiError for an error that the engine reports in the stream, BadUpstream for chunks that cannot be read.
    """

    __slots__ = (
        "_active",
        "_blank",
        "_block",
        "_calls",
        "_chunk",
        "_counted",
        "_counts",
        "_finish",
        "_has_text",
        "_held_choices",
        "_in_deltas",
        "_kept",
        "_late_thinking",
        "_limits",
        "_modern",
        "_open_choices",
        "_payload",
        "_refused",
        "_stops",
        "_tags",
        "done",
        "reasoning_key",
        "unknown_finish_reason",
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
        self._stops = frozenset(stops)
        self._calls = ToolCallQueue(new_id, taken, names, limits=limits, hold=bool(self._stops))
        super().__init__(self._calls.repairs)
        self._tags = tags
        self._limits = limits
        self._kept = 0  # bytes that are held back
        self._payload = b""  # the latest chunk
        self._chunk: Any = None  # the same, parsed
        self._finish: Finish | None = None
        self._modern = False  # the engine uses `tool_calls`, so `function_call` is a duplicate
        self._refused = False
        self._in_deltas = False  # the answer comes in deltas, so a `message` repeats it
        self._counts = TokenCounts()
        self._counted = 0  # chunks with content, used if the engine reports no usage
        self._block = ""  # the kind of the latest block: text, thinking or call
        self._blank = ""  # white space after another block, held until other text follows
        self._has_text = False
        self._late_thinking: list[str] = []  # thinking after text, held until more content follows
        self._active = 0  # the index of the choice that is read as it arrives
        self._open_choices: dict[int, bool] = {}  # the choices so far, and whether each is unfinished
        self._held_choices: dict[int, list[tuple[dict[str, Any], bytes]]] = {}  # the deltas of all other choices
        self.done = False  # `[DONE]` was read
        self.reasoning_key: str | None = None  # the field in which the engine sent its latest reasoning
        self.unknown_finish_reason: str | None = None

    @property
    def finished(self) -> bool:
        return self._finish is not None and not any(self._open_choices.values())

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
            if type(chunk) is list and len(chunk) == 1:  # Gemini sends an error as a list
                chunk = chunk[0]
            self._payload, self._chunk = payload, chunk
            try:
                self._read_chunk(chunk, out)
            except (AttributeError, LookupError, RecursionError, TypeError) as exc:
                if self._finish is None:
                    raise BadUpstream("the engine sent a chunk of an unknown shape") from exc

    def _rest(self) -> list[Delta]:
        assert self._finish is not None  # noqa: S101 - for the type checker
        out: list[Delta] = []
        for index in sorted(self._held_choices):
            for delta, payload in self._held_choices[index]:
                self._payload, self._active = payload, index
                self._count_delta(delta, out)
        self._end_text(out)
        if self._blank and not self._has_text and not self._calls.has_calls:  # the only text of the answer
            self._pass_on(self._blank, out)
        if self._finish.stop_reason == "stop_sequence":
            self._calls.drop_unfinished()
        out += self._calls.release(at_end=True, cut=self._finish.stop_reason == "max_tokens")
        self._check_not_lost(self._finish)
        output = self._counts.output
        out += (self._counts.usage(self._counted if output is None else output), self._finish)
        if output is None or self._counts.prompt is None:
            self.repairs["usage"] += 1
        if self.unknown_finish_reason is not None or final_finish(self._finish, self._calls.has_calls) != self._finish:
            self.repairs["finish_reason"] += 1
        return out

    def _check_not_lost(self, finish: Finish) -> None:
        """Raises BadUpstream if nothing but thinking is left of the answer, because a call in it was lost."""
        if self._has_text or self._calls.has_calls or finish.stop_reason not in ("end_turn", "tool_use"):
            return
        if self.repairs["call_dropped"] or finish.stop_reason == "tool_use":
            raise BadUpstream("the engine's tool call cannot be read")
        if self.unknown_finish_reason is not None and not self._block:
            raise BadUpstream("the engine ended an empty answer with an unknown finish reason")

    @property
    def held(self) -> int:
        """About how many bytes of calls are held back."""
        return self._calls.held

    @property
    def called(self) -> bool:
        """Whether the answer has a tool call."""
        return self._calls.has_calls

    @property
    def has_text(self) -> bool:
        """Whether the answer has text."""
        return self._has_text

    @property
    def stopped_thinking(self) -> bool:
        """Whether the engine matched a stop sequence before it had given anything but thinking."""
        finish = self._finish
        stopped = finish is not None and finish.stop_reason == "stop_sequence"
        return stopped and self._block == "thinking" and not self._has_text and not self._calls.has_calls

    # for the fast path

    @property
    def last(self) -> tuple[bytes, Any]:
        """The latest chunk: its payload, and the same parsed."""
        return self._payload, self._chunk

    def release_chunk(self) -> None:
        """Drop the parsed form of the latest chunk. Otherwise it stays in memory until the next chunk is parsed."""
        self._chunk = None

    @property
    def is_split(self) -> bool:
        """Whether the answer has several choices, or one that is not the first."""
        return len(self._open_choices) > 1 or bool(self._active)

    def continuation(self, delta: dict[str, Any], key: str) -> Callable[[str], Batch] | None:
        """A function from the text of a chunk like the latest one to the only delta of that chunk.

        `delta` and `key` are those of the chunk's template. None if such a chunk gives more than one delta or needs
        more than its text: then `read_delta` reads it.
        """
        if self._tags is not None or self._refused or self.is_split:
            return None
        if key == "arguments":
            return self._calls.extender(delta["tool_calls"][0])
        if self._calls.busy:
            return None
        if key == "content":
            return str if self._block == "text" and not self._late_thinking and not self._blank else None
        return Thinking if self._block == "thinking" and delta.get("content") is None and not self._has_text else None

    def place(self) -> bytes:
        """Where the arguments go on that `continuation` returned a function for (see `JsonObject.place`)."""
        return self._calls.place()

    def read_delta(self, delta: dict[str, Any]) -> list[Delta]:
        """The deltas of a chunk whose only content is `delta`. Raises as `feed`."""
        out: list[Delta] = []
        self._count_delta(delta, out)
        return out

    def skip(self, chunks: int, last: dict[str, Any] | None) -> None:
        """Note `chunks` chunks that the fast path has read. `last` has the latest usage among them, if any."""
        self._counted += chunks
        if last is not None:
            self._counts.note(last)

    # one chunk

    def _read_chunk(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        error = error_from_chunk(chunk)
        if error is not None and self._finish is None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise
        if self._counts.note(chunk):
            out.append(self._counts.usage(None))
        choices = chunk.get("choices")
        if choices:
            for choice in choices:
                self._read_choice(choice, chunk, out)

    def _read_choice(self, choice: dict[str, Any], chunk: dict[str, Any], out: list[Delta]) -> None:
        """Read one choice. One is read as it arrives, the others are held and read at the end.

        This service asks for one choice. Some engines put each call in a choice of its own.
        """
        index = choice.get("index") or 0
        if not self._open_choices.setdefault(index, True):
            return
        delta = choice.get("delta")
        if delta:
            self._in_deltas = True
        else:
            delta = self._unseen(choice.get("message"))
        reason = choice.get("finish_reason")
        if delta:
            if index != self._active and not self._block and _has_content(delta):
                self._active = index
            if index == self._active:
                self._count_delta(delta, out, hold_calls=bool(reason) and self._matched(choice, chunk) is not None)
            elif _has_content(delta):
                self._held_choices.setdefault(index, []).append((delta, self._payload))
                self._hold(len(self._payload))
        if reason:
            self._open_choices[index] = False
            self._note_finish(reason.get("type") if isinstance(reason, dict) else reason, choice, chunk)
        elif not delta and index != self._active:
            del self._open_choices[index]  # a choice without content needs no finish reason

    def _unseen(self, message: dict[str, Any] | None) -> dict[str, Any] | None:
        """What `message` has that the answer has not. Some engines repeat the whole answer behind its deltas."""
        if not message or not self._in_deltas:
            return message
        seen: tuple[str, ...] = ("content", "refusal") if self._has_text else ()
        seen += _REASONING_KEYS if self.reasoning_key is not None else ()
        rest = {key: value for key, value in message.items() if key not in seen}
        if self._calls.has_calls:  # the queue knows a repeated call by its id
            rest["tool_calls"] = [call for call in rest.get("tool_calls") or () if call.get("id")]
            rest.pop("function_call", None)
        return rest

    def _hold(self, size: int) -> None:
        self._kept += size
        self._limits.check_answer(self._kept)

    def _count_delta(self, delta: dict[str, Any], out: list[Delta], *, hold_calls: bool = False) -> None:
        before = len(out)
        self._delta(delta, out, hold_calls=hold_calls)
        if self._calls.busy or (len(out) > before and out[-1]):
            self._counted += 1

    def _delta(self, delta: dict[str, Any], out: list[Delta], *, hold_calls: bool = False) -> None:
        if not _REASONING_NAMES.isdisjoint(delta):
            self._reasoning(delta, out)
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
        if self._calls.busy and not hold_calls:
            out += self._calls.release()

    def _reasoning(self, delta: dict[str, Any], out: list[Delta]) -> None:
        for key in _REASONING_KEYS:
            thinking = delta.get(key)
            if thinking:
                if isinstance(thinking, str | list | dict):
                    self.reasoning_key = key
                self._think(thinking, out)
                break

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
        """Pass on text or thinking, unless it may have to be left out (contract 5.11)."""
        if isinstance(delta, Thinking):
            if self._has_text:
                self._late_thinking.append(delta.text)
                self._hold(utf8_size(delta.text))
                return
            self._blank = ""
            self._block = "thinking"
        elif delta and (self._block != "text" or self._late_thinking or self._blank):
            text = self._blank + delta
            if self._block and text.isspace():
                self._hold(len(delta))
                self._blank = text
                return
            self._release_late_thinking(out)
            delta, self._blank = text, ""
            self._block = "text"
            self._has_text = True
        self._pass_on(delta, out)

    def _pass_on(self, delta: str | Thinking, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.add(delta)
        else:
            out.append(delta)

    def _release_late_thinking(self, out: list[Delta]) -> None:
        thinking = "".join(self._late_thinking)
        self._late_thinking.clear()
        if thinking.strip():
            self._pass_on(Thinking(thinking), out)

    def _before_call(self) -> list[Delta]:
        """The deltas that stand before a new call, which is added to the queue after them."""
        before: list[Delta] = []
        thinking = "".join(self._late_thinking)
        self._late_thinking.clear()
        if thinking.strip():
            before.append(Thinking(thinking))
        self._blank = ""
        self._block = "call"
        return before

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
            index + _PER_CHOICE * self._active if isinstance(index, int) else None,
            identity if isinstance(identity, str) and identity else None,
            name if isinstance(name, str) else None,
            arguments or "",
            self._before_call,
        )

    def _exactly(self, where: tuple[str | int, ...]) -> str:
        """Arguments that are an object, as JSON text. Read again, for orjson rounds integers over 64 bits."""
        choices = json.loads(self._payload)["choices"]
        choice = next(choice for choice in choices if (choice.get("index") or 0) == self._active)
        found = choice.get("delta") or choice["message"]
        for step in where:
            found = found[step]
        return json.dumps((found.get("function") or found)["arguments"], ensure_ascii=False, separators=(",", ":"))

    # the finish reason and the usage

    def _note_finish(self, finish_reason: Any, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        reason, is_known = stop_reason_of(finish_reason)
        if reason is None:
            raise BadUpstream("the engine aborted the answer", reason="ended_early")
        if not is_known:
            self.unknown_finish_reason = str(finish_reason)
        matched = self._matched(choice, chunk)
        if self._refused:
            finish = Finish("refusal")
        elif matched is not None and (reason == "end_turn" or self._calls.has_unfinished):
            finish = Finish("stop_sequence", matched)
        else:
            finish = Finish(reason)
        if self._finish is None or _RANK[finish.stop_reason] > _RANK[self._finish.stop_reason]:
            self._finish = finish

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


_PER_CHOICE: Final = 1_000_000  # between the call indexes of two choices
_RANK: Final[dict[StopReason, int]] = {  # of several choices, the highest one decides
    "end_turn": 0,
    "pause_turn": 0,
    "tool_use": 1,
    "stop_sequence": 2,
    "refusal": 3,
    "max_tokens": 4,
}
_REASONING_KEYS: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
_REASONING_NAMES: Final = frozenset(_REASONING_KEYS)
_CONTENT_KEYS: Final = ("content", *_REASONING_KEYS, "refusal", "tool_calls", "function_call")


def _has_content(delta: dict[str, Any]) -> bool:
    return any(delta.get(key) for key in _CONTENT_KEYS)


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
