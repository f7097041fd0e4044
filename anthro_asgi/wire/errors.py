"""The errors a client of the Messages API can be told about (contract section 7).

    ApiError
    ├── InvalidRequest      400 invalid_request_error   (the message begins with the path at fault)
    │   └── ContextTooLong  400                         (clients compact their history on its wording)
    ├── Unauthenticated     401 authentication_error
    ├── PermissionDenied    403 permission_error
    ├── NotFound            404 not_found_error
    ├── MethodNotAllowed    405 invalid_request_error
    ├── RequestTimeout      408 invalid_request_error   (the request did not arrive in time)
    ├── RequestTooLarge     413 request_too_large
    ├── UnsupportedEncoding 415 invalid_request_error
    ├── HeadersTooLarge        431 invalid_request_error
    ├── RateLimited         429 rate_limit_error
    ├── InternalError       500 api_error
    ├── BadUpstream         502 api_error
    │   └── AnswerTooLarge  502                         (more than is kept of an answer at one time)
    ├── UpstreamTimeout     504 timeout_error
    └── Overloaded          529 overloaded_error

One error has three faces: a status with headers, a JSON body, and (once a stream has begun) an `error` event.
An engine may raise any of them; everything else it raises is our bug and reaches the client as a bare InternalError.
The message is for the client: it holds no stack, no address of an upstream, no key.
"""

from typing import ClassVar

from .json_codec import dumps


class ApiError(Exception):
    """The root. `message` goes to the client, `headers` (lower-case names) onto the response."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"

    def __init__(
        self, message: str, *, error_code: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code
        self.headers = headers

    def body(self, request_id: str) -> bytes:
        """The error envelope as JSON."""
        error: dict[str, object] = {"type": self.type, "message": self.message}
        if self.error_code is not None:
            error["details"] = {"error_code": self.error_code}
        return dumps({"type": "error", "error": error, "request_id": request_id})

    def frame(self, request_id: str) -> bytes:
        """The same envelope as the `error` event that ends a stream."""
        return b"event: error\ndata: " + self.body(request_id) + b"\n\n"


class SimulatedDisconnect(Exception):
    """No error to be told: the answer ends without a word, and its connection with it. An engine may raise it.

    Only one that simulates failures has a use for it.
    """


class InvalidRequest(ApiError):
    status = 400
    type = "invalid_request_error"


class ContextTooLong(InvalidRequest):
    """The prompt does not fit: worded so that clients recognise it and compact.

    `tokens` is the prompt's length and `maximum` the engine's window; None where the engine would not say.
    """

    def __init__(self, tokens: int | None, maximum: int | None) -> None:
        known = tokens is not None and maximum is not None
        super().__init__(f"prompt is too long: {tokens} tokens > {maximum} maximum" if known else "prompt is too long")


class Unauthenticated(ApiError):
    status = 401
    type = "authentication_error"


class PermissionDenied(ApiError):
    status = 403
    type = "permission_error"


class NotFound(ApiError):
    status = 404
    type = "not_found_error"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"


class RequestTimeout(ApiError):
    status = 408
    type = "invalid_request_error"


class RequestTooLarge(ApiError):
    status = 413
    type = "request_too_large"


class UnsupportedEncoding(ApiError):
    status = 415
    type = "invalid_request_error"


class HeadersTooLarge(ApiError):
    status = 431
    type = "invalid_request_error"


class RateLimited(ApiError):
    status = 429
    type = "rate_limit_error"


class InternalError(ApiError):
    status = 500
    type = "api_error"


class BadUpstream(ApiError):
    status = 502
    type = "api_error"


class AnswerTooLarge(BadUpstream):
    """`what` passed its limit. It names the limit, as operators know it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the engine's answer is too large: {what}")


class UpstreamTimeout(ApiError):
    status = 504
    type = "timeout_error"


class Overloaded(ApiError):
    """Nobody can answer now. `retry_after` is in whole seconds."""

    status = 529
    type = "overloaded_error"

    def __init__(self, message: str = "Overloaded", *, retry_after: int = 1) -> None:
        super().__init__(message, headers=(("retry-after", str(retry_after)),))
