"""Routes, keys, bodies, models and probes (contract sections 1, 2, 7, 9 and 10)."""

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp, ModelInfo, NotFound
from anthro_asgi.observability.logs import LogEvent
from anthro_asgi.testing.driver import Driver, LifespanFailed, Response
from tests.support.clock import fake_clock

HELLO = orjson.dumps({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]})


class Engine:
    """Answers with the name of the requested model."""

    def __init__(self) -> None:
        self.life: list[str] = []
        self.up = True

    async def start(self) -> None:
        self.life.append("start")

    async def stop(self) -> None:
        self.life.append("stop")

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        from anthro_asgi import Finish

        yield request.engine_model
        yield Finish("end_turn")

    async def count_tokens(self, request: Any) -> int:
        return 42

    async def ready(self) -> bool:
        return self.up

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(f"org/model-{number}", created=1_700_000_000, max_input_tokens=4096) for number in range(30)]


async def bare(request: Any) -> AsyncIterator[str]:
    yield "Hello"


async def post(app: MessagesApp, path: str = "/v1/messages", body: bytes = HELLO, **how: Any) -> Response:
    return await Driver(app).request("POST", path, body=body, **how)


async def get(app: MessagesApp, path: str, **how: Any) -> Response:
    return await Driver(app).request("GET", path, **how)


def is_envelope(response: Response, kind: str) -> bool:
    answer = response.json()
    return (
        response.header("content-type") == "application/json"
        and answer["type"] == "error"
        and answer["error"]["type"] == kind
        and bool(answer["error"]["message"])
        and answer["request_id"] == response.header("request-id")
    )


# routes


@pytest.mark.clause("1.1", "1.3", "1.4")
@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1"])
async def test_messages_are_served_under_every_prefix_clients_use(prefix: str) -> None:
    assert (await post(MessagesApp(bare), f"{prefix}/messages")).status == 200
    assert (await post(MessagesApp(bare), f"{prefix}/messages/count_tokens")).status == 200
    assert (await get(MessagesApp(Engine()), f"{prefix}/models")).status == 200
    assert (await get(MessagesApp(Engine()), f"{prefix}/models/org/model-3")).json()["id"] == "org/model-3"


@pytest.mark.clause("1.2")
async def test_extra_slashes_do_not_matter() -> None:
    app = MessagesApp(Engine())
    bare_app = MessagesApp(bare)
    for path in ("/v1/messages/", "//v1/messages", "//v1//messages//", "/v1/v1/messages/"):
        assert (await post(bare_app, path)).status == 200
    assert (await post(MessagesApp(bare), "//v1/messages/count_tokens/")).status == 200
    assert len((await get(app, "/v1/models/")).json()["data"]) == 20
    assert (await get(app, "//v1/models/org/model-3/")).json()["id"] == "org/model-3"
    assert (await get(app, "//")).status == 200
    assert (await get(app, "//v1//complete/")).status == 404
    assert 'route="/v1/messages"' in (await get(bare_app, "/metrics/")).body.decode()


@pytest.mark.clause("1.1")
async def test_any_query_string_is_accepted() -> None:
    assert (await post(MessagesApp(bare), query=b"beta=true&x")).status == 200


@pytest.mark.clause("1.6")
async def test_an_unknown_path_is_a_404_in_the_error_format() -> None:
    response = await post(MessagesApp(bare), "/v1/complete")
    assert response.status == 404
    assert is_envelope(response, "not_found_error")


@pytest.mark.clause("1.6")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/messages/count_tokens", "POST"),
        ("DELETE", "/v1/models/x", "GET, HEAD"),
        ("OPTIONS", "/v1/messages", "POST"),
    ],
)
async def test_a_wrong_method_is_a_405_that_lists_the_allowed_ones(method: str, path: str, allowed: str) -> None:
    response = await Driver(MessagesApp(bare)).request(method, path)
    assert (response.status, response.header("allow")) == (405, allowed)
    assert is_envelope(response, "invalid_request_error")


@pytest.mark.clause("1.5")
@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/"), ("HEAD", "/api/hello"), ("GET", "/healthz")])
async def test_paths_that_clients_probe_respond_200(method: str, path: str) -> None:
    response = await Driver(MessagesApp(bare, keys=["k"])).request(method, path)
    assert response.status == 200
    assert (response.body == b"") == (method == "HEAD")


