"""Loads the options. An option that is given in several places takes its value from the first of

    command line  >  environment  >  TOML file  >  simulator profile  >  default

Options that exclude each other (`EXCLUSIVE`) follow the same order: the first place that gives one of them overrides
the others. Two of them in the same place are an error. An unknown name is an error too: a misspelt option would
otherwise silently keep its default.

So is an empty value, except for an empty environment variable, which counts as unset. But an empty variable that should
name an engine (`ANTHRO_ASGI_UPSTREAM=` from an unset `${ENGINE_URL}`) is an error too: the service would otherwise
simulate its answers. A value of only white space is empty, and never counts as unset.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .engine_tables import engines_from, is_key_variable, read_tables, with_keys
from .options import (
    EXCLUSIVE,
    OPTIONS,
    PREFIX,
    ConfigError,
    NamedUpstream,
    Option,
    ResourceUnavailable,
    Settings,
    UnusedOption,
)
from .unused import engine_reason, unused_options
from .values import SWITCH

_SIMULATE: Final = "simulate-"
_BY_NAME: Final = {option.name: option for option in OPTIONS}


class _Given(NamedTuple):
    """The value that one place gives to one option. `where` is the option as that place spells it, for error texts."""

    where: str
    value: Any


_Place = dict[str, _Given]
_EMPTY: Final = object()  # the value of a variable that should name an engine, and is empty
_SHARED_KEYS: Final = ("upstream-key", "upstream-key-file")
_ENGINE_VARIABLES: Final = {_BY_NAME[name].variable for name in EXCLUSIVE[0] if _BY_NAME[name].type is not SWITCH}


def load_settings(line: Mapping[str, Sequence[str]], environ: Mapping[str, str], command: str = "serve") -> Settings:
    """The settings of a command that result from a command line, an environment, and the file that they name.

    `line` maps the name of each option on the command line to its values as written. Raises ConfigError for a wrong
    name or value, ResourceUnavailable for a file that cannot be read.
    """
    places = [_from_line(line), _from_environment(environ)]
    named = places[0].get("config") or places[1].get("config")
    if named is not None:
        places.append(_from_file(named.value))
    profile = next((place["simulate-profile"] for place in places if "simulate-profile" in place), None)
    if profile is not None:
        places.append(_from_profile(profile))
    _refuse_empty_engine(places)
    _apply_exclusions(places)
    is_simulator = command == "simulate-openai"
    if is_simulator:
        places = [_without_engines(place) for place in places]
    defaults = {option.attribute: option.default_value for option in OPTIONS}
    merged = {name: given for place in reversed(places) for name, given in place.items()}
    values = defaults | {_BY_NAME[name].attribute: given.value for name, given in merged.items()}
    values["upstream"], upstreams = _upstreams(merged, {} if is_simulator else environ)
    engine_named = any(merged[name].value is not False for name in EXCLUSIVE[0] if name in merged)
    simulated = not is_simulator and not engine_named and not any(map(_simulates, merged))
    settings = Settings(**values, simulated_by_default=simulated, upstreams=upstreams)
    _check_pairs(settings)
    of_profile = places[-1] if profile is not None else {}
    given = {
        name: one
        for name, one in merged.items()
        if command in _BY_NAME[name].commands and one is not of_profile.get(name)  # those of a profile are defaults
    }
    unused = unused_options(settings, given)
    if settings.engine_kind != "upstream":
        keys = [variable for variable, text in environ.items() if text and is_key_variable(variable)]
        unused += tuple(UnusedOption("upstream-key", key, engine_reason(settings), is_refused=True) for key in keys)
    return settings.with_values(without_effect=unused)


def _check_pairs(settings: Settings) -> None:
    """Raises ConfigError for options that are wrong together, wherever they are given."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key must be given together")
    for engine in (settings, *map(settings.of, settings.upstreams)):
        if engine.upstream_cert_key is not None and engine.upstream_cert is None:
            raise ConfigError("--upstream-cert-key needs --upstream-cert")
    if settings.no_auth and (settings.api_keys or settings.api_key_file):
        raise ConfigError("--no-auth contradicts the configured API keys: remove one of them")


def _without_engines(place: _Place) -> _Place:
    """Without the options of `serve` that name engines and models: another command may share its environment."""
    return {name: given for name, given in place.items() if name not in (*EXCLUSIVE[0], "model-alias")}


