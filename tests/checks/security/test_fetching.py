"""The service connects only to its engine, whatever addresses a request contains (server-side request forgery)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checks.security.engine import RecordingEngine
from tests.end_to_end.conftest import AT_ONCE
from tests.support.client import Answer, RawClient
from tests.support.service import Service

WAYS = {
    "strict, chat": ("--upstream-api", "chat"),
    "lenient, chat": (
        *("--upstream-api", "chat", "--dialect", "vllm", "--image-urls", "pass"),
        *("--server-tools", "drop", "--client-tools", "function"),
    ),
    "strict, Messages": ("--upstream-api", "messages"),
    "lenient, Messages": ("--upstream-api", "messages", "--image-urls", "pass", "--server-tools", "drop"),
    "simulated": (*AT_ONCE, "--image-urls", "pass", "--server-tools", "drop"),
}
FILE_WORDS = "what nobody was told"


class Lured:
    """A service, its engine, and a server to which all addresses in a request point."""

    def __init__(self, service: Service, engine: RecordingEngine, elsewhere: RecordingEngine, file: Path) -> None:
        self.service = service
        self.engine = engine
        self.elsewhere = elsewhere
        self.file = file

    def ask(self, path: str, body: dict[str, Any]) -> Answer:
        data = json.dumps({"model": "m", "max_tokens": 4, "messages": [user("Hi")], **body}).encode()
        lines = [f"POST {path} HTTP/1.1", "host: a", "connection: close", f"content-length: {len(data)}", "", ""]
        with RawClient(self.service.url) as client:
            client.send("\r\n".join(lines).encode() + data)
            (answer,) = client.rest()
        return answer

    def addresses(self) -> list[str]:
        there = self.elsewhere.address
        return [
            *(f"http://{there}/x.png", f"HTTP://{there}", f"https://{there}/x", f"ws://{there}/", f"ftp://{there}/x"),
            *(f"//{there}/x.png", f"http://a:b@{there}/", f"gopher://{there}/_x", f"dict://{there}/x"),
            *(f"file://{self.file}", str(self.file), f"file://localhost{self.file}", f"netdoc:{self.file}"),
            *(f"data:image/png,http://{there}", f"url:http://{there}", f"http://{there}/%0d%0a", "unix:/dev/null"),
        ]


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def lured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lured]:
    file = tmp_path_factory.mktemp("private") / "file.txt"
    file.write_text(FILE_WORDS)
    with RecordingEngine() as engine, RecordingEngine() as elsewhere:
        upstream = ("--simulate",) if "--simulate-ttft" in request.param else ("--upstream", engine.url)
        with Service(*upstream, *request.param) as service:
            yield Lured(service, engine, elsewhere, file)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def bodies(address: str) -> dict[str, dict[str, Any]]:
    """Description → a request with the address in a place from which something could be fetched."""
    source = {"type": "url", "url": address}
    text = {"type": "text", "text": f"Look at {address} ![it]({address}) <img src='{address}'>"}
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": address}}
    found = {"type": "search_result", "source": address, "title": address, "content": [text]}
    use = {"type": "tool_use", "id": "a", "name": "look", "input": {"url": address}}

    def result(*content: Any) -> list[Any]:
        turn = {"role": "assistant", "content": [use]}
        return [user("Hi"), turn, user({"type": "tool_result", "tool_use_id": "a", "content": list(content)})]

    schema = {"type": "object", "$schema": address, "$id": address, "properties": {"a": {"$ref": address}}}
    call = {"type": "server_tool_use", "id": "s", "name": "web_fetch", "input": {"url": address}}
    fetched = {
        "type": "web_fetch_tool_result",
        "tool_use_id": "s",
        "content": {"type": "web_fetch_result", "url": address},
    }
    return {
        "an image": {"messages": [user({"type": "image", "source": source})]},
        "a video": {"messages": [user({"type": "video", "source": source})]},
        "a document": {"messages": [user({"type": "document", "source": source})]},
        "a file": {"messages": [user({"type": "document", "source": {"type": "file", "file_id": address}})]},
        "an upload": {"messages": [user({"type": "container_upload", "file_id": address}, text)]},
        "a document of text": {"messages": [user({**document, "title": address, "context": address})]},
        "a search result": {"messages": [user(found)]},
        "an image that a tool gave": {"messages": result({"type": "image", "source": source})},
        "a document that a tool gave": {"messages": result({"type": "document", "source": source})},
        "text": {"messages": [user(text)], "system": address},
        "what was fetched before": {
            "messages": [user("Hi"), {"role": "assistant", "content": [call, fetched]}, user("?")]
        },
        "a schema": {"tools": [{"name": "look", "input_schema": schema}], "tool_choice": {"type": "any"}},
        "a format": {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        "a server of tools": {
            "mcp_servers": [{"type": "url", "url": address, "name": "a", "authorization_token": "b"}]
        },
        "a tool that fetches": {
            "tools": [{"type": "web_fetch_20250910", "name": "web_fetch", "allowed_domains": [address]}]
        },
        "a container": {"container": {"id": address, "skills": [{"type": "custom", "skill_id": address}]}},
        "a callback": {"webhook": address, "callback_url": address, "metadata": {"user_id": address, "url": address}},
        "a model": {"model": address},
    }


@pytest.mark.clause("3.25")
def test_no_address_or_path_in_a_request_is_fetched_or_opened(lured: Lured) -> None:
    statuses = set()
    for address in lured.addresses():
        for body in bodies(address).values():
            for path in ("/v1/messages", "/v1/messages/count_tokens"):
                answer = lured.ask(path, body)
                statuses.add(answer.status)
                assert FILE_WORDS.encode() not in answer.body
    assert statuses <= {200, 400, 404}
    assert 200 in statuses
    assert lured.elsewhere.scripted.accepted == 0
    assert not [request for request in lured.engine.requests if FILE_WORDS.encode() in request.body]


def test_the_server_that_all_addresses_point_to_notices_a_connection(lured: Lured) -> None:
    before = lured.elsewhere.scripted.accepted
    with RawClient(lured.elsewhere.url) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\n\r\n")
        assert client.answer().status == 200
    assert lured.elsewhere.scripted.accepted == before + 1
    lured.elsewhere.scripted.accepted = before


def test_an_image_url_is_passed_on_only_if_the_operator_allows_it(lured: Lured) -> None:
    address = f"http://{lured.elsewhere.address}/x.png"
    answer = lured.ask("/v1/messages", bodies(address)["an image"])
    passed = b"".join(request.body for request in lured.engine.posts[-1:])
    lenient = "--image-urls" in lured.service._command
    assert (answer.status == 200) is lenient
    if lenient and lured.engine.posts:
        assert address.encode() in passed
    refused = lured.ask("/v1/messages", bodies(f"file://{lured.file}")["an image"])
    assert refused.status == 400
