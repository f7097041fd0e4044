"""How long an answer may be that an engine has refused as too long. Pure.

Some engines shorten an answer themselves, so nothing is shortened before an engine has refused it. Most refusals tell
the length that fits. vLLM tells only a lower bound of the prompt's length: then the prompt is counted, or estimated.

What a refusal has told of the engine's limits is used for the next request, so that it is not refused again. Its prompt
is longer, so its length is estimated, with a margin.
"""

from collections.abc import Callable
from math import ceil
from typing import Any, Final

from ...wire.errors import ContextTooLong
from .context_overflow import PromptBound, find_bound, find_prompt, find_room, longest_answer

_SHORTEST: Final = 256  # tokens; a prompt beside which even this answer does not fit is too long
_MARGIN: Final = 16  # the part of an estimated prompt that is added to it: the text of each turn is of another kind
_LEAST_MARGIN: Final = 32  # tokens
_SHRINK: Final = 8  # an answer of unknown room becomes shorter by this factor, so that few attempts are enough


def shorter_answer(asked: int, refusal: str) -> int | None:
    """The answer in tokens to ask for instead of `asked`; None if the refusal does not tell.

    Raises ContextTooLong if the prompt leaves no room for an answer.
    """
    room = find_room(refusal)
    if room is None:
        room = longest_answer(refusal)
    if room is None:
        return None
    if room < 1:
        prompt = find_prompt(refusal) or 0
        raise ContextTooLong(prompt, prompt + room - 1)  # the longest prompt that leaves room for one token
    return room if room < asked else None


def answer_beside(bound: PromptBound, asked: int, prompt: int | None, estimate: int) -> int:
    """The answer in tokens to ask for, after the engine refused `asked` and told only a `bound` for the prompt.

    `prompt` is its exact length in tokens; None if the engine cannot count, and then `estimate` is taken with a margin.
    Raises ContextTooLong if the prompt leaves no room for an answer.
    """
    if prompt is not None and prompt >= bound.window:
        raise ContextTooLong(prompt, min(bound.window, prompt - 1))
    taken = prompt if prompt is not None else max(bound.at_least, estimate + estimate // 3)
    room = bound.window - taken
    if 1 <= room < asked:
        return room
    if asked <= _SHORTEST:
        raise ContextTooLong(None, None)
    return asked // _SHRINK


def told_limits(refusal: str, prompt: int | None, estimate: int) -> dict[str, Any]:
    """The fields of a Dialect that hold the limits which a refusal tells.

    `prompt` is the prompt's length in tokens if it was counted, `estimate` what it was estimated to be.
    """
    bound, room = find_bound(refusal), find_room(refusal)
    if bound is not None:
        window = bound.window
    elif room is not None:
        prompt = find_prompt(refusal) or 0
        window = prompt + room
    else:
        longest = longest_answer(refusal)
        return {} if longest is None else {"longest_answer": longest}
    scale = 4 / 3 if prompt is None else prompt / max(1, estimate)
    return {"reserved_window": window, "prompt_scale": ceil(scale * 100) / 100}


def accepted_length(
    asked: int, estimate: Callable[[], int], *, longest: int | None, window: int | None, scale: float
) -> int:
    """The answer in tokens to ask for, so that an engine with these limits accepts it; `asked` if it does.

    It is `asked`, too, if the estimated prompt leaves no room: the engine's refusal then tells more.
    """
    if longest is not None:
        asked = min(asked, longest)
    if window is None:
        return asked
    prompt = ceil(estimate() * scale)
    room = window - prompt - prompt // _MARGIN - _LEAST_MARGIN
    return room if 1 <= room < asked else asked
