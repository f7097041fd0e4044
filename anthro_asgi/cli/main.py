"""The command line of `anthro-asgi`: finds the command, and loads its settings.

A command that cannot run prints one line on stderr. Its exit status is 2 for wrong options, and 1 when the system
refuses a resource. Each command is imported when it runs: a wrong option is reported before an event loop or a server
is imported, and `health` imports neither.
"""

import gc
import os
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from ..settings.loader import did_you_mean, load_settings
from ..settings.options import OPTIONS, ConfigError, Option, Settings
from ..settings.values import SWITCH


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of this process), and return the exit status."""
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else list(arguments))
        finally:
            if sys.stdout is not None:  # it is None if the caller has closed it
                sys.stdout.flush()
    except BrokenPipeError:  # the program that read the output has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout once more when it ends
        return 141  # 128 + SIGPIPE, as shells report it


def _run(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if arguments[:1] == ["conformance"]:  # it has a command line of its own, without settings
        return _conformance(arguments[1:])
    if arguments[:1] == ["batch"]:  # as above
        return _batch(arguments[1:])
    if arguments[:1] == ["bench"]:  # as above
        return _bench(arguments[1:])
    try:
        command, line = parse_command_line(arguments)
        if command == "completion":
            return _completion(line["shell"][0])
        if sys.platform == "win32" and command in _POSIX:
            raise ConfigError(_NOT_ON_WINDOWS.format(command=command))
        return _COMMANDS[command](load_settings(line, os.environ, command))
    except ConfigError as exc:
        print("anthro-asgi: error:", *str(exc).split(), file=sys.stderr)
        return exc.status
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it


# --- the command line ---


class _Formatter(RawDescriptionHelpFormatter):
    """As wide as the terminal. argparse would import `shutil` for that, even when no help is printed."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """The width of the terminal, or 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size().columns or 80
    except OSError:  # stdout is no terminal
        return 80


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        for pattern, words in _ARGPARSE_ERRORS:
            message = re.sub(pattern, words, message)
        raise ConfigError(message)


_ARGPARSE_ERRORS: Final = (
    (r"^argument ", ""),
    (r"expected one argument$", "needs a value"),
    (r"(?s)ignored explicit argument .*", "takes no value"),
    (r"^the following arguments are required: (\S+)$", r"name one of \1"),
    (r"(?s)^(\S+\|\S+): invalid choice: (.*) \(choose from .*\)$", r"\2 is not one of \1"),
)
"""The errors of argparse, each with the words for it."""


def parse_command_line(arguments: Sequence[str]) -> tuple[str, Mapping[str, Sequence[str]]]:
    """The command, and the values of each of its options as written. Raises ConfigError."""
    command = arguments[0] if arguments else ""
    if command not in _SUMMARIES:
        raise ConfigError(_no_command(arguments))
    known, unknown = _option_parser(command).parse_known_args(arguments[1:])
    if unknown:
        raise ConfigError(f"{command}: {_unknown(unknown[0], command)}")
    return command, {name: value if isinstance(value, list) else [value] for name, value in vars(known).items()}


def _main_parser() -> ArgumentParser:
    """Reads `--help` and `--version` before a command, and describes all commands."""
    description = "The Anthropic Messages API in front of any inference engine."
    parser = _Parser("anthro-asgi", description=description, formatter_class=_Formatter)
    parser.add_argument("--version", action=_Version, nargs=0, default=SUPPRESS, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="|".join(_SUMMARIES))
    for command, summary in _SUMMARIES.items():
        commands.add_parser(command, help=summary, add_help=False, allow_abbrev=False)
    return parser


def _option_parser(command: str) -> ArgumentParser:
    """Reads the options of one command. It has no help texts: `_help_parser` has them, and is built for `--help`."""
    parser = _Parser(f"anthro-asgi {command}", add_help=False, allow_abbrev=False, formatter_class=_Formatter)
    _add_shell(parser, command)
    options = _line_options(command)
    for option in options:
        _add_option(parser, option)
    parser.add_argument("-h", "--help", action=_Help, command=command, everything=False, nargs=0, default=SUPPRESS)
    if options:
        parser.add_argument("--help-all", action=_Help, command=command, everything=True, nargs=0, default=SUPPRESS)
    return parser


