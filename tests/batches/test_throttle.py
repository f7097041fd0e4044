"""The throttle: what it does with late and punctual timers."""

from anthro_asgi.batches.throttle import PERIOD, Throttle


def test_without_clients_the_limit_is_that_of_the_operator() -> None:
    throttle = Throttle(16, 0.005)
    for _ in range(100):
        throttle.measured(1.0, clients=False)
    assert throttle.limit == 16


def test_beside_clients_late_timers_halve_the_limit_down_to_one() -> None:
    throttle = Throttle(16, 0.005)
    limits = []
    for _ in range(6):
        throttle.measured(0.006, clients=True)
        limits.append(throttle.limit)
    assert limits == [8, 4, 2, 1, 1, 1]


def test_punctual_timers_raise_the_limit_step_by_step() -> None:
    throttle = Throttle(4, 0.005)
    for _ in range(5):
        throttle.measured(1.0, clients=True)
    steps = 0
    while throttle.limit < 4:
        throttle.measured(0.004, clients=True)
        steps += 1
    assert 25 <= steps <= 35
    throttle.measured(0.0, clients=True)
    assert throttle.limit == 4


def test_a_second_after_the_last_client_nothing_is_held_back() -> None:
    throttle = Throttle(16, 0.005)
    for _ in range(5):
        throttle.measured(1.0, clients=True)
    for _ in range(int(1 / PERIOD) - 1):
        throttle.measured(1.0, clients=False)
    assert throttle.limit == 1
    for _ in range(2):
        throttle.measured(1.0, clients=False)
    assert throttle.limit == 16


def test_a_lateness_of_zero_measures_nothing() -> None:
    assert not Throttle(16, 0.0).is_on
    assert Throttle(16, 0.001).is_on
