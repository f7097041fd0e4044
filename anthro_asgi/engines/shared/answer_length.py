"""How long an answer may be that an engine has refused as too long. Pure.

Some engines shorten an answer themselves, so nothing is shortened before an engine has refused it. Most refusals tell
the length that fits. vLLM tells only a lower bound of the prompt's length: then the prompt is counted, or estimated.
"""

from typing import Final

from ...wire.errors import ContextTooLong
from .context_overflow import PromptBound, find_prompt, find_room, longest_answer

_SHORTEST: Final = 256  # tokens; a prompt beside which even this answer does not fit is too long
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
