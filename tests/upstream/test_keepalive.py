import pytest

from anthro_asgi.upstream.keepalive import KeepAlive


def after(*values: bytes | None) -> KeepAlive:
    keep_alive = KeepAlive()
    for value in values:
        keep_alive.note([(b"server", b"x")] if value is None else [(b"keep-alive", value)])
    return keep_alive


@pytest.mark.parametrize(
    ("value", "rest"),
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
def test_a_server_says_how_long_a_connection_may_rest(value: bytes | None, rest: float) -> None:
    assert after(value).rest == rest


def test_a_server_that_counts_down_is_used_as_often_as_it_said_first() -> None:
    values = [b"max=3", b"max=2", b"max=1"]
    assert [after(*values[:n]).rest > 0 for n in (1, 2, 3)] == [True, True, False]


def test_a_server_that_repeats_its_total_is_used_as_often_as_that() -> None:
    assert [after(*[b"timeout=5, max=3"] * n).rest > 0 for n in (1, 2, 3, 4)] == [True, True, False, False]


def test_a_count_goes_on_when_the_header_is_missing_once() -> None:
    assert [after(b"max=2", None).rest, after(b"timeout=9", None).rest] == [0.0, 8.0]
