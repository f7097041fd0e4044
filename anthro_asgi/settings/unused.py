"""Finds the given options that have no effect: the engine does not use them, or another option takes their effect away.

On the command line, an option that the engine does not use is an error, and so is a limit per key without keys: the
operator has just typed it. Other options without effect are a warning. So are all options from the environment or from
a file, which several services may share.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from .options import OPTIONS, ConfigError, Option, Settings, UnusedOption

_BY_NAME: Final = {option.name: option for option in OPTIONS}


class Dependency(NamedTuple):
    """Options that have an effect only where `is_met` is true of the settings of an engine.

    `otherwise` says why they have none, in words that follow "has no effect": `without OPTION`, or `with OPTION`.
    `is_refused`: on the command line the options are then an error, not a warning.
    """

    options: tuple[str, ...]
    otherwise: str
    is_met: Callable[[Settings], bool]
    is_refused: bool = False


def _is_https(settings: Settings) -> bool:
    return settings.upstream is not None and settings.upstream.lower().startswith("https:")


def _relays(settings: Settings) -> bool:
    """Whether the engine may be an upstream of the Messages API."""
    return settings.engine_kind == "upstream" and settings.upstream_api != "chat"


def _stalls(settings: Settings) -> bool:
    return any(kind == "stall" and rate > 0 for kind, rate in settings.simulate_fail)


DEPENDENCIES: Final = (
    Dependency(("worker-deadline",), "with one worker (--workers 1)", lambda s: s.workers > 1),
    Dependency(("gc-growth",), "with --gc python", lambda s: s.gc == "bounded"),
    Dependency(
        ("dialect", "late-system", "think-tags"),
        "with --upstream-api messages",
        lambda s: s.upstream_api != "messages",
        is_refused=True,
    ),
    Dependency(("upstream-ca", "upstream-cert", "upstream-cert-key"), "without an https upstream", _is_https),
    Dependency(
        ("max-concurrency-per-key", "max-body-memory-per-key"),
        "without API keys (ANTHRO_ASGI_API_KEYS or --api-key-file)",
        lambda s: bool(s.api_keys) or s.api_key_file is not None,
        is_refused=True,
    ),
    Dependency(
        ("queue-timeout",),
        "with --max-queue 0, except for several engines",
        lambda s: s.max_queue > 0 or bool(s.upstreams),
    ),
    Dependency(
        ("batch-concurrency", "batch-lease", "batch-lateness", "max-file", "max-files-per-key"),
        "without --batch-store",
        lambda s: s.batch_store is not None,
    ),
    Dependency(
        ("server-tools",),
        "with the value pass, except for an --upstream that may speak the Messages API",
        lambda s: s.server_tools != "pass" or _relays(s),
    ),
    Dependency(
        ("pdf",),
        "with --server-tools pass, except for the value refuse",
        lambda s: s.server_tools != "pass" or s.pdf == "refuse",
    ),
    Dependency(("cache-diagnostics-answers",), "with --cache-diagnostics off", lambda s: s.cache_diagnostics != "off"),
    Dependency(
        (
            "simulate-ttft",
            "simulate-ttft-per-token",
            "simulate-itl",
            "simulate-load-factor",
            "simulate-text",
            "simulate-output-tokens",
            "simulate-thinking-tokens",
            "simulate-thinking-rate",
            "simulate-tool-rate",
        ),
        "with --simulate-trace",
        lambda s: s.simulate_trace is None,
    ),
    Dependency(("simulate-output-tokens",), "with --simulate-text echo", lambda s: s.simulate_text != "echo"),
    Dependency(
        ("simulate-max-waiting",), "without --simulate-max-running", lambda s: s.simulate_max_running is not None
    ),
    Dependency(("simulate-cache-block",), "without --simulate-cache-tokens", lambda s: s.simulate_cache_tokens > 0),
    Dependency(("simulate-stall",), "without --simulate-fail stall=RATE", _stalls),
)
"""Every option that has an effect only with another option, except those for which the loader raises an error."""


def unused_options(settings: Settings, given: Mapping[str, tuple[str, Any]]) -> tuple[UnusedOption, ...]:
    """The options of `given` that have no effect, and those in the tables of several engines.

    `given` maps the name of an option to its spelling and its value. An option that is given its default value does
    not count.
    """
    engines = [settings.with_values(**named.values) for named in settings.upstreams]
    found = list(_among(given, engines or [settings]))
    for named, engine in zip(settings.upstreams, engines, strict=True):
        own = {
            name: (f"{name} of the engine {named.name}", value)
            for attribute, value in named.values.items()
            if (name := attribute.replace("_", "-")) != "upstream"
        }
        found += _among(own, [engine])
    return tuple(found)


def _among(given: Mapping[str, tuple[str, Any]], engines: list[Settings]) -> Iterator[UnusedOption]:
    """The options of `given` that have no effect on any of these engines."""
    for name, (where, value) in given.items():
        option = _BY_NAME[name]
        if value == option.default_value:
            continue
        if all(engine.engine_kind not in option.engines for engine in engines):
            yield UnusedOption(name, where, engine_reason(engines[0]), is_refused=True)
            continue
        unmet = _unmet(option, engines)
        if unmet is not None:
            yield UnusedOption(name, where, unmet.otherwise, unmet.is_refused)


def _unmet(option: Option, engines: list[Settings]) -> Dependency | None:
    """The dependency that takes the option's effect on all of these engines away."""
    for dependency in DEPENDENCIES:
        if option.name in dependency.options and not any(map(dependency.is_met, engines)):
            return dependency
    return None


def engine_reason(settings: Settings) -> str:
    """`with` the chosen engine, by its option."""
    if settings.simulated_by_default:
        return "with the simulator, which answers because no engine is named"
    return "with the simulator" if settings.engine_kind == "simulate" else f"with --{settings.engine_kind}"


def refuse_unused(settings: Settings) -> None:
    """Raises ConfigError for an option of the command line that has no effect and is not only warned about."""
    for option in settings.without_effect:
        if option.is_refused and option.where.startswith("--"):
            raise ConfigError(f"{option.where} has no effect {option.reason}; remove it")
