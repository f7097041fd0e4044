"""No bytes of a client hold the event loop for more than 5 ms of CPU, and another client's stream stays in time."""

import pytest

from tests.checks.hold import ATTACKS, HANDSHAKES, LOOPS, MANY, PARSERS, TINY_RECORDS, Held, longest_hold
from tests.checks.hold.application import scale
from tests.checks.hold.matrix import QUICK, holds, is_within_bounds

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("attack", [*ATTACKS, TINY_RECORDS])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("parser", PARSERS)
def test_the_bytes_of_one_client_do_not_hold_the_event_loop(parser: str, loop: str, attack: str) -> None:
    held = longest_hold(parser, loop, attack, scale())
    assert held.is_within_bounds(scale())
    assert held.gap > 0


@pytest.mark.parametrize(
    "attack",
    ["chunks of one byte without a key", "empty lines", "one large field", "pipelined requests", HANDSHAKES],
)
@pytest.mark.parametrize(("parser", "loop"), [("httptools", "uvloop"), ("h11", "asyncio")])
def test_many_connections_that_send_at_the_same_moment_do_not_hold_the_event_loop(
    parser: str, loop: str, attack: str
) -> None:
    assert longest_hold(parser, loop, attack, scale(), MANY).is_within_bounds(scale())


def test_a_long_hold_and_a_late_token_are_found() -> None:
    assert Held(0.004, 0.024).is_within_bounds(1.0)
    assert not Held(0.006, 0.021).is_within_bounds(1.0)
    assert not Held(0.001, 0.026).is_within_bounds(1.0)
    assert Held(0.006, 0.021).or_better(Held(0.004, 0.030)) == Held(0.004, 0.021)


def test_no_client_of_the_fault_matrix_holds_the_event_loop() -> None:
    found = holds(QUICK, lambda *_: None)
    assert len(found) == 2 * len(QUICK)
    assert any(held.gap > 0 for held in found.values())
    assert {f"{parser}: {cell}": held for (parser, cell), held in found.items() if not is_within_bounds(held)} == {}