@pytest.mark.clause("1.5")
@fake_clock
async def test_readyz_follows_the_engine_and_asks_it_at_most_once_a_second() -> None:
    engine = Engine()
    app = MessagesApp(engine)
    assert (await get(app, "/readyz")).status == 200
    engine.up = False
    assert (await get(app, "/readyz")).status == 200
    await asyncio.sleep(1)
    assert (await get(app, "/readyz")).status == 503
    assert (await get(MessagesApp(bare), "/readyz")).status == 200


async def test_readyz_says_why_the_engine_is_not_ready() -> None:
    class Locked(Engine):
        async def why_not_ready(self) -> str | None:
            return "set the key"

    response = await get(MessagesApp(Locked()), "/readyz")
    assert (response.status, response.json()) == (503, {"status": "set the key"})


async def test_readyz_repeats_the_notice_of_the_operator() -> None:
    app = MessagesApp(bare)
    app.notice = "every answer is simulated"
    assert (await get(app, "/readyz")).json() == {"status": "ready", "notice": "every answer is simulated"}


async def test_a_404_for_a_model_logs_the_served_models_and_the_alias_option(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Picky(Engine):
        async def models(self) -> list[ModelInfo]:
            return [ModelInfo("qwen"), ModelInfo("llama")]

        async def stream(self, request: Any) -> AsyncIterator[Any]:
            raise NotFound(f"model {request.engine_model} not found")
            yield ""

    caplog.set_level(logging.INFO, "anthro_asgi")
    body = b'{"model":"claude x","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'
    response = await post(MessagesApp(Picky(), aliases={"fast": "qwen"}), body=body)
    assert response.status == 404
    (line,) = [r.msg.fields() for r in caplog.records if isinstance(r.msg, LogEvent)]
    assert line == {
        "event": "model_not_found",
        "request_id": response.header("request-id"),
        "model": "claude x",
        "served": "qwen, llama, fast",
        "remedy": "serve another model under this name with --model-alias 'claude x=MODEL'",
    }


@pytest.mark.parametrize(
    ("aliases", "remedy"),
    [
        ({}, "serve another model under this name with --model-alias opus=qwen"),
        ({"o*": "gone"}, "--model-alias maps this name to gone: name a model there that the engine serves"),
    ],
)
async def test_the_remedy_for_an_unknown_model_names_the_only_model_or_the_alias_that_is_wrong(
    aliases: dict[str, str], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(Engine):
        async def models(self) -> list[ModelInfo]:
            return [ModelInfo("qwen")]

        async def stream(self, request: Any) -> AsyncIterator[Any]:
            raise NotFound(f"model {request.engine_model} not found")
            yield ""

    caplog.set_level(logging.INFO, "anthro_asgi")
    body = b'{"model":"opus","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'
    assert (await post(MessagesApp(Picky(), aliases=aliases), body=body)).status == 404
    (line,) = [r.msg.fields() for r in caplog.records if isinstance(r.msg, LogEvent)]
    assert (line["served"], line["remedy"]) == ("qwen", remedy)


@pytest.mark.clause("7.13")
async def test_every_response_has_a_request_id_of_its_own() -> None:
    app = MessagesApp(bare)
    answers = [await post(app), await post(app, body=b"{"), await get(app, "/nowhere"), await get(app, "/healthz")]
    identities = [answer.header("request-id") or "" for answer in answers]
    assert all(identity.startswith("req_") for identity in identities)
    assert len(set(identities)) == len(identities)


async def test_a_mount_prefix_is_not_part_of_the_path() -> None:
    app = MessagesApp(bare)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/llm"}, receive, send)

    assert (await Driver(mounted).request("POST", "/llm/v1/messages", body=HELLO)).status == 200


# keys


@pytest.mark.clause("2.1")
@pytest.mark.parametrize(
    "header", [("x-api-key", "k2"), ("authorization", "Bearer k2"), ("authorization", "bearer k2")]
)
async def test_any_key_is_accepted_in_either_header(header: tuple[str, str]) -> None:
    assert (await post(MessagesApp(bare, keys=["k1", "k2"]), headers=[header])).status == 200


@pytest.mark.clause("2.1")
@pytest.mark.parametrize("headers", [[], [("x-api-key", "no")], [("authorization", "Basic azI=")]], ids=str)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_without_a_valid_key_it_is_a_401(headers: Any, path: str) -> None:
    response = await post(MessagesApp(bare, keys=["k2"]), path, headers=headers)
    assert response.status == 401
    assert is_envelope(response, "authentication_error")


async def test_the_model_list_needs_a_key() -> None:
    app = MessagesApp(Engine(), keys=["k"])
    assert (await get(app, "/v1/models")).status == 401
    assert (await get(app, "/v1/models/org/model-1")).status == 401
    assert (await get(app, "/v1/models", headers=[("x-api-key", "k")])).status == 200


async def test_a_request_without_a_key_is_refused_before_its_body_is_read() -> None:
    async with Driver(MessagesApp(bare, keys=["k"])).open("POST", "/v1/messages", body=[b"{"] * 3) as exchange:
        await exchange.started()
        assert (exchange.status, exchange.pieces_read) == (401, 0)
        await exchange.rest()


# bodies


@pytest.mark.clause("7.2")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{", "body: not valid JSON"),
        (b"", "body: not valid JSON"),
        (b"[]", "body: must be"),
        (b"{}", "model: required"),
    ],
    ids=str,
)
async def test_a_bad_body_is_a_400_that_names_the_path(body: bytes, path: str) -> None:
    response = await post(MessagesApp(bare), body=body)
    assert response.status == 400
    assert is_envelope(response, "invalid_request_error")
    assert response.json()["error"]["message"].startswith(path)


@pytest.mark.clause("7.10")
@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", gzip.compress(HELLO)),
        ("gzip", gzip.compress(HELLO[:9]) + gzip.compress(b"") + gzip.compress(HELLO[9:])),
        ("deflate", zlib.compress(HELLO)),
        ("deflate", zlib.compress(HELLO)[2:-4]),
        ("identity", HELLO),
    ],
    ids=["gzip", "gzip of three members", "deflate", "raw deflate", "identity"],
)
async def test_compressed_bodies_are_read(encoding: str, encoded: bytes) -> None:
    assert (await post(MessagesApp(bare), body=encoded, headers=[("content-encoding", encoding)])).status == 200


