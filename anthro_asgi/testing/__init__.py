"""A kit for testing clients of the Messages API: scripted replies, a server for tests, and an in-process client.

    from anthro_asgi.testing import ToolCall, error

    def test_my_agent(messages_server):                      # the fixture comes with the installed package
        messages_server.script(error(429, retry_after=1), ToolCall("get_weather", {"city": "Paris"}), "It is sunny.")
        answer = my_agent(messages_server.client(anthropic.Anthropic))
        assert answer == "It is sunny."
        assert [request.text for request in messages_server.requests] == ["Weather?", "Weather?", ""]

How it is built. The replies are played by an engine (ScriptedEngine) of the same application that serves real engines,
so requests are validated, and events, errors and headers are encoded, as in production.

    replies, requests, script   what is answered to which request. No I/O
    engine, app                 plays the script; records the requests
    driver                      calls an ASGI application piece by piece
    loopback, in_process        two ways for a client to reach an application; messages: the scripted one by both
    pytest_plugin               the fixtures

Each name is imported when it is first used, because the plugin is loaded in every run of pytest. A new public name goes
into the table here and into `__init__.pyi`, which type checkers read.
"""

from importlib import import_module

_MODULES = {
    "Cut": "replies",
    "Driver": "driver",
    "InProcessApp": "in_process",
    "InProcessMessages": "messages",
    "LoopbackServer": "loopback",
    "MessagesServer": "messages",
    "Reply": "replies",
    "ScriptedApp": "app",
    "ScriptedEngine": "engine",
    "SeenRequest": "requests",
    "Stall": "replies",
    "ToolCall": "replies",
    "error": "replies",
    "matching": "requests",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
