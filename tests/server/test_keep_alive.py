"""How long a connection may be idle."""

import time

from tests.support.client import RawClient
from tests.support.service import AT_ONCE, Service


def test_an_idle_connection_is_closed_after_the_keep_alive_time(kind: str) -> None:
    with Service(*AT_ONCE, "--keep-alive", "400ms", kind=kind) as service, RawClient(service.url) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status == 200
        began = time.monotonic()
        assert client.rest() == []
        assert 0.35 < time.monotonic() - began < 5
