"""How an engine counts the tokens of a chat request, by an endpoint of its own (contract section 10).

vLLM and SGLang have `/tokenize`, which takes what makes up the prompt of a chat and tells its length. llama.cpp has
`/v1/chat/completions/input_tokens`, which takes the chat request as it is; where it is older, `/apply-template` makes
the prompt and `/tokenize` its tokens, with the special ones parsed as they are for an answer. Such a prompt holds no
images, so one that should have them is not counted.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from ...wire.errors import BadUpstream
from ..shared.fetch import FetchResult
from ..shared.upstream_errors import failure
from .dialects import Dialect

Json = dict[str, Any]
Ask = Callable[[str, Json], Awaitable[FetchResult]]

INPUT_TOKENS: Final = "/v1/chat/completions/input_tokens"
TEMPLATE: Final = "/apply-template"
TOKENIZE: Final = "/tokenize"
# What a gateway says of a path it keeps to itself, or an engine of one it does not have.
_ABSENT: Final = frozenset({401, 403, 404, 405, 501})
_PROMPT: Final = (
    *("model", "messages", "tools", "chat_template_kwargs"),
    *("add_generation_prompt", "continue_final_message"),
)


class PromptTokenCounter:
    """Counts by asking. `ask` posts to a path and raises ApiError. `forget` when another engine may be there."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._absent: set[str] = set()

    def forget(self) -> None:
        self._absent.clear()

    async def count(self, body: Json, dialect: Dialect) -> int:
        """The tokens of the prompt that `body` makes. Raises NotImplementedError when the engine has no way to tell,
        and ApiError for what it has against the request.
        """
        if dialect.counting == "tokenize":
            return _number(await self._asked(TOKENIZE, _prompt(body)), "count")
        if dialect.counting == "input_tokens":
            try:
                return _number(await self._asked(INPUT_TOKENS, body), "input_tokens")
            except NotImplementedError:
                return await self._by_template(body)
        raise NotImplementedError

    async def _by_template(self, body: Json) -> int:
        if any(type(message["content"]) is list for message in body["messages"]):
            raise NotImplementedError
        prompt = (await self._asked(TEMPLATE, body)).get("prompt")
        if not isinstance(prompt, str):
            raise BadUpstream("the engine gave no prompt")
        tokens = await self._asked(TOKENIZE, {"content": prompt, "add_special": True, "parse_special": True})
        if not isinstance(tokens.get("tokens"), list):
            raise BadUpstream("the engine gave no tokens")
        return len(tokens["tokens"])

    async def _asked(self, path: str, body: Json) -> Json:
        if path in self._absent:
            raise NotImplementedError
        answer = await self._ask(path, body)
        if answer.status in _ABSENT:
            self._absent.add(path)
            raise NotImplementedError
        if _knows_only_texts(path, answer):
            raise NotImplementedError
        if answer.status != 200:
            raise failure(answer.status, None, answer.body)
        told = answer.json()
        if not isinstance(told, dict):
            raise BadUpstream("the engine gave a count that is none")
        return told


def _knows_only_texts(path: str, answer: FetchResult) -> bool:
    """Whether `/tokenize` wants a `prompt`: before they could count a chat, SGLang and vLLM counted texts."""
    return path == TOKENIZE and answer.status in (400, 422) and b"prompt" in answer.body and b"required" in answer.body


def _prompt(body: Json) -> Json:
    """Of a chat request, what its prompt is made of. The template is told the effort as one of its own variables."""
    prompt: Json = {key: body[key] for key in _PROMPT if key in body}
    if "reasoning_effort" in body:
        told = {"reasoning_effort": body["reasoning_effort"]}
        prompt["chat_template_kwargs"] = told | prompt.get("chat_template_kwargs", {})
    return prompt


def _number(told: Json, key: str) -> int:
    count = told.get(key)
    if type(count) is not int or count < 0:
        raise BadUpstream("the engine gave a count that is none")
    return count
