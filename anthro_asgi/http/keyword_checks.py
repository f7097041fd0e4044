"""Checks the keywords of MessagesApp, so that a wrong one fails where it is written and not at each request. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..wire.answer_limits import AnswerLimits
from ..wire.request_policy import Rules


class _Number(NamedTuple):
    """A number of at least `least`, or more than `least` if `excluded`. `optional`: None is allowed, too."""

    least: float = 1
    excluded: bool = False
    whole: bool = True
    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        if value is None and self.optional:
            return
        wanted = "a whole number" if self.whole else "a number"
        # a number of another library, such as numpy, is no int
        is_number = hasattr(value, "__index__") or (not self.whole and hasattr(value, "__float__"))
        if isinstance(value, bool) or not is_number:
            raise TypeError(f"{name}: must be {wanted}, not {_shown(value)}")
        if not (value > self.least if self.excluded else value >= self.least):
            raise ValueError(f"{name}: must be {'more than' if self.excluded else 'at least'} {self.least:g}")


_COUNT: Final = _Number()
_SECONDS: Final = _Number(0, excluded=True, whole=False)
_NUMBERS: Final = {
    "ping_interval": _SECONDS,
    "max_body": _COUNT,
    "max_decompressed": _COUNT,
    "max_body_memory": _COUNT,
    "max_body_memory_per_key": _COUNT,
    "max_concurrency": _COUNT,
    "max_queue": _Number(0),
    "queue_timeout": _Number(0, whole=False),
    "max_concurrency_per_key": _Number(optional=True),
    "batch_concurrency": _COUNT,
    "batch_lease": _SECONDS,
    "batch_lateness": _Number(0, whole=False),
    "max_file": _COUNT,
    "max_files_per_key": _COUNT,
    "total_deadline": _Number(0, excluded=True, whole=False, optional=True),
    "compact_at": _Number(0, excluded=True, whole=False, optional=True),
    "cache_diagnostics_answers": _COUNT,
}
_CHOICES: Final = {"pdf": ("text", "images", "both", "refuse"), "cache_diagnostics": ("off", "asked", "all")}
_CLASSES: Final = {"rules": Rules, "limits": AnswerLimits}


def check_keywords(values: Mapping[str, Any]) -> None:
    """`values` holds the keywords by name, and may hold more. Raises TypeError or ValueError that names the keyword."""
    for name, number in _NUMBERS.items():
        number.check(name, values[name])
    if values["compact_at"] is not None and values["compact_at"] > 1:
        raise ValueError("compact_at: is a share of the window: must be at most 1")
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            raise ValueError(f"{name}: must be one of {', '.join(choices)}, not {_shown(values[name])}")
    for name, kind in _CLASSES.items():
        _check(name, values[name], isinstance(values[name], kind), f"an instance of {kind.__name__}")
    _check_mapping(
        "aliases", values["aliases"], lambda model: isinstance(model, str), "names to models, which are text"
    )
    _check_mapping("server_tools", values["server_tools"], callable, "names to functions")
    search, store = values["web_search"], values["batch_store"]
    _check("web_search", search, search is None or callable(search), "an async function")
    _check("batch_store", store, store is None or hasattr(store, "files"), "a BatchStore")
    _check_origins(values["cors_origins"])


def _check_origins(origins: Any) -> None:
    wanted = "a sequence of origins such as https://app.example"
    _check("cors_origins", origins, not isinstance(origins, str | bytes), wanted)
    for origin in origins:
        valid = origin == "*" or (isinstance(origin, str) and "://" in origin and not origin.endswith("/"))
        _check("cors_origins", origin, valid, f"{wanted}, or '*'")


def _check_mapping(name: str, value: Any, is_valid: Callable[[Any], bool], wanted: str) -> None:
    if value is not None:
        _check(name, value, isinstance(value, Mapping), f"a mapping of {wanted}")
        for one in value.values():
            _check(name, one, is_valid(one), f"a mapping of {wanted}")


def _check(name: str, value: Any, is_valid: bool, wanted: str) -> None:
    if not is_valid:
        raise TypeError(f"{name}: must be {wanted}; got {_shown(value)}")


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
