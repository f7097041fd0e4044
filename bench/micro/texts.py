"""What models say, token by token: of every length, with what JSON escapes, and in more than one script."""

from random import Random
from typing import Final

TOKENS: Final = (
    " the",
    " of",
    "ing",
    "\n",
    " café",
    '"',
    " 漢字",
    "🙂",
    " encoder",
    ".",
    " 42",
    "\\n",
    " anticipation",
)
_MORE: Final = (
    *(" a", " to", " is", " that", " with", ",", "'s", ":", " (", ")", "\n\n", "    ", "\t", "``", "`", "//", " =="),
    *(" return", " self", " function", " because", " implementation", " however", "tion", "ed", "er", "ly", "ß", "—"),
    *(" größer", "данные", "です", "。", "✅", '\\"', '":', ' "', "</", ">", " {", "}", "[]", "e\u0301", "\u2028"),
)


def varied(count: int, seed: int = 4) -> list[str]:
    """`count` tokens, the same for the same seed. None is empty; every eighth is a number that no other token is."""
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    words = chance.choices(TOKENS + _MORE, k=count)
    return [f" {number}" if number % 8 == 7 else word for number, word in enumerate(words)]
