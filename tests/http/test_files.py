"""The routes of files, and files in requests, over the application and a store in a file (contract section 12)."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.wire.deltas import Batch, Finish
from anthro_asgi.wire.request import MessagesRequest, parse_request
from anthro_asgi.wire.request_policy import Rules
from tests.http.test_batches import Service, service
from tests.support.batch_store import InlineStore
from tests.support.pdf import pdf

ROUTE = "/v1/files"
MESSAGES = "/v1/messages"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
Json = dict[str, Any]


class Recorder:
    """An engine that keeps the requests that it gets."""

    def __init__(self) -> None:
        self.requests: list[MessagesRequest] = []

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        self.requests.append(request)
        yield ["ok", Finish("end_turn")]


def form(content: bytes = b"hello", name: str = "a.txt", kind: str | None = None, **fields: Any) -> tuple[Any, bytes]:
    """The headers and the body of an upload, as httpx writes them."""
    file = (name, content) if kind is None else (name, content, kind)
    request = httpx.Request("POST", "http://x", data=fields, files={"file": file})
    return [("content-type", request.headers["content-type"])], request.read()


async def post(served: Service, *args: Any, key: str = "sk-one", **fields: Any) -> Response:
    headers, body = form(*args, **fields)
    return await served.request("POST", ROUTE, key=key, headers=headers, body=body)


async def upload(served: Service, *args: Any, key: str = "sk-one", **fields: Any) -> Json:
    response = await post(served, *args, key=key, **fields)
    assert response.status == 200, response.body
    file: Json = response.json()
    return file


def error_of(response: Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status, error["type"], error["message"]


def referring(kind: str, file: Json | str) -> Json:
    return {"type": kind, "source": {"type": "file", "file_id": file if isinstance(file, str) else file["id"]}}


def asking(*blocks: Json) -> Json:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": list(blocks)}]}


async def ask(served: Service, *blocks: Json, key: str = "sk-one", path: str = MESSAGES) -> Response:
    return await served.request("POST", path, key=key, body=json.dumps(asking(*blocks)).encode())


@pytest.mark.clause("12.1")
@pytest.mark.clause("12.4")
@pytest.mark.parametrize("route", [ROUTE, "/files", "/v1/v1/files", "//v1/files/"])
async def test_a_file_is_uploaded_read_and_deleted(tmp_path: Path, route: str) -> None:
    async with service(tmp_path) as served:
        headers, body = form(b"hello", "notes/a.txt")
        file = (await served.request("POST", route, headers=headers, body=body)).json()
        assert file == {
            "id": file["id"],
            "type": "file",
            "filename": "a.txt",
            "mime_type": "text/plain",
            "size_bytes": 5,
            "created_at": file["created_at"],
            "expires_at": None,
            "downloadable": False,
            "scope": None,
        }
        one = f"{route.rstrip('/')}/{file['id']}"
        assert (await served.request("GET", one)).json() == file
        assert (await served.request("GET", route)).json()["data"] == [file]
        content = await served.request("GET", f"{one}/content")
        assert content.status == 400
        assert content.json()["error"]["details"] == {"error_code": "file_not_downloadable"}
        assert (await served.request("DELETE", one)).json() == {"id": file["id"], "type": "file_deleted"}
        for method, path in (("GET", one), ("DELETE", one), ("GET", f"{one}/content")):
            assert error_of(await served.request(method, path))[:2] == (404, "not_found_error")
        assert (await served.request("GET", route)).json()["data"] == []
        assert (await served.request("POST", one)).status == 405
        assert (await served.request("GET", f"{one}/more")).status == 404


@pytest.mark.clause("12.2")
async def test_an_upload_says_when_the_file_expires(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        file = await upload(served, expires_in_seconds=3600)
        created, expires = file["created_at"], file["expires_at"]
        assert created[11:13] != expires[11:13]
        assert created[13:] == expires[13:]
        headers, body = form(expires_in_seconds=3600)
        parts = body.split(b"--" + headers[0][1].partition("boundary=")[2].encode())
        after = b"".join(parts[0:1] + [b"--B" + part for part in (parts[2], parts[1], parts[3])])
        headers = [("content-type", "multipart/form-data; boundary=B")]
        file = (await served.request("POST", ROUTE, headers=headers, body=after)).json()
        assert file["expires_at"] is not None


@pytest.mark.clause("12.2")
async def test_an_upload_in_many_pieces_is_the_same_file(tmp_path: Path) -> None:
    engine = Recorder()
    content = bytes(range(256)) * 3000
    headers, body = form(content, "a.png")
    async with service(tmp_path, engine) as served:
        for size in (1000, 70_000, len(body)):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            file = (await served.request("POST", ROUTE, headers=headers, body=pieces)).json()
            assert file["size_bytes"] == len(content)
            assert (await ask(served, referring("image", file))).status == 200
    for request in engine.requests:
        assert request.is_large
        assert request.messages[0]["content"][0]["source"]["data"] == b64encode(content).decode()


WRONG_UPLOADS = {
    "no form": ([("content-type", "application/json")], b"{}", "content-type: must be multipart/form-data"),
    "an empty file": (*form(b""), "file: must not be empty"),
    "a wrong lifetime": (*form(expires_in_seconds=5), "expires_in_seconds: must be an integer from 3600"),
    "a wrong name": (*form(name="a?.txt"), "file: its filename must have"),
    "a wrong type": (*form(kind="text"), "file: its content-type"),
    "no file": (
        [("content-type", "multipart/form-data; boundary=B")],
        b"--B\r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n--B--",
        "file: required",
    ),
    "two files": (
        [("content-type", "multipart/form-data; boundary=B")],
        b"--B\r\ncontent-disposition: form-data; name=file\r\n\r\na\r\n" * 2 + b"--B--",
        "file: given more than once",
    ),
    "half a body": (form()[0], form()[1][:-20], "body: ends before its last boundary"),
}


@pytest.mark.clause("12.2")
@pytest.mark.parametrize("name", WRONG_UPLOADS)
async def test_a_wrong_upload_is_refused_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    headers, body, message = WRONG_UPLOADS[name]
    if name == "half a body":
        headers = [("content-type", "multipart/form-data; boundary=B")]
        body = b"--B\r\ncontent-disposition: form-data; name=file\r\n\r\n" + b"x" * 300_000
    async with service(tmp_path) as served:
        status, kind, text = error_of(await served.request("POST", ROUTE, headers=headers, body=body))
        assert (status, kind) == (400, "invalid_request_error")
        assert text.startswith(message)
        assert await rows_of(served) == [0, 0]


async def rows_of(served: Service) -> list[int]:
    """How many rows the tables of files have."""
    files: Any = served.app._files
    (counts,) = await files._store._transact(
        lambda statements: statements.rows("SELECT (SELECT COUNT(*) FROM files), (SELECT COUNT(*) FROM file_pieces)")
    )
    return list(counts)


async def test_a_client_that_leaves_while_it_uploads_leaves_nothing_behind(tmp_path: Path) -> None:
    headers, body = form(b"x" * 500_000)
    async with service(tmp_path) as served:
        headers = [("x-api-key", "sk-one"), *headers]
        async with served.driver.open("POST", ROUTE, headers=headers, body=[body[:-9]], complete=False) as exchange:
            async with asyncio.timeout(5):
                while not (await rows_of(served))[1]:  # noqa: ASYNC110 - nothing tells when a piece is stored
                    await asyncio.sleep(0.01)
            exchange.disconnect()
        assert await rows_of(served) == [0, 0]


@pytest.mark.clause("12.3")
async def test_the_size_of_a_file_and_of_all_files_of_a_key_is_limited(tmp_path: Path) -> None:
    async with service(tmp_path, max_file=10_000, max_files_per_key=24_000) as served:
        await upload(served, b"x" * 10_000)
        status, kind, message = error_of(await post(served, b"x" * 10_001))
        assert (status, kind) == (413, "request_too_large")
        assert message == "file: larger than 10000 bytes (--max-file)"
        await upload(served, b"x" * 10_000)
        refused = await post(served, b"x" * 4001)
        assert error_of(refused)[0] == 400
        assert refused.json()["error"]["details"] == {"error_code": "storage_quota_exceeded"}
        assert "--max-files-per-key" in error_of(refused)[2]
        await upload(served, b"x" * 10_000, key="sk-two")
        assert await rows_of(served) == [3, 3]
        oldest = (await served.request("GET", ROUTE)).json()["last_id"]
        await served.request("DELETE", f"{ROUTE}/{oldest}")
        await upload(served, b"x" * 4001)


@pytest.mark.clause("12.5")
async def test_files_are_listed_by_pages_cursors_and_ids(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        ids = [(await upload(served, name=f"{at}.txt"))["id"] for at in range(3)][::-1]
        foreign = (await upload(served, key="sk-two"))["id"]

        async def page(query: str) -> tuple[list[str], str | None]:
            found = (await served.request("GET", ROUTE, query=query.encode())).json()
            listed = [file["id"] for file in found["data"]]
            assert (found["first_id"], found["last_id"]) == ((listed[0], listed[-1]) if listed else (None, None))
            assert found["has_more"] == (found["next_page"] is not None)
            return listed, found["next_page"]

        assert await page("beta=true") == (ids, None)
        first, cursor = await page("limit=2")
        assert first == ids[:2]
        assert cursor is not None
        assert cursor.startswith("page_")
        assert await page(f"limit=2&page={cursor}") == (ids[2:], None)
        assert await page(f"limit=2&after_id={ids[1]}") == (ids[2:], None)
        assert (await page(f"limit=1&before_id={ids[2]}"))[0] == ids[1:2]
        assert await page(f"ids[]={ids[2]}&ids[]={ids[0]}&ids[]={ids[0]}&ids[]={foreign}") == ([ids[0], ids[2]], None)
        assert await page("page=page_none") == await page("scope_id=session_1") == ([], None)
        wrong = {
            "limit=0": "limit: ",
            "ids=a&limit=2": "ids: cannot be combined",
            "ids=a&page=b": "ids: cannot be combined",
            "&".join(f"ids[]={at}" for at in range(101)): "ids: at most 100",
        }
        for query, message in wrong.items():
            response = await served.request("GET", ROUTE, query=query.encode())
            assert error_of(response)[0] == 400
            assert error_of(response)[2].startswith(message)


@pytest.mark.clause("12.7")
async def test_a_key_sees_and_uses_its_own_files_only(tmp_path: Path) -> None:
    async with service(tmp_path, Recorder()) as served:
        file = await upload(served)
        one = f"{ROUTE}/{file['id']}"
        for method, path in (("GET", one), ("GET", f"{one}/content"), ("DELETE", one)):
            assert (await served.request(method, path, key="sk-two")).status == 404
            assert (await served.request(method, path, key="wrong")).status == 401
        assert (await served.request("GET", ROUTE, key="sk-two")).json()["data"] == []
        assert (await ask(served, referring("document", file), key="sk-two")).status == 404
        assert (await ask(served, referring("document", file))).status == 200
        assert (await post(served, key="wrong")).status == 401


async def test_without_api_keys_all_clients_are_one_owner_whose_files_no_key_can_read_later(tmp_path: Path) -> None:
    store = InlineStore(str(tmp_path / "batches.db"))
    app = MessagesApp(Recorder(), batch_store=store)
    async with Driver(app).lifespan():
        served = Service(app)
        file = await upload(served, key="sk-one")
        assert (await served.request("GET", ROUTE, key="sk-two")).json()["data"] == [file]
        assert (await ask(served, referring("document", file), key="sk-two")).status == 200
    app = MessagesApp(Recorder(), keys=["sk-one"], batch_store=InlineStore(str(tmp_path / "batches.db")))
    async with Driver(app).lifespan():
        assert (await Service(app).request("GET", ROUTE, key="sk-one")).json()["data"] == []


@pytest.mark.clause("12.1")
@pytest.mark.clause("12.6")
async def test_without_a_store_every_route_and_every_reference_names_the_option() -> None:
    driver = Driver(MessagesApp(Recorder()))
    headers, body = form()
    for method, path in (("GET", ROUTE), ("POST", ROUTE), ("GET", f"{ROUTE}/x"), ("DELETE", f"{ROUTE}/x")):
        response = await driver.request(method, path, headers=headers, body=body)
        assert error_of(response)[0] == 404
        assert "--batch-store" in error_of(response)[2]
    for kind in ("document", "image"):
        response = await driver.request("POST", MESSAGES, body=json.dumps(asking(referring(kind, "file_1"))).encode())
        status, _, message = error_of(response)
        assert status == 400
        assert message.startswith(f"messages.0.content.0.{kind}.source.type: ")
        assert "--batch-store" in message


TEXT: Json = {"type": "text", "media_type": "text/plain", "data": "Grüße"}
IMAGE: Json = {"type": "base64", "media_type": "image/png", "data": b64encode(PNG).decode()}


@pytest.mark.clause("12.6")
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.json"])
async def test_a_file_with_text_is_a_document_everywhere_in_a_request(tmp_path: Path, name: str) -> None:
    engine = Recorder()
    async with service(tmp_path, engine) as served:
        text = referring("document", await upload(served, "\ufeffGrüße".encode(), name))
        image = referring("image", await upload(served, PNG, "a.png"))
        inside = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "t"}, image]}}
        question = {"type": "text", "text": "Read"}
        result = {"type": "tool_result", "tool_use_id": "t", "content": [text, image]}
        messages = [
            {"role": "user", "content": [question, {**text, "title": "T"}, image, inside, text]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
            {"role": "user", "content": [result]},
        ]
        body = {"model": "m", "max_tokens": 9, "messages": messages, "tools": [{"name": "n"}]}
        counted = await served.request("POST", f"{MESSAGES}/count_tokens", body=json.dumps(body).encode())
        assert (await served.request("POST", MESSAGES, body=json.dumps(body).encode())).status == 200
        written = json.dumps(body)
        for block, source in ((text, TEXT), (image, IMAGE)):
            written = written.replace(json.dumps(block["source"]), json.dumps(source))
        assert "file_id" not in written
        same = await served.request("POST", f"{MESSAGES}/count_tokens", body=written.encode())
        assert counted.json() == same.json()
    [request] = engine.requests
    assert request.messages == parse_request(written.encode()).messages
    assert request.raw["messages"] == json.loads(written)["messages"]


@pytest.mark.clause("12.6")
async def test_a_reference_in_a_large_body_that_is_read_in_steps_has_its_content(tmp_path: Path) -> None:
    engine = Recorder()
    async with service(tmp_path, engine) as served:
        file = await upload(served, "Grüße".encode())
        long = {"type": "text", "text": "x" * 400_000}
        assert (await ask(served, long, referring("document", file))).status == 200
    [request] = engine.requests
    assert request.messages[0]["content"][1]["source"] == TEXT


@pytest.mark.clause("12.6")
@pytest.mark.slow
async def test_a_file_that_is_a_pdf_is_read_by_page(tmp_path: Path) -> None:
    engine = Recorder()
    async with service(tmp_path, engine) as served:
        file = await upload(served, pdf("Hello first", "Hello second"), "a.pdf")
        assert (await ask(served, referring("document", file))).status == 200
    [request] = engine.requests
    pages = request.messages[0]["content"][0]["source"]["content"]
    assert [page["text"] for page in pages] == ["[Page 1 of 2]\nHello first", "[Page 2 of 2]\nHello second"]


@pytest.mark.clause("12.6")
async def test_a_reference_that_does_not_fit_is_refused_with_its_path(tmp_path: Path) -> None:
    async with service(tmp_path, Recorder(), pdf="refuse", max_decompressed=3000) as served:
        text = await upload(served, b"x" * 500)
        image = await upload(served, PNG, "a.png")
        word = await upload(served, b"x", "a.docx")
        latin = await upload(served, b"caf\xe9")
        paper = await upload(served, pdf("a"), "a.pdf")
        large = await upload(served, b"x" * 3000)
        place = "messages.0.content.1"
        cases: list[tuple[Json, int, str]] = [
            (referring("document", "file_none"), 404, "document.source.file_id: file 'file_none' does not exist"),
            (referring("image", "file_none"), 404, "image.source.file_id: file 'file_none' does not exist"),
            (referring("image", text), 400, "image.source.file_id: could not process image: the file is text/plain"),
            (referring("document", image), 400, "document.source.file_id: the file is image/png"),
            (referring("document", word), 400, "document.source.file_id: the file is application/"),
            (referring("document", latin), 400, "document.source.file_id: the file is not UTF-8"),
            (referring("document", paper), 400, "document.source.file_id: this service does not support PDFs"),
            (referring("document", large), 413, "document.source.file_id: with its files, the request is larger than"),
            ({"type": "document", "source": {"type": "file"}}, 400, "document.source.file_id: required"),
            ({"type": "image", "source": {"type": "file", "file_id": ""}}, 400, "image.source.file_id: could not"),
        ]
        for block, status, message in cases:
            response = await ask(served, {"type": "text", "text": "a"}, block)
            assert (response.status, error_of(response)[2][: len(place)]) == (status, place)
            assert error_of(response)[2].removeprefix(f"{place}.").startswith(message)
        many = [referring("document", f"file_{at}") for at in range(101)]
        assert error_of(await ask(served, *many))[2] == "messages: refer to 101 files; the maximum is 100"
        assert (await ask(served, *[referring("document", text)] * 3)).status == 200
        assert (await ask(served, *[referring("document", text)] * 6)).status == 413


@pytest.mark.clause("12.6")
async def test_a_request_of_a_batch_reads_a_file_when_it_runs(tmp_path: Path) -> None:
    engine = Recorder()
    async with service(tmp_path, engine, max_concurrency=1) as served:
        kept, deleted = [await upload(served, "Grüße".encode()) for _ in range(2)]
        foreign = await upload(served, key="sk-two")
        async with served.app._admission.slot():  # nothing runs meanwhile
            batch = await served.create(
                *(
                    {"custom_id": str(at), "params": asking(referring("document", file))}
                    for at, file in enumerate((kept, deleted, foreign))
                )
            )
            await served.request("DELETE", f"{ROUTE}/{deleted['id']}")
        results = [line["result"] for line in await served.results(await served.ended(batch))]
    assert [result["type"] for result in results] == ["succeeded", "errored", "errored"]
    for result in results[1:]:
        error = result["error"]["error"]
        assert error["type"] == "not_found_error"
        assert error["message"].startswith("messages.0.content.0.document.source.file_id: ")
    [request] = engine.requests
    assert request.messages[0]["content"][0]["source"] == TEXT


@pytest.mark.clause("12.6")
@pytest.mark.parametrize("kind", ["document", "image"])
def test_an_upstream_that_receives_server_tools_receives_references_unchanged(kind: str) -> None:
    body = json.dumps(asking(referring(kind, "file_1"))).encode()
    request = parse_request(body, rules=Rules(pass_server_tools=True))
    assert request.raw == json.loads(body)
    assert not request.has_files
    assert request.relay_only[0].startswith(f"messages.0.content.0.{kind}.source.type: ")


async def test_a_store_that_fails_answers_529_and_keeps_nothing_of_an_upload(tmp_path: Path) -> None:
    store = InlineStore(str(tmp_path / "batches.db"))
    app = MessagesApp(Recorder(), keys=["sk-one"], batch_store=store)
    async with Driver(app).lifespan():
        served = Service(app)
        file = await upload(served)
        store.fails = True
        one = f"{ROUTE}/{file['id']}"
        responses = [
            await post(served),
            await ask(served, referring("document", file)),
            *[await served.request("GET", path) for path in (ROUTE, one, f"{one}/content")],
            await served.request("DELETE", one),
        ]
        for response in responses:
            assert error_of(response)[:2] == (529, "overloaded_error")
            assert response.header("retry-after") == "5"
        store.fails = False
        assert (await served.request("GET", ROUTE)).json()["data"] == [file]
        assert await rows_of(served) == [1, 1]


async def test_uploads_deletions_and_references_are_counted_by_route_and_kind(tmp_path: Path) -> None:
    async with service(tmp_path, Recorder()) as served:
        file = await upload(served)
        await ask(served, referring("document", file))
        await ask(served, referring("document", "none"))
        await served.request("GET", f"{ROUTE}/{file['id']}/content")
        await served.request("DELETE", f"{ROUTE}/{file['id']}")
        shown = (await served.request("GET", "/metrics")).body.decode()
    for what in ("uploaded", "deleted", "read", "not_found"):
        assert f'anthro_asgi_files_total{{what="{what}"}} 1.0' in shown
    for route, status in (("/v1/files", 200), ("/v1/files/{id}", 200), ("/v1/files/{id}/content", 400)):
        assert f'anthro_asgi_requests_total{{route="{route}",status="{status}"' in shown
