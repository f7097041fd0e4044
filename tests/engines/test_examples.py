"""The engines of `examples/`, over fakes of the interfaces that transformers and vLLM document."""

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import Event, check_stream, message_from_events, parse_events
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.request import MessagesRequest
from examples.transformers_engine import TransformersEngine

TOOL = '{"name":"look","input_schema":{"type":"object"}}'


def body(**changes: str) -> bytes:
    fields = {"model": '"m"', "max_tokens": "9", "stream": "true", "messages": '[{"role":"user","content":"Hi you"}]'}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in {**fields, **changes}.items()) + "}").encode()


async def streamed(engine: Any, **changes: str) -> list[Event]:
    response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=body(**changes))
    assert response.status == 200, response.body
    events = parse_events(response.body)
    check_stream(events)
    return events


# --- transformers


class Tensor(list[int]):
    """As much of a tensor as is looked at."""

    @property
    def shape(self) -> tuple[int, int]:
        return 1, len(self)


class Tokenizer:
    """Counts characters. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    def apply_chat_template(self, messages: Any, *, tools: Any, **options: Any) -> Any:
        self.asked.append((messages, tools))
        tokens = Tensor(range(len(messages[-1]["content"])))
        return {"input_ids": tokens} if options.get("return_dict") else tokens


class Streamer:
    """`TextIteratorStreamer`: `put` and `end` by the thread of `generate`, texts by iterating."""

    def __init__(self, tokenizer: Any, *, skip_prompt: bool, skip_special_tokens: bool) -> None:
        assert skip_prompt
        assert skip_special_tokens
        self._texts: queue.Queue[str | None] = queue.Queue()

    def put(self, text: str) -> None:
        self._texts.put(text)

    def end(self) -> None:
        self._texts.put(None)

    def __iter__(self) -> Iterator[str]:
        while (text := self._texts.get()) is not None:
            yield text


class Model:
    """`generate` as documented: a streamer that is fed, criteria that stop it, the sequence it returns."""

    config = SimpleNamespace(max_position_embeddings=4096)

    def __init__(self, make: Callable[[int], str | Exception]) -> None:
        self._make = make
        self.stopped = threading.Event()
        self.asked: list[dict[str, Any]] = []

    def generate(
        self, *, input_ids: Tensor, max_new_tokens: int, streamer: Any, stopping_criteria: Any, **sampling: Any
    ) -> Tensor:
        self.asked.append(sampling)
        made = 0
        while made < max_new_tokens:
            text = self._make(made)
            if isinstance(text, Exception):
                raise text
            if not text:
                break
            made += 1
            streamer.put(text)
            if any(stop(input_ids, None) for stop in stopping_criteria):
                self.stopped.set()
                break
        streamer.end()
        return Tensor([*input_ids, *range(made)])


async def test_a_model_of_transformers_streams_counts_and_ends_its_turn() -> None:
    tokenizer, model = Tokenizer(), Model(lambda made: ["", "Hello ", "world", ""][made + 1])
    engine = TransformersEngine("tiny", model, tokenizer, Streamer)
    events = await streamed(engine, temperature="0.5", top_k="4", tools=f"[{TOOL}]")
    message = message_from_events(events)
    assert message["content"] == [{"type": "text", "text": "Hello world"}]
    assert (message["stop_reason"], message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (
        "end_turn",
        6,
        2,
    )
    assert model.asked == [{"do_sample": True, "temperature": 0.5, "top_k": 4}]
    (messages, tools) = tokenizer.asked[-1]
    assert messages == [{"role": "user", "content": "Hi you"}]
    assert tools[0]["function"]["name"] == "look"
    assert await as_engine(engine).count_tokens(MessagesRequest("m", 1, messages)) == 6


async def test_a_generation_without_an_end_stops_at_max_tokens() -> None:
    engine = TransformersEngine("tiny", Model(lambda made: "x"), Tokenizer(), Streamer)
    message = message_from_events(await streamed(engine))
    assert (message["content"][0]["text"], message["stop_reason"]) == ("x" * 9, "max_tokens")


async def test_a_client_disconnect_stops_the_generation() -> None:
    model = Model(lambda made: "x")
    model.config = SimpleNamespace(max_position_embeddings=2_000_000)
    stream: Any = as_engine(TransformersEngine("tiny", model, Tokenizer(), Streamer)).stream(
        MessagesRequest("m", 1_000_000, [{"role": "user", "content": "Hi"}])
    )
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    assert await asyncio.to_thread(model.stopped.wait, 10)


async def test_a_generation_that_fails_is_an_error_and_not_end_turn() -> None:
    model = Model(lambda made: RuntimeError("out of memory") if made else "Hello")
    engine = TransformersEngine("tiny", model, Tokenizer(), Streamer)
    events = await streamed(engine)
    assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "api_error")


async def test_a_prompt_that_exceeds_the_models_window_is_refused_with_the_words_that_clients_act_on() -> None:
    engine = TransformersEngine("tiny", Model(lambda made: "x"), Tokenizer(), Streamer)
    response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=prompt_of(4096))
    assert response.status == 400
    assert b"prompt is too long: 4096 tokens > 4096 maximum" in response.body


async def test_max_tokens_is_cut_to_what_is_left_of_the_models_window() -> None:
    engine = TransformersEngine("tiny", Model(lambda made: "x"), Tokenizer(), Streamer)
    response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=prompt_of(4090))
    message = json.loads(response.body)
    assert (message["content"][0]["text"], message["stop_reason"]) == ("x" * 6, "max_tokens")


def prompt_of(characters: int) -> bytes:
    return body(stream="false", messages=json.dumps([{"role": "user", "content": "x" * characters}]))
