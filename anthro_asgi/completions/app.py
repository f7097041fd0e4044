"""The ASGI callable that speaks chat completions: routes, keys, lifespan, and errors in OpenAI's shape."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import orjson

from ..auth import Keys
from ..call import Call, ClientLeft, Receive, Scope, Send
from ..engines import ModelInfo, as_engine
from ..lifespan import have, live
from ..logs import log_failure, log_request
from ..metrics import Metrics
from ..wire.errors import MethodNotAllowed, NotFound, Severed
from .chunks import error_body, status_of
from .reply import Reply
from .request import parse

Handler = Callable[["CompletionsApp", Call], Awaitable[None]]


class CompletionsApp:
    """Serves chat completions over `engine`: an Engine, or an async generator function.

    `keys` are the API keys clients may use; none lets everybody in. `max_body` in bytes. Set `draining` when the
    service is about to stop: it is then no longer ready.
    """

    def __init__(
        self,
        engine: Any,
        *,
        keys: Sequence[str] = (),
        max_body: int = 32 * 1024 * 1024,
        max_decompressed: int = 32 * 1024 * 1024,
    ) -> None:
        self.engine = as_engine(engine)
        self.draining = False
        self.metrics = Metrics(_ROUTES)
        self._keys = Keys(keys)
        self._max_body = max_body
        self._max_decompressed = max_decompressed

    def __repr__(self) -> str:
        return f"<CompletionsApp {self.engine!r} {self._keys!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Call(scope, receive, send, f"req_{secrets.token_urlsafe(18)}", lambda: self.draining))
        elif scope["type"] == "lifespan":
            await live(receive, send, partial(have, self.engine, "start"), partial(have, self.engine, "stop"))
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    def replace_keys(self, keys: Sequence[str]) -> None:
        """Have other keys admit clients from now on. Raises ValueError for one that is none; the old ones stay then."""
        self._keys = Keys(keys)

    async def _http(self, call: Call) -> None:
        """The error boundary: whatever happens to a request ends here, once, with one log line."""
        time = asyncio.get_running_loop().time
        began = time()
        self.metrics.began()
        try:
            await _route(call)(self, call)
        except ClientLeft:
            call.record.client_left = True
        except Severed:
            await call.sever()
        except Exception as exc:
            if call.started:
                log_failure(call.request_id, exc)
                raise
            error = call.blame(exc)
            await call.answer(status_of(error), error_body(error), headers=error.headers)
        finally:
            call.note_refusal()
            call.record.duration = time() - began
            self.metrics.ended(call.record)
            log_request(call.record)

    # routes

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
        models = getattr(self.engine, "models", None)
        return await models() if models is not None else []

    async def _alive(self, call: Call) -> None:
        await call.answer(200, b'{"status":"ok"}')

    async def _ready(self, call: Call) -> None:
        if self.draining:
            await call.answer(503, b'{"status":"draining"}')
        else:
            await call.answer(200, b'{"status":"ready"}')

    async def _measurements(self, call: Call) -> None:
        body, content_type = self.metrics.exposition()
        await call.answer(200, body, content_type)


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
