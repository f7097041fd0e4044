"""`anthro-asgi completion bash|zsh|fish`: prints a script that completes the commands and the options in that shell.

The scripts are generated from the option table, and from the parsers of the commands that have options of their own.
They start no process of their own, so completion is quick.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ..settings.options import OPTIONS, Option
from ..settings.presets import PRESETS
from ..settings.values import SWITCH

_OWN: Final = "completion"  # the command that prints these scripts: its argument is a shell


class _Entry(NamedTuple):
    """An option as a script needs it. `metavar` is empty if it takes no value; `values` are those to offer."""

    name: str
    help: str
    metavar: str = ""
    values: Sequence[str] = ()
    takes_file: bool = False
    repeatable: bool = False


class _Place(NamedTuple):
    """The words after `anthro-asgi` that choose a command, or one of its actions, and the options there."""

    words: str
    entries: Sequence[_Entry]


def script(shell: str, commands: Mapping[str, str]) -> str:
    """The script for `shell`: bash, zsh or fish. `commands` maps each command to its summary."""
    return _SCRIPTS[shell](commands)


# --- what there is to complete ---


def _places(commands: Mapping[str, str]) -> list[_Place]:
    """Every place that has options, except for the command with these scripts."""
    parsers = _parsers()
    found = []
    for command in commands:
        rows = [option for option in OPTIONS if command in option.commands and "line" in option.channels]
        if command in parsers:
            found += _places_of(command, parsers[command])
        elif rows:
            helps = (_Entry("help", "show the common options"), _Entry("help-all", "show all options"))
            found.append(_Place(command, [*map(_from_row, rows), *helps]))
    return found


def _actions() -> dict[str, list[str]]:
    """The actions of the commands that have some: `load`, `report` and `record` of `bench`."""
    found = {command: list(dict(_subparsers(parser))) for command, parser in _parsers().items()}
    return {command: actions for command, actions in found.items() if actions}


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands that do not use the option table."""
    from ..conformance.command import parser as conformance  # needed by this command only
    from .batch import parser as batch

    found = {"conformance": conformance(), "batch": batch()}
    if sys.platform != "win32":  # bench cannot be imported there
        from ..bench.command import parser as bench

        found["bench"] = bench()
    return found


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # argparse has no public list of what it parses
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _places_of(words: str, parser: argparse.ArgumentParser) -> list[_Place]:
    """The place of a parser, or those of its actions."""
    actions = list(_subparsers(parser))
    if actions:
        return [place for name, one in actions for place in _places_of(f"{words} {name}", one)]
    return [_Place(words, [_from_argparse(action) for action in parser._actions if action.option_strings])]


def _from_row(option: Option) -> _Entry:
    return _Entry(
        option.name,
        option.help,
        option.type.metavar if option.type is not SWITCH else "",
        tuple(PRESETS) if option.name == "simulate-profile" else option.type.choices,
        "FILE" in option.type.metavar or option.type.metavar == "PATH",
        option.repeatable,
    )


def _from_argparse(action: argparse.Action) -> _Entry:
    metavar = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    return _Entry(
        action.option_strings[-1].removeprefix("--"),
        (action.help or "") % vars(action),
        metavar,
        tuple(action.choices or ()),
        metavar == "FILE",
        isinstance(action, argparse._AppendAction) or action.nargs == "+",
    )


# --- the scripts ---


def _bash(commands: Mapping[str, str]) -> str:
    return "\n".join(
        [
            "# source <(anthro-asgi completion bash)",
            "_anthro_asgi() {",
            '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"',
            '    local place="${COMP_WORDS[1]}" options=""',
            "    COMPREPLY=()",
            '    if [ "$cur" = "=" ]; then cur=""; elif [ "$prev" = "=" ]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi',
            '    case "$COMP_CWORD $place" in',
            f'        1\\ *) options="{" ".join(commands)} --help --version" ;;',
            *(f'        2\\ {command}) options="{" ".join(found)} --help" ;;' for command, found in _actions().items()),
            f'        2\\ {_OWN}) options="{" ".join(_SCRIPTS)}" ;;',
            *(f'        *\\ {command}) place="$place ${{COMP_WORDS[2]}}" ;;' for command in _actions()),
            "    esac",
            '    if [ -z "$options" ]; then case "$place" in',
            *(line for place in _places(commands) for line in _bash_place(place)),
            "    esac; fi",
            '    COMPREPLY=($(compgen -W "$options" -- "$cur"))',
            "}",
            "complete -o default -F _anthro_asgi anthro-asgi",
            "",
        ]
    )


