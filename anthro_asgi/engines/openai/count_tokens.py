"""Token counts of a chat request from the engine's own endpoints (contract section 10).

vLLM and SGLang have `/tokenize`, which takes the fields that make up the prompt and returns its length. llama.cpp has
`/v1/chat/completions/input_tokens`, which takes the whole chat request. Older versions have only `/apply-template`,
which returns the prompt as text, and `/tokenize`, which returns its tokens; special tokens are parsed as they are for
an answer. A prompt as text contains no images, so a request with images is not counted in this way.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

from ...wire.errors import BadUpstream
from ...wire.large.cooperative import run_with_yields
from ...wire.large.cuts import Cuts
from ..shared.fetch import FetchResult
from .dialects import Dialect
from .sent_messages import look_in_steps

Json = dict[str, Any]
Ask = Callable[[str, Json, Cuts | None], Awaitable[FetchResult]]

INPUT_TOKENS: Final = "/v1/chat/completions/input_tokens"
TEMPLATE: Final = "/apply-template"
TOKENIZE: Final = "/tokenize"
# The answers of a gateway that blocks a path, or of an engine that does not have it.
_ABSENT: Final = frozenset({401, 403, 404, 405, 501})
_PROMPT_FIELDS: Final = (
    "model",
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
)


class PromptTokenCounter:
    """Asks the engine for counts. `ask` posts a body, with what was cut out of its request, to a path beside `/v1`,
    and raises ApiError.

    A path that the engine does not have is not asked for again, until `forget` is called.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._absent: set[str] = set()

    def forget(self) -> None:
        """Ask for every path again: another engine may have taken the place of this one."""
        self._absent.clear()

    async def count(self, body: Json, dialect: Dialect, cuts: Cuts | None = None) -> int:
        """The length in tokens of the prompt of the chat request `body`, out of which `cuts` were cut.

        Raises NotImplementedError if the engine cannot count it, and ApiError if the engine refuses the request.
        """
        if dialect.counting == "tokenize":
            return _number(await self._post(TOKENIZE, _prompt_fields(body, dialect), cuts), "count")
        if dialect.counting == "input_tokens":
            try:
                return _number(await self._post(INPUT_TOKENS, body, cuts), "input_tokens")
            except NotImplementedError:
                return await self._by_template(body, cuts)
        raise NotImplementedError

    async def _by_template(self, body: Json, cuts: Cuts | None) -> int:
        if (await run_with_yields(look_in_steps(body["messages"]), perf_counter)).has_parts:
            raise NotImplementedError
        prompt = (await self._post(TEMPLATE, body, cuts)).get("prompt")
        if not isinstance(prompt, str):
            raise BadUpstream("the engine returned no prompt")
        tokens = await self._post(TOKENIZE, {"content": prompt, "add_special": True, "parse_special": True})
        if not isinstance(tokens.get("tokens"), list):
            raise BadUpstream("the engine returned no tokens")
        return len(tokens["tokens"])

    async def _post(self, path: str, body: Json, cuts: Cuts | None = None) -> Json:
        if path in self._absent:
            raise NotImplementedError
        answer = await self._ask(path, body, cuts)
        if answer.status in _ABSENT:
            self._absent.add(path)
            raise NotImplementedError
        if _accepts_only_text(path, answer):
            raise NotImplementedError
        if answer.status != 200:
            raise answer.error()
        counts = answer.json()
        if not isinstance(counts, dict):
            raise BadUpstream("the engine returned an invalid token count")
        return counts


def _accepts_only_text(path: str, answer: FetchResult) -> bool:
    """Whether this `/tokenize` accepts only a `prompt`: older versions of SGLang and vLLM cannot count a chat."""
    return path == TOKENIZE and answer.status in (400, 422) and b"prompt" in answer.body and b"required" in answer.body


def _prompt_fields(body: Json, dialect: Dialect) -> Json:
    """The fields of a chat request that make up its prompt. The effort becomes a variable of the chat template."""
    prompt: Json = {key: body[key] for key in _PROMPT_FIELDS if key in body}
    if dialect.counts_tool_choice and "tool_choice" in body:
        prompt["tool_choice"] = body["tool_choice"]
    if "reasoning_effort" in body:
        effort = {"reasoning_effort": body["reasoning_effort"]}
        prompt["chat_template_kwargs"] = effort | prompt.get("chat_template_kwargs", {})
    return prompt


def _number(counts: Json, key: str) -> int:
    count = counts.get(key)
    if type(count) is not int or count < 0:
        raise BadUpstream("the engine returned an invalid token count")
    return count
