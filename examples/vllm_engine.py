"""vLLM's `AsyncLLM` in this process, as an engine: no HTTP and no JSON between the two.

pip install "anthro-asgi[fast]" vllm
MODEL=Qwen/Qwen3-0.6B anthro-asgi serve --engine examples.vllm_engine:engine
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from anthro_asgi import ContextTooLong, Delta, Finish, MessagesRequest, ModelInfo, Overloaded, Usage, as_chat


class VllmEngine:
    """`llm` is an `AsyncLLM`; `sampling` makes its `SamplingParams`, which must ask for deltas."""

    def __init__(self, name: str, llm: Any, sampling: Any) -> None:
        self._name = name
        self._llm = llm
        self._sampling = sampling

    async def stop(self) -> None:
        self._llm.shutdown()

    async def ready(self) -> bool:
        return not self._llm.errored

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self._name, max_input_tokens=self._llm.model_config.max_model_len)]

    async def count_tokens(self, request: MessagesRequest) -> int:
        return len(await self._prompt(request))

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        prompt = await self._prompt(request)
        window = self._llm.model_config.max_model_len
        if len(prompt) >= window:
            raise ContextTooLong(len(prompt), window)
        if self._llm.errored:
            raise Overloaded("the engine is gone")
        sampling = self._sampling(
            max_tokens=min(request.max_tokens, window - len(prompt)),
            stop=list(request.stop_sequences) or None,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=request.top_p or 1.0,
            top_k=request.top_k or 0,
        )
        outputs = self._llm.generate({"prompt_token_ids": prompt}, sampling, request_id=secrets.token_hex(8))
        tokens = 0
        async with aclosing(outputs):  # closing it aborts the request in vLLM
            async for output in outputs:
                choice = output.outputs[0]
                tokens += len(choice.token_ids)
                deltas: list[Delta] = [choice.text] if choice.text else []
                if choice.finish_reason is not None:
                    cached = output.num_cached_tokens or 0
                    deltas += [Usage(len(prompt) - cached, tokens, cached), _finish(choice)]
                yield deltas

    async def _prompt(self, request: MessagesRequest) -> list[int]:
        tokenizer = await self._llm.get_tokenizer()
        chat = as_chat(request)
        tokens: list[int] = tokenizer.apply_chat_template(
            chat["messages"], tools=chat.get("tools"), add_generation_prompt=True, tokenize=True
        )
        return tokens


def _finish(choice: Any) -> Finish:
    if choice.finish_reason == "length":
        return Finish("max_tokens")
    if isinstance(choice.stop_reason, str):
        return Finish("stop_sequence", choice.stop_reason)
    return Finish("end_turn")


def engine() -> VllmEngine:
    """`--engine` names this function."""
    from functools import partial

    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    name = os.environ["MODEL"]
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=name))
    return VllmEngine(name, llm, partial(SamplingParams, output_kind=RequestOutputKind.DELTA))
