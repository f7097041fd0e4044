"""The application of a scripted server: MessagesApp over a ScriptedEngine, with a record of each request."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..http.messages_app import MessagesApp
from .driver import DROP_CONNECTION, Message, Receive, Send
from .engine import CURRENT_REQUEST, ScriptedEngine
from .replies import Reply
from .requests import Matcher, SeenRequest

KEY: Final = "sk-test"
"""The API key that the kit's clients send to an application without `keys`, which accepts any."""


def check_sdk(sdk: object) -> None:
    """Raises TypeError if `sdk` is not a class or a function that makes a client."""
    if not callable(sdk):
        raise TypeError(f"write the class of the client, such as anthropic.Anthropic, not {type(sdk).__name__}(…)")


class ScriptedApp:
    """An ASGI application that serves the Messages API as its script says, and records the requests.

    It can be served by any ASGI server. MessagesServer and InProcessMessages serve it themselves.

    Args:
        replies: the first replies, as for `script`.
        models: the names of the models that it lists.
        options: keywords of MessagesApp, for example `keys=["sk-test"]` or `ping_interval=0.1` (seconds).

    Attributes:
        key: the API key that the clients of the kit send unless the test gives them another one: the first of `keys`.
    """

    def __init__(self, *replies: Reply, models: Sequence[str] = ("scripted",), **options: Any) -> None:
        self.engine = ScriptedEngine(models)
        if replies:
            self.engine.script.add(*replies)
        self._app = MessagesApp(self.engine, **options)
        self.key: str = next(iter(options.get("keys") or ()), KEY)
        self._seen: list[SeenRequest] = []
        self._arrival = threading.Condition()

    # the script

    def script(self, *replies: Reply) -> None:
        """Answer the next requests with these replies, in this order; each is used once.

        Raises TypeError for something that is not a reply (see `anthro_asgi.testing.replies`).
        """
        self.engine.script.add(*replies)

    def when(self, matcher: Matcher, *replies: Reply) -> None:
        """Answer the requests that `matcher` accepts with these replies, in order; the last one is repeated.

        Args:
            matcher: a function of the SeenRequest, or the result of `matching`.

        Rules are tried before the replies of `script`, the first rule first. Raises TypeError, and ValueError without
        replies.
        """
        self.engine.script.when(matcher, *replies)

    def otherwise(self, reply: Reply) -> None:
        """Answer all requests for which no other reply is left with this one. Raises TypeError."""
        self.engine.script.otherwise(reply)

    def simulate(self, **profile: Any) -> None:
        """Let the simulator answer where no reply is left; see `ScriptedEngine.simulate`."""
        self.engine.simulate(**profile)

    def reset(self) -> None:
        """Forget the script and the requests."""
        self.engine.clear()
        with self._arrival:
            self._seen.clear()

    # what was asked

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests to `POST /v1/messages` so far, also those that were refused, in order of arrival."""
        return [request for request in self.all_requests if request.path.endswith("/messages")]

    @property
    def all_requests(self) -> list[SeenRequest]:
        """All HTTP requests so far, such as token counts and model lists too, in order of arrival."""
        with self._arrival:
            return list(self._seen)

    def wait_for_requests(self, number: int, timeout: float = 5.0) -> list[SeenRequest]:
        """Wait until `number` requests to `POST /v1/messages` have arrived, and return all of them.

        Call it from another thread than the one that serves. `timeout` in seconds. Raises TimeoutError.
        """
        with self._arrival:
            if not self._arrival.wait_for(lambda: self._count() >= number, timeout):
                raise TimeoutError(f"{self._count()} of {number} requests arrived within {timeout:g} s")
        return self.requests

    def _count(self) -> int:
        return sum(1 for request in self._seen if request.path.endswith("/messages"))

    def check(self) -> None:
        """Raises AssertionError if a request got no reply, or if a function of the script raised an exception."""
        script = self.engine.script
        if script.failures:
            raise AssertionError(f"the script failed: {script.failures[0]!r}") from script.failures[0]
        if script.unexpected:
            asked = ", ".join(repr(request.text[:60]) for request in script.unexpected)
            number = len(script.unexpected)
            raise AssertionError(f"{number} request{'s' * (number != 1)} had no reply in the script: {asked}")

    def check_all_used(self) -> None:
        """Raises AssertionError as `check`, and if replies of `script` are left."""
        self.check()
        unused = self.engine.script.unused
        if unused:
            left = ", ".join(f"{reply!r:.60}" for reply in unused)
            one = len(unused) == 1
            raise AssertionError(f"{len(unused)} {'reply was' if one else 'replies were'} not used: {left}")

    # ASGI

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        recorder = _Recorder(scope, receive, send)
        with self._arrival:
            self._seen.append(recorder.seen)
            self._arrival.notify_all()
        token = CURRENT_REQUEST.set(recorder.seen)
        try:
            await self._app(scope, recorder.receive, recorder.send)
            await recorder.cut_connection()
        finally:
            CURRENT_REQUEST.reset(token)
            recorder.seen.mark_ended()


class _Recorder:
    """Records one request and its response. It stands between the server and the application."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.seen = SeenRequest(
            method=scope["method"],
            path=scope["path"],
            query=scope.get("query_string", b"").decode("latin-1"),
            headers=headers,
            received=time.monotonic(),
        )
        self._receive = receive
        self._send = send
        self._pieces: list[bytes] = []
        self._complete = False
        self._drop: Callable[[], None] | None = (scope.get("extensions") or {}).get(DROP_CONNECTION, {}).get("drop")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.seen.client_left = not self._complete and not self.seen.cut
        else:
            self._pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                self._record_body(b"".join(self._pieces))
        return message

    def _record_body(self, body: bytes) -> None:
        self.seen.raw_body = body
        try:
            parsed = json.loads(body)
        except ValueError:  # the engine fills it in if the body is compressed
            return
        if isinstance(parsed, dict):
            self.seen.body = parsed

    async def send(self, message: Message) -> None:
        if self.seen.cut and self._drop is not None:
            return
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]
        elif not message.get("more_body"):
            self._complete = True
        await self._send(message)

    async def cut_connection(self) -> None:
        """Close the connection if the script says so, and the server lets the application do it."""
        if self.seen.cut and self._drop is not None:
            self._drop()
            while (await self._receive())["type"] != "http.disconnect":
                pass