@pytest.mark.clause("7.10")
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, br", "deflate, identity"])
async def test_an_unknown_content_encoding_is_a_415(encoding: str) -> None:
    response = await post(MessagesApp(bare), headers=[("content-encoding", encoding)])
    assert response.status == 415
    assert is_envelope(response, "invalid_request_error")
    assert response.json()["error"]["details"] == {"error_code": "request_body_encoding_unsupported"}


@pytest.mark.parametrize(
    "broken",
    [
        b"no gzip",
        gzip.compress(HELLO)[:-9],
        gzip.compress(HELLO) + b"more",
        gzip.compress(HELLO) + gzip.compress(b"")[:-1],
        gzip.compress(b"") * 64 + gzip.compress(HELLO),
    ],
    ids=["garbage", "cut short", "garbage behind it", "second member cut short", "too many members"],
)
async def test_a_body_that_does_not_match_its_content_encoding_is_a_400(broken: bytes) -> None:
    response = await post(MessagesApp(bare), body=broken, headers=[("content-encoding", "gzip")])
    assert response.status == 400
    assert response.json()["error"]["details"] == {"error_code": "request_body_encoding_invalid"}


@pytest.mark.clause("7.10")
async def test_a_body_over_the_limit_is_a_413_before_it_is_read_to_the_end() -> None:
    app = MessagesApp(bare, max_body=1000)
    pieces = [b"x" * 400] * 10
    async with Driver(app).open(
        "POST", "/v1/messages", body=pieces, headers=[("transfer-encoding", "chunked")]
    ) as exchange:
        await exchange.started()
        assert (exchange.status, exchange.pieces_read) == (413, 3)
        assert b"request_too_large" in await exchange.rest()


@pytest.mark.clause("7.10")
async def test_a_body_announced_over_the_limit_is_a_413_before_anything_is_read() -> None:
    async with Driver(MessagesApp(bare, max_body=1000)).open("POST", "/v1/messages", body=b"x" * 2000) as exchange:
        await exchange.started()
        assert (exchange.status, exchange.pieces_read) == (413, 0)
        await exchange.rest()


