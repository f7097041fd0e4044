"""Chat completions over an engine, as an ASGI application: its routes, and errors in OpenAI's format."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson

from ..engines.base import ModelInfo
from ..http.answer import Answer
from ..http.base_app import BaseApp
from ..http.body import read_body
from ..http.body_memory import BodyMemory
from ..http.http_request import HttpRequest
from ..wire import defaults
from ..wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from ..wire.errors import MethodNotAllowed, NotFound
from .chat_encoder import error_body, status_of
from .chat_request import parse
from .chat_response import CompletionResponse

Handler = Callable[["CompletionsApp", HttpRequest], Awaitable[None]]


class CompletionsApp(BaseApp):
    """Serves chat completions over an engine.

    Args:
        engine, keys, debug: see `BaseApp`.
        max_body, max_decompressed: bounds of a request body in bytes, as received and after decompression.
        limits: bounds, in bytes, of what is collected of an answer that is not streamed.
    """

    def __init__(
        self,
        engine: object,
        *,
        keys: Sequence[str] = (),
        max_body: int = defaults.MAX_BODY,
        max_decompressed: int = defaults.MAX_DECOMPRESSED,
        limits: AnswerLimits = DEFAULT_LIMITS,
        debug: bool = False,
    ) -> None:
        super().__init__(engine, keys, _ROUTES, debug=debug)
        self._max_body = max_body
        self._max_decompressed = max_decompressed
        self._limits = limits
        self._bodies = BodyMemory(note=self.metrics.note)

    # routes

    async def _dispatch(self, http_request: HttpRequest) -> None:
        await _route(http_request)(self, http_request)

    async def _respond_error(self, http_request: HttpRequest, exc: Exception) -> None:
        error = http_request.record_error(exc)
        await http_request.respond(status_of(error), error_body(error), headers=error.headers)

    async def _complete(self, http_request: HttpRequest) -> None:
        self._keys.authenticate(http_request.headers)
        with self._bodies.share(None) as share:
            body = b"".join(await read_body(http_request, self._max_body, self._max_decompressed, share))
            parsed = parse(body)
        request = parsed.request
        http_request.record.model, http_request.record.stream = request.model, request.stream
        request.request_id = http_request.request_id
        answer = Answer(self.engine, request, limits=self._limits, observe=self.metrics.note)
        response = CompletionResponse(http_request, answer, stream=request.stream, usage=parsed.usage)
        del body, parsed, request  # a prompt is large, and the engine alone needs it while a stream lasts
        await response.run()

    async def _list_models(self, http_request: HttpRequest) -> None:
        self._keys.authenticate(http_request.headers)
        listed = {"object": "list", "data": [_model_json(model) for model in await self._known_models()]}
        await http_request.respond(200, orjson.dumps(listed))

    async def _get_model(self, http_request: HttpRequest) -> None:
        self._keys.authenticate(http_request.headers)
        name = http_request.path.partition("models/")[2]
        model = next((model for model in await self._known_models() if model.id == name), None)
        if model is None:
            raise NotFound(f"no such model: {name[:200]}")
        await http_request.respond(200, orjson.dumps(_model_json(model)))

    async def _known_models(self) -> list[ModelInfo]:
        return await self.engine.models()

    async def _readiness(self, http_request: HttpRequest) -> None:
        if self.draining:
            await http_request.respond(503, b'{"status":"draining"}')
        else:
            await http_request.respond(200, b'{"status":"ready"}')


def _model_json(model: ModelInfo) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}


_GET: Final = ("GET", "HEAD")
_ROUTES: Final[dict[str, tuple[tuple[str, ...], Handler]]] = {
    **{f"{prefix}/chat/completions": (("POST",), CompletionsApp._complete) for prefix in ("/v1", "")},
    **{f"{prefix}/models": (_GET, CompletionsApp._list_models) for prefix in ("/v1", "")},
    **dict.fromkeys(("/", "/health", "/healthz"), (_GET, CompletionsApp._health)),
    "/readyz": (_GET, CompletionsApp._readiness),
    "/metrics": (_GET, CompletionsApp._metrics_page),
}


def _route(http_request: HttpRequest) -> Handler:
    """Raises NotFound for an unknown path and MethodNotAllowed for a known one."""
    methods, handler = _ROUTES.get(http_request.path, ((), None))
    if handler is None and http_request.path.startswith(("/v1/models/", "/models/")):
        methods, handler = _GET, CompletionsApp._get_model
    if handler is None:
        raise NotFound(f"no such path: {http_request.path[:200]}")
    if http_request.method not in methods:
        allowed = ", ".join(methods)
        raise MethodNotAllowed(f"{http_request.method[:20]} is not allowed here", headers=(("allow", allowed),))
    return handler
