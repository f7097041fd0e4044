"""PDFs in requests: what the engine gets of them, the words for those that cannot be read, and limits."""

import asyncio
import json
import os
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.http import pdf_reader
from anthro_asgi.http.messages_app import MessagesApp
from anthro_asgi.http.pdf_reader import PdfReader
from anthro_asgi.testing.driver import Driver
from anthro_asgi.testing.in_process import InProcessApp
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import parse_request
from anthro_asgi.wire.request_policy import Rules
from tests.support.pdf import document, pdf
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, asked, listing, routed
from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.slow

Json = dict[str, Any]
CLAUSE = pytest.mark.clause("3.53")
TWO = pdf("Hello first", "Hello second")
CALL: Json = {"type": "tool_use", "id": "t1", "name": "read", "input": {}}


def turns(*blocks: Json) -> list[Json]:
    return [{"role": "user", "content": [{"type": "text", "text": "Read this"}, *blocks]}]


def result(*blocks: Json) -> list[Json]:
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": list(blocks)}
    return [
        {"role": "user", "content": "Read"},
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": [answer]},
    ]


@asynccontextmanager
async def service(mode: Any = "text", **options: Any) -> AsyncIterator[tuple[MessagesApp, ScriptedUpstream]]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream(routed({MODELS: listing("vllm"), CHAT: ANSWER})))
        yield MessagesApp(OpenAIEngine(Origin.parse(upstream.url)), pdf=mode, **options), upstream


async def post(app: MessagesApp, messages: list[Json], path: str = "/v1/messages") -> tuple[int, Json]:
    body = {"model": "m", "max_tokens": 9, "messages": messages, "tools": [{"name": "read"}]}
    response = await Driver(app, timeout=60).request("POST", path, body=json.dumps(body).encode())
    return response.status, response.json()


@CLAUSE
async def test_the_sdk_sends_a_pdf_and_the_engine_gets_its_text_by_page() -> None:
    async with service() as (app, upstream), InProcessApp(app) as running:
        client = running.client(anthropic.AsyncAnthropic)
        blocks: Any = turns(document(TWO, title="Letters", context="From a box"))
        await client.messages.create(model="m", max_tokens=9, messages=blocks)
        async with client.messages.stream(model="m", max_tokens=9, messages=blocks) as stream:
            await stream.get_final_message()
    for body in asked(upstream):
        (turn,) = body["messages"]
        text = turn["content"] if isinstance(turn["content"], str) else "".join(p["text"] for p in turn["content"])
        pages = text.partition("<title>Letters</title>")[2]
        assert pages.index("From a box") < pages.index("[Page 1 of 2]\nHello first") < pages.index("[Page 2 of 2]")
        assert "Hello second" in pages
        assert "JVBERi0" not in json.dumps(body)


@CLAUSE
async def test_a_pdf_in_a_tool_result_is_read_too() -> None:
    async with service() as (app, upstream):
        assert (await post(app, result({"type": "text", "text": "the file"}, document(TWO))))[0] == 200
    tool = asked(upstream)[0]["messages"][2]
    assert tool["role"] == "tool"
    content = tool["content"] if isinstance(tool["content"], str) else "".join(part["text"] for part in tool["content"])
    assert "the file" in content
    assert "[Page 2 of 2]\nHello second" in content


@CLAUSE
async def test_a_pdf_in_a_large_body_is_read_from_the_text_that_was_cut_out() -> None:
    long = {"type": "text", "text": "x" * 700_000}
    file = document(pdf("Hello first" + " and more" * 300, "Hello second"))
    assert len(file["source"]["data"]) > 1024
    async with service() as (app, upstream):
        answered = await post(app, turns(long, file))
        assert answered[0] == 200, answered[1]
        broken = document(b"%PDF-1.4 " + b"?" * 2000)
        status, refused = await post(app, turns(long, broken))
    (turn,) = asked(upstream)[0]["messages"]
    assert "x" * 700_000 in turn["content"]
    assert "[Page 2 of 2]\nHello second" in turn["content"]
    assert status == 400
    assert refused["error"]["message"].startswith("messages.0.content.2.document.source.")