def _no_command(arguments: Sequence[str]) -> str:
    """What is wrong with a command line that begins with no command. `--help` and `--version` end the process."""
    commands = "|".join(_SUMMARIES)
    first = arguments[0] if arguments else ""
    if first.startswith("-"):
        _main_parser().parse_known_args(arguments[:1])
        return f"name a command before {first.partition('=')[0]!r:.80}: one of {commands}"
    if not first:
        return f"name one of {commands}; --help describes them"
    return f"{first!r:.80} is not one of {commands}{did_you_mean(first, _SUMMARIES)}"


def _unknown(argument: str, command: str) -> str:
    """What is wrong with an argument that the command does not know. A URL is not repeated: it may hold a password."""
    names = [f"--{option.name}" for option in _line_options(command)]
    if argument.startswith("-"):
        name = argument.partition("=")[0]
        secret = next((one for one in OPTIONS if f"--{one.name}" == name and command in one.commands), None)
        if secret is not None:
            return f"{name} can only be set as {secret.places}{did_you_mean(name, names)}"
        return f"unknown option {name!r}{did_you_mean(name, names)}"
    option = next((option for option, pattern in _ENGINE_PATTERNS if re.fullmatch(pattern, argument)), None)
    if option not in names:
        return f"unexpected argument {argument!r:.80}"
    if argument.endswith(".py"):
        return f"unexpected argument {argument!r:.80}; did you mean --engine {argument[:-3]:.80}:NAME?"
    if option == "--upstream":
        return "unexpected address; name an engine's address with --upstream URL"
    return f"unexpected argument {argument!r:.80}; did you mean {option} {argument:.80}?"


_ENGINE_PATTERNS: Final = (
    ("--upstream", r"(?s:(https?|unix):.*)|[\w.-]+:[0-9]+(/.*)?"),
    ("--model", r"(?si:.*\.gguf)"),
    ("--engine", r"[\w.]+:[\w.]+|\w+\.py"),
)
"""How arguments look that name an engine, each with the option that takes it."""


def _line_options(command: str) -> list[Option]:
    """The options that a command has on the command line."""
    return [option for option in OPTIONS if command in option.commands and "line" in option.channels]


def _add_shell(parser: ArgumentParser, command: str) -> None:
    """Add the argument of `completion`, the only one that is not an option."""
    if command == "completion":
        parser.add_argument("shell", choices=_SHELLS, metavar="|".join(_SHELLS), help="the shell")


def _add_option(where: Any, option: Option, text: str = SUPPRESS) -> None:
    """Add one option to a parser, or to a group of its help. `text` describes it; without a text the help omits it."""
    kwargs: dict[str, Any] = {"action": "append" if option.repeatable else "store", "metavar": option.type.metavar}
    if option.type is SWITCH:
        kwargs = {"action": "store_const", "const": "true"}
    where.add_argument(f"--{option.name}", dest=option.name, default=SUPPRESS, help=text, **kwargs)


def _help_parser(command: str, *, everything: bool) -> ArgumentParser:
    """Describes a command. The help shows the common options, or all if `everything` is true."""
    shell = "|".join(_SHELLS) if command == "completion" else "[OPTIONS]"
    parser = _Parser(usage=f"anthro-asgi {command} {shell}", add_help=False, formatter_class=_Formatter)
    parser.description = _SUMMARIES[command]
    if command in _EXAMPLES:
        parser.description += "\n\n" + "\n".join(f"  {line}" for line in _EXAMPLES[command])
    _add_shell(parser, command)
    options = _line_options(command)
    groups: dict[str, Any] = {}
    for option in sorted(options, key=lambda option: _GROUPS.index(option.group)):
        if not (everything or option.common):
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        default = f" (default: {option.default})" if option.default not in (None, "false") else ""
        _add_option(groups[option.group], option, (option.help + default).replace("%", "%%"))
    hidden = any(not option.common for option in options)
    helps = parser.add_argument_group("Help")
    helps.add_argument("-h", "--help", action="help", help="show the common options" if hidden else "show this help")
    if hidden:
        helps.add_argument("--help-all", action="help", help=f"show all {len(options)} options")
    if options:
        parser.epilog = _epilog(command)
    return parser


