"""`anthro-asgi serve` and `anthro-asgi simulate-openai`: bind the address, build the application, and serve it."""

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial

from ..factory import build_app, build_completions_app, build_engine, native_pump, reload_keys
from ..http.base_app import BaseApp
from ..observability.log_writer import open_standard_descriptors
from ..observability.logs import capture_output, configure, log_event, release_output
from ..server.listeners import bind_listeners
from ..server.supervisor import serve as serve_app
from ..server.tls import Certificate
from ..settings.api_keys import client_keys
from ..settings.options import ConfigError, Settings
from .start_report import StartReport


def _engine(settings: Settings) -> str:
    """The chosen engine, by its option."""
    if settings.engine_kind == "simulate":
        return "the simulator" + (", which answers because no engine is named" if settings.simulated_by_default else "")
    messages = " --upstream-api messages" if settings.upstream_api == "messages" else ""
    return f"--{settings.engine_kind}{messages}"


def serve(settings: Settings) -> int:
    """Serve the Messages API until a signal; the exit status. Raises ConfigError or ResourceUnavailable."""
    # on the command line it is a mistake of this moment; a file or an environment may be shared with other services
    refused = [name for name in settings.without_effect if name.startswith("--")]
    if refused:
        raise ConfigError(f"{refused[0]} has no effect with {_engine(settings)}; remove it")
    keys = client_keys(settings)
    native_pump(settings)  # raises if it is demanded and missing, whatever the engine is
    if settings.max_concurrency_per_key is not None and not keys:
        raise ConfigError("--max-concurrency-per-key needs API keys, and none is configured")
    return _serve(settings, keys, lambda: build_app(build_engine(settings), keys, settings))


def simulate_openai(settings: Settings) -> int:
    """Serve the simulator as chat completions until a signal; the exit status. Raises like `serve`."""
    keys = client_keys(settings)
    chosen = settings.with_values(simulate=True, upstream=None, upstreams=(), engine=None, model=None, model_alias=())
    chosen = chosen.with_values(simulated_by_default=False, without_effect=())
    return _serve(chosen, keys, lambda: build_completions_app(keys, chosen), messages=False)


def _serve(settings: Settings, keys: Sequence[str], build: Callable[[], BaseApp], *, messages: bool = True) -> int:
    """The address is bound before the application is built, because building may take long and a port may be in use."""
    open_standard_descriptors()
    certificate = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
    with bind_listeners(settings) as shares:
        app = build()
        if messages and (settings.upstreams or settings.upstream is not None or settings.web_search is not None):
            from .own_address import refuse_own_address

            refuse_own_address(shares[0], settings)
        style = configure(settings.log_level, settings.log_format)
        capture_output()
        for name in settings.without_effect:
            log_event("option_without_effect", logging.WARNING, option=name, engine=_engine(settings))
        report = StartReport(
            app.engine,
            settings,
            has_keys=bool(keys),
            style=style,
            terminal=os.isatty(1),
            log_on_terminal=os.isatty(2),
            messages=messages,
        )
        try:
            return serve_app(app, shares, settings, certificate, partial(reload_keys, app, settings), report)
        except ConfigError:
            release_output()
            raise
