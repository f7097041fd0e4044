"""A fast stream pauses between reads; a slower stream and a short burst never do."""

from itertools import accumulate, chain, repeat

import pytest

from anthro_asgi.engines.openai.read_coalescer import ReadCoalescer


def pauses(*gaps: float) -> list[bool]:
    """The answer at each read, with these gaps in seconds between the reads."""
    now = 0.0
    coalescer = ReadCoalescer(lambda: now)
    said: list[bool] = []
    for now in accumulate(gaps):  # noqa: B007 - the clock reads it
        said += [coalescer.should_pause()]
    return said


@pytest.mark.parametrize("rate", [1, 50, 200, 450])
def test_a_stream_at_the_rate_of_most_models_never_pauses(rate: int) -> None:
    assert not any(pauses(*repeat(1 / rate, 500)))


def test_a_fast_stream_pauses_after_sixteen_reads() -> None:
    said = pauses(*repeat(0.0001, 100))
    assert not any(said[:15])
    assert all(said[15:])


def test_a_fast_stream_keeps_pausing_at_the_rate_that_the_pauses_cause() -> None:
    assert all(pauses(*chain(repeat(0.0001, 16), repeat(0.0015, 100)))[16:])


def test_a_short_burst_never_pauses() -> None:
    burst = [0.02, 0.0001, 0.0001, 0.0001]
    assert not any(pauses(*burst * 50))


def test_a_stream_that_slows_down_stops_pausing() -> None:
    said = pauses(*chain(repeat(0.0001, 32), repeat(0.02, 64)))
    assert any(said[16:32])
    assert not any(said[64:])
