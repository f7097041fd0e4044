"""What is served, made of settings: the engine they name and the application over it.

Only here are engines named. Each is imported where it is made, for most runs need one of them.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from .http.messages_app import MessagesApp
from .settings.api_keys import client_keys, upstream_key
from .settings.loader import check_readable, load_settings
from .settings.options import ConfigError, ResourceUnavailable, Settings
from .wire.answer_limits import AnswerLimits
from .wire.request_policy import Rules

_SPARE: Final = 64  # connections to the upstream beside those of answers: for lists, counts and looks at its health


def build_engine(settings: Settings) -> Any:
    """The engine that is named, or the simulated one. Raises ConfigError or ResourceUnavailable."""
    try:
        if settings.upstream is not None:
            return build_upstream_engine(settings)
        if settings.engine is not None:
            from .engines.functions import load

            sys.path.insert(0, os.getcwd())  # as `python -m` does, for the installed command
            return load(settings.engine)
        if settings.model is not None:
            return _build_llamacpp_engine(settings.model, settings)
        return build_simulated_engine(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def build_simulated_engine(settings: Settings) -> Any:
    """The simulated engine. Raises ValueError or ResourceUnavailable."""
    from .simulator import Profile, SimulatedEngine, read_trace

    how = {field.name: getattr(settings, f"simulate_{field.name}") for field in fields(Profile)}
    path = how["trace"]
    if path is not None:
        try:
            with open(path, "rb") as file:
                how["trace"] = read_trace(file)
        except OSError as exc:
            raise ResourceUnavailable(f"--simulate-trace: cannot read {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ResourceUnavailable(f"--simulate-trace: {path}: {exc}") from exc
    return SimulatedEngine(**how | {"trace": how["trace"] or ()})


def build_completions_app(keys: Sequence[str], settings: Settings) -> Any:
    """The simulated engine as chat completions. Raises ConfigError or ResourceUnavailable."""
    from .simulator.chat_app import CompletionsApp

    try:
        engine = build_simulated_engine(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    return CompletionsApp(engine, keys=keys, max_body=settings.max_body, max_decompressed=settings.max_decompressed)


def _build_llamacpp_engine(model: str, settings: Settings) -> Any:
    """llama.cpp on a model file. Raises ValueError."""
    from .engines.llamacpp.engine import LlamaCppEngine

    if settings.workers > 1:
        raise ConfigError("--model is served by one worker: each would load the model anew")
    return LlamaCppEngine(
        model,
        context=settings.model_context,
        slots=settings.model_slots,
        threads=settings.model_threads,
        **_upstream_arguments(settings),
    )


def build_upstream_engine(settings: Settings) -> Any:
    """The engine behind `--upstream`. Raises ValueError, ConfigError or ResourceUnavailable."""
    from .engines.auto import AutoEngine
    from .engines.messages.engine import MessagesEngine
    from .engines.openai.engine import OpenAIEngine
    from .upstream.origin import Origin

    if settings.upstream is None:
        raise ConfigError("check asks an upstream: name it with --upstream URL")
    for option in ("upstream-ca", "upstream-cert", "upstream-cert-key"):
        path = getattr(settings, option.replace("-", "_"))
        if path is not None:
            check_readable(f"--{option}", path)
    origin = Origin.parse(
        settings.upstream,
        ca_file=settings.upstream_ca,
        cert_file=settings.upstream_cert,
        cert_key_file=settings.upstream_cert_key,
    )
    how = {"key": upstream_key(settings), **_upstream_arguments(settings)}
    messages = MessagesEngine(origin, **how)
    chat = OpenAIEngine(
        origin,
        **how,
        dialect=None if settings.dialect == "auto" else settings.dialect,
        late_system={"keep": True, "fold": False}.get(settings.late_system),
        think_tags=settings.think_tags,  # type: ignore[arg-type]  # the table has the same three
    )
    return {"messages": messages, "chat": chat}.get(settings.upstream_api) or AutoEngine(chat, messages)


def _upstream_arguments(settings: Settings) -> dict[str, Any]:
    """What every engine behind a connection is told."""
    from .upstream.pool import Deadlines

    return {
        "deadlines": Deadlines(
            connect=settings.connect_deadline,
            first_byte=settings.first_byte_deadline,
            silence=settings.silence_deadline,
            total=settings.total_deadline,
        ),
        "limit": settings.max_concurrency + _SPARE,
        "limits": _limits(settings),
    }


def _limits(settings: Settings) -> AnswerLimits:
    return AnswerLimits(settings.max_event, settings.max_tool_input, settings.max_answer)


def _tokenizer(settings: Settings) -> Any:
    if settings.tokenizer is None:
        return None
    from .engines.openai.tokenizer_file import TokenizerFile

    check_readable("--tokenizer", settings.tokenizer)
    try:
        return TokenizerFile(settings.tokenizer)
    except ValueError as exc:
        raise ResourceUnavailable(f"--tokenizer: {exc}") from exc


def build_app(engine: object, keys: Sequence[str], settings: Settings) -> MessagesApp:
    """The application over `engine`. Raises ConfigError or ResourceUnavailable."""
    return MessagesApp(
        engine,
        keys=keys,
        ping_interval=settings.ping_interval,
        max_body=settings.max_body,
        max_decompressed=settings.max_decompressed,
        max_concurrency=settings.max_concurrency,
        max_queue=settings.max_queue,
        queue_timeout=settings.queue_timeout,
        max_concurrency_per_key=settings.max_concurrency_per_key,
        aliases=dict(settings.model_alias),
        hide_thinking=settings.hide_thinking,
        tokenizer=_tokenizer(settings),
        limits=_limits(settings),
        rules=Rules(
            drop_server_tools=settings.server_tools == "drop",
            client_tools_as_functions=settings.client_tools == "function",
            pass_image_urls=settings.image_urls == "pass",
            keep_billing_header=settings.keep_billing_header,
            max_depth=settings.max_depth,
            max_messages=settings.max_messages,
            max_tools=settings.max_tools,
            max_stop_sequences=settings.max_stop_sequences,
        ),
    )


def create_app() -> MessagesApp:
    """The application that the environment describes (`ANTHRO_ASGI_…`), for servers that take a factory.

    Raises ConfigError or ResourceUnavailable. Without API keys it raises ConfigError unless `ANTHRO_ASGI_NO_AUTH` is
    true: the factory does not know on which address the server listens.
    """
    settings = load_settings({}, os.environ)
    keys = client_keys(settings)
    if not keys and not settings.no_auth:
        raise ConfigError(
            "no API key is configured: set ANTHRO_ASGI_API_KEYS or ANTHRO_ASGI_API_KEY_FILE, "
            "or turn authentication off with ANTHRO_ASGI_NO_AUTH=true"
        )
    return build_app(build_engine(settings), keys, settings)


def reload_keys(app: MessagesApp, settings: Settings) -> None:
    """Take what the key files hold now. Raises ConfigError, and then everything stays as it is."""
    keys, key = client_keys(settings), upstream_key(settings)
    app.replace_keys(keys)
    app.engine.replace_key(key)
