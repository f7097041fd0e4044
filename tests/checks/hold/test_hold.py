"""No bytes of a client hold the event loop for more than 5 ms of CPU."""

import pytest

from tests.checks.hold import ATTACKS, BAR, LOOPS, PARSERS, longest_hold


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("parser", PARSERS)
def test_the_bytes_of_one_client_do_not_hold_the_event_loop(parser: str, loop: str, attack: str) -> None:
    assert longest_hold(parser, loop, ATTACKS[attack]) < BAR
