"""What a failure of an upstream becomes: decided here, and only here. Pure.

    a response with an error status    ── error_from_response ──┐
    an error inside a stream           ── error_from_chunk ─────┼──► ApiError ──┐
    a response that cannot be read     ── the readers ──────────┘               ├── classify ──► UpstreamFailure
    the connection (`upstream.errors`) ─────────────────────────────────────────┘

An UpstreamFailure holds the error for the client, the kind for the metric, the reason for the log, and whether another
request may succeed. `RemoteEngine._fail` counts and logs it.

Engines agree on no shape of an error body: `{"error": {…}}`, `{"error": "…"}`, flat `{"object": "error", …}`,
`{"detail": …}`, plain text. The client receives the engine's own words only when they are about its request (4xx), and
without stack traces and file paths. All other words may quote a prompt or an address: they are in the EngineReport
that is the `__cause__` of the error, which the log shows at level debug only, and `anthro-asgi check`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import errorcode
from typing import Any, Final

import orjson

from ...upstream.connect_errors import is_signed_by_unknown
from ...upstream.errors import ConnectFailed, PoolExhausted, Timeout, TooLarge, UpstreamError
from ...upstream.sse import EventTooLarge
from ...wire.errors import (
    UPSTREAM_ERROR_KINDS,
    AnswerTooLarge,
    ApiError,
    BadUpstream,
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
    PaymentRequired,
    RateLimited,
    RequestTooLarge,
    UpstreamTimeout,
)
from ...wire.json_codec import loads
from ...wire.lazy_regex import lazy_regex
from .context_overflow import find_overflow

UNAVAILABLE: Final = frozenset({429, 502, 503, 504, 529})
"""Statuses of an engine, or of a gateway before it, that cannot answer now. They do not tell which engine it is."""

_MAX_SHOWN: Final = 600  # characters of the engine's own words that are kept
_MAX_SEARCHED: Final = 8192  # characters of them that are searched
_ADVICE: Final = ("retry-after", "retry-after-ms", "x-should-retry")  # response headers that SDKs of clients heed
_SAFE_VALUE: Final = lazy_regex(rb"[!-~][ -~]{0,63}")  # a number, a word or a date
# Headers of an upstream that tell a client about its limits and its account.
_ACCOUNT_HEADER: Final = lazy_regex(rb"anthropic-(?:organization-id|(?:ratelimit|priority|fast)-[a-z0-9-]{1,64})")
_MAX_ACCOUNT_HEADERS: Final = 32
_MIN_SECRET_PREFIX: Final = 6  # characters
_STACK: Final = lazy_regex(r'(?:^|\n)[^\S\n]*(?:File "|Traceback |at )')
_PATH: Final = lazy_regex(r"(?<![\w/.:])/(?:app|etc|home|opt|root|srv|tmp|usr|var|workspace)/[\w.@+/-]*")
_MARKUP: Final = lazy_regex(r"<(?:!doctype|html|head|body)\b", re.IGNORECASE)
# Engines' words for an image, audio or video that the model cannot read (contract, appendix A), which is the client's
# mistake. llama.cpp answers 500.
_UNSUPPORTED_INPUT: Final = lazy_regex(
    r"\b(?P<image>image|audio|video) input is not supported"
    r"|\bat most [0-9]+ (?P<most>image|audio|video)"
    r"|\b(?:fail(?:ed|ure)?|unable|cannot|can't|could not|error) (?:to )?(?:load|decod|process|open|identify|read|pars)"
    r"(?:e|ing)? (?:the |an? )?(?:input )?(?P<unreadable>image|audio|video)\b"
    r"|\b(?:invalid|corrupt(?:ed)?|truncated) (?P<invalid>image|audio|video)(?: (?:data|file|bytes|input))?\b"
    r"|\bis not a (?:multimodal|vision) model\b"
    r"|\b(?:does not|doesn't) support (?:vision|multimodal|multi-modal)\b"
    r"|\b(?:vision|multimodal|multi-modal) (?:input|content|data)?s? ?(?:is|are) not supported\b"
    r"|\b(?P<only>image|audio|video)_url is only supported\b"
    r"|\bonly supports text input\b|\bunsupported content type '(?P<part>image|audio|video)_url'"
    r"|\bdoes not support (?P<does_not>image|audio|video)s?\b|\bsupport (?P<support>image|audio|video) input\b"
    r"|\bmissing data required for (?P<missing>image|audio|video) input\b"
    r"|\bunknown variant `(?P<variant>image|audio|video)_url`",
    re.IGNORECASE,
)
# Some engines answer 400 for a model they do not have.
_UNKNOWN_MODEL: Final = lazy_regex(
    r"\b[Mm]odel\b[^.]{0,200}\b(?:not found|does not exist)|not a valid model|^Server is pinned to '"
)
# The words of servers and proxies for a path that they do not have. Words about a model are another matter.
_UNKNOWN_ROUTE: Final = lazy_regex(
    r"^\W*(?:404\W+)?(?:(?:the )?(?:requested )?(?:page|file|path|route|url|endpoint|resource) )?(?:was )?not found\W*$"
    r"|\bcannot (?:post|get) /|\binvalid url\b|\bno (?:such )?(?:route|endpoint|handler|static resource)\b"
    r"|\b(?:unknown|unexpected) (?:path|route|endpoint|url)|/v1/|/chat/completions|/messages\b"
    r"|\b(?:path|route|url|endpoint)\b.{0,40}\bnot (?:found|exist)",
    re.IGNORECASE,
)
REMEDIES: Final = {
    "key_rejected": "set the upstream's key with ANTHRO_ASGI_UPSTREAM_KEY or --upstream-key-file",
    "route_not_found": "check the path in --upstream, which usually ends in /v1, and --upstream-api",
    "payment_required": "add credit to the account of the upstream key",
}
"""What the operator can do about a failure, by its reason. For the log and for `check` only."""

_TRUST: Final = "name the CA with --upstream-ca"


class EngineReport(Exception):
    """An error as the engine reported it, the `__cause__` of the ApiError it became.

    `status` is the HTTP status, or the one that the engine names in an error inside a stream (`in_stream`). `message`
    is the engine's own text, shortened; it may quote the prompt.
    """

    def __init__(self, status: int, message: str, *, in_stream: bool = False) -> None:
        super().__init__(f"status {status}: {message}" if message else f"status {status}")
        self.status = status
        self.message = message
        self.in_stream = in_stream


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """What one failure of an upstream becomes.

    Args:
        error: what the client receives; its `reason` is for the log.
        kind: one of UPSTREAM_ERROR_KINDS, for the metric.
        status: that of the engine's response, None without one.
        cause: what failed or what the operator can do, in our words, for the log. It contains no content and no
            address.
        engine_message: the engine's own text, for the log at level debug only.
        may_retry: whether the engine may accept a changed request.
        engine_gone: whether another engine may be at the address from now on.
    """

    error: ApiError
    kind: str
    status: int | None
    cause: str | None
    engine_message: str | None
    may_retry: bool
    engine_gone: bool


def classify(
    exc: ApiError | UpstreamError | TimeoutError, *, secrets: Iterable[str], status: int = 0
) -> UpstreamFailure:
    """What `exc` becomes. `status` is that of the engine's response, 0 without one.

    `secrets` (keys, addresses) are removed from the message of the error and of its EngineReport: engines repeat them.
    """
    if isinstance(exc, ApiError):
        error, cause = exc, None
    else:
        error, cause = _error_from_transport(exc), _describe(exc)
        error.__cause__ = exc
    report = error.__cause__ if isinstance(error.__cause__, EngineReport) else None
    _redact(error, report, [secret for secret in secrets if secret])
    if report is None and isinstance(exc, BadUpstream):
        cause = error.message  # these messages are ours: they contain no content
    if report is not None and not report.in_stream:
        status = report.status
    cause = REMEDIES.get(error.reason, cause)
    kind = _kind(error, report, status)
    return UpstreamFailure(
        error=error,
        kind=kind,
        status=status or None,
        cause=cause,
        engine_message=None if report is None or not report.message else _printable(report.message),
        may_retry=(isinstance(error, InvalidRequest | NotFound) and not isinstance(error, ContextTooLong))
        or error.reason == "route_not_found",
        engine_gone=kind in _ENGINE_GONE or error.reason == "route_not_found",
    )


_ENGINE_GONE: Final = frozenset(
    {
        "connect",
        "timeout_connect",
        "timeout_first_byte",
        "timeout_silence",
        "timeout_total",
        "broken",
        "ended_early",
    }
)


def _kind(error: ApiError, report: EngineReport | None, status: int) -> str:
    if report is not None and report.in_stream:
        return "stream_error"
    if 400 <= status < 600:
        return f"status_{status // 100}xx"
    return error.reason if error.reason in UPSTREAM_ERROR_KINDS else "invalid_response"


# a response with an error status


@dataclass(frozen=True, slots=True)
class _Rule:
    """The error for a status. Without a `message`, the client receives the engine's own words."""

    error: type[ApiError]
    reason: str
    message: str | None = None


