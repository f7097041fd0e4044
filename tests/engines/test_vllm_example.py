"""The example for vLLM, over fakes whose methods take what the real methods take.

`vllm_surface.json` holds the signatures and fields of vLLM 0.32.0, as `tests/checks/apart/real_vllm.py` recorded them.
A call that the real library would refuse with a TypeError fails here too.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from anthro_asgi import ContextTooLong, MessagesApp, Usage
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.request import MessagesRequest
from examples.vllm_engine import VllmEngine

SURFACE = json.loads((Path(__file__).parent / "vllm_surface.json").read_text())
WINDOW = 64  # tokens; the fake tokenizer makes one token of each character
TOOL = {"name": "look", "input_schema": {"type": "object"}}
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def bound(name: str, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """The arguments of the real method `name` by their names. Raises TypeError as the real call would."""
    parameters = [
        Parameter(parameter, getattr(Parameter, kind), default=None if has_default else Parameter.empty)
        for parameter, kind, has_default in SURFACE["calls"][name]["parameters"]
    ]
    return Signature(parameters).bind(*args, **kwargs).arguments


def made(kind: str, **values: Any) -> Any:
    """An object of the real class `kind`, with these values; its other fields are None."""
    fields = SURFACE["fields"][kind]
    assert set(values) <= set(fields)
    return SimpleNamespace(**dict.fromkeys(fields) | values)


class Tokenizer:
    """Counts characters. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        asked = bound("PreTrainedTokenizerFast.apply_chat_template", self, *args, **kwargs)
        self.asked.append(asked)
        tokens = list(range(len(asked["conversation"][-1]["content"] or "")))
        return tokens if asked.get("return_dict") is False else {"input_ids": tokens, "attention_mask": tokens}


class ChatRequest:
    """`ChatCompletionRequest`: refuses a field that the real one does not have."""

    def __init__(self, **body: Any) -> None:
        vars(self).update(vars(made("ChatCompletionRequest", **body)))
        self.adjusted = False

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> Any:
        asked = bound("ChatCompletionRequest.to_sampling_params", self, *args, **kwargs)
        assert asked["default_sampling_params"] == {"top_k": 20}
        return SimpleNamespace(max_tokens=asked["max_tokens"], chat=self)

    def resolve_reasoning_ended(self, *args: Any, **kwargs: Any) -> bool | None:
        bound("ChatCompletionRequest.resolve_reasoning_ended", self, *args, **kwargs)
        return None


class Parser:
    """A parser of vLLM's: the text of an output is a key of `messages`, whose value is what the parser returns."""

    reasoning_parser = object()
    messages: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound("Parser.__init__", self, *args, **kwargs)

    def adjust_request(self, *args: Any, **kwargs: Any) -> Any:
        request = bound("Parser.adjust_request", self, *args, **kwargs)["request"]
        request.adjusted = True
        return request

    def parse_delta(self, *args: Any, **kwargs: Any) -> Any:
        return self.messages[bound("Parser.parse_delta", self, *args, **kwargs)["delta_text"]]


