"""The report of `anthro-asgi check`: what the upstream is, which models it lists, whether it answers and calls tools.

Most of the report is text of the upstream, so it is cleaned before it is printed to a terminal.
"""

import asyncio
import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

import orjson

from .._native import description, is_used, missing
from ..engines.base import BaseEngine, UpstreamEngine
from ..factory import build_upstream_engine
from ..http.answer import Answer
from ..observability.logs import clean
from ..settings.options import ConfigError, NamedUpstream, Settings
from ..settings.unused import refuse_unused
from ..wire.deltas import ToolStart, deltas_of
from ..wire.errors import ApiError
from ..wire.request import MessagesRequest, parse_request
from .client_setup import claude_code_lines, client_key, reachable_url, small_window

_LISTED: Final = 20  # models that are printed


def check(settings: Settings) -> int:
    """Run the command; the exit status. Raises ConfigError or ResourceUnavailable."""
    refuse_unused(settings)
    logging.getLogger("anthro_asgi").addHandler(logging.NullHandler())  # the report contains what would be logged
    engines = {named.name: _build(settings.of(named), named) for named in settings.upstreams}
    single = None if engines else _build(settings)
    _print("native", _native_path(settings.native))
    for option in settings.without_effect:
        _print("warning", f"{option.where} has no effect {option.reason}")
    if single is not None:
        return asyncio.run(report(single, settings))
    return asyncio.run(report_each(engines, settings))


def _build(settings: Settings, named: NamedUpstream | None = None) -> UpstreamEngine:
    """Raises ConfigError or ResourceUnavailable."""
    try:
        if named is None:
            return build_upstream_engine(settings)
        return build_upstream_engine(settings, name=named.name, window=named.window)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


async def report_each(engines: Mapping[str, UpstreamEngine], settings: Settings) -> int:
    """Print the report of each engine; the exit status is 1 if one of them fails.

    The model to try is `MODEL@ENGINE` for one engine only, otherwise a model for each of them.
    """
    wanted = settings.try_model
    model, _, only = (wanted or "").rpartition("@")
    status = 0
    for name, engine in engines.items():
        if only in engines and only != name:
            await engine.stop()
            continue
        print()
        _print("name", name)
        status = max(
            status,
            await report(engine, settings.with_values(try_model=model or None) if only in engines else settings, name),
        )
    return status


def _native_path(mode: str) -> str:
    """Whether `serve` with the same options relays steady streams in C, and why not."""
    lacking = missing()
    if is_used(mode):
        return description(mode)
    return "no: --native off" if lacking is None else f"no: needs {lacking}"


async def report(engine: UpstreamEngine, settings: Settings, name: str | None = None) -> int:
    """Print the report, and return the exit status. The settings name the model to try, otherwise it is the first.

    `name` is that of the engine, where there are several.
    """
    try:
        dialect = await engine.detect()
        _print("engine", engine.describe() or dialect.title)
        model = await _report_models(engine, settings.try_model)
        if model is None:
            _print("message", "not tried: the upstream lists no model; name one with --try-model NAME")
            return 1
        _print("message", await _try_message(engine, model))
        _print("tools", await _try_tool(engine, model))
        _print("tokens", await _try_count(engine, model))
        window = await _window(engine, model)
    except ApiError as exc:
        _print("failed", _explain(exc))
        if (remedy := engine.remedy(exc)) is not None:
            _print("remedy", remedy)
        return 1
    finally:
        await engine.stop()
    target = model if name is None else f"{model}@{name}"
    _print("hint", f"for clients that use other model names, serve with --model-alias '*={target}'")
    key = client_key(bool(settings.api_keys or settings.api_key_file))
    for line in claude_code_lines(target, window, url=_service_url(settings), key=key):
        _print("", line)
    if (words := small_window(window)) is not None:
        _print("warning", words)
    return 0


def _service_url(settings: Settings) -> str:
    """The URL of the service that `serve` starts with the same environment and file."""
    if settings.uds is not None:
        return "http://HOST:PORT"  # clients reach it by a proxy
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return reachable_url(f"{'http' if settings.tls_cert is None else 'https'}://{host}:{settings.port}")


async def _window(engine: UpstreamEngine, model: str) -> int | None:
    """The model's context in tokens; None if the upstream does not list it."""
    try:
        models = await engine.models()
    except ApiError:
        return None
    return next((listed.max_input_tokens for listed in models if listed.id == model), None)


def _print(label: str, text: str) -> None:
    print(f"{label:<8} {clean(text)}", flush=True)


async def _report_models(engine: UpstreamEngine, wanted: str | None) -> str | None:
    """Print the list, and return the model to try. Raises ApiError when there is no list and no model is `wanted`."""
    try:
        models = await engine.models()
    except ApiError as exc:
        if wanted is None:
            raise
        _print("models", f"not listed: {_explain(exc)}")
        return wanted
    _print("models", str(len(models)))
    for model in models[:_LISTED]:
        limits = (("context", model.max_input_tokens), ("output", model.max_tokens))
        known = ", ".join(f"{name} {tokens} tokens" for name, tokens in limits if tokens is not None)
        _print("", f"{model.id} ({known})" if known else model.id)
    if len(models) > _LISTED:
        _print("", f"and {len(models) - _LISTED} more")
    return wanted or (models[0].id if models else None)


def _hello(model: str, **fields: Any) -> MessagesRequest:
    """A request with the body that a client would send, because a relayed upstream receives that body."""
    messages = [{"role": "user", "content": "Hello"}]
    return parse_request(orjson.dumps({"model": model, "max_tokens": 1, "messages": messages, **fields}))


_TOOL: Final = {
    "name": "report_color",
    "description": "Report a color.",
    "input_schema": {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]},
}
_VLLM_FLAGS: Final = "; vLLM calls tools only with --enable-auto-tool-choice and --tool-call-parser"


async def _try_tool(engine: UpstreamEngine, model: str) -> str:
    """Whether the engine obeys a tool choice that forces a call. A refusal does not fail the check."""
    request = _hello(model, max_tokens=256, tools=[_TOOL], tool_choice={"type": "any"})
    try:
        async with Answer(engine, request) as answer:
            await answer.begin()
            called = False
            async for batch in answer:
                called = called or any(isinstance(delta, ToolStart) for delta in deltas_of(batch))
    except ApiError as exc:
        return f"failed: {_explain(exc)}{_VLLM_FLAGS if 'tool' in _explain(exc) else ''}"
    if called:
        return "called when it is forced"
    return f"not called, although it was forced{_VLLM_FLAGS}"


async def _try_count(engine: UpstreamEngine, model: str) -> str:
    """How tokens are counted before a response. Raises ApiError."""
    try:
        await engine.count_tokens(_hello(model))
    except NotImplementedError:
        return "estimated, because the engine does not count them; --tokenizer FILE may be more exact"
    return "counted by the engine"


async def _try_message(engine: BaseEngine, model: str) -> str:
    """Request one token. Raises ApiError."""
    began = perf_counter()
    async with Answer(engine, _hello(model)) as answer:
        await answer.begin()
        first = perf_counter()
        async for _ in answer:
            pass
    return f"ok ({answer.stop_reason}), first output after {(first - began) * 1000:.0f} ms"


def _explain(exc: BaseException) -> str:
    """The error with its cause: the upstream's address or the engine's own words. For the operator only."""
    words, cause = str(exc), str(exc.__cause__ or "")
    return cause if words in cause else ": ".join(filter(None, (words, cause)))
