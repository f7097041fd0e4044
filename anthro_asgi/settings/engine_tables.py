"""Several engines: `[[engine]]` tables of the TOML file, and `--upstream NAME=URL`, given several times.

    [[engine]]
    name = "fast"
    url = "http://127.0.0.1:8000/v1"
    fallback = "big@gpu"

A key of a table is an option of the upstream without `upstream-` (`dialect`, `key-file`, `connect-deadline`, …), or one
of OWN. What a table does not say is as the option says for all engines, except for the key: it is never shared.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .options import PREFIX, ConfigError, NamedUpstream, Option
from .values import ENGINE_NAME, any_text, integer

_SHARED: Final = (
    "upstream-api",
    "dialect",
    "late-system",
    "think-tags",
    "upstream-key-file",
    "upstream-ca",
    "upstream-cert",
    "upstream-cert-key",
    "upstream-reuse",
    "connect-deadline",
    "first-byte-deadline",
    "silence-deadline",
    "total-deadline",
    "max-event",
    "max-concurrency",
)
"""Options that a table may have."""
_FALLBACK: Final = r"(?s:(?:(.+)@)?([a-z0-9][a-z0-9_-]{0,31}))"
_KEY_PREFIX: Final = f"{PREFIX}UPSTREAM_KEY_"
_KEY_FILE: Final = f"{_KEY_PREFIX}FILE"


class _Own(NamedTuple):
    """A key of a table that is no option. `many`: a list of values."""

    read: Any
    many: bool = False


OWN: Final = {
    "name": _Own(ENGINE_NAME.parse),
    "fallback": _Own(any_text("ENGINE").parse),
    "window": _Own(integer("1", "1000000000").parse),
    "models": _Own(any_text("MODEL").parse, many=True),
}
"""Keys of a table beside `url` and the options."""


def read_tables(
    path: str, tables: Sequence[object], options: Mapping[str, Option], texts: Any
) -> tuple[NamedUpstream, ...]:
    """The engines in the `[[engine]]` tables of the file at `path`. Raises ConfigError.

    `options` is the option table by name; `texts(option, value, where)` is a TOML value as on the command line.
    """
    if not tables:
        raise ConfigError(f"{path}: engine: {options['engine'].empty}")
    known = {name.removeprefix("upstream-"): options[name] for name in _SHARED} | {"url": options["upstream"]}
    engines = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: engine {number}"
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: must be a table")
        engines.append(_read_table(where, table, known, texts))
    return check_engines(f"{path}: engine", engines)


def _read_table(where: str, table: Mapping[str, object], known: Mapping[str, Option], texts: Any) -> NamedUpstream:
    own: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name, place = key.replace("_", "-"), f"{where}: {key[:80]}"
        if name in OWN:
            own[name] = _read_own(OWN[name], value, place)
        elif name == "url":
            if not isinstance(value, str):
                raise ConfigError(f"{place}: must be a URL")
            ((named, url),) = known[name].value([value], place)
            if named:
                raise ConfigError(f"{place}: must be a URL; the name is another key")
            values["upstream"] = url
        elif name in known:
            option = known[name]
            values[option.attribute] = option.value(texts(option, value, place), place)
        else:
            raise ConfigError(f"{where}: unknown key {key[:80]!r}; known are {', '.join(sorted([*OWN, *known]))}")
    if "name" not in own or "upstream" not in values:
        raise ConfigError(f"{where}: needs {'a name' if 'name' not in own else 'a url'}")
    return NamedUpstream(
        own["name"], values, _fallback(own.get("fallback"), where), own.get("window"), own.get("models", ())
    )


def _read_own(own: _Own, value: object, place: str) -> Any:
    items = value if isinstance(value, list) else [value]
    if own.many is not isinstance(value, list) or not all(_is_plain(item) for item in items):
        raise ConfigError(f"{place}: must be {'a list of names' if own.many else 'text or a number'}")
    if not items or any(not str(item).strip() for item in items):
        raise ConfigError(f"{place}: is empty; give it a value, or remove it")
    try:
        read = tuple(own.read(str(item)) for item in items)
    except ValueError as exc:
        raise ConfigError(f"{place}: {exc}") from exc
    return read if own.many else read[0]


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _fallback(text: str | None, where: str) -> tuple[str | None, str] | None:
    """The model, None for the same one, and the engine."""
    if text is None:
        return None
    found = re.fullmatch(_FALLBACK, text)
    if found is None:
        raise ConfigError(f"{where}: fallback: is not ENGINE or MODEL@ENGINE")
    return found[1], found[2]


def engines_from(where: str, pairs: Iterable[tuple[str, str]]) -> tuple[NamedUpstream, ...]:
    """The engines of `--upstream NAME=URL`, given several times. Raises ConfigError."""
    return check_engines(where, [NamedUpstream(name, {"upstream": url}) for name, url in pairs])


def check_engines(where: str, engines: list[NamedUpstream]) -> tuple[NamedUpstream, ...]:
    """Raises ConfigError for a name that is there twice, and for a fallback that is not an engine."""
    names = [engine.name for engine in engines]
    for name in names:
        if len([other for other in names if _variable(other) == _variable(name)]) > 1:
            raise ConfigError(f"{where}: more than one engine is called {name}")
        if _variable(name) == _KEY_FILE:
            raise ConfigError(f"{where}: an engine may not be called {name}")
    for engine in engines:
        if engine.fallback is not None and engine.fallback[1] not in names:
            raise ConfigError(f"{where}: {engine.name}: fallback: no engine is called {engine.fallback[1]}")
        if engine.fallback is not None and engine.fallback[1] == engine.name:
            raise ConfigError(f"{where}: {engine.name}: fallback: is the engine itself")
    return tuple(engines)


# keys


def _variable(name: str) -> str:
    """The environment variable with the key for an engine."""
    return _KEY_PREFIX + name.upper().replace("-", "_")


def is_key_variable(variable: str) -> bool:
    """Whether an environment variable holds the key for one of several engines."""
    return variable.startswith(_KEY_PREFIX) and variable != _KEY_FILE


def with_keys(engines: tuple[NamedUpstream, ...], environ: Mapping[str, str], read: Any) -> tuple[NamedUpstream, ...]:
    """The engines with their keys from the environment. `read(text, where)` reads a key.

    Raises ConfigError for a key of no engine.
    """
    unused = {variable for variable, text in environ.items() if text and is_key_variable(variable)}
    done = []
    for engine in engines:
        variable = _variable(engine.name)
        own: dict[str, Any] = {"upstream_key": None, "upstream_key_file": None}
        if variable in unused:
            unused.remove(variable)
            own["upstream_key"] = read(environ[variable], variable)
        done.append(engine._replace(values={**own, **engine.values}))
    if unused:
        raise ConfigError(f"{min(unused)[:80]!r}: there is no engine of this name")
    return tuple(done)
