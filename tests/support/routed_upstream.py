"""A scripted upstream that answers by path, and engines over it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from tests.replay import Case, cases
from tests.support.upstream import Answer, Request, ScriptedUpstream, Wire, framed, json_answer, sse

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
HELLO = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
ANSWER = sse(*HELLO)
ABSENT = json_answer(404, {"detail": "Not Found"})


def listing(owner: str, *, window: int | None = None, name: str = "m", created: int = 1) -> bytes:
    entry = {"id": name, "object": "model", "created": created, "owned_by": owner}
    return json_answer(
        200, {"object": "list", "data": [entry if window is None else entry | {"max_model_len": window}]}
    )


def recorded(case: Case) -> bytes:
    """The recorded answer of a real engine."""
    return framed(case.status, [("content-type", case.content_type or "text/plain")], [case.content], case.framing)


def recording(engine: str, name: str) -> bytes:
    (case,) = cases(engine, name=name)
    return recorded(case)


def routed(routes: dict[str, Answer | list[Answer]]) -> Answer:
    """Answers by path. Of several answers each request takes the next; the last one repeats."""
    left = {path: list(answers) if isinstance(answers, list) else [answers] for path, answers in routes.items()}

    async def answer(wire: Wire) -> None:
        answers = left.get(wire.target, [ABSENT])
        chosen = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(chosen, bytes):
            await wire.send(chosen)
        else:
            await chosen(wire)

    return answer


@asynccontextmanager
async def engine_over(
    routes: dict[str, Answer | list[Answer]], *, dialect: str | None = None, **options: Any
) -> AsyncIterator[tuple[ScriptedUpstream, OpenAIEngine]]:
    async with ScriptedUpstream(routed(routes)) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url), dialect=dialect, **options)
        try:
            yield upstream, engine
        finally:
            assert " leased=0 connecting=0 " in repr(engine), "a slot is still taken"
            await engine.stop()


def asked(upstream: ScriptedUpstream, path: str = CHAT) -> list[dict[str, Any]]:
    """The JSON bodies that were posted to a path."""
    return [json.loads(request.body) for request in upstream.requests if _is(request, path)]


def times(upstream: ScriptedUpstream, path: str) -> int:
    return sum(_is(request, path) for request in upstream.requests)


def _is(request: Request, path: str) -> bool:
    return request.target == path
