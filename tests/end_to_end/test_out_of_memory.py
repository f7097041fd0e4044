"""A service whose address space is exhausted answers with an error of its own, and goes on serving.

The limit is set from outside while the service runs, so many bytes above what it uses that memory runs out at
different places: while the body is read, parsed, converted or sent.
"""

import pytest

from tests.checks.memory import MIB, ONE_ARENA, SHAPES, address_space, post, running_service

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shape", ["one long string", "properties", "small messages"])
def test_exhausted_memory_is_an_error_of_the_service_and_never_of_the_request(shape: str) -> None:
    with running_service(shape, may_log_errors=True, **ONE_ARENA) as service:
        body, small = SHAPES[shape](16 * MIB), SHAPES[shape](2000)
        statuses = []
        for more in (4, 8, 12, 16, 20, 28, 64):
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
