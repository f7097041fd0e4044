"""The Messages API as an ASGI callable: a route is a look-up in a dict, and from there a request goes to `reply`."""

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Final

import orjson

from ..engines.base import ModelInfo
from ..observability.logs import log_event
from ..observability.metrics import Sample
from ..observability.otel import tracer_for
from ..wire.answer_limits import LIMITS, Limits
from ..wire.errors import ApiError, MethodNotAllowed, NotFound
from ..wire.large.cooperative import LARGE, in_turns
from ..wire.request import MessagesRequest, parse_request, parse_request_in_steps
from ..wire.request_policy import Rules
from . import models
from .admission import Admission
from .base_app import Service
from .http_request import Call
from .message_response import Reply
from .prompt_tokens import Counts, Tokenizer

Handler = Callable[["MessagesApp", Call], Awaitable[None]]
_PREFIXES: Final = ("/v1", "", "/v1/v1")  # clients put `/v1` into their base URL, or don't, or twice
_MODEL_PREFIXES: Final = tuple(f"{prefix}/models/" for prefix in _PREFIXES)
_log = logging.getLogger(__name__)


class MessagesApp(Service):
    """Serves the Messages API over `engine`, for clients with one of `keys`; see `Service`.

    `ping_interval` in seconds, `max_body` and `max_decompressed` in bytes. `max_concurrency` answers are given at one
    time, `max_queue` requests wait for their turn, `queue_timeout` seconds at most, and one key has at most
    `max_concurrency_per_key` of both. `aliases` maps names clients use (`*` stands for anything) to models of the
    engine. `hide_thinking` leaves reasoning out of answers to clients that disabled it. `rules` say what is let
    through, `limits` how much of an answer is kept here. `tokenizer` counts the tokens of a request for an engine that
    does not; it is called in a thread.
    """

    def __init__(
        self,
        engine: object,
        *,
        keys: Sequence[str] = (),
        ping_interval: float = 10.0,
        max_body: int = 32 * 1024 * 1024,
        max_decompressed: int = 32 * 1024 * 1024,
        max_concurrency: int = 1024,
        max_queue: int = 1024,
        queue_timeout: float = 5.0,
        max_concurrency_per_key: int | None = None,
        aliases: Mapping[str, str] | None = None,
        hide_thinking: bool = False,
        rules: Rules = Rules(),  # noqa: B008 - it is frozen
        limits: Limits = LIMITS,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__(engine, keys, _ROUTES)
        self._aliases = models.Aliases(aliases or {})
        self._ping_interval = ping_interval
        self._max_body = max_body
        self._max_decompressed = max_decompressed
        self._hide_thinking = hide_thinking
        self._rules = rules
        self._limits = limits
        self._counts = Counts(self.engine, tokenizer)
        self._admission = Admission(
            max_concurrency, max_queue, queue_timeout, max_concurrency_per_key, self.metrics.note
        )
        self.metrics.sample = self._sample
        self._readiness = ""  # as it was told last
        self.engine.observe = self.metrics.note

    async def _start(self) -> None:
        await super()._start()
        self._tracer = tracer_for(os.environ, self.metrics.outcomes.route)

    def _sample(self) -> Sample:
        connections = self.engine.connections()
        return Sample(self._admission.waiting, self._admission.running, self.draining, connections)

    # routes

    async def _answer(self, call: Call) -> None:
        await _route(call)(self, call)

    async def _messages(self, call: Call) -> None:
        key = self._keys.admit(call.headers)
        self._admission.look(key)
        request = await self._read_request(call, counting=False)
        call.record.stream = request.stream
        reply = Reply(
            call,
            self.engine,
            request,
            turn=self._admission.turn(key),
            metrics=self.metrics,
            forecast=self._counts.soon(request),
            ping_interval=self._ping_interval,
            hide_thinking=self._hide_thinking,
            limits=self._limits,
        )
        del request  # a stream is open for long, and a prompt is large
        await reply.run()

    async def _count_tokens(self, call: Call) -> None:
        self._keys.admit(call.headers)
        request = await self._read_request(call, counting=True)
        tokens, headers = await self._counts.best(request)
        await call.answer(200, orjson.dumps({"input_tokens": tokens}), headers=headers)

    async def _read_request(self, call: Call, *, counting: bool) -> MessagesRequest:
        request = await self._parsed(await call.body(self._max_body, self._max_decompressed), counting)
        if request.dropped:
            _log.warning("%s: dropped server tools: %s", call.request_id, ", ".join(request.dropped))
        request.engine_model = self._aliases.resolve(request.model)
        call.record.model = request.model
        call.trace.request_parsed(request)
        request.trace = call.trace.headers
        return request

    async def _parsed(self, body: list[bytes], counting: bool) -> MessagesRequest:
        if sum(map(len, body)) <= LARGE:
            return parse_request(b"".join(body), counting=counting, rules=self._rules)
        return await in_turns(parse_request_in_steps(body, counting=counting, rules=self._rules), perf_counter)

    async def _models(self, call: Call) -> None:
        self._keys.admit(call.headers)
        await call.answer(200, orjson.dumps(models.page(await self._listed(), call.query)))

    async def _model(self, call: Call) -> None:
        self._keys.admit(call.headers)
        prefix = next(prefix for prefix in _MODEL_PREFIXES if call.path.startswith(prefix))
        identity = call.path.removeprefix(prefix)
        await call.answer(200, orjson.dumps(models.one(await self._listed(), identity, self._aliases)))

    async def _listed(self) -> list[ModelInfo]:
        """What the engine has; while that is not known, what the aliases stand for. Raises ApiError without either."""
        try:
            known = await self.engine.models()
        except ApiError:
            if not self._aliases:
                raise
            known = self._aliases.targets()
        return self._aliases.listed(known)

    async def _ready(self, call: Call) -> None:
        if self.draining:
            readiness = "draining"
        elif await self.engine.ready():
            readiness = "ready"
        else:
            readiness = "the engine does not answer"
        if readiness != self._readiness:
            self._readiness = readiness
            log_event("ready") if readiness == "ready" else log_event("not_ready", reason=readiness)
        await call.answer(200 if readiness == "ready" else 503, orjson.dumps({"status": readiness}))


def _get(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "HEAD": handler}


_ROUTES: Final[dict[str, dict[str, Handler]]] = {
    **{f"{prefix}/messages": {"POST": MessagesApp._messages} for prefix in _PREFIXES},
    **{f"{prefix}/messages/count_tokens": {"POST": MessagesApp._count_tokens} for prefix in _PREFIXES},
    **{f"{prefix}/models": _get(MessagesApp._models) for prefix in _PREFIXES},
    "/healthz": _get(MessagesApp._alive),
    "/readyz": _get(MessagesApp._ready),
    "/metrics": _get(MessagesApp._measurements),
    "/": _get(MessagesApp._alive),
    "/api/hello": _get(MessagesApp._alive),
}
_ONE_MODEL: Final = _get(MessagesApp._model)


def _route(call: Call) -> Handler:
    """Raises NotFound for an unknown path and MethodNotAllowed for a known one."""
    methods = _ROUTES.get(call.path)
    if methods is None:
        if not call.path.startswith(_MODEL_PREFIXES):
            raise NotFound(f"no such path: {call.path[:200]}")
        methods = _ONE_MODEL
    handler = methods.get(call.method)
    if handler is None:
        allowed = ", ".join(methods)
        raise MethodNotAllowed(
            f"{call.method[:20]} is not allowed here; allowed: {allowed}", headers=(("allow", allowed),)
        )
    return handler
