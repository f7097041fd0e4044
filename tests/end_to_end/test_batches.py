"""Message batches with Anthropic's own SDK, plain and beta, against the service as a process."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.docs.pages import PAGES, marked
from tests.support.service import AT_ONCE, Service

PARAMS: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS: Any = [{"custom_id": f"r{at}", "params": PARAMS} for at in range(25)]
WRONG: Any = {"custom_id": "wrong", "params": {**PARAMS, "max_tokens": -1}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    store = tmp_path_factory.mktemp("batches") / "batches.db"
    with Service("--simulate", *AT_ONCE, "--batch-store", str(store), "--workers", "2") as one:
        yield one


@pytest.fixture
def client(service: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=service.url, api_key="sk", max_retries=0, _strict_response_validation=True
    ) as one:
        yield one


@pytest.mark.clause("11.1")
@pytest.mark.clause("11.5")
@pytest.mark.parametrize("beta", [False, True])
def test_a_batch_from_its_creation_to_its_deletion(client: anthropic.Anthropic, beta: bool) -> None:
    batches: Any = client.beta.messages.batches if beta else client.messages.batches
    batch = batches.create(requests=[*REQUESTS, WRONG])
    until = time.monotonic() + 60
    while batch.processing_status != "ended":
        assert time.monotonic() < until
        batch = batches.retrieve(batch.id)
    assert batch.request_counts.model_dump() == {
        "processing": 0,
        "succeeded": 25,
        "errored": 1,
        "canceled": 0,
        "expired": 0,
    }
    results = list(batches.results(batch.id))
    assert [line.custom_id for line in results] == [*(one["custom_id"] for one in REQUESTS), "wrong"]
    assert {line.result.message.type for line in results[:-1]} == {"message"}
    assert results[-1].result.error.error.type == "invalid_request_error"
    assert batches.cancel(batch.id).processing_status == "ended"
    assert batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(batch.id)


@pytest.mark.clause("11.6")
def test_all_batches_are_listed_over_several_pages(client: anthropic.Anthropic) -> None:
    created = [client.messages.batches.create(requests=REQUESTS[:1]).id for _ in range(5)]
    listed = [batch.id for batch in client.messages.batches.list(limit=2)]
    assert listed[:5] == created[::-1]


@pytest.mark.clause("11.2")
def test_an_invalid_batch_is_a_bad_request(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="custom_id r0 is used more than once"):
        client.messages.batches.create(requests=[REQUESTS[0], REQUESTS[0]])


async def test_the_async_client_reads_results(service: Service) -> None:
    async with anthropic.AsyncAnthropic(base_url=service.url, api_key="sk", max_retries=0) as client:
        batch = await client.messages.batches.create(requests=REQUESTS)
        async with asyncio.timeout(60):
            while batch.processing_status != "ended":
                batch = await client.messages.batches.retrieve(batch.id)
        results = await client.messages.batches.results(batch.id)
        assert [line.custom_id async for line in results] == [one["custom_id"] for one in REQUESTS]


def test_the_example_of_the_page_reads_its_results(service: Service) -> None:
    code = marked(PAGES["how-to/batches.md"], "batches").replace("http://127.0.0.1:8484", service.url)
    code = code.replace("sleep(10)", "sleep(0.1)")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [f"question-{number} succeeded" for number in range(1000)]


def test_a_store_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "anthro_asgi", "serve", "--simulate", "--port", "0", "--batch-store"]
    done = subprocess.run([*command, str(tmp_path / "absent" / "x.db")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("anthro-asgi: error: --batch-store: ")
    assert done.stderr.count("\n") == 1
