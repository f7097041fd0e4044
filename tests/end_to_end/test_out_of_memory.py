"""A service whose address space is exhausted answers with an error of its own, and goes on serving.

The limit is set from outside while the service runs, so many bytes above what it uses that memory runs out at
different places: while the body is read, parsed, converted or sent.
"""

import http.client
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from tests.checks.memory import MIB, SHAPES, running_service
from tests.support.service import Service

pytestmark = pytest.mark.slow

NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@contextmanager
def address_space(service: Service, more: int) -> Iterator[None]:
    """Within the block the service may map `more` bytes than it has now."""
    with open(f"/proc/{service.pid}/status") as file:
        used = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize"))
    resource.prlimit(service.pid, resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_AS, NO_LIMIT)


def post(service: Service, body: bytes) -> tuple[int, Any]:
    """The status and the JSON of the answer. (0, None) if the service closed the connection while the body was sent."""
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request("POST", "/v1/messages", body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    except (BrokenPipeError, ConnectionResetError):
        return 0, None
    finally:
        connection.close()


@pytest.mark.parametrize("shape", ["one long string", "properties", "small messages"])
def test_exhausted_memory_is_an_error_of_the_service_and_never_of_the_request(shape: str) -> None:
    with running_service(shape, may_log_errors=True) as service:
        body, small = SHAPES[shape](24 * MIB), SHAPES[shape](2000)
        statuses = []
        for more in (4, 8, 16, 24, 28, 40, 96):
            with address_space(service, more * MIB):
                status, answer = post(service, body)
            statuses.append(status)
            assert status in (0, 200, 500, 529), answer
            if status >= 500:
                assert answer["type"] == "error"
                assert answer["error"]["type"] in ("api_error", "overloaded_error")
            assert post(service, small)[0] == 200
        assert any(status >= 500 for status in statuses), statuses
        assert post(service, body)[0] == 200
