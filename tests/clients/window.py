"""A scripted engine with a context window: vLLM's words for a prompt that does not fit, its `/tokenize`, its usage.

A token is four characters of the prompt's JSON, here, in `/tokenize` and in the usage of an answer.
"""

import json
from collections.abc import Callable
from typing import Final

from tests.clients.engine import Json, Play, refusal
from tests.support.upstream import json_answer

WINDOW: Final = 32_768  # tokens


def length(body: Json) -> int:
    """The tokens of a prompt."""
    return len(json.dumps([body["messages"], body.get("tools", [])])) // 4


def within_window(play: Play) -> Play:
    """Plays the requests whose prompt and answer fit into the window, and refuses the others."""

    def checked(body: Json, number: int) -> bytes:
        prompt = length(body)
        asked: int = body.get("max_tokens") or body["max_completion_tokens"]
        if prompt + asked > WINDOW:
            return refusal(
                400,
                f"This model's maximum context length is {WINDOW} tokens. However, you requested {asked} output tokens "
                f"and your prompt contains {prompt} input tokens, for a total of {prompt + asked} tokens. Please "
                "reduce the length of the input prompt or the number of requested output tokens.",
            )
        return play(body, number)

    return checked


MODELS: Final[Json] = {
    "object": "list",
    "data": [{"id": "local", "object": "model", "owned_by": "vllm", "max_model_len": WINDOW}],
}


def tokenize(body: Json) -> bytes:
    return json_answer(200, {"count": length(body), "max_model_len": WINDOW, "tokens": []})


OTHERS: Final[dict[str, Callable[[Json], bytes]]] = {"/tokenize": tokenize}
