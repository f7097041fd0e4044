"""The Messages API as an ASGI application: one dict look-up finds the handler of a request."""

import asyncio
import logging
import os
import re
import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, Final

import orjson

from ..batches.store import BatchStore, Claimed
from ..batches.worker import BatchWorker
from ..engines.base import BaseEngine, ModelInfo
from ..observability.logs import RequestRecord, log_event
from ..observability.metrics import Sample
from ..observability.otel import tracer_for
from ..wire import defaults
from ..wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from ..wire.citations import cite_documents
from ..wire.context_editing import edit_context, is_too_close, needs_prompt_length
from ..wire.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound
from ..wire.estimate import estimate_in_steps
from ..wire.json_codec import dumps, loads
from ..wire.known_tools import ToolCache
from ..wire.large.cooperative import FREED_AT_ONCE, LARGE_BODY, drop_in_steps, run_with_yields, takes_long
from ..wire.large.cuts import Cuts
from ..wire.large.json_reader import loads_in_steps
from ..wire.large.json_writer import dumps_in_steps
from ..wire.request import MessagesRequest, Tool, parse_request, parse_request_in_steps, show_calls
from ..wire.request_policy import Rules
from ..wire.server_tools import FunctionTool
from ..wire.web_search import WebSearcher
from . import models
from .admission import Admission, Key
from .answer import Answer
from .answer_loop import AnswerLoop, ServerFunction
from .auto_compaction import AutoCompaction
from .base_app import BaseApp
from .batches import BatchRoutes, owner_of
from .body import read_body
from .body_memory import BodyMemory, BodyShare
from .cache_diagnostics import CacheDiagnostics, CacheDiagnosticsMode
from .cache_warmer import CacheWarmer
from .citation_engine import CitationEngine
from .cors import Cors
from .direct_output import ClientOutput
from .file_sources import FileSources
from .files import FileRoutes
from .heap import HeapTrimmer
from .http_request import HttpRequest
from .keyword_checks import check_keywords
from .message_response import MessageResponse
from .page import HTML, accepts_html, page
from .pdf_reader import PdfMode, PdfReader, can_read_pdfs
from .prompt_tokens import PromptCounter, Tokenizer

Handler = Callable[["MessagesApp", HttpRequest], Awaitable[None]]
_PREFIXES: Final = ("/v1", "", "/v1/v1")  # clients add `/v1` to their base URL once, never, or twice
_SLASHES: Final = re.compile("//+")
_MODEL_PREFIXES: Final = tuple(f"{prefix}/models/" for prefix in _PREFIXES)
_BATCH_PREFIXES: Final = tuple(f"{prefix}/messages/batches/" for prefix in _PREFIXES)
_FILE_PREFIXES: Final = tuple(f"{prefix}/files/" for prefix in _PREFIXES)
_READINESS_AGE: Final = 1.0  # seconds
_LIST_TIMEOUT: Final = 1.0  # seconds for the model list that a log line names
_LISTED: Final = 20  # models that a log line names
_COUNTS: Final = 32  # token counts that run at the same time: fewer than the spare connections to the engine
_COUNT_TIMEOUT: Final = 2.0  # seconds that an answer waits for the length of its prompt, to edit the context
_log = logging.getLogger(__name__)


