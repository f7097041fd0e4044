"""The errors that a client of the Messages API can receive (contract section 7).

    ApiError
    ├── InvalidRequest      400 invalid_request_error   the message begins with the path at fault
    │   └── ContextTooLong  400                         clients compact their history when they read its wording
    ├── Unauthenticated     401 authentication_error
    ├── PaymentRequired     402 billing_error           the operator's account at the engine has no credit
    ├── PermissionDenied    403 permission_error
    ├── NotFound            404 not_found_error
    ├── MethodNotAllowed    405 invalid_request_error
    ├── RequestTimeout      408 invalid_request_error   the request did not arrive in time
    ├── RequestTooLarge     413 request_too_large
    ├── UnsupportedEncoding 415 invalid_request_error
    ├── HeadersTooLarge     431 invalid_request_error
    ├── RateLimited         429 rate_limit_error
    ├── InternalError       500 api_error               a bug of this service, or of an engine written for it
    ├── EngineFailed        500 api_error               the engine reported a failure of its own
    │   ├── BadUpstream     502 api_error               the engine's response is invalid or incomplete
    │   │   └── AnswerTooLarge                          the answer is larger than the limits allow
    │   └── UpstreamTimeout 504 timeout_error           the engine took too long
    └── Overloaded          529 overloaded_error        this service or its engine cannot take a request now

An error is written in three ways: as a status with headers, as a JSON body, and as the `error` event of a stream that
has begun. An engine may raise any ApiError. Any other exception is a bug: the client receives an InternalError.

`message` is for the client: it contains no stack, no address of an upstream and no key. `reason` is for the log: one
word that says what happened, from the tables below and in `engines.shared.upstream_errors`. A debugger finds the
exception behind an error as its `__cause__`.
"""

from typing import ClassVar, Final

from .json_codec import dumps

NO_SPARE_SLOT: Final = "no_spare_slot"
"""The reason of the Overloaded that a request of a batch gets, when clients have all slots of its engine."""

UPSTREAM_ERROR_KINDS: Final = (
    "connect",  # no connection: refused, unknown host, TLS
    "timeout_connect",
    "timeout_first_byte",
    "timeout_silence",
    "timeout_total",
    "broken",  # the connection ended, or its bytes were not HTTP
    "exhausted",  # every connection was in use
    "status_4xx",
    "status_5xx",
    "stream_error",  # the engine reported an error inside a response with status 200
    "ended_early",  # the response ended before the answer did
    "invalid_response",  # neither an answer nor an error
    "too_large",
)
"""How an upstream can fail: the values of `kind` in the metric `upstream_errors_total`."""


class ApiError(Exception):
    """The base class. `headers` (lower-case names) are added to the response; `message` and `reason` as above."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    reason: str = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        error_code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code
        self.headers = headers
        if reason is not None:
            self.reason = reason

    def body(self, request_id: str) -> bytes:
        """The error envelope as JSON."""
        error: dict[str, object] = {"type": self.type, "message": self.message}
        if self.error_code is not None:
            error["details"] = {"error_code": self.error_code}
        return dumps({"type": "error", "error": error, "request_id": request_id})

    def frame(self, request_id: str) -> bytes:
        """The error envelope as the `error` event that ends a stream."""
        return b"event: error\ndata: " + self.body(request_id) + b"\n\n"


def quoted(value: object, most: int) -> str:
    """`value`, from outside, for the text of an error: at most `most` characters of it. It may be very large."""
    if isinstance(value, str):
        value = value[:most]
    elif isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return repr(value)[:most]


class SimulatedDisconnect(Exception):
    """The connection is closed in the middle of the answer, without an error. Only the simulated engine raises it."""


class InvalidRequest(ApiError):
    """The request is invalid. The message begins with the path of the wrong field."""

    status = 400
    type = "invalid_request_error"


class ContextTooLong(InvalidRequest):
    """The prompt is too long for the model (`prompt is too long: …`). Clients then compact their history.

    `tokens` is the prompt's length and `maximum` the context's; None when the engine does not say.
    """

    reason = "context_too_long"

    def __init__(self, tokens: int | None, maximum: int | None) -> None:
        known = tokens is not None and maximum is not None
        super().__init__(f"prompt is too long: {tokens} tokens > {maximum} maximum" if known else "prompt is too long")


class Unauthenticated(ApiError):
    """No API key, or a wrong one."""

    status = 401
    type = "authentication_error"


class PaymentRequired(ApiError):
    """The account of the upstream key has no credit."""

    status = 402
    type = "billing_error"


class PermissionDenied(ApiError):
    """An engine written in Python refused access."""

    status = 403
    type = "permission_error"


class NotFound(ApiError):
    """Unknown path or model."""

    status = 404
    type = "not_found_error"


class MethodNotAllowed(ApiError):
    """The path does not have this method."""

    status = 405
    type = "invalid_request_error"


class RequestTimeout(ApiError):
    """The request was not complete after `--receive-deadline`."""

    status = 408
    type = "invalid_request_error"


class RequestTooLarge(ApiError):
    """The body is larger than `--max-body` or `--max-decompressed`."""

    status = 413
    type = "request_too_large"


class UnsupportedEncoding(ApiError):
    """The `content-encoding` is not gzip or deflate."""

    status = 415
    type = "invalid_request_error"


class HeadersTooLarge(ApiError):
    """The head of the request is larger than `--max-head`."""

    status = 431
    type = "invalid_request_error"


class RateLimited(ApiError):
    """The engine's rate limit."""

    status = 429
    type = "rate_limit_error"


class InternalError(ApiError):
    """A bug of the service, or of an engine written in Python.

    `reason` is the class of the exception that was raised, if one was.
    """

    status = 500
    type = "api_error"


class EngineFailed(ApiError):
    """The engine reported a failure of its own, or rejected the upstream key."""

    status = 500
    type = "api_error"
    reason = "failed"


class BadUpstream(EngineFailed):
    """The engine's response is invalid or incomplete."""

    status = 502
    reason = "invalid_response"


class AnswerTooLarge(BadUpstream):
    """The engine's answer is larger than a limit. The message names the option.

    `what` says which limit was passed, by the name of its option.
    """

    reason = "too_large"

    def __init__(self, what: str) -> None:
        super().__init__(f"the engine's answer is too large: {what}")


class UpstreamTimeout(EngineFailed):
    """The engine took too long."""

    status = 504
    type = "timeout_error"
    reason = "timeout"


class Overloaded(ApiError):
    """No free slot, or the engine is not reachable or not available, or the service stops.

    `retry_after` in whole seconds.
    """

    status = 529
    type = "overloaded_error"

    def __init__(self, message: str = "Overloaded", *, retry_after: int = 1, reason: str | None = None) -> None:
        super().__init__(message, reason=reason, headers=(("retry-after", str(retry_after)),))


def no_thread() -> Overloaded:
    """The error of a request that needs a thread where the system has none left."""
    return Overloaded("the service has no thread left", reason="no_thread")
