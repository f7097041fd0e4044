"""The stop matcher on text tokens, against `orjson.dumps` of the same text."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import orjson

from anthro_asgi.wire.stop_sequences import StopSequenceMatcher

from .. import oracles
from ..timing import Side, always
from .case import Case, same
from .texts import varied

GROUP: Final = "stop matcher"
FLOOR: Final = "orjson.dumps of the text"
TEXTS: Final = varied(4_000)
STOPS: Final = ("\n\nHuman:", "</answer>", "```\n\n\n", "==END==")
"""None is in the texts, but the first, third and last begin there often."""


def cases() -> list[Case]:
    return [_case(name, stops) for name, stops in (("none", ()), ("1 sequence", STOPS[:1]), ("4 sequences", STOPS))]


def _case(name: str, stops: Sequence[str]) -> Case:
    subject = Side(lambda: StopSequenceMatcher(stops).feed, TEXTS)
    check = partial(_check, stops, f"{GROUP}, {name}")
    return Case(GROUP, name, FLOOR, always(orjson.dumps, TEXTS), subject, len(TEXTS), check)


def _check(stops: Sequence[str], what: str) -> None:
    """Without a match, and with each of them put where the text was, in pieces of one character and of a token."""
    same(_released(TEXTS, stops), oracles.before_a_stop("".join(TEXTS), stops), what)
    for number, stop in enumerate(stops):
        at = 40 + 100 * number
        text = "".join(TEXTS[:at]) + stop + "".join(TEXTS[at:])
        for pieces in (list(text), [*TEXTS[:at], stop[:3], stop[3:], *TEXTS[at:]]):
            same(_released(pieces, stops), oracles.before_a_stop(text, stops), what)


def _released(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, str | None]:
    matcher = StopSequenceMatcher(stops)
    out: list[str] = []
    for piece in pieces:
        out.append(matcher.feed(piece))
        if matcher.matched is not None:
            return "".join(out), matcher.matched
    return "".join(out) + matcher.flush(), None