def _upstreams(given: Mapping[str, _Given], environ: Mapping[str, str]) -> tuple[str | None, tuple[NamedUpstream, ...]]:
    """The URL of a single engine without a name, and the engines otherwise. Raises ConfigError."""
    engines: tuple[NamedUpstream, ...] = ()
    url = None
    if "upstream" in given:
        where, value = given["upstream"]
        if len(value) == 1 and not isinstance(value[0], NamedUpstream) and not value[0][0]:
            url = value[0][1]
        elif isinstance(value[0], NamedUpstream):
            engines = value
        elif all(name for name, _ in value):
            engines = engines_from(where, value)
        else:
            raise ConfigError(f"{where}: each of several engines needs a name; write NAME=URL")
    if engines and (shared := next((name for name in _SHARED_KEYS if name in given), None)) is not None:
        raise ConfigError(
            f"{given[shared].where}: would send one key to all engines; "
            "set ANTHRO_ASGI_UPSTREAM_KEY_NAME, or key_file in an [[engine]] table"
        )
    if url is None and not engines:  # another kind of engine, or a command that asks none, such as `health`
        return None, ()
    return url, with_keys(engines, environ, lambda text, where: _BY_NAME["upstream-key"].value([text], where))


def _simulates(name: str) -> bool:
    """Whether the option is one of the simulator's own: an operator who sets one of these wants the simulator."""
    return name.startswith(_SIMULATE)


def _from_line(line: Mapping[str, Sequence[str]]) -> _Place:
    return {name: _Given(f"--{name}", _BY_NAME[name].value(texts, f"--{name}")) for name, texts in line.items()}


# For every Kubernetes service named `anthro-asgi…`, each pod gets variables with our prefix ("docker links").
_FROM_KUBERNETES: Final = r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+)=.*|(\w+_)?PORT=\w+://.*"


def _is_from_kubernetes(name: str, text: str, *, known: bool) -> bool:
    """Whether Kubernetes has set a variable. `known`: an option has this variable; the only such name is PORT."""
    if known and not (name.endswith("PORT") and "://" in text):
        return False
    return re.fullmatch(_FROM_KUBERNETES, f"{name}={text}", re.DOTALL) is not None


def _from_environment(environ: Mapping[str, str]) -> _Place:
    """An empty variable counts as unset, because a compose file or a shell often sets it that way.

    An empty variable that should name an engine has the value _EMPTY.
    """
    known = {option.variable: option for option in OPTIONS if "environment" in option.channels}
    place: _Place = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or _is_from_kubernetes(name, text, known=variable in known):
            continue
        if is_key_variable(variable):
            continue  # see `_upstreams`
        if not text.strip() and variable in _ENGINE_VARIABLES:
            place[known[variable].name] = _Given(variable, _EMPTY)
            continue
        if not text:
            continue
        if variable not in known:
            option = next((option for option in OPTIONS if option.variable == variable), None)
            if option is not None:
                raise ConfigError(f"{variable}: can only be set as {option.places}")
            raise ConfigError(f"{variable[:80]!r}: unknown variable{did_you_mean(variable, known)}")
        option = known[variable]
        many = option.repeatable and bool(text.strip())
        texts = [part.strip() for part in option.type.split(text) if part.strip()] if many else [text]
        if not texts:
            raise ConfigError(f"{variable}: contains only commas")
        place[option.name] = _Given(variable, option.value(texts, variable))
    return place


def _from_file(path: str) -> _Place:
    known = {option.name: option for option in OPTIONS if "file" in option.channels}
    table = _toml(path, "--config")
    tables = table.get("engine")
    if isinstance(tables, dict):
        raise ConfigError(f"{path}: engine: is one table; write [[engine]] for each engine")
    if not isinstance(tables, list):
        return _from_table(path, table, known)
    if "upstream" in table:
        raise ConfigError(f"{path}: upstream and [[engine]] cannot be used together")
    place = _from_table(path, {key: value for key, value in table.items() if key != "engine"}, known)
    place["upstream"] = _Given(f"{path}: engine", read_tables(path, tables, _BY_NAME, _toml_texts))
    return place


def _from_profile(given: _Given) -> _Place:
    """The options of a profile: their names are without `simulate-`, and `source` says where the figures are from."""
    from .presets import PRESETS  # most runs name no profile

    known = {option.name.removeprefix(_SIMULATE): option for option in OPTIONS if option.name.startswith(_SIMULATE)}
    del known["profile"]
    table = PRESETS.get(given.value)
    if table is None:
        try:
            table = _toml(given.value, given.where)
        except ResourceUnavailable as exc:
            raise ResourceUnavailable(f"{exc}; the presets are {', '.join(PRESETS)}") from exc
    return _from_table(given.value, {key: value for key, value in table.items() if key != "source"}, known)


