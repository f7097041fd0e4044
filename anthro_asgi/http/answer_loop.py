"""The answer loop: one answer for the client, made of several answers of the engine (contract 3.47).

    1. compaction, if the request asks for it: the engine writes a summary ─► a compaction block ─► the client
    2. the engine answers ─► text, thinking and calls of client tools ────────────────────────────► the client
    3. calls of server tools in that answer: run here ─► the blocks of calls and results ─────────► the client
    4. if there were such calls: add them and their results to the messages, and go back to 2

`AnswerLoop` is itself an engine, so all that holds for an answer (one slot, back-pressure, cancellation, stop
sequences, a stream or one Message) holds for the whole loop. A request that needs no loop never gets here.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Final, NamedTuple

from ..engines.base import BaseEngine, Observer
from ..wire.answer_limits import AnswerLimits
from ..wire.compaction import COMPACT, SUMMARY_TOKENS, Compaction, compaction_block, summary_message, summary_of
from ..wire.deltas import Batch, Block, Delta, Finish, Usage, deltas_of
from ..wire.errors import UpstreamTimeout
from ..wire.estimate import estimate_in_steps
from ..wire.large.cooperative import run_with_yields
from ..wire.message import MessageBuilder
from ..wire.request import MessagesRequest, Tool, ToolChoice, definition, raw_with_messages
from ..wire.server_calls import ServerCall, ServerCallReader, UsageSum
from ..wire.server_tools import (
    FunctionTool,
    ToolSearch,
    block_type,
    function_result,
    tool_search_error,
    tool_search_result,
    with_calls,
)
from ..wire.tool_search import SearchFailed, search_tools
from ..wire.web_search import (
    SearchRefused,
    WebSearch,
    WebSearcher,
    permitted_hits,
    web_search_error,
    web_search_result,
)
from .answer import Answer, in_input_thread

Json = dict[str, Any]
ServerFunction = Callable[[Json], Awaitable[str]]
"""Runs a call: takes its input, and returns the result for the model as text. Raises ToolFailed, or any exception."""

MAX_ROUNDS: Final = 10
"""Answers of the engine in one answer. After these, the client gets `pause_turn` and may send the answer back."""
SERVER_NAME: Final = "anthro-asgi"
"""The server that an `mcp_tool_use` block names."""
_NOT_FOR_SUMMARY: Final = frozenset({"output_config", "output_format", "stop_sequences"})
_FORCED: Final = frozenset({"any", "tool"})
_MAX_TOOL_CHANGES: Final = 1 << 20  # bytes of a large request that are read again for a compaction block
_log = logging.getLogger(__name__)


class ToolFailed(Exception):
    """A ServerFunction raises it for a failure that the model shall know of. The text is for the model."""


class ToolResult(NamedTuple):
    """The result of a call: the block for the client, and the deferred tools that can be called from now on."""

    block: Json
    found: tuple[str, ...] = ()


class AnswerLoop(BaseEngine):
    """Answers a request with `server_tools` by asking `engine` again until it calls none of them any more.

    Args:
        functions: run the calls of each FunctionTool, by the name of the tool.
        limits: bounds, in bytes, of what is kept of one answer of the engine.
        observe: as for `Answer`.
        deadline: seconds that the whole answer may take; None is no limit beside the engine's own.
        keep_summary: is called with the summary of a compaction.
        web_search: answers the queries of WebSearch.
    """

    def __init__(
        self,
        engine: BaseEngine,
        functions: Mapping[str, ServerFunction],
        *,
        limits: AnswerLimits,
        observe: Observer,
        deadline: float | None = None,
        keep_summary: Callable[[str], None] | None = None,
        web_search: WebSearcher | None = None,
    ) -> None:
        self._web_search = web_search
        self._keep_summary = keep_summary
        self._engine = engine
        self._functions = functions
        self._limits = limits
        self._observe = observe
        self._deadline = deadline
        self.accepts_server_tools = engine.accepts_server_tools

    def describe(self) -> str | None:
        return self._engine.describe()

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        """The deltas of all answers, with one Finish. Raises what the engine raises, and UpstreamTimeout."""
        until = None if self._deadline is None else asyncio.get_running_loop().time() + self._deadline
        conversation = _Conversation(request)
        compaction = request.compaction
        del request
        if compaction is not None:
            block = await self._compact(conversation, compaction, until)
            if compaction.is_shown:
                yield block
            if compaction.pauses:
                yield [conversation.usage.total, Finish("compaction")]
                return
        for number in range(1, MAX_ROUNDS + 1):
            reader = conversation.reader()
            builder = MessageBuilder("", "", _no_estimate, limits=self._limits)
            following = await _with_estimate(await conversation.next_request())
            async with Answer(self._engine, following, observe=self._observe) as answer:
                del following  # the engine releases it
                while reader.finish is None:
                    async with _within(until):
                        batch = await anext(answer)
                    out = reader.feed(batch)
                    await _feed(builder, out)
                    if number == 1 and reader.finish is None:  # these counts may go into `message_start`
                        out += [delta for delta in deltas_of(batch) if isinstance(delta, Usage)]
                    if out:
                        yield out
            builder.usage = answer.usage
            await _feed(builder, [reader.finish])
            conversation.add_answer(builder.message(answer.counted)["content"], answer.usage)
            if reader.calls:
                async with _within(until):
                    results = await asyncio.gather(*(self._run(call, conversation) for call in reader.calls))
                conversation.add_results(results)
                yield [Block(result.block) for result in results]
            yield conversation.usage.total
            finish = conversation.ending(reader, answer.stop_matched)
            if finish is not None:
                yield finish
                return
        yield Finish("pause_turn")

    async def _compact(self, conversation: "_Conversation", compaction: Compaction, until: float | None) -> Block:
        """Let a summary take the place of the conversation. Returns the block for the client."""
        request = await _with_estimate(conversation.summary_request(compaction))
        answer = Answer(self._engine, request, limits=self._limits, observe=self._observe)
        del request  # the engine releases it
        async with _within(until):
            message = await answer.message()
        summary = summary_of("".join(block["text"] for block in message["content"] if block["type"] == "text"))
        block = conversation.compact(summary, compaction.kept, answer.usage)
        if summary is None:
            return Block(block)
        if self._keep_summary is not None:
            self._keep_summary(summary)
        return Block(block, {**block, "content": None}, [{"type": "compaction_delta", "content": summary}])

    async def _run(self, call: ServerCall, conversation: "_Conversation") -> ToolResult:
        """The result of a call. A tool that fails is a result too: the model may try something else."""
        tool = conversation.request.server_tools[call.name]
        match tool:
            case ToolSearch():
                return await _search(call, tool, conversation.request)
            case WebSearch():
                return await self._search_web(call, tool, conversation)
            case FunctionTool():
                return await self._call_function(call, conversation.request)

    async def _search_web(self, call: ServerCall, tool: WebSearch, conversation: "_Conversation") -> ToolResult:
        request_id = conversation.request.request_id
        try:
            query = tool.query(call.input)
            if self._web_search is None:
                raise SearchRefused("unavailable")
            if not conversation.may_search(tool.max_uses):
                raise SearchRefused("max_uses_exceeded")
            hits = permitted_hits(query, await self._web_search(query))
            conversation.usage.count_tool_use("web_search_requests")
        except SearchRefused as exc:
            return ToolResult(web_search_error(call.id, exc.error_code))
        except Exception as exc:  # the operator's search engine
            _log.warning("web search failed request_id=%s: %s", request_id, type(exc).__name__)
            return ToolResult(web_search_error(call.id, "unavailable"))
        return ToolResult(web_search_result(call.id, hits))

    async def _call_function(self, call: ServerCall, request: MessagesRequest) -> ToolResult:
        text, is_error = "the arguments are not valid JSON", True
        if call.input is not None:
            try:
                text, is_error = await self._functions[call.name](call.input), False
            except ToolFailed as exc:
                text = str(exc)
            except Exception:  # the application's own code
                _log.exception("server tool %s failed request_id=%s", call.name, request.request_id)
                text = "the tool failed"
        return ToolResult(function_result(call.id, text, is_error=is_error))


async def _search(call: ServerCall, tool: ToolSearch, request: MessagesRequest) -> ToolResult:
    try:
        if call.input is None:
            raise SearchFailed("invalid_tool_input", "the arguments are not valid JSON")
        steps = search_tools(tool.kind, call.input, request.deferred_tools, request.cuts)
        names = await run_with_yields(steps, perf_counter)
    except SearchFailed as exc:
        return ToolResult(tool_search_error(call.id, exc.error_code, exc.reason))
    return ToolResult(tool_search_result(call.id, names), tuple(names))


async def _feed(builder: MessageBuilder, deltas: list[Delta]) -> None:
    if builder.has_large_input and builder.ends_block(deltas):
        await in_input_thread(partial(builder.feed, deltas))
    else:
        builder.feed(deltas)


@asynccontextmanager
async def _within(until: float | None) -> AsyncIterator[None]:
    """Raises UpstreamTimeout if the block is not left by `until`, on the clock of the event loop."""
    try:
        async with asyncio.timeout_at(until) as timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        raise UpstreamTimeout("the answer took too long") from None


async def _with_estimate(request: MessagesRequest) -> MessagesRequest:
    """The request. If it is large, its length is estimated in steps: an answer may need it, and takes no steps."""
    if request.is_large:
        await run_with_yields(estimate_in_steps(request), perf_counter)
    return request


def _without_compaction(config: Json) -> Json:
    """The field `context_management` for an engine that speaks Messages, without the edit that was made here."""
    return {**config, "edits": [edit for edit in config["edits"] if edit["type"] != COMPACT]}


def _no_estimate() -> int:
    raise AssertionError("the usage of an answer that has ended is complete")


def _new_id(kind: str) -> str:
    return f"{'mcptoolu' if kind == 'mcp_tool_use' else 'srvtoolu'}_{secrets.token_hex(12)}"


class _Conversation:
    """The request, and what was added to it by the answers and results so far."""

    def __init__(self, request: MessagesRequest) -> None:
        thinking = request.thinking  # the engine gets its own thinking back, also if the client does not
        raw = {key: value for key, value in request.raw.items() if key != "compaction"}
        if request.compaction is not None and "context_management" in raw:
            raw["context_management"] = _without_compaction(raw["context_management"])
        self.request = replace(
            request,
            raw=raw,
            compaction=None,
            context_edits=(),
            direct_output=None,
            held=None,  # the engine may not free what the next request needs
            thinking=None if thinking is None else replace(thinking, display=None),
        )
        self.usage = UsageSum()
        self._blocks: list[Json] = []
        self._spent = 0  # output tokens
        self._searches = 0
        self._found: set[str] = set()

    def summary_request(self, compaction: Compaction) -> MessagesRequest:
        """The request for a summary. It differs from the conversation as late as possible, for the prefix cache."""
        request = self.request
        choice = request.tool_choice
        end = len(request.messages) - compaction.kept
        messages = [*request.messages[:end], {"role": "user", "content": compaction.prompt}]
        raw = {key: value for key, value in request.raw.items() if key not in _NOT_FOR_SUMMARY}
        if choice is not None and choice.type in _FORCED:
            choice = None
            raw.pop("tool_choice", None)
        return replace(
            request,
            messages=messages,
            max_tokens=SUMMARY_TOKENS,
            stop_sequences=(),
            output_schema=None,
            tool_choice=choice,
            raw={**raw, "messages": messages, "max_tokens": SUMMARY_TOKENS},
        )

    def compact(self, summary: str | None, kept: int, usage: Usage) -> Json:
        """Let the summary take the place of all but the last `kept` messages, if there is one. Returns its block."""
        self.usage.add(usage, "compaction")
        request = self.request
        changes = self._tool_changes()
        if summary is not None:
            messages = [summary_message(summary), *request.messages[len(request.messages) - kept :]]
            self.request = replace(request, messages=messages, raw=raw_with_messages(request, messages))
        return compaction_block(summary, changes)

    def _tool_changes(self) -> list[Json] | None:
        """What the messages changed in the list of tools; None if nothing in the request changes it."""
        request = self.request
        if not request.tool_changes:
            return [] if request.deferred_tools else None
        if request.cuts is None:
            return request.tool_changes
        whole = request.cuts.value({"tool_changes": request.tool_changes}, _MAX_TOOL_CHANGES)
        return None if whole is None else whole["tool_changes"]

    def reader(self) -> ServerCallReader:
        kinds = {name: block_type(tool) for name, tool in self.request.server_tools.items()}
        return ServerCallReader(kinds, SERVER_NAME, _new_id)

    async def next_request(self) -> MessagesRequest:
        """The request for the engine's next answer."""
        request = self.request
        if not self._blocks:
            return request
        called = with_calls([{"role": "assistant", "content": self._blocks}], frozenset(request.server_tools))
        turn = await run_with_yields(called, perf_counter)
        messages = [*request.messages, *turn]
        tools = self._offered_tools()
        max_tokens = request.max_tokens - self._spent
        raw: Json = {
            **request.raw,
            "messages": messages,
            "tools": [definition(tool) for tool in tools],
            "max_tokens": max_tokens,
        }
        choice = request.tool_choice
        if choice is not None and choice.type in _FORCED:  # the first answer has satisfied it
            choice = ToolChoice("auto", parallel=choice.parallel)
            raw["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": not choice.parallel}
        return replace(request, messages=messages, tools=tools, max_tokens=max_tokens, tool_choice=choice, raw=raw)

    def _offered_tools(self) -> list[Tool]:
        """The tools, those that were found last: this is their order when the client sends the answer back."""
        deferred = {tool.name for tool in self.request.deferred_tools}
        offered = {tool.name for tool in self.request.tools} | self._found
        always = [tool for tool in self.request.tools if tool.name not in deferred]
        return [*always, *(tool for tool in self.request.deferred_tools if tool.name in offered)]

    def add_answer(self, blocks: list[Json], usage: Usage) -> None:
        self._blocks += blocks
        self._spent += usage.output_tokens or 0
        self.usage.add(usage)

    def may_search(self, max_uses: int | None) -> bool:
        """Whether one more web search is allowed. It counts as a use, also if it fails."""
        if max_uses is not None and self._searches >= max_uses:
            return False
        self._searches += 1
        return True

    def add_results(self, results: list[ToolResult]) -> None:
        self._blocks += [result.block for result in results]
        self._found.update(name for result in results for name in result.found)

    def ending(self, reader: ServerCallReader, stop_matched: str | None) -> Finish | None:
        """How the answer ends after the newest answer of the engine; None if the engine goes on."""
        finish = reader.finish
        if not reader.calls or finish is None:
            return finish
        if stop_matched is not None:
            return Finish("stop_sequence", stop_matched)
        if reader.has_client_calls or finish.stop_reason not in ("end_turn", "tool_use"):
            return finish
        return Finish("max_tokens") if self._spent >= self.request.max_tokens else None
