"""`anthro-asgi serve` and `anthro-asgi simulate-openai`: bind the address, build the application, and serve it."""

import os
from collections.abc import Callable, Sequence
from functools import partial

from ..factory import build_app, build_completions_app, build_engine, log_unused, native_pump, reload_keys
from ..http.base_app import BaseApp
from ..observability.log_writer import open_standard_descriptors
from ..observability.logs import capture_output, configure, release_output
from ..server.listeners import bind_listeners
from ..server.supervisor import serve as serve_app
from ..server.tls import Certificate
from ..settings.api_keys import client_keys
from ..settings.options import ConfigError, Settings
from ..settings.unused import refuse_unused
from .start_report import StartReport


def serve(settings: Settings) -> int:
    """Serve the Messages API until a signal; the exit status. Raises ConfigError or ResourceUnavailable."""
    refuse_unused(settings)
    keys = client_keys(settings)
    native_pump(settings)  # raises if it is demanded and missing, whatever the engine is
    return _serve(settings, keys, lambda: build_app(build_engine(settings), keys, settings))


def simulate_openai(settings: Settings) -> int:
    """Serve the simulator as chat completions until a signal; the exit status. Raises like `serve`."""
    refuse_unused(settings)
    keys = client_keys(settings)
    return _serve(settings, keys, lambda: build_completions_app(keys, settings), messages=False)


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
        log_unused(settings)
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
