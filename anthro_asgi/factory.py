"""Builds what is served from the settings: the engine that they name, and the application over it.

This is the only file that names the engines. Each is imported where it is built, because a run needs only one of them.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from ._native import NewPump, is_used, missing, new_pump, new_thread
from ._native.pump_thread import PumpThread
from .batches.store import BatchStore, StoreUnavailable
from .engines.base import BaseEngine, UpstreamEngine
from .http.base_app import BaseApp
from .http.messages_app import MessagesApp
from .http.pdf_reader import can_read_pdfs
from .http.prompt_tokens import Tokenizer
from .observability.logs import log_event
from .settings.api_keys import client_keys, upstream_key
from .settings.loader import check_readable, load_settings
from .settings.options import SIMULATED_BY_DEFAULT, ConfigError, ResourceUnavailable, Settings
from .wire.answer_limits import AnswerLimits
from .wire.request_policy import Rules
from .wire.web_search import WebSearcher

_SPARE_CONNECTIONS: Final = 64
"""Upstream connections in addition to those of answers: for model lists, token counts and health checks."""


def native_pump(settings: Settings) -> NewPump | None:
    """What makes the native pumps that relay streams (see `_native`); None without. Raises ConfigError if demanded."""
    if settings.native in ("on", "loop") and (lacking := missing()) is not None:
        raise ConfigError(f"--native {settings.native}: the native path cannot be used without {lacking}")
    return new_pump if is_used(settings.native) else None


def _pump_thread(settings: Settings) -> PumpThread | None:
    """The thread that relays streams, which all engines of a process share; None without."""
    uses_thread = settings.native != "loop" and is_used(settings.native)
    return PumpThread(new_thread) if uses_thread and new_thread is not None else None


def build_engine(settings: Settings) -> BaseEngine:
    """The engine that the settings name; without one, the simulator. Raises ConfigError or ResourceUnavailable."""
    try:
        if settings.upstreams:
            return _build_routed_engine(settings)
        if settings.upstream is not None:
            return build_upstream_engine(settings)
        if settings.engine is not None:
            from .engines.functions import load

            sys.path.insert(0, os.getcwd())  # the installed command finds modules as `python -m` does
            return load(settings.engine)
        if settings.model is not None:
            return _build_llamacpp_engine(settings.model, settings)
        return build_simulated_engine(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def build_simulated_engine(settings: Settings) -> BaseEngine:
    """The simulator. Raises ValueError or ResourceUnavailable."""
    from .simulator import Profile, SimulatedEngine, read_trace

    profile = {field.name: getattr(settings, f"simulate_{field.name}") for field in fields(Profile)}
    path = profile["trace"]
    if path is not None:
        try:
            with open(path, "rb") as file:
                profile["trace"] = read_trace(file)
        except OSError as exc:
            raise ResourceUnavailable(f"--simulate-trace: cannot read {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ResourceUnavailable(f"--simulate-trace: {path}: {exc}") from exc
    return SimulatedEngine(**profile | {"trace": profile["trace"] or ()})


def build_completions_app(keys: Sequence[str], settings: Settings) -> BaseApp:
    """The simulator behind a chat-completions API. Raises ConfigError or ResourceUnavailable."""
    from .simulator.chat_app import CompletionsApp

    try:
        engine = build_simulated_engine(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    return CompletionsApp(
        engine,
        keys=keys,
        max_body=settings.max_body,
        max_decompressed=settings.max_decompressed,
        debug=settings.debug,
    )


def _build_llamacpp_engine(model: str, settings: Settings) -> BaseEngine:
    """llama.cpp with the model file `model`. Raises ValueError or ConfigError."""
    from .engines.llamacpp.engine import LlamaCppEngine

    if settings.workers > 1:
        raise ConfigError("--model needs --workers 1: each worker would load the model again")
    return LlamaCppEngine(
        model,
        context=settings.model_context,
        slots=settings.model_slots,
        threads=settings.model_threads,
        **_upstream_arguments(settings),
    )


def _build_routed_engine(settings: Settings) -> BaseEngine:
    """All engines, each with its own settings. Raises ValueError, ConfigError or ResourceUnavailable."""
    from .engines.member import EngineRules
    from .engines.routed import RoutedEngine

    engines = {}
    thread = _pump_thread(settings)
    for named in settings.upstreams:
        rules = EngineRules(
            fallback=named.fallback,
            models=named.models,
            max_concurrency=named.values.get("max_concurrency"),
            queue_timeout=settings.queue_timeout,
        )
        try:
            engine = build_upstream_engine(settings.of(named), thread, name=named.name, window=named.window)
        except (ConfigError, ValueError) as exc:
            raise type(exc)(f"engine {named.name}: {exc}") from exc
        engines[named.name] = (engine, rules)
    return RoutedEngine(engines)


def build_upstream_engine(
    settings: Settings, thread: PumpThread | None = None, *, name: str | None = None, window: int | None = None
) -> UpstreamEngine:
    """The engine behind `--upstream`. `name` is its name where there are several, `window` the context length of its
    models where the operator says it. `thread` is the one that it shares with others. Raises ValueError, ConfigError or
    ResourceUnavailable."""
    from .engines.auto import AutoEngine
    from .engines.messages.engine import MessagesEngine
    from .engines.openai.engine import OpenAIEngine
    from .engines.openai.python_pump import PythonPump
    from .upstream.origin import Origin

    if settings.upstream is None:
        raise ConfigError("check needs an upstream: name it with --upstream URL")
    for option, path in (
        ("--upstream-ca", settings.upstream_ca),
        ("--upstream-cert", settings.upstream_cert),
        ("--upstream-cert-key", settings.upstream_cert_key),
    ):
        if path is not None:
            check_readable(option, path)
    origin = Origin.parse(
        settings.upstream,
        ca_file=settings.upstream_ca,
        cert_file=settings.upstream_cert,
        cert_key_file=settings.upstream_cert_key,
    )
    arguments = {"key": upstream_key(settings), **_upstream_arguments(settings), "name": name, "window": window}
    messages = MessagesEngine(origin, **arguments)
    chat = OpenAIEngine(
        origin,
        **arguments,
        dialect=None if settings.dialect == "auto" else settings.dialect,
        new_pump=native_pump(settings) or PythonPump,
        pump_thread=thread or _pump_thread(settings),
        late_system={"keep": True, "fold": False}.get(settings.late_system),
        think_tags=settings.think_tags,  # type: ignore[arg-type]  # the option accepts the same three values
    )
    if settings.upstream_api == "auto":
        return AutoEngine(chat, messages)
    return messages if settings.upstream_api == "messages" else chat


def _upstream_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments of every engine behind a connection."""
    from .upstream.pool import Deadlines

    return {
        "deadlines": Deadlines(
            connect=settings.connect_deadline,
            first_byte=settings.first_byte_deadline,
            silence=settings.silence_deadline,
            total=settings.total_deadline,
        ),
        "limit": settings.max_concurrency + _SPARE_CONNECTIONS,
        "limits": _limits(settings),
        "reuse": settings.upstream_reuse == "always",
    }


