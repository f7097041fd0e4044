"""The Anthropic Messages API in front of any inference engine, as a pure ASGI callable.

    from anthro_asgi import MessagesApp

    async def engine(request):
        yield "Hello"

    app = MessagesApp(engine)        # uvicorn module:app

Each name is imported when it is first used, because `anthro-asgi health` runs every few seconds and needs none of them.
A new public name goes into the table here and into `__init__.pyi`, which type checkers read.
"""

_MODULES = {
    "Answer": "http.answer",
    "ApiError": "wire.errors",
    "BadUpstream": "wire.errors",
    "BaseEngine": "engines.base",
    "Batch": "wire.deltas",
    "Block": "wire.deltas",
    "ContextTooLong": "wire.errors",
    "Delta": "wire.deltas",
    "Engine": "engines.base",
    "EngineFailed": "wire.errors",
    "Finish": "wire.deltas",
    "GarbageCollector": "server.garbage_collector",
    "InternalError": "wire.errors",
    "InvalidRequest": "wire.errors",
    "MessagesApp": "http.messages_app",
    "MessagesRequest": "wire.request",
    "ModelInfo": "engines.base",
    "NotFound": "wire.errors",
    "Overloaded": "wire.errors",
    "RateLimited": "wire.errors",
    "Rules": "wire.request_policy",
    "Signature": "wire.deltas",
    "Thinking": "wire.deltas",
    "ToolFailed": "http.answer_loop",
    "ToolJson": "wire.deltas",
    "ToolStart": "wire.deltas",
    "UpstreamTimeout": "wire.errors",
    "Usage": "wire.deltas",
    "as_chat": "engines.openai.chat_request",
    "as_engine": "engines.functions",
    "create_app": "factory",
    "deltas_of": "wire.deltas",
    "parse_request": "wire.request",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    from importlib import import_module  # `health` needs it as little as the modules below

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
