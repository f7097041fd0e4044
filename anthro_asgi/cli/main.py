"""The command: `anthro-asgi serve`, `check`, `health` and `simulate-openai`.

What keeps it from running is one line on stderr: exit status 2 for what makes no sense, 1 for what the machine would
not. What a wrong option does not need is imported where it is needed: the option table is quick, an event loop and a
server are not.
"""

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from ..settings.loader import did_you_mean, load_settings
from ..settings.options import OPTIONS, ConfigError, Settings
from ..settings.values import SWITCH


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return the exit status."""
    try:
        command, line = parse_command_line(sys.argv[1:] if arguments is None else arguments)
        return _COMMANDS[command](load_settings(line, os.environ))
    except ConfigError as exc:
        print("anthro-asgi: error:", *str(exc).split(), file=sys.stderr)
        return exc.status
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 + SIGINT


# --- the command line ---


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "))


def parse_command_line(arguments: Sequence[str]) -> tuple[str, Mapping[str, Sequence[str]]]:
    """The command, and its options as they were written."""
    parser = _Parser("anthro-asgi", description="The Anthropic Messages API in front of any inference engine.")
    parser.add_argument("--version", action=_Version, nargs=0, default=SUPPRESS, help="say which version this is")
    commands = parser.add_subparsers(dest="command", metavar="|".join(_SUMMARIES), required=True)
    for command, summary in _SUMMARIES.items():
        _add_options(commands.add_parser(command, help=summary, description=summary, allow_abbrev=False), command)
    known, unknown = parser.parse_known_args(arguments)
    line = vars(known)
    command = line.pop("command")
    if unknown:
        name = unknown[0].partition("=")[0]
        names = [f"--{option.name}" for option in OPTIONS if command in option.commands and "line" in option.channels]
        raise ConfigError(f"{command} has no option {name!r}{did_you_mean(name, names)}")
    return command, {name: value if isinstance(value, list) else [value] for name, value in line.items()}


def _add_options(parser: ArgumentParser, command: str) -> None:
    groups: dict[str, Any] = {}
    for option in OPTIONS:
        if command not in option.commands or "line" not in option.channels:
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        how: dict[str, Any] = {"metavar": option.type.metavar, "action": "append" if option.repeatable else "store"}
        if option.type is SWITCH:
            how = {"action": "store_const", "const": "true"}
        default = f" [{option.default}]" if option.default not in (None, "false") else ""
        text = (option.help + default).replace("%", "%%")
        groups[option.group].add_argument(f"--{option.name}", dest=option.name, default=SUPPRESS, help=text, **how)
    secrets = ", ".join(option.variable for option in OPTIONS if option.secret and command in option.commands)
    parser.epilog = (
        f"Any option may stand in the environment (ANTHRO_ASGI_PORT=…) or in a TOML file; only there: {secrets}."
    )


class _Version(Action):
    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version  # slow to find, and slow to import

        try:
            print("anthro-asgi", version("anthro-asgi"))
        except PackageNotFoundError:
            print("anthro-asgi, a copy that is not installed and so has no version")
        parser.exit()


# --- serve ---


def _serve(settings: Settings) -> int:
    from ..settings.api_keys import client_keys

    keys = client_keys(settings)
    if settings.max_concurrency_per_key is not None and not keys:
        raise ConfigError("--max-concurrency-per-key counts by API key, and there is none")
    return _run(settings, partial(_messages, keys))


def _messages(keys: Sequence[str], settings: Settings) -> Any:
    from ..factory import build_app, build_engine

    return build_app(build_engine(settings), keys, settings)


def _run(settings: Settings, make: Callable[[Settings], Any]) -> int:
    """Serve the application that `make` makes, once it is known that it can be listened where it shall be."""
    from ..observability.logs import configure
    from ..server.listeners import bind_listeners

    certificate = _certificate(settings)
    with bind_listeners(settings) as shares:
        from ..factory import reload_keys

        app = make(settings)
        configure(settings.log_level, settings.log_format)
        from ..server.supervisor import serve

        return serve(app, shares, settings, certificate, partial(reload_keys, app, settings))


def _certificate(settings: Settings) -> Any:
    """What clients are shown; None is no TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    from ..server.tls import Certificate

    return Certificate(settings.tls_cert, settings.tls_key)


# --- simulate-openai ---


def _simulate_openai(settings: Settings) -> int:
    from ..settings.api_keys import client_keys

    return _run(settings, partial(_completions, client_keys(settings)))


def _completions(keys: Sequence[str], settings: Settings) -> Any:
    from ..factory import build_completions_app

    return build_completions_app(keys, settings)


# --- check ---


def _check(settings: Settings) -> int:
    import asyncio
    import logging

    from ..factory import build_upstream_engine
    from .check import report

    logging.getLogger("anthro_asgi").addHandler(logging.NullHandler())  # the report says what would be logged
    try:
        engine = build_upstream_engine(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    return asyncio.run(report(engine, settings.try_model))


# --- health ---


def _health(settings: Settings) -> int:
    from .health import ask

    return ask(settings)


_SUMMARIES: Final = {
    "serve": "Serve the Messages API.",
    "check": "Try an upstream: what it is, what it has, whether it answers.",
    "health": "Ask a running server, of these same options, whether it lives.",
    "simulate-openai": "Be an OpenAI-compatible engine without a model, to try gateways on.",
}
_COMMANDS: Final[dict[str, Callable[[Settings], int]]] = {
    "serve": _serve,
    "check": _check,
    "health": _health,
    "simulate-openai": _simulate_openai,
}
