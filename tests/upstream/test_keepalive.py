"""The `Keep-Alive` header: how long, and how often, a connection may be used again."""

import pytest

from anthro_asgi.upstream.keepalive import KeepAlive


def after(*values: bytes | None) -> KeepAlive:
    keep_alive = KeepAlive()
    for value in values:
        keep_alive.update([(b"server", b"x")] if value is None else [(b"keep-alive", value)])
    return keep_alive


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 55.0),
        (b"timeout=5, max=100", 4.0),
        (b"timeout=5", 4.0),
        (b"Timeout = 120 ,max=7", 119.0),
        (b"max=100", 55.0),
        (b"timeout=1", 0.0),
        (b"timeout=0", 0.0),
        (b"max=1", 0.0),
        (b"max=0", 0.0),
        (b"", 55.0),
        (b"timeout=, max=-3, x, timeout=soon, max=99999999999999999999", 55.0),
    ],
)
def test_the_timeout_parameter_limits_the_idle_time(value: bytes | None, seconds: float) -> None:
    assert after(value).max_idle == seconds


def test_a_max_that_counts_down_limits_the_requests_to_the_first_value() -> None:
    values = [b"max=3", b"max=2", b"max=1"]
    assert [after(*values[:n]).max_idle > 0 for n in (1, 2, 3)] == [True, True, False]


def test_a_max_that_is_repeated_limits_the_requests_to_that_total() -> None:
    assert [after(*[b"timeout=5, max=3"] * n).max_idle > 0 for n in (1, 2, 3, 4)] == [True, True, False, False]


def test_a_response_without_the_header_still_counts() -> None:
    assert [after(b"max=2", None).max_idle, after(b"timeout=9", None).max_idle] == [0.0, 8.0]
