"""`anthro-asgi completion bash|zsh|fish`: prints a script that completes the commands and the options in that shell.

The scripts are generated from the option table. They start no process of their own, so completion is quick.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..settings.options import OPTIONS, Option
from ..settings.presets import PRESETS
from ..settings.values import SWITCH

_OWN: Final = "completion"  # the command that prints these scripts: its argument is a shell
_HELP: Final = (("help", "show the common options"), ("help-all", "show all options"))


def script(shell: str, commands: Mapping[str, str]) -> str:
    """The script for `shell`: bash, zsh or fish. `commands` maps each command to its summary."""
    return _SCRIPTS[shell](commands)


def _options(command: str) -> list[Option]:
    """The options of a command on the command line."""
    return [option for option in OPTIONS if command in option.commands and "line" in option.channels]


def _values(option: Option) -> Sequence[str]:
    """The values to offer for an option, besides file names."""
    return tuple(PRESETS) if option.name == "simulate-profile" else option.type.choices


def _takes_file(option: Option) -> bool:
    return "FILE" in option.type.metavar or option.type.metavar == "PATH"


def _bash(commands: Mapping[str, str]) -> str:
    names = {option.name: option for option in OPTIONS}
    values = [
        f'        --{name}) COMPREPLY=($(compgen -W "{" ".join(_values(option))}" -- "$cur")); return ;;'
        for name, option in names.items()
        if _values(option)
    ]
    others = "|".join(
        f"--{name}" for name, option in names.items() if not _values(option) and option.type is not SWITCH
    )
    options = [
        f'        {command}) options="{" ".join(f"--{name}" for name in _names(command))}" ;;'
        for command in commands
        if command != _OWN
    ]
    options.append(f'        {_OWN}) options="{" ".join(_SCRIPTS)}" ;;')
    return "\n".join(
        [
            "# source <(anthro-asgi completion bash)",
            "_anthro_asgi() {",
            '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" options=""',
            "    COMPREPLY=()",
            '    if [ "$cur" = "=" ]; then cur=""; elif [ "$prev" = "=" ]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi',
            '    if [ "$COMP_CWORD" -eq 1 ]; then',
            f'        COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$cur"))',
            "        return",
            "    fi",
            '    case "$prev" in',
            *values,
            f"        {others}) return ;;  # any text, or a file name by default",
            "    esac",
            '    case "${COMP_WORDS[1]}" in',
            *options,
            "    esac",
            '    COMPREPLY=($(compgen -W "$options" -- "$cur"))',
            "}",
            "complete -o default -F _anthro_asgi anthro-asgi",
            "",
        ]
    )


def _names(command: str) -> list[str]:
    """The names of the options of a command."""
    return [*(option.name for option in _options(command)), *(name for name, _ in _HELP)]


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
        "    local command=$words[2]",
        "    shift words",
        "    (( CURRENT-- ))",
        "    case $command in",
    ]
    lines += [f"        {_OWN})", f"            _values shell {' '.join(_SCRIPTS)}", "            ;;"]
    for command in commands:
        if command == _OWN:
            continue
        lines += [f"        {command})", "            _arguments \\"]
        lines += [f"                {_quoted(_zsh_option(option))} \\" for option in _options(command)]
        lines += [f"                {_quoted(f'--{name}[{text}]')} \\" for name, text in _HELP]
        lines += ["                '*:: :'", "            ;;"]
    lines += [
        "    esac",
        "}",
        'if [ "$funcstack[1]" = "_anthro_asgi" ]; then _anthro_asgi "$@"; else compdef _anthro_asgi anthro-asgi; fi',
        "",
    ]
    return "\n".join(lines)


def _zsh_option(option: Option) -> str:
    text = option.help.replace("\\", "\\\\").replace(":", "\\:").replace("[", "(").replace("]", ")")
    many = "*" if option.repeatable else ""
    if option.type is SWITCH:
        return f"{many}--{option.name}[{text}]"
    values = " ".join(_values(option))
    action = f"({values})" if values else "_files" if _takes_file(option) else " "
    metavar = option.type.metavar.replace(":", "\\:")
    return f"{many}--{option.name}=[{text}]:{metavar}:{action}"


def _fish(commands: Mapping[str, str]) -> str:
    lines = ["# anthro-asgi completion fish | source", "complete -c anthro-asgi -n __fish_use_subcommand -f"]
    for command, summary in commands.items():
        lines.append(f"complete -c anthro-asgi -n __fish_use_subcommand -a {command} -d {_quoted(summary)}")
    lines.append(f"complete -c anthro-asgi -n '__fish_seen_subcommand_from {_OWN}' -f -a '{' '.join(_SCRIPTS)}'")
    for command in commands:
        if command == _OWN:
            continue
        head = f"complete -c anthro-asgi -n '__fish_seen_subcommand_from {command}'"
        for option in _options(command):
            takes = "" if option.type is SWITCH else " -r -F" if _takes_file(option) else " -x"
            values = f" -a {_quoted(' '.join(_values(option)))}" if _values(option) else ""
            lines.append(f"{head} -l {option.name}{takes}{values} -d {_quoted(option.help)}")
        lines += [f"{head} -l {name} -d {_quoted(text)}" for name, text in _HELP]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """`text` in single quotes, as each of the shells reads it."""
    return "'" + text.replace("'", "'\\''") + "'"


_SCRIPTS: Final[Mapping[str, Callable[[Mapping[str, str]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