def _bash_place(place: _Place) -> Iterator[str]:
    words = place.words.replace(" ", "\\ ")
    yield f'        {words}) options="{" ".join(f"--{entry.name}" for entry in place.entries)}"'
    yield '            case "$prev" in'
    for entry in place.entries:
        if entry.values:
            yield f'                --{entry.name}) options="{" ".join(entry.values)}" ;;'
    others = "|".join(f"--{entry.name}" for entry in place.entries if entry.metavar and not entry.values)
    if others:
        yield f"                {others}) return ;;  # any text, or a file name by default"
    yield "            esac ;;"


def _zsh(commands: Mapping[str, str]) -> str:
    lines = [
        "#compdef anthro-asgi",
        "# source <(anthro-asgi completion zsh), after compinit",
        "_anthro_asgi() {",
        "    local -a commands",
        "    commands=(",
        *(f"        {_quoted(f'{command}:{summary}')}" for command, summary in commands.items()),
        "    )",
        "    if (( CURRENT == 2 )); then",
        "        _describe command commands",
        "        return",
        "    fi",
        "    local place=$words[2]",
        "    shift words",
        "    (( CURRENT-- ))",
        "    case $place in",
        f"        {_OWN})",
        f"            _values shell {' '.join(_SCRIPTS)}",
        "            return ;;",
    ]
    for command, actions in _actions().items():
        lines += [
            f"        {command})",
            f"            if (( CURRENT == 2 )); then _values action {' '.join(actions)}; return; fi",
            '            place="$place $words[2]"',
            "            shift words",
            "            (( CURRENT-- )) ;;",
        ]
    lines += ["    esac", "    case $place in"]
    for place in _places(commands):
        lines += [f"        {_quoted(place.words)})", "            _arguments \\"]
        lines += [f"                {_quoted(_zsh_option(entry))} \\" for entry in place.entries]
        lines += ["                '*:FILE:_files'", "            ;;"]
    lines += [
        "    esac",
        "}",
        'if [ "$funcstack[1]" = "_anthro_asgi" ]; then _anthro_asgi "$@"; else compdef _anthro_asgi anthro-asgi; fi',
        "",
    ]
    return "\n".join(lines)


def _zsh_option(entry: _Entry) -> str:
    text = entry.help.replace("\\", "\\\\").replace(":", "\\:").replace("[", "(").replace("]", ")")
    many = "*" if entry.repeatable else ""
    if not entry.metavar:
        return f"{many}--{entry.name}[{text}]"
    action = f"({' '.join(entry.values)})" if entry.values else "_files" if entry.takes_file else " "
    metavar = entry.metavar.replace(":", "\\:")
    return f"{many}--{entry.name}=[{text}]:{metavar}:{action}"


def _fish(commands: Mapping[str, str]) -> str:
    lines = ["# anthro-asgi completion fish | source", "complete -c anthro-asgi -n __fish_use_subcommand -f"]
    for command, summary in commands.items():
        lines.append(f"complete -c anthro-asgi -n __fish_use_subcommand -a {command} -d {_quoted(summary)}")
    lines.append(f"complete -c anthro-asgi -n '{_seen(_OWN)}' -f -a '{' '.join(_SCRIPTS)}'")
    for command, actions in _actions().items():
        words = " ".join(actions)
        lines.append(f"complete -c anthro-asgi -n '{_seen(command)}; and not {_seen(words)}' -f -a '{words}'")
    for place in _places(commands):
        seen = "; and ".join(map(_seen, place.words.split()))
        for entry in place.entries:
            takes = "" if not entry.metavar else " -r -F" if entry.takes_file else " -x"
            values = f" -a {_quoted(' '.join(entry.values))}" if entry.values else ""
            lines.append(f"complete -c anthro-asgi -n '{seen}' -l {entry.name}{takes}{values} -d {_quoted(entry.help)}")
    return "\n".join([*lines, ""])


def _seen(words: str) -> str:
    return f"__fish_seen_subcommand_from {words}"


def _quoted(text: str) -> str:
    """`text` in single quotes, as each of the shells reads it."""
    return "'" + text.replace("'", "'\\''") + "'"


_SCRIPTS: Final[Mapping[str, Callable[[Mapping[str, str]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
