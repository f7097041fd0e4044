"""THE OTHER TONGUE: any engine of ours served as chat completions, so that gateways can be tried without a real one.

    request  the body → MessagesRequest, pure
    chunks   deltas → the chunks of a stream or one whole completion, pure
    reply    one answer's life
    app      the ASGI callable: routes, keys, errors in OpenAI's shape

A client that speaks the Messages API is served by `MessagesApp`; this is what may stand behind it.
"""

from .app import CompletionsApp

__all__ = ["CompletionsApp"]
