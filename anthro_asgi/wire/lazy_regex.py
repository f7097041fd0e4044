"""Regular expressions that are compiled when they are first used.

They are for text that most processes never read, such as the refusals of an engine. Compiling all of them took longer
than the rest of the import of the engines. What is read in each request is compiled on import instead.
"""

import re
from typing import Any, AnyStr, cast


def lazy_regex(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """The same as `re.compile(pattern, flags)`, compiled when one of its methods is first looked up.

    A wrong pattern raises `re.error` then.
    """
    return cast("re.Pattern[AnyStr]", _LazyRegex(pattern, flags))


class _LazyRegex:
    """Has the methods and attributes of a `re.Pattern`."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self._arguments = pattern, flags

    def __getattr__(self, name: str) -> Any:
        """Called only for an attribute that the instance does not have yet."""
        pattern, flags = self._arguments
        value = getattr(re.compile(pattern, flags), name)
        vars(self)[name] = value
        return value
