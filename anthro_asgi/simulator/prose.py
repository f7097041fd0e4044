"""The simulated text. "|" separates the tokens of a word; some characters need several bytes in UTF-8, on purpose."""

import re
from random import Random
from typing import Final


def _tokens(word: str) -> tuple[str, ...]:
    return tuple((word if word == "," else f" {word}").split("|"))


_WORDS: Final = {
    "A": "quiet old pale gold|en small wander|ing naïve distant warm crim|son",
    "N": "river light|house café garden lan|tern har|bor 漢字 map|maker orchard 東京 station win|dow traveller 🙂",
    "V": "waits rests changes turns re|members listens glim|mers returns drifts hesi|tates",
    "P": "beside beyond under near with|out behind",
    "D": "slow|ly again soon tonight for|ever déjà",
}
_FRAMES: Final = tuple(
    tuple(tuple(_tokens(word) for word in _WORDS.get(slot, slot).split()) for slot in frame.split())
    for frame in (
        "the A N V P the N",
        "every N V D",
        "a N V P the A N and the N V",
        "when the A N V , the N V D",
        "no N V P a N , but one A N V",
        "the N , the N and the A N V",
    )
)
_ECHO: Final = re.compile(r"\s*\S{1,6}|\s+")


def prose(rng: Random, length: int) -> list[str]:
    """Sentences of `length` tokens, ended by a full stop. A longer text begins with the words of a shorter one."""
    tokens: list[str] = []
    while len(tokens) < length:
        words = [piece for slot in rng.choice(_FRAMES) for piece in rng.choice(slot)]
        tokens.append(words[0].title() if tokens and tokens[-1] != "\n\n" else words[0].title().lstrip())
        tokens += words[1:]
        tokens += (".", "\n\n") if rng.random() < 0.1 else (".",)
    tokens[length - 1 :] = ["."] if length > 1 else tokens[:1]
    return tokens


def echoed(text: str) -> list[str]:
    """`text` split into tokens; at least one."""
    return _ECHO.findall(text) or ["…"]
