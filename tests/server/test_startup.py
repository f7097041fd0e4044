"""The service listens before the engine responds."""

import socket
import time

import pytest

from tests.support.client import get
from tests.support.service import Service


@pytest.mark.parametrize("api", ["auto", "chat", "messages"])
def test_an_engine_that_hangs_does_not_delay_the_service(api: str, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        began = time.monotonic()
        with Service("--upstream", url, "--upstream-api", api, kind=kind) as service:
            assert time.monotonic() - began < 7, "the model list has a deadline of ten seconds"
            began = time.monotonic()
            assert get(service.url, "/healthz").status == 200
            assert time.monotonic() - began < 1
            assert get(service.url, "/readyz").status == 503
            began = time.monotonic()
            service.stop()
            assert time.monotonic() - began < 5
