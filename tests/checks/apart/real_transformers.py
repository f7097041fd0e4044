"""The example for transformers over the real thing: a tiny random model, and a tokenizer that is made here.

pip install torch transformers && python -m pytest -W ignore tests/checks/apart/real_transformers.py
"""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TextIteratorStreamer

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.request import MessagesRequest
from examples.transformers_engine import TransformersEngine

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}<assistant>{% endif %}"
BODY = b'{"model":"m","max_tokens":24,"stream":true,"messages":[{"role":"user","content":"Hello you"}]}'


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    torch.manual_seed(0)
    bytes_ = pre_tokenizers.ByteLevel.alphabet()
    bare = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(sorted(bytes_))}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=bare)
    tokenizer.chat_template = TEMPLATE
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=256, max_position_embeddings=512, **sizes)
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    return TransformersEngine("tiny", LlamaForCausalLM(config).eval(), tokenizer, TextIteratorStreamer)


async def test_a_real_model_streams_what_it_makes(engine: TransformersEngine) -> None:
    response = await Driver(MessagesApp(engine), 60).request("POST", "/v1/messages", body=BODY)
    events = parse_events(response.body)
    check_stream(events)
    message = message_from_events(events)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 24
    assert message["usage"]["input_tokens"] == len("<user>Hello you<assistant>")
    assert len([event for event in events if event.type == "content_block_delta"]) >= 1


async def test_a_client_that_leaves_stops_a_real_generation(engine: TransformersEngine) -> None:
    stream: Any = as_engine(engine).stream(MessagesRequest("m", 400, [{"role": "user", "content": "Hello"}]))
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    with engine._one_at_a_time:  # given back once generation has stopped
        pass
