"""The routes of message batches over the application, a store in a file, and engines of the test (contract 11)."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.sqlite import SqliteDatabase
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.wire.deltas import Batch, Finish
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.message_batch import LIFETIME
from anthro_asgi.wire.request import MessagesRequest

ROUTE = "/v1/messages/batches"
PARAMS = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
KEYS = ["sk-one", "sk-two"]


async def echo(request: MessagesRequest) -> AsyncIterator[Batch]:
    """Repeats the prompt. "wrong" is refused, "wait" waits until the engine is released."""
    text = request.messages[-1]["content"]
    if text == "wrong":
        raise InvalidRequest("messages: wrong")
    if text == "wait":
        await asyncio.Event().wait()
    yield [text, Finish("end_turn")]


class Service:
    """The application with its lifespan, and requests to it with a key."""

    def __init__(self, app: MessagesApp) -> None:
        self.app = app
        self.driver = Driver(app)

    async def request(self, method: str, path: str, *, key: str = "sk-one", **how: Any) -> Response:
        headers = [("x-api-key", key), *how.pop("headers", ())]
        return await self.driver.request(method, path, headers=headers, **how)

    async def create(self, *requests: dict[str, Any], key: str = "sk-one") -> dict[str, Any]:
        response = await self.request("POST", ROUTE, key=key, body=body_of(*requests))
        assert response.status == 200, response.body
        batch: dict[str, Any] = response.json()
        return batch

    async def ended(self, batch: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while batch["processing_status"] != "ended":
                await asyncio.sleep(0.01)
                batch = (await self.request("GET", f"{ROUTE}/{batch['id']}")).json()
        return batch

    async def results(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        response = await self.request("GET", f"{ROUTE}/{batch['id']}/results")
        assert response.status == 200
        return [json.loads(line) for line in response.body.splitlines()]


@asynccontextmanager
async def service(path: Path, engine: Any = echo, **options: Any) -> AsyncIterator[Service]:
    store = SqlBatchStore(SqliteDatabase(str(path / "batches.db")))
    app = MessagesApp(engine, keys=KEYS, batch_store=store, **options)
    async with Driver(app).lifespan():
        yield Service(app)


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells when it becomes true
        await asyncio.sleep(0.01)


def one(custom_id: str, text: str = "Hi", **params: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "params": {**PARAMS, "messages": [{"role": "user", "content": text}], **params},
    }


def body_of(*requests: dict[str, Any]) -> bytes:
    return json.dumps({"requests": requests}).encode()


@pytest.mark.clause("11.1")
@pytest.mark.clause("11.4")
@pytest.mark.clause("11.5")
async def test_a_batch_is_created_worked_off_and_its_results_are_read(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        begun = await served.create(one("a", "Hello"), one("b", "wrong"), one("c", max_tokens="x"))
        assert begun == {
            "id": begun["id"],
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
            "created_at": begun["created_at"],
            "expires_at": begun["expires_at"],
            "ended_at": None,
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": None,
        }
        assert begun["id"].startswith("msgbatch_")
        await served.ended(begun)
        response = await served.request("GET", f"{ROUTE}/{begun['id']}")
        assert response.header("anthro-asgi-finished") == "3"
        ended = await served.ended(begun)
        counts = {"processing": 0, "succeeded": 1, "errored": 2, "canceled": 0, "expired": 0}
        assert ended["request_counts"] == counts
        assert ended["results_url"] == f"http://localhost{ROUTE}/{begun['id']}/results"
        first, second, third = await served.results(ended)
        assert (first["custom_id"], first["result"]["type"]) == ("a", "succeeded")
        message = first["result"]["message"]
        assert (message["type"], message["content"]) == ("message", [{"type": "text", "text": "Hello"}])
        assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("end_turn", 1)
        error = second["result"]["error"]
        assert error.pop("request_id").startswith("req_")
        assert error == {"type": "error", "error": {"type": "invalid_request_error", "message": "messages: wrong"}}
        assert third["result"]["error"]["error"]["message"].startswith("max_tokens: ")


@pytest.mark.clause("11.5")
@pytest.mark.parametrize(("accept", "content_type"), [("application/binary", "application/binary"), ("*/*", None)])
async def test_results_have_the_content_type_that_the_sdk_asks_for(
    tmp_path: Path, accept: str, content_type: str | None
) -> None:
    async with service(tmp_path) as served:
        batch = await served.ended(await served.create(one("a")))
        response = await served.request("GET", f"{ROUTE}/{batch['id']}/results", headers=[("accept", accept)])
        assert response.header("content-type") == content_type or "application/x-jsonl"


@pytest.mark.clause("11.4")
@pytest.mark.parametrize("prefix", ["", "/v1", "/v1/v1"])
async def test_the_results_are_below_the_base_url_of_the_client(tmp_path: Path, prefix: str) -> None:
    async with service(tmp_path) as served:
        batch = await served.ended(await served.create(one("a")))
        path = f"{prefix}/messages/batches/{batch['id']}"
        for headers, base in (
            ([("host", "gpu:8484")], "http://gpu:8484"),
            ([("host", "10.0.0.1"), ("x-forwarded-host", "api.example"), ("x-forwarded-proto", "https")],
             "https://api.example"),
            ([("host", 'x"<y>')], "http://127.0.0.1:8000"),
        ):  # fmt: skip
            found = (await served.request("GET", path, headers=headers)).json()
            assert found["results_url"] == f"{base}{path}/results"
        page = (await served.request("GET", f"{prefix}/messages/batches", headers=[("host", "gpu")])).json()
        assert page["data"][0]["results_url"] == f"http://gpu{path}/results"


@pytest.mark.clause("11.2")
async def test_a_wrong_batch_is_refused_and_nothing_of_it_remains(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        many = [one(f"r{at}") for at in range(3000)]
        for requests, message in (
            ([*many, {"custom_id": "x y", "params": {}}], "requests.3000.custom_id: must have 1 to 64 characters"),
            ([*many, one("r5")], "requests: the custom_id r5 is used more than once"),
            ([one("a"), one("a")], "requests: the custom_id a is used more than once"),
            ([], "requests: must have at least one entry"),
        ):
            response = await served.request("POST", ROUTE, body=body_of(*requests))
            assert response.status == 400
            assert response.json()["error"]["message"].startswith(message)
        assert (await served.request("GET", ROUTE)).json() == {
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }


@pytest.mark.clause("11.3")
async def test_a_batch_that_is_too_large_is_refused_with_413(tmp_path: Path) -> None:
    async with service(tmp_path, max_decompressed=1000) as served:
        response = await served.request("POST", ROUTE, body=b"", headers=[("content-length", str((256 << 20) + 1))])
        assert (response.status, response.json()["error"]["type"]) == (413, "request_too_large")
        response = await served.request("POST", ROUTE, body=body_of(one("a"), one("b", "x" * 1000)))
        assert (response.status, response.json()["error"]["message"]) == (
            413,
            "requests.1.params: larger than 1000 bytes",
        )


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
async def test_a_compressed_body_is_read_piece_by_piece(tmp_path: Path, encoding: str) -> None:
    plain = body_of(*(one(f"r{at}", "x" * at) for at in range(500)))
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(plain),
        "deflate": zlib.compress(plain),
        "raw deflate": raw.compress(plain) + raw.flush(),
    }[encoding]
    headers = [("content-encoding", encoding.split()[-1])]
    async with service(tmp_path) as served:
        for pieces in ([packed], [packed[at : at + 100] for at in range(0, len(packed), 100)]):
            response = await served.request("POST", ROUTE, body=pieces, headers=headers)
            assert response.json()["request_counts"]["processing"] == 500
        for wrong in (packed[:-9], b"\x1f\x8b\x08 no"):
            response = await served.request("POST", ROUTE, body=wrong, headers=headers)
            assert (response.status, response.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_client_that_leaves_while_it_uploads_leaves_nothing_behind(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        half = body_of(*(one(f"r{at}") for at in range(4000)))[:-1000]
        headers = [("x-api-key", "sk-one")]
        async with served.driver.open("POST", ROUTE, headers=headers, body=[half], complete=False) as exchange:
            await asyncio.sleep(0.05)
            exchange.disconnect()
        assert (await served.request("GET", ROUTE)).json()["data"] == []


@pytest.mark.clause("11.6")
async def test_batches_are_listed_by_cursors(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        ids = [(await served.create(one("a")))["id"] for _ in range(3)][::-1]

        async def page(query: str) -> tuple[list[str], bool]:
            found = (await served.request("GET", ROUTE, query=query.encode())).json()
            assert (found["first_id"], found["last_id"]) == (found["data"][0]["id"], found["data"][-1]["id"])
            return [batch["id"] for batch in found["data"]], found["has_more"]

        assert await page("beta=true") == (ids, False)
        assert await page("limit=2") == (ids[:2], True)
        assert await page(f"limit=2&after_id={ids[1]}") == (ids[2:], False)
        assert await page(f"limit=1&before_id={ids[2]}") == (ids[1:2], True)
        for limit in ("0", "1001", "x"):
            response = await served.request("GET", ROUTE, query=f"limit={limit}".encode())
            assert (response.status, response.json()["error"]["message"][:6]) == (400, "limit:")


@pytest.mark.clause("11.7")
async def test_a_key_sees_only_its_own_batches_and_is_not_stored(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        batch = await served.ended(await served.create(one("a")))
        path = f"{ROUTE}/{batch['id']}"
        calls = [("GET", path), ("GET", f"{path}/results"), ("POST", f"{path}/cancel"), ("DELETE", path)]
        for method, called in calls:
            other = await served.request(method, called, key="sk-two")
            assert (other.status, other.json()["error"]["type"]) == (404, "not_found_error")
            assert (await served.request(method, called, key="wrong")).status == 401
        assert (await served.request("GET", ROUTE, key="sk-two")).json()["data"] == []
        for method, called in calls:
            assert (await served.request(method, called)).status == 200
        stored = (tmp_path / "batches.db-wal").read_bytes()
        assert b"msgbatch_" in stored
        assert b"sk-one" not in stored


@pytest.mark.clause("11.8")
async def test_a_batch_is_canceled_and_then_deleted(tmp_path: Path) -> None:
    async with service(tmp_path, batch_concurrency=1) as served:
        batch = await served.create(one("a", "wait"), one("b"), one("c"))
        path = f"{ROUTE}/{batch['id']}"
        for method, called in (("DELETE", path), ("GET", f"{path}/results")):
            refused = await served.request(method, called)
            assert (refused.status, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        canceled = (await served.request("POST", f"{path}/cancel")).json()
        assert canceled["processing_status"] in ("canceling", "ended")
        assert canceled["cancel_initiated_at"] is not None


@pytest.mark.clause("11.8")
async def test_canceling_ends_a_batch_whose_requests_wait(tmp_path: Path) -> None:
    async with service(tmp_path, max_concurrency=1) as served:
        async with served.app._admission.slot():
            batch = await served.create(one("a"), one("b"))
            await served.request("POST", f"{ROUTE}/{batch['id']}/cancel")
            ended = await served.ended(batch)
        assert ended["request_counts"]["canceled"] == 2
        assert [line["result"] for line in await served.results(ended)] == [{"type": "canceled"}] * 2
        again = (await served.request("POST", f"{ROUTE}/{batch['id']}/cancel")).json()
        assert again == ended
        deleted = await served.request("DELETE", f"{ROUTE}/{batch['id']}")
        assert deleted.json() == {"id": batch["id"], "type": "message_batch_deleted"}
        assert (await served.request("GET", f"{ROUTE}/{batch['id']}")).status == 404


@pytest.mark.clause("11.9")
async def test_a_batch_expires_24_hours_after_its_creation(tmp_path: Path) -> None:
    async with service(tmp_path, max_concurrency=1) as served, served.app._admission.slot():
        batch = await served.create(one("a"), one("b"))
        store = SqlBatchStore(SqliteDatabase(str(tmp_path / "batches.db")))
        await store.open()
        await store.release_all(served.app._batches.worker._holder, 0.0)  # type: ignore[union-attr]  # it is there
        await store.settle(2e9 + LIFETIME)
        await store.close()
        ended = await served.ended(batch)
        assert ended["request_counts"]["expired"] == 2
        assert [line["result"] for line in await served.results(ended)] == [{"type": "expired"}] * 2


@pytest.mark.clause("11.2")
async def test_a_request_that_asks_for_a_stream_is_errored(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        [line] = await served.results(await served.ended(await served.create(one("a", stream=True))))
        assert line["result"]["error"]["error"]["message"] == "stream: must be false in a batch"


@pytest.mark.clause("11.10")
async def test_a_service_that_starts_again_goes_on_with_its_batches(tmp_path: Path) -> None:
    async with service(tmp_path, max_concurrency=1) as served, served.app._admission.slot():
        batch = await served.create(*(one(f"r{at}", str(at)) for at in range(50)))
    async with service(tmp_path) as served:
        ended = await served.ended(batch)
        assert ended["request_counts"]["succeeded"] == 50
        texts = [line["result"]["message"]["content"][0]["text"] for line in await served.results(ended)]
        assert texts == [str(at) for at in range(50)]


@pytest.mark.clause("11.11")
async def test_a_client_is_answered_while_a_batch_has_every_slot(tmp_path: Path) -> None:
    async with service(tmp_path, max_concurrency=2, max_queue=0) as served:
        batch = await served.create(*(one(f"r{at}", "wait") for at in range(4)))
        await eventually(lambda: served.app._admission.running == 2)
        for _ in range(3):
            response = await served.request("POST", "/v1/messages", body=json.dumps(PARAMS).encode())
            assert response.json()["content"][0]["text"] == "Hi"
        await served.request("POST", f"{ROUTE}/{batch['id']}/cancel")


@pytest.mark.clause("11.1")
async def test_without_a_store_the_routes_say_that_batches_are_off() -> None:
    app = MessagesApp(echo, keys=KEYS)
    calls = [
        ("POST", ""),
        ("GET", ""),
        ("GET", "/msgbatch_x"),
        ("POST", "/msgbatch_x/cancel"),
        ("DELETE", "/msgbatch_x"),
        ("GET", "/msgbatch_x/results"),
    ]
    for method, rest in calls:
        response = await Service(app).request(method, ROUTE + rest, body=body_of(one("a")) if method == "POST" else b"")
        assert (response.status, response.json()["error"]["message"]) == (
            404,
            "message batches are off: the service was started without --batch-store",
        )


@pytest.mark.clause("11.1")
async def test_other_methods_and_paths_are_refused(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        for method, path, status, allow in (
            ("PUT", ROUTE, 405, "GET, HEAD, POST"),
            ("POST", f"{ROUTE}/x", 405, "GET, HEAD, DELETE"),
            ("GET", f"{ROUTE}/x/cancel", 405, "POST"),
            ("GET", f"{ROUTE}/x/other", 404, None),
            ("GET", f"{ROUTE}/x", 404, None),
        ):
            response = await served.request(method, path)
            assert (response.status, response.header("allow")) == (status, allow), path
        assert (await served.request("GET", f"{ROUTE}//")).status == 200


async def test_a_store_that_fails_is_an_overload_and_the_service_goes_on(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        batch = await served.ended(await served.create(one("a")))
        database = served.app._batches._store._database  # type: ignore[union-attr]  # it is there
        connection, database._connection = database._connection, None
        path = f"{ROUTE}/{batch['id']}"
        for method, called, body in (
            ("POST", ROUTE, body_of(one("a"))),
            ("GET", ROUTE, b""),
            ("GET", path, b""),
            ("GET", f"{path}/results", b""),
            ("POST", f"{path}/cancel", b""),
            ("DELETE", path, b""),
        ):
            response = await served.request(method, called, body=body)
            assert (response.status, response.header("retry-after")) == (529, "5"), called
        database._connection = connection
        assert (await served.request("GET", path)).status == 200


async def test_the_tokens_and_outcomes_of_batches_are_counted(tmp_path: Path) -> None:
    async with service(tmp_path) as served:
        await served.ended(await served.create(one("a"), one("b", "wrong")))
        text = served.app.metrics.exposition()[0].decode()
        assert 'anthro_asgi_batch_requests_total{outcome="succeeded"} 1.0' in text
        assert 'anthro_asgi_batch_requests_total{outcome="errored"} 1.0' in text
        assert 'anthro_asgi_tokens_total{kind="output"} 1.0' in text
        assert 'route="/v1/messages/batches/{id}"' in text