def _toml(path: str, option: str) -> dict[str, Any]:
    import tomllib  # most runs read no TOML file

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as exc:
        raise ResourceUnavailable(f"{option}: cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:  # TOMLDecodeError and UnicodeDecodeError
        raise ConfigError(f"{option}: {path} is not valid TOML: {exc}") from exc


def _from_table(path: str, table: Mapping[str, object], known: Mapping[str, Option]) -> _Place:
    place: _Place = {}
    for key, value in table.items():
        name, where = key.replace("_", "-"), f"{path}: {key[:80]}"
        if name not in known:
            raise ConfigError(f"{path}: {_unknown_key(key[:80], value, known)}")
        option = known[name]
        if option.name in place:
            raise ConfigError(f"{where}: given more than once")
        place[option.name] = _Given(where, option.value(_toml_texts(option, value, where), where))
    return place


def _unknown_key(key: str, value: object, known: Mapping[str, Option]) -> str:
    """What is wrong with a key of a TOML file that is not one of `known`."""
    name = key.replace("_", "-")
    if isinstance(value, dict):
        return f"unknown section [{key}]; write the options at the top of the file, without a section"
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return f"unknown section [[{key}]]; the only one is [[engine]]"
    if name.removeprefix(_SIMULATE) in known:  # in a profile
        return f"unknown option {key!r}; did you mean {name.removeprefix(_SIMULATE)}?"
    if name in _BY_NAME and "file" not in _BY_NAME[name].channels:
        return f"{key}: can only be set as {_BY_NAME[name].places}{did_you_mean(name, known)}"
    return f"unknown option {key!r}{did_you_mean(name, known)}"


def _toml_texts(option: Option, value: object, where: str) -> list[str]:
    """A TOML value as it would be written on the command line. Raises ConfigError."""
    if option.repeatable and isinstance(value, list):
        return [text for item in value for text in _toml_pairs(option, item, where)]
    return _toml_pairs(option, value, where)


def _toml_pairs(option: Option, value: object, where: str) -> list[str]:
    """A value that is no list: a table is a text for each of its pairs."""
    if option.takes_pairs and isinstance(value, dict):
        return [f"{name}={_toml_text(option, item, where)}" for name, item in value.items()]
    return [_toml_text(option, value, where)]


def _toml_text(option: Option, value: object, where: str) -> str:
    if isinstance(value, bool) and option.type is SWITCH:
        return str(value).lower()
    if isinstance(value, str | int | float) and not isinstance(value, bool) and option.type is not SWITCH:
        return str(value)
    raise ConfigError(f"{where}: must be {_wanted(option)}, not {_called(value)}")


def _wanted(option: Option) -> str:
    """What a TOML file may hold as the value of the option."""
    if option.type is SWITCH:
        return "true or false"
    if not option.repeatable:
        return "text or a number"
    return "text, a list of texts or a table" if option.takes_pairs else "text or a list of texts"


def _called(value: object) -> str:
    """What an operator calls the type of a value in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or a time")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the most similar name, empty when none is similar. What all names begin with does not
    count.
    """
    import difflib  # only needed for an error

    stems = {_stem(one): one for one in known}
    close = difflib.get_close_matches(_stem(name), list(stems), 1)
    return f"; did you mean {stems[close[0]]}?" if close else ""


def _stem(name: str) -> str:
    """A name without `--` or the prefix of variables, in lower case."""
    return name.removeprefix(PREFIX).lstrip("-").lower()


def _refuse_empty_engine(places: Sequence[_Place]) -> None:
    """Raises ConfigError for an empty variable, unless a place of higher precedence names an engine."""
    for place in places:
        given = [place[name] for name in EXCLUSIVE[0] if name in place and place[name].value is not False]
        empty = next((one.where for one in given if one.value is _EMPTY), None)
        if empty is not None:
            raise ConfigError(f"{empty}: {_BY_NAME['upstream'].empty}")
        if given:
            return


def _apply_exclusions(places: Sequence[_Place]) -> None:
    """Remove each option that a place of higher precedence excludes. `places` are in the order of precedence."""
    for names in EXCLUSIVE:
        decided = False
        for place in places:
            given = [name for name in names if name in place and place[name].value is not False]
            if decided:
                for name in given:
                    del place[name]
            elif len(given) > 1:
                raise ConfigError(" and ".join(place[name].where for name in given) + " cannot be used together")
            decided = decided or bool(given)


def check_readable(option: str, path: str) -> None:
    """Raises ResourceUnavailable when the file at `path` cannot be read."""
    try:
        with open(path, "rb"):
            return
    except OSError as exc:
        raise ResourceUnavailable(f"{option}: cannot read {path}: {exc.strerror}") from exc
