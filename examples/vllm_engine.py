"""vLLM's `AsyncLLM` in this process, as an engine: no HTTP and no JSON between the two. For vLLM 0.32.

pip install "anthro-asgi[fast]" vllm
MODEL=Qwen/Qwen3-0.6B TOOL_PARSER=hermes REASONING_PARSER=qwen3 anthro-asgi serve --engine examples.vllm_engine:engine

TOOL_PARSER and REASONING_PARSER are vLLM's own names, as for `vllm serve --tool-call-parser … --reasoning-parser …`.
Without the first one, tools are refused.
"""

import json
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from anthro_asgi import (
    ContextTooLong,
    Delta,
    Finish,
    InvalidRequest,
    MessagesRequest,
    ModelInfo,
    Overloaded,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
    as_chat,
)


class VllmEngine:
    """Converts by vLLM's own classes, so that an answer is the one that vLLM's server would give.

    Args:
        name: the model's name in `GET /v1/models`.
        llm: an `AsyncLLM`.
        chat_request: vLLM's `ChatCompletionRequest`, which knows how its fields become `SamplingParams`.
        parser: the class that `ParserManager.get_parser` returns: it separates thinking and tool calls from the text.

    The stop sequences of a request are not given to vLLM, which would match them in thinking and in tool calls too. The
    service matches them in the text. Then it closes `stream`, which aborts the request in vLLM.
    """

    def __init__(
        self,
        name: str,
        llm: Any,
        chat_request: Callable[..., Any],
        parser: Callable[..., Any] | None = None,
    ) -> None:
        self._name = name
        self._llm = llm
        self._chat_request = chat_request
        self._parser = parser

    async def stop(self) -> None:
        self._llm.shutdown()

    async def ready(self) -> bool:
        return not self._llm.errored

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self._name, max_input_tokens=self._llm.model_config.max_model_len)]

    async def count_tokens(self, request: MessagesRequest) -> int:
        return len(self._prompt(as_chat(request), self._template_options(request)))

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        body, options = as_chat(request), self._template_options(request)
        if body.get("tools") and self._parser is None:
            raise InvalidRequest("tools: the engine was started without a tool parser")
        prompt = self._prompt(body, options)
        window = self._llm.model_config.max_model_len
        if len(prompt) >= window:
            raise ContextTooLong(len(prompt), window)
        if self._llm.errored:
            raise Overloaded("the engine is gone")
        chat, parser = self._chat_request(**body), None
        if self._parser is not None:
            tokenizer, config = self._llm.get_tokenizer(), self._llm.model_config
            parser = self._parser(tokenizer, chat.tools, chat_template_kwargs=options, model_config=config)
            chat = parser.adjust_request(chat)  # a forced call becomes structured output
        defaults = self._llm.model_config.get_diff_sampling_param()  # of the model's generation_config.json
        sampling = chat.to_sampling_params(min(request.max_tokens, window - len(prompt)), defaults)
        outputs = self._llm.generate(
            {"prompt_token_ids": prompt},
            sampling,
            secrets.token_hex(8),
            reasoning_ended=chat.resolve_reasoning_ended(parser, prompt),
            reasoning_parser_kwargs={"chat_template_kwargs": options} if parser and parser.reasoning_parser else None,
        )
        yield [Usage(len(prompt))]  # also for an answer that a stop sequence ends before vLLM reports its counts
        answer = _Answer(len(prompt))
        async with aclosing(outputs):  # closing it aborts the request in vLLM
            async for output in outputs:
                choice = output.outputs[0]
                message: Any = None
                if parser is not None:
                    message = parser.parse_delta(
                        delta_text=choice.text,
                        delta_token_ids=list(choice.token_ids),
                        request=chat,
                        prompt_token_ids=prompt,
                        finished=choice.finish_reason is not None,
                    )
                yield answer.deltas(output, choice, choice.text if parser is None else message)

    def _template_options(self, request: MessagesRequest) -> dict[str, Any]:
        """The variables of the chat template. Many templates know this switch; the others ignore it."""
        return {} if request.thinking is None else {"enable_thinking": request.thinking.type != "disabled"}

    def _prompt(self, body: dict[str, Any], options: dict[str, Any]) -> list[int]:
        tools = body.get("tools") if body.get("tool_choice") != "none" else None
        tokens: list[int] = self._llm.get_tokenizer().apply_chat_template(
            [_for_template(turn) for turn in body["messages"]],
            tools=tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,  # otherwise a BatchEncoding, whose length is the number of its fields
            **options,
        )
        return tokens


class _Answer:
    """Outputs of vLLM → deltas."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt
        self._tokens = 0
        self._open = -1  # the index of the call whose arguments arrive

    def deltas(self, output: Any, choice: Any, message: Any) -> list[Delta]:
        """`message` is a text, a DeltaMessage of the parser, or None while the parser waits for more text."""
        self._tokens += len(choice.token_ids)
        deltas: list[Delta] = []
        if isinstance(message, str):
            deltas += [message] if message else []
        elif message is not None:
            deltas += [Thinking(message.reasoning)] if message.reasoning else []
            deltas += [message.content] if message.content else []
            for call in message.tool_calls:
                deltas += self._call(call)
        if choice.finish_reason is not None:
            cached = output.num_cached_tokens or 0
            deltas += [Usage(self._prompt - cached, self._tokens, cached), self._finish(choice)]
        return deltas

    def _call(self, call: Any) -> list[Delta]:
        deltas: list[Delta] = []
        if call.function is not None and call.function.name and call.index != self._open:
            self._open = call.index
            deltas.append(ToolStart(call.id or f"call_{secrets.token_hex(12)}", call.function.name))
        if call.function is not None and call.function.arguments:
            deltas.append(ToolJson(call.function.arguments))
        return deltas

    def _finish(self, choice: Any) -> Finish:
        if choice.finish_reason == "length":
            return Finish("max_tokens")
        return Finish("tool_use" if self._open >= 0 else "end_turn")


def _for_template(turn: dict[str, Any]) -> dict[str, Any]:
    """Chat templates read the arguments of a call as an object; chat requests hold them as a text."""
    if "tool_calls" not in turn:
        return turn
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}


def engine() -> VllmEngine:
    """`--engine` names this function."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser import ParserManager
    from vllm.v1.engine.async_llm import AsyncLLM

    name, tools, reasoning = os.environ["MODEL"], os.environ.get("TOOL_PARSER"), os.environ.get("REASONING_PARSER")
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=name, reasoning_parser=reasoning or ""))
    parser = ParserManager.get_parser(
        tool_parser_name=tools, reasoning_parser_name=reasoning, enable_auto_tools=tools is not None, model_name=name
    )
    return VllmEngine(name, llm, ChatCompletionRequest, parser)