_KEY_REJECTED: Final = _Rule(EngineFailed, "key_rejected", "the engine rejected this service's API key")
_ROUTE_ABSENT: Final = _Rule(BadUpstream, "route_not_found", "the engine does not serve this API")
_TOO_SLOW: Final = _Rule(UpstreamTimeout, "timeout", "the engine took too long")
_UNAVAILABLE: Final = _Rule(Overloaded, "unavailable", "the engine cannot take a request now")
_INVALID: Final = _Rule(BadUpstream, "invalid_response", "the engine returned an invalid response")
_BY_STATUS: Final = {
    401: _KEY_REJECTED,
    402: _Rule(PaymentRequired, "payment_required", "the engine's account has no credit for this request"),
    403: _KEY_REJECTED,
    405: _ROUTE_ABSENT,
    404: _Rule(NotFound, "not_found"),
    408: _TOO_SLOW,
    413: _Rule(RequestTooLarge, "request_too_large"),
    429: _Rule(RateLimited, "rate_limited"),
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: _TOO_SLOW,
    529: _UNAVAILABLE,
}
_BY_RANGE: Final = (
    (600, _INVALID),
    (500, _Rule(EngineFailed, "failed", "the engine failed")),
    (400, _Rule(InvalidRequest, "rejected")),
    (300, _Rule(BadUpstream, "redirect", "the engine returned a redirect, which is not followed")),
    (0, _INVALID),
)


