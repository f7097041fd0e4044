"""What an OpenAI-compatible engine says went wrong → the ApiError a client is told (contract section 7). Pure.

Engines agree on no shape: `{"error": {…}}`, `{"error": "…"}`, flat `{"object": "error", …}`, `{"detail": …}`, bare
text. What they say about the client's request (4xx) reaches the client, without their stack and the paths of their
files; the rest may quote a prompt or an address: it hangs on the error as a note (PEP 678), which only `check` shows.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from ...wire import errors
from ...wire.json_codec import loads
from .overflow import overflow

_LONGEST: Final = 600  # characters of an engine's own words that a client gets to see
_READ: Final = 8192  # characters of them that are looked at
_STACK: Final = re.compile(r'(?:^|\n)[^\S\n]*(?:File "|Traceback |at )')
_PATH: Final = re.compile(r"(?<![\w/.:])/(?:app|etc|home|opt|root|srv|tmp|usr|var|workspace)/[\w.@+/-]*")
_MARKUP: Final = re.compile(r"<(?:!doctype|html|head|body)\b", re.IGNORECASE)
# llama.cpp answers 500 to an image, audio or video that its model cannot read, which is the client's mistake.
_NO_SUCH_INPUT: Final = re.compile(r"\b(?:image|audio|video) input is not supported")
# Some answer 400 for a model they do not have.
_NO_SUCH_MODEL: Final = re.compile(
    r"\b[Mm]odel\b[^.]{0,200}\b(?:not found|does not exist)|not a valid model|^Server is pinned to '"
)


def failure(status: int, retry_after: str | None, body: bytes) -> errors.ApiError:
    """The error for an answer with this status; the engine's own words where they are about the client's request."""
    message, code = _read(body)
    message = message[:_READ]
    if status in (400, 413, 422, 500):
        too_long = overflow(message, code)
        if too_long is not None:
            return too_long
        unreadable = _NO_SUCH_INPUT.search(message)
        if unreadable is not None:
            return errors.InvalidRequest(f"messages: {unreadable[0]} by this model")
    if status == 400 and (code == "model_not_found" or _NO_SUCH_MODEL.search(message)):
        status = 404
    make = _BY_STATUS.get(status)
    if make is None:
        make = next(make for lowest, make in _BY_RANGE if status >= lowest)
    words = _trimmed(message)
    error = make(words or f"the engine answered with status {status}", retry_after)
    if words and error.message != words:
        error.add_note(words)
    return error


def failure_in_stream(chunk: dict[str, Any]) -> errors.ApiError | None:
    """The error that a chunk of a stream is, if it is one."""
    error = chunk.get("error")
    if not error and chunk.get("object") != "error" and not ("detail" in chunk and "choices" not in chunk):
        return None
    code = str(error.get("code") if isinstance(error, dict) else chunk.get("code"))
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 500
    return failure(status, None, orjson.dumps(chunk))


def _read(body: bytes) -> tuple[str, str]:
    """The message and the code (or type) in an error body."""
    try:
        value = loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8-sig", "replace").strip()
        return ("" if text.startswith("<") else text), ""
    if isinstance(value, dict):
        value = value.get("error") or value
    if isinstance(value, dict):
        message = value.get("message") or value.get("detail") or ""
        code = value.get("code")
        return _words(message), code if isinstance(code, str) else str(value.get("type") or "")
    return _words(value), ""


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else orjson.dumps(value).decode()
    except TypeError:  # more levels than it writes
        return ""


def _trimmed(message: str) -> str:
    words = _MARKUP.split(_STACK.split(message, maxsplit=1)[0], maxsplit=1)[0]
    return _PATH.sub("…", words).strip()[:_LONGEST]


# statuses


def _rejected(message: str, _: str | None) -> errors.ApiError:
    return errors.InvalidRequest(message)


def _failed(_: str, __: str | None) -> errors.ApiError:
    return errors.InternalError("the engine failed")


def _nonsense(message: str, _: str | None) -> errors.ApiError:
    return errors.BadUpstream("the engine gave an answer that is none")


def _redirected(message: str, _: str | None) -> errors.ApiError:
    return errors.BadUpstream("the engine redirects, which is not followed here")


def _too_large(message: str, _: str | None) -> errors.ApiError:
    return errors.RequestTooLarge(message)


def _our_credential(_: str, __: str | None) -> errors.ApiError:
    return errors.InternalError("the engine did not accept this service's credential")


def _unknown_model(message: str, _: str | None) -> errors.ApiError:
    return errors.NotFound(message)


def _limited(message: str, retry_after: str | None) -> errors.ApiError:
    headers = () if retry_after is None else (("retry-after", retry_after),)
    return errors.RateLimited(message, headers=headers)


def _overloaded(_: str, retry_after: str | None) -> errors.ApiError:
    overloaded = errors.Overloaded("the engine cannot take a request now")
    if retry_after is not None:
        overloaded.headers = (("retry-after", retry_after),)
    return overloaded


def _too_slow(_: str, __: str | None) -> errors.ApiError:
    return errors.UpstreamTimeout("the engine took too long")


_Make = Callable[[str, str | None], errors.ApiError]
_BY_RANGE: Final[tuple[tuple[int, _Make], ...]] = (
    *((600, _nonsense), (500, _failed), (400, _rejected), (300, _redirected)),
    (0, _nonsense),
)
_BY_STATUS: Final[dict[int, _Make]] = {
    401: _our_credential,
    403: _our_credential,
    404: _unknown_model,
    408: _too_slow,
    413: _too_large,
    429: _limited,
    502: _overloaded,
    503: _overloaded,
    504: _too_slow,
    529: _overloaded,
}
