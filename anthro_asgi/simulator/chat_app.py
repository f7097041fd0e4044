"""The ASGI callable that speaks chat completions: its routes, and errors in OpenAI's shape."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson

from ..engines.base import ModelInfo
from ..http.base_app import Service
from ..http.http_request import Call
from ..wire.errors import MethodNotAllowed, NotFound
from .chat_encoder import error_body, status_of
from .chat_request import parse
from .chat_response import Reply

Handler = Callable[["CompletionsApp", Call], Awaitable[None]]


class CompletionsApp(Service):
    """Serves chat completions over `engine`, for clients with one of `keys`; see `Service`.

    `max_body` and `max_decompressed` in bytes.
    """

    def __init__(
        self,
        engine: object,
        *,
        keys: Sequence[str] = (),
        max_body: int = 32 * 1024 * 1024,
        max_decompressed: int = 32 * 1024 * 1024,
    ) -> None:
        super().__init__(engine, keys, _ROUTES)
        self._max_body = max_body
        self._max_decompressed = max_decompressed

    # routes

    async def _answer(self, call: Call) -> None:
        await _route(call)(self, call)

    async def _refuse(self, call: Call, exc: Exception) -> None:
        error = call.blame(exc)
        await call.answer(status_of(error), error_body(error), headers=error.headers)

    async def _complete(self, call: Call) -> None:
        self._keys.admit(call.headers)
        asked = parse(b"".join(await call.body(self._max_body, self._max_decompressed)))
        call.record.model, call.record.stream = asked.request.model, asked.request.stream
        reply = Reply(call, self.engine, asked)
        del asked  # a stream is open for long, and a prompt is large
        await reply.run()

    async def _models(self, call: Call) -> None:
        self._keys.admit(call.headers)
        listed = {"object": "list", "data": [_listed(model) for model in await self._known()]}
        await call.answer(200, orjson.dumps(listed))

    async def _model(self, call: Call) -> None:
        self._keys.admit(call.headers)
        name = call.path.partition("models/")[2]
        model = next((model for model in await self._known() if model.id == name), None)
        if model is None:
            raise NotFound(f"no such model: {name[:200]}")
        await call.answer(200, orjson.dumps(_listed(model)))

    async def _known(self) -> list[ModelInfo]:
        return await self.engine.models()

    async def _ready(self, call: Call) -> None:
        if self.draining:
            await call.answer(503, b'{"status":"draining"}')
        else:
            await call.answer(200, b'{"status":"ready"}')


def _listed(model: ModelInfo) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}


_GET: Final = ("GET", "HEAD")
_ROUTES: Final[dict[str, tuple[tuple[str, ...], Handler]]] = {
    **{f"{prefix}/chat/completions": (("POST",), CompletionsApp._complete) for prefix in ("/v1", "")},
    **{f"{prefix}/models": (_GET, CompletionsApp._models) for prefix in ("/v1", "")},
    **dict.fromkeys(("/", "/health", "/healthz"), (_GET, CompletionsApp._alive)),
    "/readyz": (_GET, CompletionsApp._ready),
    "/metrics": (_GET, CompletionsApp._measurements),
}


def _route(call: Call) -> Handler:
    """Raises NotFound for an unknown path and MethodNotAllowed for a known one."""
    methods, handler = _ROUTES.get(call.path, ((), None))
    if handler is None and call.path.startswith(("/v1/models/", "/models/")):
        methods, handler = _GET, CompletionsApp._model
    if handler is None:
        raise NotFound(f"no such path: {call.path[:200]}")
    if call.method not in methods:
        allowed = ", ".join(methods)
        raise MethodNotAllowed(f"{call.method[:20]} is not allowed here", headers=(("allow", allowed),))
    return handler