def _limits(settings: Settings) -> AnswerLimits:
    return AnswerLimits(
        max_event=settings.max_event, max_tool_input=settings.max_tool_input, max_answer=settings.max_answer
    )


def _tokenizer(settings: Settings) -> Tokenizer | None:
    """The tokenizer file, if one is named. Raises ResourceUnavailable."""
    if settings.tokenizer is None:
        return None
    from .engines.openai.tokenizer_file import TokenizerFile

    check_readable("--tokenizer", settings.tokenizer)
    try:
        return TokenizerFile(settings.tokenizer)
    except ValueError as exc:
        raise ResourceUnavailable(f"--tokenizer: {exc}") from exc


def _batch_store(settings: Settings) -> BatchStore | None:
    """The store of message batches and files, not open. Raises ConfigError, and ResourceUnavailable if it fails."""
    if settings.batch_store is None:
        return None
    from .batches.postgres import PostgresDatabase
    from .batches.sql_store import SqlBatchStore
    from .batches.sqlite import SqliteDatabase

    try:
        is_url = settings.batch_store.startswith(("postgresql://", "postgres://"))
        database = PostgresDatabase(settings.batch_store) if is_url else SqliteDatabase(settings.batch_store)
        database.open()  # workers are forked later, and a connection must not be
    except ValueError as exc:
        raise ConfigError(f"--batch-store: {exc}") from exc
    except StoreUnavailable as exc:
        raise ResourceUnavailable(f"--batch-store: {exc}") from exc
    database.close()
    return SqlBatchStore(database)


def _web_search(settings: Settings) -> WebSearcher | None:
    """The search engine, if one is named. Raises ConfigError."""
    if settings.web_search is None:
        return None
    try:
        if settings.web_search.startswith(("http://", "https://")):
            from .engines.searxng import SearxngSearch

            return SearxngSearch(settings.web_search)
        from .engines.functions import load_attribute

        sys.path.insert(0, os.getcwd())  # as for --engine
        function: WebSearcher = load_attribute(settings.web_search)
    except ValueError as exc:
        raise ConfigError(f"--web-search: {exc}") from exc
    if not callable(function):
        raise ConfigError("--web-search: the function cannot be called")
    return function


