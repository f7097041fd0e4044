"""A model of transformers in this process, as an engine. Its generator blocks, so the service runs it in a thread.

pip install "anthro-asgi[fast]" torch transformers
MODEL=Qwen/Qwen3-0.6B anthro-asgi serve --engine examples.transformers_engine:engine
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from anthro_asgi import ContextTooLong, Delta, Finish, MessagesRequest, ModelInfo, Usage, as_chat


class TransformersEngine:
    """`model` and `tokenizer` as `from_pretrained` returns them; `streamer` makes a `TextIteratorStreamer`.

    `generate` runs in a second thread, as that class wants it, and one after the other: a model's forward pass is not
    made for two threads.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, streamer: Any) -> None:
        self._name = name
        self._model = model
        self._tokenizer = tokenizer
        self._streamer = streamer
        self._one_at_a_time = threading.Lock()

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self._name, max_input_tokens=self._window())]

    async def count_tokens(self, request: MessagesRequest) -> int:
        return int(self._prompt(request)["input_ids"].shape[-1])

    def stream(self, request: MessagesRequest) -> Iterator[Delta]:
        prompt = self._prompt(request)
        length, window, longest = int(prompt["input_ids"].shape[-1]), self._window(), request.max_tokens
        if window is not None:
            if length >= window:
                raise ContextTooLong(length, window)
            longest = min(longest, window - length)
        yield Usage(input_tokens=length)
        streamer = self._streamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        left = threading.Event()
        outcome: Future[int] = Future()
        thread = threading.Thread(target=self._generate, args=(prompt, request, longest, streamer, left, outcome))
        with self._one_at_a_time:
            thread.start()
            try:
                yield from filter(None, streamer)
            finally:
                left.set()  # the client disconnected: generation stops at its next token
                thread.join()
        tokens = outcome.result() - length  # raises the exception of `generate`, if any
        yield Usage(output_tokens=tokens)
        yield Finish("max_tokens" if tokens >= longest else "end_turn")

    def _window(self) -> int | None:
        """The context window in tokens; None if the model does not tell it. Some have one for their text part."""
        config = self._model.config
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        return getattr(text, "max_position_embeddings", None)

    def _prompt(self, request: MessagesRequest) -> Any:
        chat = as_chat(request)
        tools = chat.get("tools")
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return self._tokenizer.apply_chat_template(chat["messages"], tools=tools, **options)

    def _generate(
        self, prompt: Any, request: MessagesRequest, longest: int, streamer: Any, left: Any, outcome: "Future[int]"
    ) -> None:
        sampling = {"do_sample": request.temperature != 0}
        given = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
        sampling |= {name: value for name, value in given.items() if value} if sampling["do_sample"] else {}
        try:
            tokens = self._model.generate(
                **prompt,
                max_new_tokens=longest,
                streamer=streamer,
                stopping_criteria=[lambda ids, scores, **_: left.is_set()],
                **sampling,
            )
            outcome.set_result(int(tokens.shape[-1]))
        except Exception as exc:
            outcome.set_exception(exc)
            streamer.end()  # otherwise its reader waits for ever


def engine() -> TransformersEngine:
    """`--engine` names this function, which returns the engine. It could also name a class."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

    name = os.environ["MODEL"]
    model = AutoModelForCausalLM.from_pretrained(name)
    return TransformersEngine(name, model, AutoTokenizer.from_pretrained(name), TextIteratorStreamer)
