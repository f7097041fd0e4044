"""`python -m tests.clients.sdk_tests [FILE …]`: run the SDK's own tests of the routes that this service has.

The files come from the source distribution of the SDK, in the version that `tests/clients/install.py` pins. They are
kept in `.clients/`, not in the tree. The SDK runs them against a mock server that knows every id; here they run against
`anthro-asgi serve` with a simulated engine and a batch store.

The tests retrieve, cancel and delete the batch `message_batch_id`, which they never create. So it is put into the
service's store before each test, as a batch that has ended. The model `model_id` is an alias. The tests of `results`
answer themselves (respx), so they show nothing about a server; tests/end_to_end/test_batches.py reads results. The
tests that cannot pass are listed in `plugin/kept_batch.py`, with the reason; if one of them passes, the run fails.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.sqlite import SqliteDatabase
from anthro_asgi.http.batches import owner_of
from anthro_asgi.wire.batch_body import BatchEntry
from anthro_asgi.wire.message_batch import LIFETIME
from tests.clients.sdk_tests.install import PYTHON, install
from tests.support.service import AT_ONCE, Service

FILES: Final = (
    "messages/test_batches.py",
    "test_messages.py",
    "test_models.py",
    "beta/messages/test_batches.py",
    "beta/test_messages.py",
    "beta/test_models.py",
)
"""Below `tests/api_resources` of the SDK."""
_BATCH: Final = "message_batch_id"
_MODEL: Final = "model_id"
_PLUGIN: Final = Path(__file__).parent / "plugin"
_PARAMS: Final = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'


async def keep_batch(path: str) -> None:
    """Put the batch into the store at `path`, as one that has expired."""
    store = SqlBatchStore(SqliteDatabase(path))
    await store.open()
    owner, past = owner_of(None), time.time() - LIFETIME - 60
    try:
        await store.delete(owner, _BATCH)
        await store.create(owner, _BATCH, time.time())
        await store.append(_BATCH, [BatchEntry("my-custom-id-1", _PARAMS)], time.time())
        await store.complete(_BATCH, past)
        await store.settle(time.time())
    finally:
        await store.close()


@contextmanager
def _keeper(path: str) -> Iterator[str]:
    """The URL of a server that puts the batch into the store for each GET request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asyncio.run(keep_batch(path))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of http.server
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run(files: Sequence[str] = FILES) -> int:
    """The exit status of pytest. Raises CalledProcessError if the package index is not there."""
    sources = install()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "batches.db")
        options = ("--simulate", *AT_ONCE, "--batch-store", path, "--model-alias", f"{_MODEL}=simulated")
        with Service(*options) as service, _keeper(path) as keeper:
            variables = {"TEST_API_BASE_URL": service.url, "KEPT_BATCH_URL": keeper, "PYTHONPATH": str(_PLUGIN)}
            command = [str(PYTHON), "-m", "pytest", "-n", "0", "-p", "kept_batch", "-p", "no:cacheprovider", "-q"]
            paths = [f"tests/api_resources/{file}" for file in files]
            environment = {**os.environ, **variables}
            return subprocess.run([*command, *paths], cwd=sources, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:] or FILES))
