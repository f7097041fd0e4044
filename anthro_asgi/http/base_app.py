"""What both applications share: lifespan, API keys, metrics, and the error boundary around each request.

There is no middleware and no wrapped `send`: a request goes from here straight to its route.
"""

import asyncio
import secrets
from collections.abc import Collection, Sequence
from time import perf_counter

from ..engines.functions import as_engine
from ..observability.logs import log_failure, log_request
from ..observability.metrics import Metrics
from ..observability.trace_context import Tracer
from ..wire.errors import Overloaded, SimulatedDisconnect
from ..wire.large.cooperative import drop_in_steps, run_with_yields
from .auth import ApiKeys
from .engine_exceptions import as_exception, is_own
from .http_request import ClientDisconnected, HttpRequest, Receive, Scope, Send


class BaseApp:
    """An ASGI application over an engine.

    Args:
        engine: whatever `engines.functions.as_engine` accepts, for example an async generator function.
        keys: API keys that clients may use. Without any, every client is served.
        paths: paths of the application, as labels of its metrics.
        debug: log the traceback of an unexpected exception, for example in an engine. It may quote content.

    Attributes:
        draining: set it when the process is about to stop. `/readyz` then reports 503, and each connection closes after
            its current response.

    Raises ValueError if `engine` is not an engine, or for an invalid key.
    """

    def __init__(self, engine: object, keys: Sequence[str], paths: Collection[str], *, debug: bool = False) -> None:
        self.engine = as_engine(engine)
        self.draining = False
        self._debug = debug
        self.metrics = Metrics(paths, self.engine.engine_names)
        self.engine.observe = self.metrics.note
        self._keys = ApiKeys(keys)
        self._tracer = Tracer()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.engine!r} {self._keys!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request_id = f"req_{secrets.token_urlsafe(18)}"
            http_request = HttpRequest(scope, receive, send, request_id, self._closes_connection, debug=self._debug)
            is_cancelled = await self._handle(http_request)
            if http_request.held:  # no exception refers to these values any more
                await run_with_yields(drop_in_steps(http_request.held), perf_counter)
            if is_cancelled:
                raise asyncio.CancelledError
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    def _closes_connection(self) -> bool:
        return self.draining

    def replace_keys(self, keys: Sequence[str]) -> None:
        """Accept these API keys from now on. Raises ValueError for an invalid key, and keeps the old ones then."""
        self._keys = ApiKeys(keys)

    # requests

    async def _handle(self, http_request: HttpRequest) -> bool:
        """Serve one request. Every exception ends here, and every request has exactly one log line.

        Returns whether the server has cancelled a request that holds values, which the caller frees first.
        """
        time = asyncio.get_running_loop().time
        began = time()
        self.metrics.request_began()
        http_request.trace = self._tracer.begin(http_request.record, http_request.headers)
        http_request.record.trace_id = http_request.trace.trace_id
        try:
            await self._dispatch(http_request)
        except ClientDisconnected:
            http_request.record.client_left = True
        except SimulatedDisconnect:
            await http_request.drop_connection()
        except Exception as exc:
            if http_request.started:  # half a response is sent, so the server has to close the connection
                log_failure(http_request.request_id, exc, debug=self._debug)
                raise
            await self._respond_error(http_request, exc)
        except BaseException as exc:
            if not is_own(exc):  # an engine in this process raised it
                if http_request.started:
                    log_failure(http_request.request_id, as_exception(exc), debug=self._debug)
                    raise as_exception(exc) from exc
                await self._respond_error(http_request, as_exception(exc))
                return False
            if isinstance(exc, asyncio.CancelledError) and not http_request.started:
                # the server stops, and no longer waits for this request
                await self._respond_error(http_request, Overloaded("the service is stopping", reason="stopping"))
            if not isinstance(exc, asyncio.CancelledError) or not http_request.held:
                raise
            return True
        finally:
            http_request.record_server_refusal()
            http_request.record.duration = time() - began
            self.metrics.request_ended(http_request.record)
            http_request.trace.ended(http_request.record)
            log_request(http_request.record)
        return False

    async def _dispatch(self, http_request: HttpRequest) -> None:
        """Call the handler of the request's route. Raises ApiError, ClientDisconnected and SimulatedDisconnect."""
        raise NotImplementedError

    async def _respond_error(self, http_request: HttpRequest, exc: Exception) -> None:
        """Respond with an error. No response has been started."""
        await http_request.respond_error(exc)

    async def _health(self, http_request: HttpRequest) -> None:
        await http_request.respond(200, b'{"status":"ok"}')

    async def _metrics_page(self, http_request: HttpRequest) -> None:
        body, content_type = self.metrics.exposition()
        await http_request.respond(200, body, content_type)

    # lifespan

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start and stop with the server. A server without the lifespan protocol never calls this."""
        await receive()
        try:
            await self._start()
        except Exception as exc:
            if self._debug:
                log_failure("start", exc, debug=True)
            await send({"type": "lifespan.startup.failed", "message": f"{type(exc).__name__}: {exc}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        await self.engine.start()
        self.metrics.start()

    async def _stop(self) -> None:
        self.metrics.stop()
        await self.engine.stop()
        await self._tracer.stop()