@CLAUSE
@pytest.mark.parametrize(("mode", "has_text"), [("images", False), ("both", True)])
async def test_pages_become_images_for_engines_that_see(mode: str, has_text: bool) -> None:
    async with service(mode) as (app, upstream):
        assert (await post(app, turns(document(TWO))))[0] == 200
    (turn,) = asked(upstream)[0]["messages"]
    images = [part["image_url"]["url"] for part in turn["content"] if part["type"] == "image_url"]
    assert len(images) == 2
    for url in images:
        head, _, data = url.partition(",")
        png = b64decode(data)
        assert (head, png[:8], png[-8:-4]) == ("data:image/png;base64", b"\x89PNG\r\n\x1a\n", b"IEND")
        assert max(int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == 1568
    text = "".join(part.get("text", "") for part in turn["content"])
    assert "[Page 1 of 2]" in text
    assert ("Hello first" in text) is has_text


@CLAUSE
async def test_count_tokens_counts_the_text_of_a_pdf() -> None:
    async with service() as (app, _):
        _, short = await post(app, turns(document(pdf("a"))), "/v1/messages/count_tokens")
        _, long = await post(app, turns(document(pdf(*["word word word word"] * 80))), "/v1/messages/count_tokens")
    assert long["input_tokens"] > short["input_tokens"] + 300


@CLAUSE
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pdf("secret", encrypted=True), "the PDF specified is password protected"),
        (b"no PDF at all", "the PDF specified was not valid"),
        (TWO[:200], "the PDF specified was not valid"),
        (b"   ", "PDF cannot be empty"),
        (pdf(*["x"] * 101), "a maximum of 100 PDF pages may be provided, and this one has 101"),
    ],
)
async def test_a_pdf_that_cannot_be_read_has_the_words_that_clients_heal_on(data: bytes, words: str) -> None:
    async with service() as (app, upstream):
        for messages, path in (
            (turns(document(data)), "messages.0.content.1.document.source.data"),
            (result(document(data)), "messages.2.content.0.tool_result.content.0.document.source.data"),
        ):
            status, body = await post(app, messages)
            assert (status, body["error"]["type"]) == (400, "invalid_request_error")
            assert body["error"]["message"] == f"{path}: {words}"
    assert asked(upstream) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"data": "", "media_type": "application/pdf"}, "source.data: PDF cannot be empty"),
        (
            {"data": "%%%", "media_type": "application/pdf"},
            "source.data: the PDF specified was not valid: must",
        ),
        ({"data": "JVBERi0=", "media_type": "text/plain"}, "source.media_type: must be one of application/pdf"),
    ],
)
async def test_a_source_that_is_no_base64_of_a_pdf_is_refused_by_its_path(source: Json, words: str) -> None:
    async with service() as (app, _):
        status, body = await post(app, turns({"type": "document", "source": {"type": "base64", **source}}))
    assert status == 400
    assert body["error"]["message"].startswith(f"messages.0.content.1.document.{words}")


@CLAUSE
async def test_without_the_extra_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anthro_asgi.http.messages_app.can_read_pdfs", lambda: False)
    async with service() as (app, _):
        status, body = await post(app, turns(document(TWO)))
    assert status == 400
    assert "does not support PDFs until its extra pdf is installed: pip install 'anthro-asgi[pdf]'" in str(body)


@CLAUSE
async def test_the_option_refuses_pdfs_as_before() -> None:
    async with service("refuse") as (app, _):
        status, body = await post(app, turns(document(TWO)))
    assert (status, "does not support PDFs, only text" in body["error"]["message"]) == (400, True)


async def test_pdfs_that_a_relayed_upstream_shall_read_are_not_read_here() -> None:
    async with service(rules=Rules(pass_server_tools=True)) as (app, _):
        status, body = await post(app, turns(document(TWO)))
    assert (status, "does not support PDFs" in body["error"]["message"]) == (400, True)