class MessagesApp(BaseApp):
    """Serves the Messages API over an engine.

    Args:
        engine, keys, debug: see `BaseApp`.
        ping_interval: seconds without output after which a stream gets a ping.
        max_body, max_decompressed: bounds of a request body in bytes, as received and after decompression.
        max_body_memory, max_body_memory_per_key: bytes of all bodies, and of those of one API key, whose requests have
            no slot yet.
        max_concurrency: answers that run at the same time.
        max_queue: requests that wait for one of these to end.
        queue_timeout: seconds that such a request waits at most.
        max_concurrency_per_key: requests of one API key that run or wait; None is no limit.
        aliases: maps model names of clients to models of the engine. A `*` in a name stands for any characters.
        hide_thinking: leave thinking out of answers to requests that disabled it.
        rules: which optional features of a request are accepted.
        limits: bounds, in bytes, of what is collected of an answer that is not streamed.
        tokenizer: counts the tokens of a request when the engine does not. It is called in a thread.
        cors_origins: origins, such as `https://app.example`, whose web pages may use the service; `*` is every origin.
        page: serve a page for browsers at `/`.
        server_tools: functions that run calls inside the answer, by the names of the tools. A client that declares a
            tool of this name in `tools` gets its calls and results as `mcp_tool_use` and `mcp_tool_result` blocks.
        total_deadline: seconds that an answer with server tools may take in all; None is no limit.
        compact_at: share of the engine's window from which a conversation is compacted, although the client does not
            ask for it; None never does it.
        pdf: what an engine gets of each page of a PDF: `text`, `images` for engines that see, or `both`; `refuse`
            refuses PDFs. It needs the extra `pdf`.
        web_search: an async function that searches the web: `wire.web_search.WebQuery` → WebHits. With it, the service
            runs the tool `web_search_…` itself.
        cache_diagnostics: say why a prefix cache missed to clients that ask (`asked`), in metrics and the debug log for
            every request, too (`all`), or never (`off`).
        cache_diagnostics_answers: answers of which the fingerprint of the prompt is kept for that.
        batch_store: where message batches and uploaded files are kept; None refuses them.
        batch_concurrency: requests of batches that run at the same time on one engine, in slots that clients leave.
        batch_lease: seconds after which another process may run the requests of a process that has died.
        batch_lateness: seconds by which the event loop may be late before fewer requests of batches run beside those of
            clients; 0 is no limit.
        max_file: largest file in bytes.
        max_files_per_key: bytes of all files of an API key.

    Raises TypeError or ValueError for a wrong keyword, and ValueError if `engine` is not an engine.

    Attributes:
        notice: what `/readyz` says in addition, for the operator; None is nothing.
    """

    def __init__(
        self,
        engine: object,
        *,
        keys: Sequence[str] = (),
        ping_interval: float = defaults.PING_INTERVAL,
        max_body: int = defaults.MAX_BODY,
        max_decompressed: int = defaults.MAX_DECOMPRESSED,
        max_body_memory: int = defaults.MAX_BODY_MEMORY,
        max_body_memory_per_key: int = defaults.MAX_BODY_MEMORY_PER_KEY,
        max_concurrency: int = defaults.MAX_CONCURRENCY,
        max_queue: int = defaults.MAX_QUEUE,
        queue_timeout: float = defaults.QUEUE_TIMEOUT,
        max_concurrency_per_key: int | None = None,
        aliases: Mapping[str, str] | None = None,
        hide_thinking: bool = False,
        rules: Rules = Rules(),  # noqa: B008 - it is frozen
        limits: AnswerLimits = DEFAULT_LIMITS,
        tokenizer: Tokenizer | None = None,
        cors_origins: Sequence[str] = (),
        page: bool = True,
        batch_store: BatchStore | None = None,
        batch_concurrency: int = defaults.BATCH_CONCURRENCY,
        batch_lease: float = defaults.BATCH_LEASE,
        batch_lateness: float = defaults.BATCH_LATENESS,
        max_file: int = defaults.MAX_FILE,
        max_files_per_key: int = defaults.MAX_FILES_PER_KEY,
        debug: bool = False,
        server_tools: Mapping[str, ServerFunction] | None = None,
        total_deadline: float | None = defaults.TOTAL_DEADLINE,
        compact_at: float | None = None,
        pdf: PdfMode = "text",
        web_search: WebSearcher | None = None,
        cache_diagnostics: CacheDiagnosticsMode = "asked",
        cache_diagnostics_answers: int = defaults.CACHE_DIAGNOSTICS_ANSWERS,
    ) -> None:
        check_keywords(locals())
        super().__init__(engine, keys, _ROUTES, debug=debug)
        self._aliases = models.ModelAliases(aliases or {})
        self._ping_interval = ping_interval
        self._max_body = max_body
        self._max_decompressed = max_decompressed
        # A tokenizer reads all of a prompt, and the digests by which summaries are found are those of its content.
        shares_tools = self.engine.takes_cuts and tokenizer is None
        self._takes_cuts = shares_tools and compact_at is None
        self._tool_cache: ToolCache[Tool] | None = ToolCache(secrets.token_hex()) if shares_tools else None
        self._bodies = BodyMemory(max_body_memory, max_body_memory_per_key, self.metrics.note)
        self._hide_thinking = hide_thinking
        self._pdf_reader = PdfReader(pdf) if pdf != "refuse" and can_read_pdfs() else None
        if pdf != "refuse" and not rules.pass_server_tools:  # a relayed upstream reads PDFs itself
            rules = replace(rules, pdfs="not_installed" if self._pdf_reader is None else "read")
        if batch_store is not None and not rules.pass_server_tools:  # such an upstream has files of its own
            rules = replace(rules, files=True)
        self._rules = rules if web_search is None else replace(rules, web_search=True)
        self._web_search = web_search
        self._limits = limits
        self._prompt_counter = PromptCounter(self.engine, tokenizer)
        self._admission = Admission(
            max_concurrency, max_queue, queue_timeout, max_concurrency_per_key, self.metrics.note
        )
        self._counting = Admission(
            _COUNTS,
            max_queue,
            queue_timeout,
            max_concurrency_per_key,
            self.metrics.note,
            self._admission.keys,
        )
        self._heap = HeapTrimmer()
        self.metrics.sample = self._sample
        self._server_functions = dict(server_tools or {})
        self._total_deadline = total_deadline
        self._auto_compaction = None if compact_at is None else AutoCompaction(self.engine, compact_at, self._is_longer)
        self._page = page
        self._diagnostics = (
            None
            if cache_diagnostics == "off"
            else CacheDiagnostics(cache_diagnostics_answers, self.metrics.note, every=cache_diagnostics == "all")
        )
        self._batches: BatchRoutes | None = None
        self._files: FileRoutes | None = None
        self._file_sources: FileSources | None = None
        if batch_store is not None:
            worker = BatchWorker(
                batch_store,
                self._answer_batch_request,
                self._admission,
                concurrency=batch_concurrency,
                lease=batch_lease,
                lateness=batch_lateness,
                note=self.metrics.note,
                engine_of=self._engine_of,
                engines=("", *self.engine.engine_names),
            )
            self.engine.slot_wanted = worker.make_room
            self._batches = BatchRoutes(batch_store, worker, max_params=max_decompressed)
            self._files = FileRoutes(
                batch_store.files, max_file=max_file, max_total=max_files_per_key, note=self.metrics.note
            )
            self._file_sources = FileSources(
                batch_store.files, max_size=max_decompressed, pdfs=rules.pdfs, note=self.metrics.note
            )
        self._cors = Cors(cors_origins) if cors_origins else None
        self.notice: str | None = None
        self._not_ready: str | None = None
        self._not_ready_until = float("-inf")  # on the loop's clock: until then, `_not_ready` is used without a check
        self._last_readiness = ""  # the status that `/readyz` reported last

    async def _start(self) -> None:
        await super()._start()
        self._tracer = tracer_for(os.environ, self.metrics.request_labels.route)
        if self._batches is not None:
            await self._batches.start()

    async def _stop(self) -> None:
        self._heap.stop()
        if self._batches is not None:
            await self._batches.stop()
        await super()._stop()

    def _sample(self) -> Sample:
        connections = self.engine.connections()
        ready = {name: reason is None for name, reason in self.engine.engine_states().items()}
        return Sample(self._admission.waiting, self._admission.running, self.draining, connections, ready)

    async def _respond_error(self, http_request: HttpRequest, exc: Exception) -> None:
        await super()._respond_error(http_request, exc)
        if isinstance(exc, NotFound) and http_request.record.model is not None:
            await self._log_unknown_model(http_request.record)

    async def _log_unknown_model(self, record: RequestRecord) -> None:
        """Log which models the client could have requested, and the option that adds a name."""
        listed: list[ModelInfo] = []
        with suppress(Exception):  # the list is a help, and the request has its response already
            async with asyncio.timeout(_LIST_TIMEOUT):
                listed = await self._known_models()
        served = ", ".join(model.id for model in listed[:_LISTED])
        name = record.model or "NAME"
        target = self._aliases.resolve(name)
        if target != name:
            remedy = f"--model-alias maps this name to {target}: name a model there that the engine serves"
        else:
            models = listed[0].id if len(listed) == 1 else "MODEL"
            pair = f"{'NAME' if '=' in name else name}={models}"
            remedy = f"serve another model under this name with --model-alias {shlex.quote(pair)}"
        log_event(
            "model_not_found",
            logging.WARNING,
            request_id=record.request_id,
            model=record.model,
            served=served or None,
            remedy=remedy,
        )

    # routes

    async def _dispatch(self, http_request: HttpRequest) -> None:
        if self._cors is not None and await self._cors.handle(http_request):
            return
        await _route(http_request)(self, http_request)

    async def _create_message(self, http_request: HttpRequest) -> None:
        key = self._keys.authenticate(http_request.headers)
        with self._bodies.share(key) as share:
            with self._admission.uploading(key):
                request = await self._read_request(http_request, key, share, counting=False)
            if request.context_edits or request.compaction is not None:
                await self._edit_context(request)
            keep_summary = None
            if self._auto_compaction is not None and request.compaction is None and not request.only_warms_cache:
                keep_summary = await self._auto_compaction.apply(request, key)
            http_request.record.stream = request.stream
            transport = http_request.client_transport
            direct = ClientOutput(transport, self.metrics) if transport is not None and request.stream else None
            request.direct_output = direct
            diagnosis = None if self._diagnostics is None else await self._diagnostics.diagnose(request, key)
            if request.is_large:
                request.hold()
                await run_with_yields(estimate_in_steps(request), perf_counter)
            estimate = self._prompt_counter.start_estimate(request)
            answer = Answer(
                self._engine_for(request, keep_summary),
                request,
                hide_thinking=self._hide_thinking,
                limits=self._limits,
                observe=self.metrics.note,
                estimate=estimate,
                fields=None if diagnosis is None else diagnosis.fields,
            )
            response = MessageResponse(
                http_request,
                answer,
                stream=request.stream,
                slot=self._admission.slot(key, share.release),
                metrics=self.metrics,
                estimate=estimate,
                ping_interval=self._ping_interval,
                ignored=request.ignored,
                headers=request.response_headers,
                direct=direct,
            )
            is_large = request.body_size > LARGE_BODY
            del request  # a prompt is large, and the engine alone needs it while a stream lasts
            try:
                await response.run()
            finally:
                estimate.release_request()  # also if the client disconnected before it had a slot
                if diagnosis is not None and http_request.record.ttft is not None:
                    diagnosis.answered(answer.id, answer.usage)
                if is_large:
                    self._heap.note_large_request()

    def _engine_for(self, request: MessagesRequest, keep_summary: Callable[[str], None] | None = None) -> BaseEngine:
        """The engine, or one built on it that does more for this request than to ask the engine once."""
        if request.only_warms_cache:
            return CacheWarmer(self.engine)
        engine = self.engine
        if request.server_tools or request.compaction is not None:
            engine = AnswerLoop(
                engine,
                self._server_functions,
                limits=self._limits,
                observe=self.metrics.note,
                deadline=self._total_deadline,
                keep_summary=keep_summary,
                web_search=self._web_search,
            )
        return engine if request.cited is None else CitationEngine(engine, request.cited)

    async def _count_tokens(self, http_request: HttpRequest) -> None:
        key = self._keys.authenticate(http_request.headers)
        counts: dict[str, object] = {}
        with self._bodies.share(key) as share:
            with self._counting.uploading(key):
                request = await self._read_request(http_request, key, share, counting=True)
            if request.is_large:
                await run_with_yields(estimate_in_steps(request), perf_counter)
            async with self._counting.slot(key, share.release):
                tokens, headers = await self._prompt_counter.count(request)
                if request.context_edits:
                    await run_with_yields(edit_context(request, tokens), perf_counter)
                    counts["context_management"] = {"original_input_tokens": tokens}
                    if request.applied_edits:
                        tokens, headers = await self._prompt_counter.count(request)
        counts["input_tokens"] = tokens
        headers = (*headers, *http_request.report_ignored(request.ignored), *request.response_headers)
        await http_request.respond(200, orjson.dumps(counts), headers=headers)

    async def _edit_context(self, request: MessagesRequest) -> None:
        """Apply the context edits, and decide whether the conversation is then long enough to be compacted.

        An engine that does not count the prompt in time is not waited for.
        """
        if request.context_edits:
            is_length_needed = await run_with_yields(needs_prompt_length(request), perf_counter)
            tokens = await self._count_in_time(request) if is_length_needed else None
            await run_with_yields(edit_context(request, tokens), perf_counter)
        if request.compaction is not None and not await self._is_longer(request, request.compaction.trigger):
            request.compaction = None

    async def _is_longer(self, request: MessagesRequest, trigger: int | None) -> bool:
        """Whether the prompt has at least `trigger` tokens. The engine counts it if an estimate could be wrong."""
        if trigger is None:
            return True
        tokens = await run_with_yields(estimate_in_steps(request), perf_counter)
        if is_too_close(tokens, trigger):
            tokens = await self._count_in_time(request) or tokens
        return tokens >= trigger

    async def _count_in_time(self, request: MessagesRequest) -> int | None:
        """The length of the prompt; None if the engine does not count it in time."""
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_COUNT_TIMEOUT):
                return (await self._prompt_counter.count(request))[0]
        return None

    async def _read_request(
        self, http_request: HttpRequest, key: Key, share: BodyShare, *, counting: bool
    ) -> MessagesRequest:
        body = await read_body(http_request, self._max_body, self._max_decompressed, share)
        request = await self._parse(body, counting)
        if request.is_large:
            request.hold()
            http_request.held = request.held
        if request.has_files or request.has_pdfs:
            await self._read_sources(request, owner_of(key), share)
        if request.cites:
            await run_with_yields(cite_documents(request), perf_counter)
        if request.dropped_tools:
            _log.warning("%s: dropped server tools: %s", http_request.request_id, ", ".join(request.dropped_tools))
        if self._server_functions:
            await self._add_functions(request)
        request.engine_model = self._aliases.resolve(request.model)
        http_request.record.model = request.model
        http_request.trace.request_parsed(request)
        request.trace_headers = http_request.trace.headers
        request.request_id = http_request.request_id
        if self.engine.engine_names:
            request.report_engine = partial(setattr, http_request.record, "engine")
        request.relay_headers = http_request.relay_headers()
        return request

    async def _add_functions(self, request: MessagesRequest) -> None:
        """Let the tools that are functions of the application run here."""
        declared = {tool.name for tool in (*request.tools, *request.deferred_tools)} - request.server_tools.keys()
        called = {name: FunctionTool(name) for name in self._server_functions if name in declared}
        if called:
            request.server_tools |= called
            await run_with_yields(show_calls(request), perf_counter)

    async def _parse(self, body: list[bytes], counting: bool) -> MessagesRequest:
        if takes_long(body):
            request = await self._parse_in_steps(body, counting)
        else:
            request = parse_request(b"".join(body), counting=counting, rules=self._rules, cache=self._tool_cache)
        return request

    async def _read_sources(self, request: MessagesRequest, owner: bytes, share: BodyShare | None = None) -> None:
        """Put the content of files into the request, and the pages of PDFs. Raises ApiError."""
        if request.has_files and self._file_sources is not None:
            await self._file_sources.read(request, owner, share)
        if request.has_pdfs and self._pdf_reader is not None:
            await self._pdf_reader.read(request)

    async def _parse_in_steps(self, body: list[bytes], counting: bool) -> MessagesRequest:
        size = sum(map(len, body))
        is_compared = self._diagnostics is not None and await run_with_yields(
            self._diagnostics.reads_all_of(body), perf_counter
        )
        cuts = Cuts() if self._takes_cuts and not is_compared else None
        expansion = None if size > LARGE_BODY else inf  # the values of a smaller body take a few MiB
        steps = parse_request_in_steps(body, counting=counting, rules=self._rules, cuts=cuts, expansion=expansion)
        try:
            return await run_with_yields(steps, perf_counter)
        finally:
            if size > LARGE_BODY:
                self._heap.note_large_request()

    async def _root(self, http_request: HttpRequest) -> None:
        """The page for a browser, the health check for any other client."""
        if self._page and accepts_html(http_request.header(b"accept")):
            body, headers = page()
            await http_request.respond(200, body, HTML, headers)
        else:
            await self._health(http_request)

    async def _openapi(self, http_request: HttpRequest) -> None:
        from .openapi import openapi_body  # its tables are needed by few processes

        await http_request.respond(200, openapi_body())

    # message batches

    def _batch_access(self, http_request: HttpRequest) -> tuple[BatchRoutes, bytes]:
        """The routes, and the owner whose batches the request may see. Raises Unauthenticated, or NotFound without."""
        owner = owner_of(self._keys.authenticate(http_request.headers))
        if self._batches is None:
            raise NotFound("message batches are off: the service was started without --batch-store")
        return self._batches, owner

    async def _create_batch(self, http_request: HttpRequest) -> None:
        batches, owner = self._batch_access(http_request)
        key = self._keys.authenticate(http_request.headers)
        with self._bodies.share(key) as share, self._counting.uploading(key):
            await batches.create(http_request, owner, share)

    async def _list_batches(self, http_request: HttpRequest) -> None:
        batches, owner = self._batch_access(http_request)
        await batches.list_batches(http_request, owner)

    async def _get_batch(self, http_request: HttpRequest) -> None:
        batches, owner = self._batch_access(http_request)
        await batches.get(http_request, owner)

    async def _delete_batch(self, http_request: HttpRequest) -> None:
        batches, owner = self._batch_access(http_request)
        await batches.delete(http_request, owner)

    async def _cancel_batch(self, http_request: HttpRequest) -> None:
        batches, owner = self._batch_access(http_request)
        await batches.cancel(http_request, owner)

    async def _batch_results(self, http_request: HttpRequest) -> None:
        batches, owner = self._batch_access(http_request)
        await batches.results(http_request, owner)

    async def _engine_of(self, claimed: Claimed) -> str:
        """The name of the engine that is to answer; "" if it is not known, or the only one."""
        if not self.engine.engine_names:
            return ""
        try:
            if takes_long([claimed.params]):
                held = [(await run_with_yields(loads_in_steps([claimed.params], Cuts()), perf_counter))[0]]
            else:
                held = [loads(claimed.params)]
        except (ApiError, ValueError):  # the request fails with it when it runs
            return ""
        model = held[0].get("model")
        await run_with_yields(drop_in_steps(held), perf_counter)
        return (isinstance(model, str) and self.engine.engine_for(self._aliases.resolve(model))) or ""

    async def _answer_batch_request(self, claimed: Claimed, request_id: str, held: list[Any]) -> bytes:
        """The Message that answers a request of a batch, as JSON. Raises ApiError, and what else the engine raises.

        `held` receives the values of a large request or answer, which the caller frees in steps.
        """
        request = await self._parse([claimed.params], counting=False)
        if request.is_large:
            request.held = held
            request.hold()
        if request.has_files or request.has_pdfs:
            await self._read_sources(request, claimed.owner)
        if request.cites:
            await run_with_yields(cite_documents(request), perf_counter)
        if request.stream:
            raise InvalidRequest("stream: must be false in a batch")
        if self._server_functions:
            await self._add_functions(request)
        request.engine_model = self._aliases.resolve(request.model)
        request.is_batched = True
        request.request_id = request_id
        if request.context_edits or request.compaction is not None:
            await self._edit_context(request)
        if request.is_large:
            request.hold()
            await run_with_yields(estimate_in_steps(request), perf_counter)
        answer = Answer(
            self._engine_for(request),
            request,
            hide_thinking=self._hide_thinking,
            limits=self._limits,
            observe=self.metrics.note,
        )
        del request  # the engine alone needs it, and releases it
        message = await answer.message()
        self.metrics.batch_tokens(answer.usage)
        if answer.collected > FREED_AT_ONCE:
            held.append(message)
        if answer.collected > LARGE_BODY:
            return b"".join(await run_with_yields(dumps_in_steps(message), perf_counter))
        return dumps(message)

    # uploaded files

    def _file_access(self, http_request: HttpRequest) -> tuple[FileRoutes, bytes]:
        """The routes, and the owner whose files the request may see. Raises Unauthenticated, or NotFound without."""
        owner = owner_of(self._keys.authenticate(http_request.headers))
        if self._files is None:
            raise NotFound("files are off: the service was started without --batch-store")
        return self._files, owner

    async def _create_file(self, http_request: HttpRequest) -> None:
        files, owner = self._file_access(http_request)
        key = self._keys.authenticate(http_request.headers)
        with self._bodies.share(key) as share, self._counting.uploading(key):
            await files.create(http_request, owner, share)

    async def _list_files(self, http_request: HttpRequest) -> None:
        files, owner = self._file_access(http_request)
        await files.list_files(http_request, owner)

    async def _get_file(self, http_request: HttpRequest) -> None:
        files, owner = self._file_access(http_request)
        await files.get(http_request, owner)

    async def _delete_file(self, http_request: HttpRequest) -> None:
        files, owner = self._file_access(http_request)
        await files.delete(http_request, owner)

    async def _file_content(self, http_request: HttpRequest) -> None:
        files, owner = self._file_access(http_request)
        await files.content(http_request, owner)

    # models

    async def _list_models(self, http_request: HttpRequest) -> None:
        self._keys.authenticate(http_request.headers)
        await http_request.respond(
            200, orjson.dumps(models.models_page(await self._known_models(), http_request.query))
        )

    async def _get_model(self, http_request: HttpRequest) -> None:
        self._keys.authenticate(http_request.headers)
        prefix = next(prefix for prefix in _MODEL_PREFIXES if http_request.path.startswith(prefix))
        identity = http_request.path.removeprefix(prefix)
        await http_request.respond(
            200, orjson.dumps(models.model_entry(await self._known_models(), identity, self._aliases))
        )

    async def _known_models(self) -> list[ModelInfo]:
        """The engine's models and the aliases. When the engine cannot list its models, the targets of the aliases.

        Raises ApiError when there are no aliases either.
        """
        try:
            known = await self.engine.models()
        except ApiError:
            if not self._aliases:
                raise
            known = self._aliases.targets()
        return self._aliases.with_aliases(known)

    async def _why_not_ready(self) -> str | None:
        """What the engine says, asked at most once a second: `/readyz` needs no key."""
        time = asyncio.get_running_loop().time
        if time() >= self._not_ready_until:
            self._not_ready = await self.engine.why_not_ready()
            self._not_ready_until = time() + _READINESS_AGE
        return self._not_ready

    async def _readiness(self, http_request: HttpRequest) -> None:
        readiness = "draining" if self.draining else await self._why_not_ready() or "ready"
        if readiness != self._last_readiness:
            self._last_readiness = readiness
            log_event("ready") if readiness == "ready" else log_event("not_ready", reason=readiness)
        body: dict[str, object] = {"status": readiness}
        if self.notice is not None:
            body["notice"] = self.notice
        if self.engine.engine_names:
            body["engines"] = {name: reason or "ready" for name, reason in self.engine.engine_states().items()}
        await http_request.respond(200 if readiness == "ready" else 503, orjson.dumps(body))