class AsyncLLM:
    """`generate` is an async generator of RequestOutput, which aborts the request when it is closed."""

    model_config = SimpleNamespace(max_model_len=WINDOW, get_diff_sampling_param=lambda: {"top_k": 20})
    errored = False

    def __init__(self, *choices: Any, cached: int = 0) -> None:
        self._choices = choices
        self._cached = cached
        self.aborted = False
        self.asked: list[Mapping[str, Any]] = []
        self.tokenizer = Tokenizer()

    def get_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    async def generate(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.asked.append(bound("AsyncLLM.generate", self, *args, **kwargs))
        try:
            for choice in self._choices:
                await asyncio.sleep(0)
                yield made("RequestOutput", outputs=[choice], num_cached_tokens=self._cached)
        except GeneratorExit:
            self.aborted = True
            raise


def choice(text: str, finish: str | None = None, stop: str | int | None = None) -> Any:
    return made("CompletionOutput", text=text, token_ids=[1], finish_reason=finish, stop_reason=stop)


def message(**values: Any) -> Any:
    return made("DeltaMessage", **{"tool_calls": [], **values})


def call(index: int, arguments: str | None = None, **values: Any) -> Any:
    function = made("DeltaFunctionCall", name=values.pop("name", None), arguments=arguments)
    return made("DeltaToolCall", index=index, function=function, **values)


async def answered(engine: VllmEngine, **fields: Any) -> Any:
    """The answer of a stream, whose grammar is checked."""
    body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi you"}]}
    response = await Driver(MessagesApp(engine)).request(
        "POST", "/v1/messages", body=json.dumps(body | fields).encode()
    )
    assert response.status == 200, response.body
    events = parse_events(response.body)
    check_stream(events)
    return message_from_events(events)


def test_the_kinds_of_vllms_methods_are_those_that_the_example_takes_them_for() -> None:
    kinds = {name: call["kind"] for name, call in SURFACE["calls"].items()}
    assert kinds.pop("AsyncLLM.generate") == "async generator"
    assert set(kinds.values()) == {"function"}


@pytest.mark.parametrize(
    ("last", "reason"),
    [(choice("", "stop"), "end_turn"), (choice("", "stop", 128009), "end_turn"), (choice("", "length"), "max_tokens")],
)
async def test_vllms_outputs_become_the_answer(last: Any, reason: str) -> None:
    llm = AsyncLLM(choice("Hello "), choice("world"), last, cached=2)
    message = await answered(VllmEngine("m", llm, ChatRequest), top_k=4, temperature=0.5)
    assert message["content"] == [{"type": "text", "text": "Hello world"}]
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, None)
    usage = message["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (4, 2, 3)
    (asked,) = llm.asked
    assert asked["prompt"] == {"prompt_token_ids": [0, 1, 2, 3, 4, 5]}
    sampling = asked["sampling_params"]
    assert (sampling.max_tokens, sampling.chat.top_k, sampling.chat.temperature) == (9, 4, 0.5)
    assert sampling.chat.stream, "to_sampling_params asks for deltas then"


async def test_a_stop_sequence_is_matched_by_the_service_and_aborts_the_request() -> None:
    llm = AsyncLLM(choice("Hello "), choice("END"), choice("more"), choice("", "stop"))
    message = await answered(VllmEngine("m", llm, ChatRequest), stop_sequences=["END"])
    assert message["content"] == [{"type": "text", "text": "Hello "}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
    assert llm.aborted
    assert llm.asked[0]["sampling_params"].chat.stop is None


async def test_thinking_and_calls_come_from_vllms_parser() -> None:
    class Parsing(Parser):
        messages: ClassVar = {
            "a": message(reasoning="Hm."),
            "b": None,
            "c": message(content="I look."),
            "d": message(tool_calls=[call(0, id="call_1", name="look"), call(0, '{"at":')]),
            "e": message(tool_calls=[call(0, ' "Rome"}'), call(1, "{}", name="look")]),
            "": None,
        }

    llm = AsyncLLM(*map(choice, "abcde"), choice("", "stop"))
    answer = await answered(VllmEngine("m", llm, ChatRequest, Parsing), tools=[TOOL], thinking={"type": "adaptive"})
    blocks = [
        {key: value for key, value in block.items() if key not in ("id", "signature")} for block in answer["content"]
    ]
    assert blocks == [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "name": "look", "input": {"at": "Rome"}},
        {"type": "tool_use", "name": "look", "input": {}},
    ]
    assert answer["stop_reason"] == "tool_use"
    (asked,) = llm.asked
    assert asked["sampling_params"].chat.adjusted, "a forced call becomes structured output"
    assert asked["reasoning_parser_kwargs"] == {"chat_template_kwargs": {"enable_thinking": True}}
    assert llm.tokenizer.asked[-1]["kwargs"]["enable_thinking"] is True


async def test_a_schema_reaches_vllm_as_a_response_format() -> None:
    llm = AsyncLLM(choice("{}", "stop"))
    schema = {"type": "object", "properties": {}}
    await answered(
        VllmEngine("m", llm, ChatRequest), output_config={"format": {"type": "json_schema", "schema": schema}}
    )
    assert llm.asked[0]["sampling_params"].chat.response_format["json_schema"]["schema"] == schema


async def test_the_template_reads_the_arguments_of_a_call_as_an_object() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny"}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]

    class Silent(Parser):
        messages: ClassVar = {"ok": message(content="ok")}

    llm = AsyncLLM(choice("ok", "stop"))
    await answered(VllmEngine("m", llm, ChatRequest, Silent), messages=turns, tools=[WEATHER])
    asked = llm.tokenizer.asked[-1]
    assert asked["conversation"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert asked["tools"][0]["function"]["name"] == "weather"


async def test_tools_without_a_parser_are_refused() -> None:
    app = MessagesApp(VllmEngine("m", AsyncLLM(), ChatRequest))
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "tools": [TOOL]}
    response = await Driver(app).request("POST", "/v1/messages", body=json.dumps(body).encode())
    assert (response.status, json.loads(response.body)["error"]["message"]) == (
        400,
        "tools: the engine was started without a tool parser",
    )


async def test_a_prompt_is_counted_by_its_tokens() -> None:
    engine = as_engine(VllmEngine("m", AsyncLLM(), ChatRequest))
    assert await engine.count_tokens(MessagesRequest("m", 1, [{"role": "user", "content": "Hi you"}])) == 6


async def test_a_prompt_that_exceeds_vllms_window_is_refused_with_the_words_that_clients_act_on() -> None:
    engine = VllmEngine("m", AsyncLLM(), ChatRequest)
    with pytest.raises(ContextTooLong, match="64 tokens > 64 maximum"):
        await anext(engine.stream(MessagesRequest("m", 9, [{"role": "user", "content": "x" * 64}])))


async def test_a_client_disconnect_aborts_the_request_in_vllm() -> None:
    llm = AsyncLLM(choice("a"), choice("b"), choice("c"))
    stream: Any = VllmEngine("m", llm, ChatRequest).stream(MessagesRequest("m", 9, [{"role": "user", "content": "x"}]))
    assert await anext(stream) == [Usage(1)]
    await anext(stream)
    await stream.aclose()
    assert llm.aborted