def _epilog(command: str) -> str:
    """The last lines of a command's help: where else its options may be set."""
    from textwrap import wrap  # only needed for help

    secrets = ", ".join(option.variable for option in OPTIONS if option.secret and command in option.commands)
    return "\n".join(
        wrap(
            "Options may also be set in the environment (ANTHRO_ASGI_PORT=…) or in a TOML file."
            + (f" Only in the environment: {secrets}." if secrets else ""),
            width=_columns() - 2,
        )
    )


class _Help(Action):
    """Prints the help of a command, and ends."""

    def __init__(self, *arguments: Any, command: str, everything: bool, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._command = command
        self._everything = everything

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        _help_parser(self._command, everything=self._everything).print_help()
        parser.exit()


class _Version(Action):
    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from ..observability.version import VERSION

        print("anthro-asgi", VERSION)
        parser.exit()


# --- the commands ---


def _completion(shell: str) -> int:
    from .completion import script

    print(script(shell, _SUMMARIES), end="")
    return 0


def _conformance(arguments: Sequence[str]) -> int:
    from ..conformance.command import main
    from ..settings.command_line import Parser

    return main(arguments, Parser)


def _batch(arguments: Sequence[str]) -> int:
    from .batch import main

    return main(arguments)


def _bench(arguments: Sequence[str]) -> int:
    if sys.platform == "win32":
        print("anthro-asgi: error:", _NO_BENCH_ON_WINDOWS, file=sys.stderr)
        return 2
    from ..bench.command import main

    return main(arguments)


def _serve(settings: Settings) -> int:
    with _without_collections():
        from .serve import serve

    return serve(settings)


def _simulate_openai(settings: Settings) -> int:
    with _without_collections():
        from .serve import simulate_openai

    return simulate_openai(settings)


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage collections in the block. Imports create many objects and no garbage: collections only take time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _check(settings: Settings) -> int:
    from .check import check

    return check(settings)


def _health(settings: Settings) -> int:
    from .health import health

    return health(settings)


_SUMMARIES: Final = {
    "serve": "Serve the Messages API.",
    "check": "Test an upstream: which engine it is, which models it lists, whether it answers.",
    "health": "Check whether the server that runs with the same options is alive or ready.",
    "simulate-openai": "Serve a simulated OpenAI-compatible engine, for testing gateways.",
    "conformance": "Judge any server of the Messages API.",
    "batch": "Submit message batches, watch them, and read their results.",
    "bench": "Send load to any server of the Messages API, and measure it.",
    "completion": "Print a script that completes commands and options in a shell.",
}
_SHELLS: Final = ("bash", "zsh", "fish")
_EXAMPLES: Final = {
    "serve": (
        "anthro-asgi serve --upstream http://127.0.0.1:8000/v1",
        "anthro-asgi serve --upstream http://127.0.0.1:8000/v1 --model-alias '*=NAME'",
        "anthro-asgi serve --model model.gguf",
        "anthro-asgi serve --engine module:engine",
        "anthro-asgi serve --simulate",
    ),
    "check": ("anthro-asgi check --upstream http://127.0.0.1:8000/v1",),
    "completion": (
        "source <(anthro-asgi completion bash)",
        "source <(anthro-asgi completion zsh)",
        "anthro-asgi completion fish | source",
    ),
}
_GROUPS: Final = list(dict.fromkeys(["Engine", "Listening", "Access", *(option.group for option in OPTIONS)]))
"""The groups of options in the order of the help."""
_POSIX: Final = ("serve", "health", "simulate-openai")
_NOT_ON_WINDOWS: Final = (
    "{command} needs Linux or macOS; on Windows, use WSL, or serve with plain uvicorn: "
    "uvicorn --factory anthro_asgi:create_app"
)
_NO_BENCH_ON_WINDOWS: Final = "bench needs Linux or macOS; on Windows, use WSL"
_COMMANDS: Final[dict[str, Callable[[Settings], int]]] = {
    "serve": _serve,
    "check": _check,
    "health": _health,
    "simulate-openai": _simulate_openai,
}
