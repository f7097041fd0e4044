"""Searches the deferred tools of a request, by words (BM25) or by a regular expression (contract 3.48). Pure.

Searched are the name of a tool, its description, and the names and descriptions of its arguments.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import log
from typing import Any, Final, Literal, Protocol

from .large.cooperative import Steps
from .large.cuts import Cuts, is_value_mark
from .linear_regex import Pattern, PatternError, SearchTooLong

Json = dict[str, Any]
SearchKind = Literal["regex", "bm25"]

MAX_FOUND: Final = 5
"""Tools that one search returns at most."""
MAX_QUERY: Final = 500  # characters of a query in words
_MAX_TEXT: Final = 8_192  # characters of a tool that are searched
_MAX_ARGUMENTS: Final = 256  # of one tool that are searched, with those inside objects
_MAX_SCHEMA: Final = 256 * 1024  # bytes of a schema that is parsed for a search; a larger one is not searched
_TOOLS_PER_STEP: Final = 8
_SATURATION: Final = 1.5  # k1 of BM25: how fast more occurrences of a word count less
_LENGTH: Final = 0.75  # b of BM25: how much a long text counts less
_NAME_WEIGHT: Final = 3  # occurrences that a word of the name stands for
# Words of `camelCase`, `snake_case` and `HTTPServer2`.
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")


class SearchableTool(Protocol):
    """What a search reads of a tool."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str | None: ...

    @property
    def input_schema(self) -> Json | None: ...


class SearchFailed(Exception):
    """The search has no result. `error_code` is one of `tool_search_tool_result_error`; `reason` is for the model."""

    def __init__(self, error_code: str, reason: str) -> None:
        super().__init__(error_code, reason)
        self.error_code = error_code
        self.reason = reason


def search_tools(
    kind: SearchKind, arguments: Json, tools: Sequence[SearchableTool], cuts: Cuts | None = None
) -> Steps[list[str]]:
    """The names of the best tools for the arguments of a call, the best first, in steps. Raises SearchFailed.

    `cuts` holds schemas that were cut out of a large request.
    """
    query = arguments.get("query", arguments.get("pattern"))
    if type(query) is not str or not query.strip():
        raise SearchFailed("invalid_tool_input", "query: must be a string that is not empty")
    if kind == "regex":
        return (yield from _by_pattern(query, tools, cuts))
    return (yield from _by_words(query[:MAX_QUERY], tools, cuts))


def _by_pattern(query: str, tools: Sequence[SearchableTool], cuts: Cuts | None) -> Steps[list[str]]:
    """Tools whose name matches come before those of which something else does."""
    try:
        pattern = Pattern(query)
        by_name: list[str] = []
        by_text: list[str] = []
        for tool in tools:
            if (yield from pattern.search(tool.name)):
                by_name.append(tool.name)
                if len(by_name) == MAX_FOUND:
                    break
            elif len(by_text) < MAX_FOUND and (yield from pattern.search(_text(tool, cuts))):
                by_text.append(tool.name)
            yield
    except PatternError as exc:
        raise SearchFailed("invalid_tool_input", f"query: {exc}") from None
    except SearchTooLong:
        raise SearchFailed("execution_time_exceeded", "query: the pattern takes too long; use a simpler one") from None
    return (by_name + by_text)[:MAX_FOUND]


def _by_words(query: str, tools: Sequence[SearchableTool], cuts: Cuts | None) -> Steps[list[str]]:
    """BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009)."""
    wanted = set(_words(query))
    counts: list[Counter[str]] = []
    lengths: list[int] = []
    holding: Counter[str] = Counter()  # how many tools have each wanted word
    for index, tool in enumerate(tools):
        words = [*(_words(tool.name) * _NAME_WEIGHT), *_words(_text(tool, cuts))]
        counts.append(Counter(word for word in words if word in wanted))
        lengths.append(len(words))
        holding.update(counts[-1].keys())
        if index % _TOOLS_PER_STEP == 0:
            yield
    average = sum(lengths) / len(lengths) if lengths else 1.0
    scores: list[tuple[float, int]] = []
    for index, count in enumerate(counts):
        scale = _SATURATION * (1 - _LENGTH + _LENGTH * lengths[index] / average)
        score = sum(
            log(1 + (len(tools) - holding[word] + 0.5) / (holding[word] + 0.5))
            * number
            * (_SATURATION + 1)
            / (number + scale)
            for word, number in count.items()
        )
        if score > 0:
            scores.append((-score, index))
    return [tools[index].name for _, index in sorted(scores)[:MAX_FOUND]]


def _words(text: str) -> list[str]:
    """The words in lower case, without the `s` of a plural."""
    words = (word.lower() for word in _WORD.findall(text))
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words]


def _text(tool: SearchableTool, cuts: Cuts | None) -> str:
    schema = tool.input_schema
    if cuts is not None and is_value_mark(schema):
        schema = cuts.value(schema, _MAX_SCHEMA)
    pieces = [tool.description or "", *_arguments(schema)]
    return "\n".join(pieces)[:_MAX_TEXT]


def _arguments(schema: Json | None) -> Iterator[str]:
    """Names and descriptions of the arguments, also of those inside objects and arrays."""
    waiting: list[Any] = [schema]
    seen = 0
    while waiting and seen < _MAX_ARGUMENTS:
        inner = waiting.pop()
        if type(inner) is not dict:
            continue
        if type(inner.get("description")) is str and inner is not schema:
            yield inner["description"]
        waiting.append(inner.get("items"))
        properties = inner.get("properties")
        if type(properties) is dict:
            for name, value in properties.items():
                seen += 1
                yield name
                waiting.append(value)
