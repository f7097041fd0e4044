"""No bytes of a client hold the event loop for more than 5 ms of CPU, so another client's stream stays in time."""

import pytest

from tests.checks.hold import ATTACKS, BAR, LOOPS, PARSERS, TINY_RECORDS, longest_hold
from tests.checks.hold.application import scale


@pytest.mark.parametrize("attack", [*ATTACKS, TINY_RECORDS])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("parser", PARSERS)
def test_the_bytes_of_one_client_do_not_hold_the_event_loop(parser: str, loop: str, attack: str) -> None:
    held = longest_hold(parser, loop, attack)
    assert held.hold < BAR * scale()
    assert held.gap > 0
