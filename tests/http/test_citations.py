"""Answers with citations, streamed and whole, with Anthropic's SDK over the application (contract 3.55)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.http import citation_engine
from anthro_asgi.http.answer import in_input_thread
from anthro_asgi.testing.driver import Driver
from anthro_asgi.testing.in_process import InProcessApp
from anthro_asgi.wire.citation_prompt import CITATION_PROMPT
from anthro_asgi.wire.deltas import Batch, Citation, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.request import MessagesRequest
from tests.http.test_batches import service
from tests.support.pdf import document as pdf_document
from tests.support.pdf import pdf

pytestmark = pytest.mark.clause("3.55")

Json = dict[str, Any]
TEXT = "The grass is green.\nThe sky is blue."
ANSWER = 'It says: <quote doc="1">The sky is blue.</quote> And <quote doc="1">the sky is red</quote>, too.'


class Scripted:
    """An engine that writes `answer` in small pieces, and keeps its requests."""

    def __init__(self, *answer: Any, size: int = 7) -> None:
        self._answer = answer
        self._size = size
        self.requests: list[MessagesRequest] = []

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        self.requests.append(request)
        for one in self._answer:
            if isinstance(one, str):
                for at in range(0, len(one), self._size):
                    yield one[at : at + self._size]
            else:
                yield one
        yield Finish("end_turn")


def asking(**fields: Any) -> Any:
    source = {"type": "text", "media_type": "text/plain", "data": TEXT}
    document = {"type": "document", "source": source, "citations": {"enabled": True}, **fields}
    return [{"role": "user", "content": [document, {"type": "text", "text": "What does it say?"}]}]


async def both(app: MessagesApp, messages: Any, **fields: Any) -> list[Any]:
    """The answer whole, and as the SDK collects it from a stream. Its types accept both."""
    async with InProcessApp(app) as running:
        client = running.client(anthropic.AsyncAnthropic)
        whole = await client.messages.create(model="m", max_tokens=99, messages=messages, **fields)
        async with client.messages.stream(model="m", max_tokens=99, messages=messages, **fields) as stream:
            collected = await stream.get_final_message()
    return [anthropic.types.Message.model_validate(one.model_dump()) for one in (whole, collected)]


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_what_stands_in_the_document_is_cited_and_the_rest_is_text(size: int) -> None:
    engine = Scripted(ANSWER, size=size)
    for message in await both(MessagesApp(engine), asking(title="Colours")):
        assert [block.type for block in message.content] == ["text"] * 3
        texts = message.content
        assert [block.text for block in texts] == ["It says: ", "The sky is blue.", " And the sky is red, too."]
        assert [block.citations for block in (texts[0], texts[2])] == [None, None]
        [citation] = texts[1].citations
        assert citation.model_dump() == {
            "type": "char_location",
            "cited_text": "The sky is blue.",
            "document_index": 0,
            "document_title": "Colours",
            "file_id": None,
            "start_char_index": 20,
            "end_char_index": 36,
        }
        assert TEXT[20:36] == citation.cited_text
    for request in engine.requests:
        assert request.system == [CITATION_PROMPT]


async def test_a_stream_has_the_citation_in_the_block_of_the_quote() -> None:
    body = {"model": "m", "max_tokens": 99, "stream": True, "messages": asking()}
    response = await Driver(MessagesApp(Scripted(ANSWER))).request(
        "POST", "/v1/messages", body=json.dumps(body).encode()
    )
    events = [json.loads(line[6:]) for line in response.body.decode().split("\n") if line.startswith("data: ")]
    deltas = [(event["index"], event["delta"]["type"]) for event in events if event["type"] == "content_block_delta"]
    assert [delta for delta in deltas if delta[1] == "citations_delta"] == [(1, "citations_delta")]
    assert {index for index, _ in deltas} == {0, 1, 2}
    assert b"<quote" not in response.body
    assert b"</quote" not in response.body


@pytest.mark.slow
async def test_a_quote_of_a_pdf_names_its_page() -> None:
    paper = pdf_document(pdf("Hello first", "Hello second"), citations={"enabled": True})
    messages = [{"role": "user", "content": [paper, {"type": "text", "text": "?"}]}]
    for message in await both(MessagesApp(Scripted('<quote doc="1">Hello second</quote>')), messages):
        [block] = message.content
        [citation] = block.citations
        assert (citation.type, citation.cited_text) == ("page_location", "Hello second")
        assert (citation.start_page_number, citation.end_page_number) == (2, 3)


async def test_a_quote_of_own_blocks_names_them() -> None:
    blocks = [{"type": "text", "text": text} for text in ("One fact. ", "Another fact. ", "A third one.")]
    for message in await both(
        MessagesApp(Scripted('<quote doc="1">Another fact. A third</quote>')),
        asking(source={"type": "content", "content": blocks}),
    ):
        [block] = message.content
        [citation] = block.citations
        assert (citation.type, citation.cited_text) == ("content_block_location", "Another fact. A third one.")
        assert (citation.start_block_index, citation.end_block_index) == (1, 3)


async def test_thinking_calls_and_counts_stay_as_they_are() -> None:
    call = [ToolStart("t1", "find"), ToolJson('{"a":1}')]
    counts = [Usage(input_tokens=5), Usage(output_tokens=3)]
    engine = Scripted(Thinking("<quote>"), counts[0], 'A <quote doc="1">The grass', call, counts[1])
    for message in await both(MessagesApp(engine), asking(), tools=[{"name": "find", "input_schema": {}}]):
        thinking, text, tool = message.content
        assert (thinking.thinking, text.text, tool.input) == ("<quote>", "A The grass", {"a": 1})
        assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 5, 3)


async def test_an_answer_may_go_back_into_the_conversation() -> None:
    engine = Scripted(ANSWER)
    app = MessagesApp(engine)
    message = (await both(app, asking()))[0]
    history = [*asking(), {"role": "assistant", "content": message.model_dump()["content"]}, asking()[0]]
    await both(app, history)
    turn = engine.requests[-1].messages[1]["content"]
    untrue = '<quote doc="1">the sky is red</quote>'
    assert "".join(block["text"] for block in turn) == ANSWER.replace(untrue, "the sky is red")


async def test_citations_of_an_engine_that_cites_by_itself_are_passed_on() -> None:
    own = {"type": "char_location", "cited_text": "a", "document_index": 0, "start_char_index": 0, "end_char_index": 1}
    for message in await both(MessagesApp(Scripted("A text", Citation(own), ".")), asking()):
        [block] = message.content
        assert block.text == "A text."
        assert [citation.cited_text for citation in block.citations] == ["a"]


async def test_a_request_of_a_batch_has_citations(tmp_path: Path) -> None:
    async with service(tmp_path, Scripted(ANSWER)) as served:
        params = {"model": "m", "max_tokens": 99, "messages": asking()}
        batch = await served.create({"custom_id": "a", "params": params})
        [line] = await served.results(await served.ended(batch))
    content = line["result"]["message"]["content"]
    assert [len(block.get("citations", ())) for block in content] == [0, 1, 0]


async def test_the_count_includes_what_the_model_is_told() -> None:
    driver = Driver(MessagesApp(Scripted("a")))
    counts = []
    for enabled in (True, False):
        body = {"model": "m", "messages": asking(citations={"enabled": enabled})}
        response = await driver.request("POST", "/v1/messages/count_tokens", body=json.dumps(body).encode())
        counts.append(response.json()["input_tokens"])
        body |= {"max_tokens": 9}
        answered = await driver.request("POST", "/v1/messages", body=json.dumps(body).encode())
        assert answered.json()["usage"]["input_tokens"] == counts[-1]
        assert answered.header("anthro-asgi-ignored") is None
    assert counts[0] > counts[1] + len(CITATION_PROMPT) // 5


async def test_quotes_of_large_documents_are_searched_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Callable[[], Any]] = []

    async def noted(function: Callable[[], Any]) -> Any:
        threads.append(function)
        return await in_input_thread(function)

    monkeypatch.setattr(citation_engine, "in_input_thread", noted)
    large = {"type": "text", "media_type": "text/plain", "data": "x " * 200_000 + "The sky\n is blue."}
    [whole, _] = await both(MessagesApp(Scripted(ANSWER)), asking(source=large))
    [citation] = whole.content[1].citations
    assert citation.cited_text == "The sky\n is blue."
    assert len(threads) == 4


async def test_other_requests_run_while_a_long_text_is_searched_for_quotes() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    text = ANSWER * 2000
    driver = Driver(MessagesApp(Scripted(text, size=len(text))))
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": asking()}).encode()
    counting = asyncio.create_task(count())
    response = await driver.request("POST", "/v1/messages", body=body)
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    assert sum(bool(block.get("citations")) for block in response.json()["content"]) == 2000
    assert turns > len(text) / 2048