def error_from_response(status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> ApiError:
    """The error for a response with this status. `headers` have lower-case names."""
    error = _error(status, body, in_stream=False)
    advice = dict(error.headers) | _advice(headers)
    if not isinstance(error, RateLimited | Overloaded):
        advice.pop("retry-after", None)
    error.headers = (*advice.items(), *account_headers(headers))
    return error


def _advice(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that go on to the client, if their values are safe."""
    found: dict[str, str] = {}
    for raw_name, value in headers:
        name = raw_name.decode("latin-1")
        if name in _ADVICE and name not in found and _SAFE_VALUE.fullmatch(value):
            found[name] = value.decode()
    return {name: found[name] for name in _ADVICE if name in found}


def account_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """The headers about limits and the account, for the client, each name once. `headers` have lower-case names."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if _ACCOUNT_HEADER.fullmatch(name) and _SAFE_VALUE.fullmatch(value) and len(found) < _MAX_ACCOUNT_HEADERS:
            found.setdefault(name, value)
    return tuple((name.decode(), value.decode()) for name, value in found.items())


def _error(status: int, body: bytes, *, in_stream: bool) -> ApiError:
    message, code = _read(body)
    message = message[:_MAX_SEARCHED]
    words = _trimmed(message)
    error = _request_error(status, message, code)
    if error is None:
        unknown_model = status == 400 and (code == "model_not_found" or _UNKNOWN_MODEL.search(message))
        absent = status == 404 and not in_stream and (not words or _UNKNOWN_ROUTE.search(words) is not None)
        rule = _ROUTE_ABSENT if absent else _rule(404 if unknown_model else status)
        reason = "stream_error" if in_stream and rule.error.status >= 500 else rule.reason
        error = rule.error(rule.message or words or f"the engine returned status {status}", reason=reason)
    error.__cause__ = EngineReport(status, words, in_stream=in_stream)
    return error


def _request_error(status: int, message: str, code: str) -> ApiError | None:
    """The mistakes of clients that engines report with several statuses."""
    if status not in (400, 404, 413, 422, 500):
        return None
    overflow = find_overflow(message, code) if status != 404 else None
    if overflow is not None:
        return overflow
    unsupported = _UNSUPPORTED_INPUT.search(message)
    if unsupported is not None:
        kind = next((word for word in unsupported.groupdict().values() if word), "image").lower()
        words = _trimmed(message) if status < 500 else f"{kind} input is not supported by this model"
        return InvalidRequest(f"messages: could not process {kind}: {words}", reason="unsupported_input")
    return None


def _rule(status: int) -> _Rule:
    return _BY_STATUS.get(status) or next(rule for lowest, rule in _BY_RANGE if status >= lowest)


def _read(body: bytes) -> tuple[str, str]:
    """The message and the code (or type) in an error body."""
    try:
        value = loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8-sig", "replace").strip()
        return ("" if text.startswith("<") else text), ""
    if isinstance(value, list) and len(value) == 1:  # Gemini
        value = value[0]
    if isinstance(value, dict):
        value = value.get("error") or value.get("base_resp") or value
    if isinstance(value, dict):
        message = next((value[key] for key in ("message", "detail", "msg", "status_msg") if value.get(key)), "")
        code = value.get("code")
        sizes = [f"{key}: {value[key]}" for key in ("n_prompt_tokens", "n_ctx") if type(value.get(key)) is int]
        if len(sizes) == 2 and isinstance(message, str) and not re.search(r"\d", message):  # llama.cpp
            message = f"{message} ({', '.join(sizes)})"
        return _text(message), code if isinstance(code, str) else str(value.get("type") or "")
    return _text(value), ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else orjson.dumps(value).decode()
    except TypeError:  # nested more deeply than orjson writes
        return ""


def _trimmed(message: str) -> str:
    words = _MARKUP.split(_STACK.split(message, maxsplit=1)[0], maxsplit=1)[0]
    return _PATH.sub("…", words).strip()[:_MAX_SHOWN]


# an error inside a stream


def error_from_chunk(chunk: dict[str, Any]) -> ApiError | None:
    """The error that a chunk of a chat-completions stream contains, if it contains one.

    Also the error of another vendor in a body with status 200: MiniMax `base_resp`, DashScope `code` and `message`,
    one-api `code` and `msg`.
    """
    error = chunk.get("error")
    if not error and chunk.get("object") != "error" and (chunk.get("choices") or not _is_vendor_error(chunk)):
        return None
    return _error(_status_in(chunk), orjson.dumps(chunk), in_stream=True)


def _is_vendor_error(chunk: dict[str, Any]) -> bool:
    if "choices" not in chunk and ("detail" in chunk or ("code" in chunk and ("message" in chunk or "msg" in chunk))):
        return chunk.get("code") not in _SUCCESS_CODES or "detail" in chunk
    response = chunk.get("base_resp")
    return isinstance(response, dict) and response.get("status_code") not in _SUCCESS_CODES


_SUCCESS_CODES: Final = (None, "", 0, "0", 200, "200")
_MINIMAX_STATUS: Final = {
    1001: 504,  # timeout
    1002: 429,  # rate limit
    1004: 401,  # authentication
    1008: 402,  # balance
    1026: 400,  # sensitive input
    1027: 400,  # sensitive output
    1039: 429,  # token limit per minute
    2013: 400,  # parameters
    2049: 401,  # key
    2056: 429,  # usage limit
}
_STATUS_BY_WORD: Final = (
    (lazy_regex(r"rate.?limit|too.?many.?requests|throttl|resource.?exhausted|insufficient.?quota"), 429),
    (lazy_regex(r"insufficient.?balance|arrearage|billing|payment"), 402),
    (lazy_regex(r"overloaded|unavailable|server.?busy|model is (?:still )?loading"), 529),
    (lazy_regex(r"authenticat|invalid.?api.?key|unauthori[sz]ed"), 401),
    (lazy_regex(r"permission|forbidden|access.?denied"), 403),
    (lazy_regex(r"not.?found"), 404),
    (lazy_regex(r"time.?out"), 504),
    (lazy_regex(r"invalid.?(?:request|param|argument|value)|bad.?request|context.?length|badrequest"), 400),
)


def _status_in(chunk: dict[str, Any]) -> int:
    """The HTTP status that an error inside a response names by a number or a word; 500 if it names none."""
    error = chunk.get("error") or chunk
    if isinstance(error, str):
        return _status_by_word(error[:_MAX_SEARCHED])
    if not isinstance(error, dict):
        return 500
    response = chunk.get("base_resp")
    if isinstance(response, dict) and "error" not in chunk:
        return _MINIMAX_STATUS.get(response.get("status_code") or 0, 500)
    names = [str(error[key]) for key in ("code", "status", "type") if error.get(key) is not None]
    for name in names:
        if re.fullmatch("[45][0-9][0-9]", name):
            return int(name)
    return next((status for name in names if (status := _status_by_word(name[:_MAX_SEARCHED])) != 500), 500)


def _status_by_word(words: str) -> int:
    return next((status for pattern, status in _STATUS_BY_WORD if pattern.search(words.lower())), 500)


_STATUS_BY_TYPE: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def error_from_event(event: dict[str, Any]) -> ApiError:
    """The error for an `error` event of a Messages stream. Raises AttributeError or LookupError for another shape."""
    return _error(_STATUS_BY_TYPE.get(event["error"].get("type"), 500), orjson.dumps(event), in_stream=True)


# the connection


def _error_from_transport(exc: UpstreamError | TimeoutError) -> ApiError:
    match exc:
        case PoolExhausted():
            return Overloaded("every connection to the engine is in use", reason="exhausted")
        case Timeout(phase="connect"):
            return Overloaded("the engine is not reachable", reason="timeout_connect")
        case Timeout(phase=phase):
            return UpstreamTimeout("the engine took too long", reason=f"timeout_{phase.replace(' ', '_')}")
        case TimeoutError():
            return UpstreamTimeout("the engine took too long", reason="timeout_total")
        case EventTooLarge():
            return AnswerTooLarge(f"{exc} (max-event)")
        case TooLarge():
            return AnswerTooLarge(str(exc))
        case ConnectFailed():
            return Overloaded("the engine is not reachable", reason="connect")
    return BadUpstream("the connection to the engine broke", reason="broken")


def _describe(exc: UpstreamError | TimeoutError) -> str | None:
    """What went wrong with a connection, for the log: without the address."""
    if isinstance(exc, Timeout | TimeoutError):
        return None  # the reason says it all
    cause = exc.__cause__
    if not isinstance(exc, ConnectFailed) or cause is None:
        text = str(exc)
        return _printable(text.partition(": ")[2] or text)  # the address comes first
    if type(cause).__name__ == "gaierror":
        return "unknown host"
    verification = getattr(cause, "verify_message", None)  # of a certificate; after a comma comes the expected name
    if verification:
        failed = f"certificate verify failed: {str(verification).partition(',')[0]}"
        return f"{failed}; {_TRUST}" if is_signed_by_unknown(cause) else failed
    number = getattr(cause, "errno", None)
    return getattr(cause, "reason", None) or errorcode.get(number or 0) or type(cause).__name__


def remedy_for(error: ApiError) -> str | None:
    """What the operator can do about an error of an upstream; None if nothing is known."""
    if error.__cause__ is not None and is_signed_by_unknown(error.__cause__.__cause__):
        return _TRUST
    return REMEDIES.get(error.reason)


def _printable(text: str) -> str:
    """One line, also for a handler that does not escape what it prints."""
    return "".join(char if char.isprintable() else " " for char in text)


# secrets


def _redact(error: ApiError, report: EngineReport | None, secrets: Sequence[str]) -> None:
    error.message = _redacted(error.message, secrets)
    error.args = (error.message,)
    if report is not None:
        report.message = _redacted(report.message, secrets)
        report.args = (_redacted(str(report), secrets),)


def _redacted(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
        # a long text was cut, perhaps in the middle of a secret
        sizes = range(len(secret) - 1, _MIN_SECRET_PREFIX - 1, -1)
        cut = next((size for size in sizes if text.endswith(secret[:size])), 0)
        text = f"{text[:-cut]}…" if cut else text
    return text
