"""One line of a result file, asked for its fields by name and type; what is wrong is named with its place."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import orjson

Percentiles = dict[str, float]  # "p50", "p90", "p99", "p99.9", "max": seconds

PERCENTILES: Final = ("p50", "p90", "p99", "p99.9")


class RecordError(ValueError):
    """A line does not say what its kind must say. The message names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object and where it stands."""

    data: dict[str, Any]
    where: str

    @classmethod
    def parse(cls, line: str, where: str) -> "Fields":
        """Raises RecordError when the line is no JSON object."""
        try:
            data = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            raise RecordError(f"{where}: not JSON: {exc.msg}") from exc
        if not isinstance(data, dict):
            raise RecordError(f"{where}: not a JSON object")
        return cls(data, where)

    def _fault(self, name: str, wanted: str) -> RecordError:
        return RecordError(f"{self.where}: {name!r} must be {wanted}, not {str(self.data.get(name))[:40]!r}")

    def has(self, name: str) -> bool:
        """Whether it is there and not null."""
        return self.data.get(name) is not None

    def text(self, name: str) -> str:
        """A string that says something."""
        value = self.data.get(name)
        if not isinstance(value, str) or not value:
            raise self._fault(name, "a string")
        return value

    def plain(self, name: str) -> str:
        """A string or a number as it stands; empty when there is none."""
        value = self.data.get(name)
        if value is None:
            return ""
        if isinstance(value, (str, int, float)):
            return str(value)
        raise self._fault(name, "a string")

    def maybe(self, name: str) -> float | None:
        """A finite number, or None."""
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise self._fault(name, "a number")
        return value

    def number(self, name: str) -> float:
        """A finite number that is not negative."""
        value = self.maybe(name)
        if value is None or value < 0:
            raise self._fault(name, "a number that is not negative")
        return value

    def positive(self, name: str) -> float:
        """A finite number above nothing."""
        value = self.number(name)
        if value == 0:
            raise self._fault(name, "more than nothing")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number that is not negative; `default` when it is not there."""
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._fault(name, "a whole number that is not negative")
        return value

    def maybe_inner(self, name: str) -> "Fields | None":
        """An object inside this one, or None."""
        value = self.data.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._fault(name, "an object")
        return Fields(value, f"{self.where}: {name}")

    def inner(self, name: str) -> "Fields":
        """An object inside this one."""
        found = self.maybe_inner(name)
        if found is None:
            raise self._fault(name, "an object")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.data.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._fault(name, "a list of strings")
        return tuple(value)

    def words(self, name: str) -> dict[str, str]:
        """An object of strings; empty when it is not there."""
        found = self.maybe_inner(name)
        return {key: found.plain(key) for key in found.data} if found else {}

    def counts(self, name: str) -> dict[str, int]:
        """An object of whole numbers; empty when it is not there."""
        found = self.maybe_inner(name)
        return {key: found.count(key) for key in found.data} if found else {}

    def percentiles(self, name: str) -> Percentiles:
        """The percentiles that are there, in seconds; empty when nothing was seen."""
        found = self.maybe_inner(name)
        if found is None:
            return {}
        seen = {key: found.maybe(key) for key in (*PERCENTILES, "max")}
        return {key: value for key, value in seen.items() if value is not None}