def build_app(engine: object, keys: Sequence[str], settings: Settings) -> MessagesApp:
    """The application over `engine`. Raises ConfigError or ResourceUnavailable."""
    reads_pdfs = settings.pdf in ("images", "both") and settings.server_tools != "pass"
    if reads_pdfs and not can_read_pdfs():
        raise ConfigError(f"--pdf {settings.pdf} needs an extra: pip install 'anthro-asgi[pdf]'")
    app = MessagesApp(
        engine,
        keys=keys,
        ping_interval=settings.ping_interval,
        max_body=settings.max_body,
        max_decompressed=settings.max_decompressed,
        max_body_memory=settings.max_body_memory,
        max_body_memory_per_key=settings.max_body_memory_per_key,
        max_concurrency=settings.max_concurrency,
        max_queue=settings.max_queue,
        queue_timeout=settings.queue_timeout,
        max_concurrency_per_key=settings.max_concurrency_per_key,
        aliases=dict(settings.model_alias),
        hide_thinking=settings.hide_thinking,
        tokenizer=_tokenizer(settings),
        cors_origins=settings.cors_origin,
        page=not settings.no_page,
        total_deadline=settings.total_deadline,
        compact_at=settings.compact_at,
        web_search=_web_search(settings),
        batch_store=_batch_store(settings),
        batch_concurrency=settings.batch_concurrency,
        batch_lease=settings.batch_lease,
        batch_lateness=settings.batch_lateness,
        max_file=settings.max_file,
        max_files_per_key=settings.max_files_per_key,
        debug=settings.debug,
        pdf=settings.pdf,  # type: ignore[arg-type]  # the option accepts the same values
        cache_diagnostics=settings.cache_diagnostics,  # type: ignore[arg-type]  # the option accepts the same values
        cache_diagnostics_answers=settings.cache_diagnostics_answers,
        limits=_limits(settings),
        rules=Rules(
            drop_server_tools=settings.server_tools == "drop",
            pass_server_tools=settings.server_tools == "pass",
            client_tools_as_functions=settings.client_tools == "function",
            pass_image_urls=settings.image_urls == "pass",
            keep_billing_header=settings.keep_billing_header,
            max_depth=settings.max_depth,
            max_messages=settings.max_messages,
            max_tools=settings.max_tools,
            max_stop_sequences=settings.max_stop_sequences,
        ),
    )
    if settings.simulated_by_default:
        app.notice = SIMULATED_BY_DEFAULT
    return app


def log_unused(settings: Settings) -> None:
    """Log a warning for each option that has no effect."""
    for option in settings.without_effect:
        log_event("option_without_effect", logging.WARNING, option=option.where, reason=option.reason)


class StartRefused(ConfigError, SystemExit):
    """What `create_app` raises. It is a SystemExit too, so a server that calls the factory ends with this one line on
    stderr, and without a traceback.
    """

    def __init__(self, reason: ConfigError) -> None:
        super().__init__(str(reason))
        self.code = f"anthro-asgi: error: {' '.join(str(reason).split())}"


def create_app() -> MessagesApp:
    """The application that the environment variables `ANTHRO_ASGI_…` describe, for servers that take a factory.

    Raises ConfigError, in the form of StartRefused. Without API keys it does so unless `ANTHRO_ASGI_NO_AUTH` is true:
    the factory does not know on which address the server listens.
    """
    try:
        return _app_from_environment()
    except ConfigError as exc:
        raise StartRefused(exc) from exc


def _app_from_environment() -> MessagesApp:
    """Raises ConfigError or ResourceUnavailable."""
    settings = load_settings({}, os.environ)
    keys = client_keys(settings)
    if not keys and not settings.no_auth:
        raise ConfigError(
            "no API key is configured: set ANTHRO_ASGI_API_KEYS or ANTHRO_ASGI_API_KEY_FILE, "
            "or turn authentication off with ANTHRO_ASGI_NO_AUTH=true"
        )
    if settings.simulated_by_default:
        log_event("simulated_by_default", logging.WARNING, warning=SIMULATED_BY_DEFAULT)
    log_unused(settings)
    return build_app(build_engine(settings), keys, settings)


def reload_keys(app: BaseApp, settings: Settings) -> None:
    """Read the key files again, and use their keys from now on. Raises ConfigError; the old keys stay valid then."""
    keys = client_keys(settings)
    if settings.upstreams:
        named_keys = {named.name: upstream_key(settings.of(named)) for named in settings.upstreams}
        app.replace_keys(keys)
        for name, key in named_keys.items():
            app.engine.replace_key_of(name, key)
        return
    key = upstream_key(settings)
    app.replace_keys(keys)
    app.engine.replace_key(key)