async def test_a_page_without_text_says_so_and_too_many_pdfs_are_too_much_media() -> None:
    async with service() as (app, upstream):
        assert (await post(app, turns(document(pdf("", "b")))))[0] == 200
        status, body = await post(app, turns(*[document(TWO)] * 21))
    assert "[Page 1 of 2]\\n(There is no text on this page. It may be a picture.)" in json.dumps(asked(upstream)[0])
    assert (status, body["error"]["message"]) == (400, "messages: too much media: 21 PDFs; the maximum is 20")


def pdf_request(data: bytes) -> Any:
    body = {"model": "m", "max_tokens": 9, "messages": turns(document(data))}
    return parse_request(json.dumps(body).encode(), rules=Rules(pdfs="read"))


async def test_a_pdf_is_read_once_for_all_requests_of_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PdfReader("text")
    await reader.read(pdf_request(TWO))
    monkeypatch.setattr(pdf_reader, "_CHILD", Path("/nowhere"))
    again = pdf_request(TWO)
    await reader.read(again)
    assert "Hello second" in json.dumps(again.messages)
    assert "1 kept" in repr(reader)
    with pytest.raises(Exception, match="the library that reads it failed"):
        await reader.read(pdf_request(pdf("other")))


async def test_requests_with_the_same_pdf_at_one_moment_keep_its_pages_once() -> None:
    alone = PdfReader("text")
    await alone.read(pdf_request(TWO))
    reader = PdfReader("text")
    requests = [pdf_request(TWO) for _ in range(5)]
    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(reader.read(request))
    assert repr(reader) == repr(alone)
    assert all("Hello second" in json.dumps(request.messages) for request in requests)


async def test_the_pages_that_are_kept_take_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len("[Page 1 of 1]\nten letter")
    monkeypatch.setattr(pdf_reader, "_MAX_KEPT", 2 * size)
    reader = PdfReader("text")
    for text in ("ten letter", "other text", "ten letter", "third text"):
        await reader.read(pdf_request(pdf(text)))
    assert repr(reader) == f"<PdfReader text 2 kept, {2 * size} bytes>"
    await reader.read(pdf_request(pdf(*["ten letter"] * 3)))  # by itself more than the limit
    assert repr(reader) == "<PdfReader text 0 kept, 0 bytes>"


@CLAUSE
@pytest.mark.parametrize(
    ("limit", "mode", "words"),
    [("_MAX_TEXT", "text", "its text is longer"), ("_MAX_IMAGES", "images", "the images of its pages are larger")],
)
async def test_the_text_and_the_images_of_a_pdf_are_limited(
    limit: str, mode: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_reader, limit, 10)
    with pytest.raises(InvalidRequest, match=words):
        await PdfReader(mode).read(pdf_request(pdf("more than ten bytes")))


def child(tmp_path: Path, code: str) -> Path:
    path = tmp_path / "child.py"
    path.write_text(code)
    return path


@CLAUSE
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "could not process PDF: it took longer than 0.5 s"),
        ("import os; os.kill(os.getpid(), 11)", "could not process PDF: the library that reads it failed"),
        ("print('no JSON')", "could not process PDF: the library that reads it failed"),
    ],
)
async def test_a_child_that_hangs_or_crashes_is_the_error_of_one_request(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_reader, "_CHILD", child(tmp_path, code))
    with pytest.raises(Exception, match=words):
        await PdfReader("text", timeout=0.5 if "time" in code else 60).read(pdf_request(TWO))


async def test_a_client_that_leaves_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"import os, time; open({str(pipe)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(pdf_reader, "_CHILD", child(tmp_path, code))
    reading = asyncio.ensure_future(PdfReader("text", timeout=600).read(pdf_request(TWO)))
    pid = int(await asyncio.to_thread(pipe.read_text))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_child_gets_no_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHRO_ASGI_API_KEYS", "secret-1")
    code = "import json, os; print(json.dumps({'error': ' '.join(os.environ.values())}))"
    monkeypatch.setattr(pdf_reader, "_CHILD", child(tmp_path, code))
    with pytest.raises(Exception, match=r"\.document\.source\.data: ") as caught:
        await PdfReader("text").read(pdf_request(TWO))
    assert "secret-1" not in str(caught.value)