def _get(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "HEAD": handler}


_ROUTES: Final[dict[str, dict[str, Handler]]] = {
    **{f"{prefix}/messages": {"POST": MessagesApp._create_message} for prefix in _PREFIXES},
    **{f"{prefix}/messages/count_tokens": {"POST": MessagesApp._count_tokens} for prefix in _PREFIXES},
    **{
        f"{prefix}/messages/batches": {**_get(MessagesApp._list_batches), "POST": MessagesApp._create_batch}
        for prefix in _PREFIXES
    },
    **{f"{prefix}/files": {**_get(MessagesApp._list_files), "POST": MessagesApp._create_file} for prefix in _PREFIXES},
    **{f"{prefix}/models": _get(MessagesApp._list_models) for prefix in _PREFIXES},
    "/healthz": _get(MessagesApp._health),
    "/readyz": _get(MessagesApp._readiness),
    "/metrics": _get(MessagesApp._metrics_page),
    "/openapi.json": _get(MessagesApp._openapi),
    "/": _get(MessagesApp._root),
    "/api/hello": _get(MessagesApp._health),
}
_ONE_MODEL: Final = _get(MessagesApp._get_model)
_ONE_BATCH: Final[dict[str, dict[str, Handler]]] = {
    "": {**_get(MessagesApp._get_batch), "DELETE": MessagesApp._delete_batch},
    "cancel": {"POST": MessagesApp._cancel_batch},
    "results": {"GET": MessagesApp._batch_results},
}
"""The routes of one batch, by what follows its id in the path."""
_ONE_FILE: Final[dict[str, dict[str, Handler]]] = {
    "": {**_get(MessagesApp._get_file), "DELETE": MessagesApp._delete_file},
    "content": {"GET": MessagesApp._file_content},
}
"""The same for one file."""


def _route(http_request: HttpRequest) -> Handler:
    """Raises NotFound for an unknown path and MethodNotAllowed for a known one.

    Of a path that is not in the table, doubled slashes and a trailing slash are removed (contract 1.2).
    """
    methods = _ROUTES.get(http_request.path)
    if methods is None:
        path = _SLASHES.sub("/", http_request.path).removesuffix("/") or "/"
        if path.startswith(_MODEL_PREFIXES):
            methods = _ONE_MODEL
        elif path.startswith(_BATCH_PREFIXES):
            methods = _ONE_BATCH.get(path.partition("/batches/")[2].partition("/")[2])
        elif path.startswith(_FILE_PREFIXES):
            methods = _ONE_FILE.get(path.partition("/files/")[2].partition("/")[2])
        else:
            methods = _ROUTES.get(path)
        if methods is None:
            raise NotFound(f"no such path: {http_request.path[:200]}")
        http_request.path = http_request.record.path = path
    handler = methods.get(http_request.method)
    if handler is None:
        allowed = ", ".join(methods)
        raise MethodNotAllowed(
            f"{http_request.method[:20]} is not allowed here; allowed: {allowed}", headers=(("allow", allowed),)
        )
    return handler
