"""Files with Anthropic's own SDK, plain and beta, sync and async, against the service as a process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.docs.pages import PAGES, marked
from tests.support.pdf import pdf
from tests.support.service import AT_ONCE, Service

BETA = "files-api-2025-04-14"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    store = str(tmp_path_factory.mktemp("files") / "batches.db")
    with Service("--simulate", *AT_ONCE, "--batch-store", store, "--workers", "2", "--max-file", "1M") as one:
        yield one


@pytest.fixture
def client(service: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=service.url, api_key="sk", max_retries=0, _strict_response_validation=True
    ) as one:
        yield one


def referring(kind: str, file_id: str) -> Any:
    return [{"role": "user", "content": [{"type": kind, "source": {"type": "file", "file_id": file_id}}]}]


@pytest.mark.clause("12.1")
@pytest.mark.clause("12.4")
@pytest.mark.parametrize("beta", [False, True])
def test_a_file_from_its_upload_to_its_deletion(client: anthropic.Anthropic, tmp_path: Path, beta: bool) -> None:
    files: Any = client.beta.files if beta else client.files
    how: Any = {"betas": [BETA]} if beta else {}
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(pdf("Hello first", "Hello second"))
    file = files.upload(file=paper, expires_in_seconds=3600, **how)
    assert (file.filename, file.mime_type, file.size_bytes) == ("paper.pdf", "application/pdf", paper.stat().st_size)
    assert (file.type, file.downloadable, file.scope) == ("file", False, None)
    assert (file.expires_at - file.created_at).total_seconds() == 3600
    assert files.retrieve_metadata(file.id, **how) == file
    assert file in list(files.list(limit=1, **how))
    assert [one.id for one in files.list(ids=[file.id], **how)] == [file.id]
    with pytest.raises(anthropic.BadRequestError, match="only files that a tool has made") as refused:
        files.download(file.id, **how)
    assert refused.value.body["error"]["details"] == {"error_code": "file_not_downloadable"}  # type: ignore[index]  # a dict
    assert files.delete(file.id, **how).type == "file_deleted"
    for call in (files.retrieve_metadata, files.download, files.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(file.id, **how)


@pytest.mark.clause("12.6")
def test_a_file_is_used_in_messages_counts_and_streams(client: anthropic.Anthropic) -> None:
    text = client.beta.files.upload(file=("notes.txt", b"word " * 100, "text/plain"))
    messages = referring("document", text.id)
    short = client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "Hi"}])
    counted = client.messages.count_tokens(model="m", messages=messages)
    assert counted.input_tokens > short.input_tokens + 100
    message = client.messages.create(model="m", max_tokens=9, messages=messages)
    assert message.usage.input_tokens == counted.input_tokens
    with client.beta.messages.stream(model="m", max_tokens=9, messages=messages, betas=[BETA]) as stream:
        assert stream.get_final_message().usage.input_tokens == counted.input_tokens
    with pytest.raises(anthropic.NotFoundError, match=r"messages\.0\.content\.0\.image\.source\.file_id: "):
        client.messages.create(model="m", max_tokens=9, messages=referring("image", "file_none"))


def test_the_example_of_the_page_runs(service: Service) -> None:
    code = marked(PAGES["how-to/files.md"], "files").replace("http://127.0.0.1:8484", service.url)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.strip()


@pytest.mark.clause("12.5")
def test_all_files_are_listed_over_several_pages(client: anthropic.Anthropic) -> None:
    uploaded = [client.beta.files.upload(file=(f"{at}.txt", b"x")).id for at in range(5)]
    assert [file.id for file in client.beta.files.list(limit=2)][:5] == uploaded[::-1]


@pytest.mark.clause("12.3")
def test_a_file_that_is_too_large_is_refused(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="--max-file") as refused:
        client.beta.files.upload(file=("large.txt", b"x" * ((1 << 20) + 1)))
    assert refused.value.status_code == 413


async def test_the_async_client_uploads_and_uses_a_file(service: Service) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=service.url, api_key="sk", max_retries=0, _strict_response_validation=True
    ) as client:
        file = await client.beta.files.upload(file=("a.txt", b"hello" * 60_000))
        assert file.id in [one.id async for one in client.beta.files.list(limit=2)]
        message = await client.messages.create(model="m", max_tokens=9, messages=referring("document", file.id))
        assert message.usage.input_tokens > 10_000
        assert (await client.beta.files.delete(file.id)).id == file.id