@pytest.mark.slow
@pytest.mark.clause("7.10")
async def test_a_small_body_that_decompresses_to_a_large_one_is_a_413() -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    for body in (bomb, gzip.compress(b" " * 600_000) * 2):
        response = await post(
            MessagesApp(bare, max_decompressed=1_000_000), body=body, headers=[("content-encoding", "gzip")]
        )
        assert response.status == 413


async def test_a_client_that_disconnects_while_it_sends_its_body_is_logged_and_nothing_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    async with Driver(MessagesApp(bare)).open("POST", "/v1/messages", body=[b'{"mo'], complete=False) as exchange:
        await asyncio.sleep(0)
        exchange.disconnect()
    assert "client_left=true" in caplog.text


# models and aliases


@pytest.mark.clause("9.1")
async def test_the_model_list_has_anthropics_shape_and_openais_keys() -> None:
    page = (await get(MessagesApp(Engine()), "/v1/models")).json()
    assert (len(page["data"]), page["has_more"]) == (20, True)
    assert (page["first_id"], page["last_id"]) == ("org/model-0", "org/model-19")
    assert page["data"][0] == {
        "type": "model",
        "id": "org/model-0",
        "display_name": "org/model-0",
        "created_at": "2023-11-14T22:13:20Z",
        "max_input_tokens": 4096,
        "max_tokens": None,
        "lifecycle": "active",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "",
    }


