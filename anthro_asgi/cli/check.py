"""The report of `anthro-asgi check`: what the upstream is, what it has, whether it answers.

Most of what is shown are the upstream's own words, so they are cleaned before they reach a terminal.
"""

from contextlib import aclosing
from time import perf_counter
from typing import Any, Final

from ..observability.logs import clean
from ..wire.deltas import Finish
from ..wire.errors import ApiError, BadUpstream
from ..wire.request import MessagesRequest

_SHOWN: Final = 20  # models of a list


async def report(engine: Any, wanted: str | None) -> int:
    try:
        _say("engine", (await engine.detect()).title)
        model = await _show_models(engine, wanted)
        if model is None:
            _say("message", "not tried: no model is listed; name one with --try-model NAME")
            return 1
        _say("message", await _try_message(engine, model))
        _say("tokens", await _try_count(engine, model))
    except ApiError as exc:
        _say("failed", _why(exc))
        return 1
    finally:
        await engine.stop()
    _say("hint", f"for clients that name models of their own, serve with --model-alias '*={model}'")
    return 0


def _say(what: str, text: str) -> None:
    print(f"{what:<8} {clean(text)}", flush=True)


async def _show_models(engine: Any, wanted: str | None) -> str | None:
    """Show the list, and return the model to try. A list that cannot be had is no hindrance if one is `wanted`."""
    try:
        models = await engine.models()
    except ApiError as exc:
        if wanted is None:
            raise
        _say("models", f"not listed: {_why(exc)}")
        return wanted
    _say("models", str(len(models)))
    for model in models[:_SHOWN]:
        limits = (("context", model.max_input_tokens), ("answer", model.max_tokens))
        known = ", ".join(f"{name} {tokens} tokens" for name, tokens in limits if tokens is not None)
        _say("", f"{model.id} ({known})" if known else model.id)
    if len(models) > _SHOWN:
        _say("", f"and {len(models) - _SHOWN} more")
    return wanted or (models[0].id if models else None)


def _hello(model: str) -> MessagesRequest:
    return MessagesRequest(model=model, max_tokens=1, messages=[{"role": "user", "content": "Hello"}])


async def _try_count(engine: Any, model: str) -> str:
    """Who counts tokens before an answer. Raises ApiError."""
    try:
        await engine.count_tokens(_hello(model))
    except NotImplementedError:
        return "estimated: the engine does not count them; --tokenizer FILE may come closer"
    return "counted by the engine"


async def _try_message(engine: Any, model: str) -> str:
    """One token of an answer. Raises ApiError."""
    request = _hello(model)
    begun, first, last = perf_counter(), None, None
    async with aclosing(engine.stream(request)) as batches:
        async for batch in batches:
            if batch:
                first = first or perf_counter()
                last = batch[-1] if isinstance(batch, list) else batch
    if first is None or not isinstance(last, Finish):
        raise BadUpstream("the answer broke off")
    return f"ok, {last.stop_reason}: first byte after {(first - begun) * 1000:.0f} ms"


def _why(exc: BaseException) -> str:
    """What an operator, unlike a client and the log, may be told: the cause with its addresses, the engine's words."""
    return ": ".join(filter(None, (str(exc), str(exc.__cause__ or ""), *getattr(exc, "__notes__", ()))))
