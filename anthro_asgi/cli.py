"""The command: `anthro-asgi serve`, `anthro-asgi check` and `anthro-asgi simulate-openai`.

What keeps it from running is one line on stderr: exit status 2 for what makes no sense, 1 for what the machine would
not. Only here are engines named. What a wrong option does not need is imported where it is needed: the option table is
quick, an event loop and a server are not.
"""

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, NoReturn

from .config import did_you_mean, load_settings
from .kinds import SWITCH
from .options import OPTIONS, ConfigError, Refused, Settings

_SPARE: Final = 64  # connections to the upstream beside those of answers: for lists, counts and looks at its health


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return the exit status."""
    try:
        command, line = _read(sys.argv[1:] if arguments is None else arguments)
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


def _read(arguments: Sequence[str]) -> tuple[str, Mapping[str, Sequence[str]]]:
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
        how: dict[str, Any] = {"metavar": option.kind.metavar, "action": "append" if option.many else "store"}
        if option.kind is SWITCH:
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


# --- what is served ---


def _engine(settings: Settings) -> Any:
    try:
        if settings.upstream is not None:
            return _upstream(settings)
        if settings.engine is not None:
            from .engines import load

            sys.path.insert(0, os.getcwd())  # as `python -m` does, for the installed command
            return load(settings.engine)
        return _simulated(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def _simulated(settings: Settings) -> Any:
    """Raises ValueError or Refused."""
    from .engines.simulated import Profile, SimulatedEngine, read_trace

    how = {field.name: getattr(settings, f"simulate_{field.name}") for field in fields(Profile)}
    path = how["trace"]
    if path is not None:
        try:
            with open(path, "rb") as file:
                how["trace"] = read_trace(file)
        except OSError as exc:
            raise Refused(f"--simulate-trace: cannot read {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise Refused(f"--simulate-trace: {path}: {exc}") from exc
    return SimulatedEngine(**how | {"trace": how["trace"] or ()})


def _upstream(settings: Settings) -> Any:
    """Raises ValueError, ConfigError or Refused."""
    from .auth import upstream_key
    from .engines.anthropic import AnthropicEngine
    from .engines.detected import DetectedEngine
    from .engines.openai import OpenAIEngine
    from .upstream.origin import Origin
    from .upstream.pool import Deadlines

    if settings.upstream is None:
        raise ConfigError("check asks an upstream: name it with --upstream URL")
    if settings.upstream_ca is not None:
        _open("--upstream-ca", settings.upstream_ca)
    origin = Origin.parse(settings.upstream, ca_file=settings.upstream_ca)
    how: dict[str, Any] = {
        "key": upstream_key(settings),
        "deadlines": Deadlines(
            connect=settings.connect_deadline,
            first_byte=settings.first_byte_deadline,
            silence=settings.silence_deadline,
        ),
        "limit": settings.max_concurrency + _SPARE,
    }
    messages = AnthropicEngine(origin, **how)
    chat = OpenAIEngine(
        origin,
        **how,
        dialect=None if settings.dialect == "auto" else settings.dialect,
        late_system={"keep": True, "fold": False}.get(settings.late_system),
        think_tags=settings.think_tags,  # type: ignore[arg-type]  # the table has the same three
    )
    return {"messages": messages, "chat": chat}.get(settings.upstream_api) or DetectedEngine(chat, messages)


def _open(option: str, path: str) -> None:
    try:
        with open(path, "rb"):
            return
    except OSError as exc:
        raise Refused(f"{option}: cannot read {path}: {exc.strerror}") from exc


def _check_certificate(cert: str | None, key: str | None) -> None:
    """Load what the server is going to load, for its complaint would be a traceback without the file's name."""
    import ssl

    if cert is None or key is None:
        return
    _open("--tls-cert", cert)
    _open("--tls-key", key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError; ValueError for a key with a passphrase
        reason = getattr(exc, "reason", None) or exc
        raise Refused(f"{cert} and {key} are no PEM certificate and its unencrypted key: {reason}") from exc


# --- serve ---


def _serve(settings: Settings) -> int:
    from .auth import client_keys
    from .logs import configure
    from .serving.listen import listening

    keys = client_keys(settings)
    _check_certificate(settings.tls_cert, settings.tls_key)
    with listening(settings) as sockets:
        app = _app(_engine(settings), keys, settings)
        configure(settings.log_level, settings.log_format)
        from .serving.server import serve

        return serve(app, sockets, settings)


def _tokenizer(settings: Settings) -> Any:
    if settings.tokenizer is None:
        return None
    from .engines.tokenizer import TokenizerFile

    _open("--tokenizer", settings.tokenizer)
    try:
        return TokenizerFile(settings.tokenizer)
    except ValueError as exc:
        raise Refused(f"--tokenizer: {exc}") from exc


def _app(engine: Any, keys: Sequence[str], settings: Settings) -> Any:
    from .app import MessagesApp
    from .wire.rules import Rules

    return MessagesApp(
        engine,
        keys=keys,
        ping_interval=settings.ping_interval,
        max_body=settings.max_body,
        aliases=dict(settings.model_alias),
        hide_thinking=settings.hide_thinking,
        tokenizer=_tokenizer(settings),
        rules=Rules(
            drop_server_tools=settings.server_tools == "drop",
            client_tools_as_functions=settings.client_tools == "function",
            pass_image_urls=settings.image_urls == "pass",
            keep_billing_header=settings.keep_billing_header,
        ),
    )


# --- simulate-openai ---


def _simulate_openai(settings: Settings) -> int:
    from .auth import client_keys
    from .completions import CompletionsApp
    from .logs import configure
    from .serving.listen import listening

    keys = client_keys(settings)
    _check_certificate(settings.tls_cert, settings.tls_key)
    with listening(settings) as sockets:
        try:
            app = CompletionsApp(_simulated(settings), keys=keys, max_body=settings.max_body)
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        configure(settings.log_level, settings.log_format)
        from .serving.server import serve

        return serve(app, sockets, settings)


# --- check ---


def _check(settings: Settings) -> int:
    import asyncio
    import logging

    from .check import report

    logging.getLogger("anthro_asgi").addHandler(logging.NullHandler())  # the report says what would be logged
    try:
        engine = _upstream(settings)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    return asyncio.run(report(engine, settings.model))


_SUMMARIES: Final = {
    "serve": "Serve the Messages API.",
    "check": "Try an upstream: what it is, what it has, whether it answers.",
    "simulate-openai": "Be an OpenAI-compatible engine without a model, to try gateways on.",
}
_COMMANDS: Final[dict[str, Callable[[Settings], int]]] = {
    "serve": _serve,
    "check": _check,
    "simulate-openai": _simulate_openai,
}