@pytest.mark.clause("9.2")
async def test_the_model_list_is_paged_forwards_and_backwards() -> None:
    app = MessagesApp(Engine())
    seen: list[str] = []
    query = b"limit=7"
    while True:
        page = (await get(app, "/v1/models", query=query)).json()
        seen += [model["id"] for model in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=7&after_id={page['last_id']}".encode()
    assert seen == [f"org/model-{number}" for number in range(30)]
    back = (await get(app, "/v1/models", query=b"limit=2&before_id=org%2Fmodel-10")).json()
    assert [model["id"] for model in back["data"]] == ["org/model-8", "org/model-9"]
    assert back["has_more"]


@pytest.mark.clause("9.2")
@pytest.mark.parametrize("query", [b"limit=0", b"limit=1001", b"limit=x", b"lifecycle=new"])
async def test_a_bad_page_is_a_400(query: bytes) -> None:
    response = await get(MessagesApp(Engine()), "/v1/models", query=query)
    assert response.status == 400
    assert response.json()["error"]["message"].startswith(query.partition(b"=")[0].decode())


@pytest.mark.clause("9.3")
@pytest.mark.parametrize("query", [b"after_id=nobody", b"before_id=nobody", b"before_id=", b"after_id=x&before_id=y"])
async def test_an_unknown_cursor_is_an_empty_page(query: bytes) -> None:
    page = (await get(MessagesApp(Engine()), "/v1/models", query=query)).json()
    assert (page["data"], page["first_id"], page["last_id"], page["has_more"]) == ([], None, None, False)


@pytest.mark.clause("9.3")
@pytest.mark.parametrize(
    ("query", "count"),
    [
        (b"lifecycle=active", 20),
        (b"lifecycle=deprecated", 0),
        (b"lifecycle=deprecated&lifecycle=active", 20),
        (b"lifecycle=deprecated,retired", 0),
        (b"lifecycle%5B%5D=retired", 0),
        (b"lifecycle=", 20),
    ],
)
async def test_the_model_list_is_filtered_by_lifecycle(query: bytes, count: int) -> None:
    assert len((await get(MessagesApp(Engine()), "/v1/models", query=query)).json()["data"]) == count


@pytest.mark.clause("1.4")
async def test_an_unknown_model_is_a_404() -> None:
    assert is_envelope(await get(MessagesApp(Engine()), "/v1/models/nope"), "not_found_error")


@pytest.mark.clause("9.4")
async def test_aliases_rename_the_model_for_the_engine_and_not_for_the_client() -> None:
    app = MessagesApp(Engine(), aliases={"claude-*": "org/model-1", "claude-x": "org/model-2", "*": "org/model-3"})

    async def asked(name: str) -> tuple[str, str]:
        body = orjson.dumps({**orjson.loads(HELLO), "model": name})
        message = (await post(app, body=body)).json()
        return message["model"], message["content"][0]["text"]

    assert await asked("claude-sonnet") == ("claude-sonnet", "org/model-1")
    assert await asked("claude-x") == ("claude-x", "org/model-2")
    assert await asked("gpt") == ("gpt", "org/model-3")


@pytest.mark.clause("9.4")
async def test_exact_aliases_are_listed_with_the_limits_of_their_model() -> None:
    app = MessagesApp(Engine(), aliases={"claude-x": "org/model-2", "claude-*": "org/model-1"})
    listed = (await get(app, "/v1/models", query=b"limit=1000")).json()["data"]
    assert [model["id"] for model in listed[30:]] == ["claude-x"]
    assert listed[30]["max_input_tokens"] == 4096
    assert (await get(app, "/v1/models/claude-x")).status == 200


# counts


@pytest.mark.clause("1.3")
async def test_count_tokens_asks_the_engine_and_needs_no_max_tokens() -> None:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    response = await post(MessagesApp(Engine()), "/v1/messages/count_tokens", body=body)
    assert response.json() == {"input_tokens": 42}
    assert response.header("anthro-asgi-token-count") is None


@pytest.mark.clause("10.4")
async def test_an_estimated_count_is_marked_by_a_header() -> None:
    response = await post(MessagesApp(bare), "/v1/messages/count_tokens")
    assert response.json()["input_tokens"] >= 1
    assert response.header("anthro-asgi-token-count") == "estimate"


# lifespan, metrics and the log


async def test_lifespan_starts_and_stops_the_engine() -> None:
    engine = Engine()
    async with Driver(MessagesApp(engine)).lifespan():
        assert engine.life == ["start"]
    assert engine.life == ["start", "stop"]


async def test_an_engine_that_cannot_start_fails_the_lifespan() -> None:
    class Broken(Engine):
        async def start(self) -> None:
            raise RuntimeError("no model")

    with pytest.raises(LifespanFailed, match="no model"):
        async with Driver(MessagesApp(Broken())).lifespan():
            pass


@pytest.mark.clause("1.5")
async def test_metrics_count_requests_and_tokens() -> None:
    app = MessagesApp(bare)
    await post(app, "/messages")
    await get(app, "/nowhere/that/a/client/made/up")
    text = (await get(app, "/metrics")).body.decode()
    done = 'anthro_asgi_requests_total{route="/v1/messages",status="200",stop_reason="end_turn",stream="false"} 1.0'
    assert done in text
    assert 'anthro_asgi_requests_total{route="other",status="404",stop_reason="",stream=""} 1.0' in text
    assert 'anthro_asgi_tokens_total{kind="output"} 1.0' in text
    assert "made/up" not in text


@pytest.mark.clause("2.2")
async def test_one_log_line_a_request_without_content_or_keys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    body = HELLO.replace(b'"Hi"', b'"my secret prompt"')
    response = await post(
        MessagesApp(bare, keys=["my-secret-key"]), body=body, headers=[("x-api-key", "my-secret-key")]
    )
    (record,) = caplog.records
    line = record.getMessage()
    for part in (
        "method=POST",
        "path=/v1/messages",
        "status=200",
        "model=m",
        "stop_reason=end_turn",
        "output_tokens=1",
    ):
        assert part in line
    assert f"request_id={response.header('request-id')}" in line
    assert "ttft=" in line
    assert "duration=" in line
    assert "secret" not in line


async def test_the_log_line_of_a_refused_request_has_the_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="anthro_asgi")
    await post(MessagesApp(bare), body=b"{}")
    (record,) = caplog.records
    assert "status=400" in record.getMessage()
    assert "error_type=invalid_request_error" in record.getMessage()


async def test_an_engine_in_the_process_that_changes_its_tools_changes_those_of_no_other_request() -> None:
    tools = [{"name": "look", "description": "x" * 2000, "input_schema": {"type": "object"}}]
    body = orjson.dumps({**orjson.loads(HELLO), "tools": tools})
    seen: list[Any] = []

    async def changes(request: Any) -> AsyncIterator[str]:
        seen.append(([tool.name for tool in request.tools], orjson.dumps(request.raw["tools"])))
        request.tools[0].name = "changed"
        request.tools[0].input_schema["type"] = "changed"
        request.tools.clear()
        request.raw["tools"].clear()
        yield "Hello"

    app = MessagesApp(changes)
    for _ in range(3):
        assert (await post(app, body=body)).status == 200
    assert seen == [(["look"], orjson.dumps(tools))] * 3
