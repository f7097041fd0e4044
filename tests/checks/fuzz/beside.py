"""Refusals and model lists of engines, mutated. They must still become an error or a list for the client."""

import orjson

from anthro_asgi.engines.openai.retry import rejected_field
from anthro_asgi.engines.shared.answer_length import shorter_answer
from anthro_asgi.engines.shared.context_overflow import find_bound
from anthro_asgi.engines.shared.model_list import parse_models
from anthro_asgi.engines.shared.upstream_errors import error_from_response
from anthro_asgi.http.models import models_page
from anthro_asgi.wire.errors import ApiError, ContextTooLong
from tests.checks.fuzz.running import Breach
from tests.replay import cases

STATUSES = (400, 401, 404, 413, 422, 429, 500, 503, 418, 302)
LONGEST_MESSAGE = 1000  # characters
ASKED = {
    **dict.fromkeys(("model", "user", "reasoning_effort"), "m"),
    "max_tokens": 4096,
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [],
    "parallel_tool_calls": False,
    "chat_template_kwargs": {},
    "verbose": True,
    "return_progress": True,
}


def recorded() -> list[bytes]:
    """The bodies that are mutated."""
    refusals = [case.content for case in cases(request="POST /v1/chat/completions") if case.status >= 400]
    lists = [case.content for case in cases(request="GET /v1/models")]
    return [*refusals, *lists * 8]


def check(data: bytes, status: int) -> str:
    """The outcome, read as a refusal and as a model list."""
    error = error_from_response(status, data)
    if not 0 < len(error.message) <= LONGEST_MESSAGE:
        raise Breach(f"a client is told something, and not too much\n{len(error.message)} characters")
    orjson.loads(error.body("req_1"))
    try:
        shorter_answer(4096, error.message)
    except ContextTooLong as exc:
        error = exc
    find_bound(error.message)
    rejected_field(ASKED, error.message)
    return f"{type(error).__name__}, {_list(data)}"


def _list(data: bytes) -> str:
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return "no list"
    try:
        known = parse_models(answer)
    except ApiError:
        return "no list"
    told = orjson.loads(orjson.dumps(models_page(known, b"limit=1000")))
    if [one["id"] for one in told["data"]] != [model.id for model in known][:1000]:
        raise Breach(f"a list has all models\n{told}")
    return "a list"
