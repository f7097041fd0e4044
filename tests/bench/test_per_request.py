"""The bench of one whole request: both sides answer, and a measurement gives a ratio."""

import argparse

import pytest

from bench import per_request
from bench.micro.case import Comparison


@pytest.mark.parametrize("name", per_request.requests())
async def test_the_service_and_the_floor_answer_each_request_again_and_again(name: str) -> None:
    request = per_request.requests()[name]
    async with per_request.raw() as floor, per_request.served() as service:
        for client in (floor, service):
            answers = [await client.ask(request) for _ in range(3)]
            assert all(answer.count(b"event: message_stop") == 1 for answer in answers)
        assert b"Hello" in answers[0]
        assert b" there" in answers[0]


def test_the_agents_request_has_the_size_that_its_name_says() -> None:
    assert 80_000 < len(per_request.requests()["agent, 86 KB"]) < 92_000


def test_a_measurement_gives_times_and_a_ratio() -> None:
    cost = per_request.measure("small", 1)
    assert cost.subject_ns > cost.floor_ns > 0


@pytest.mark.parametrize("name", per_request.requests())
async def test_a_service_with_every_feature_gives_the_same_answer(name: str) -> None:
    request = per_request.requests()[name]
    async with per_request.served() as plain, per_request.served(**per_request.features()) as full:
        answers = [(await client.ask(request)).partition(b'"content":')[2] for client in (plain, full)]
    assert answers[0] == answers[1] != b""


def test_a_measurement_of_unused_features_compares_two_services() -> None:
    cost = per_request.measure_unused("small", 1)
    assert cost.subject_ns > 0
    assert cost.floor_ns > 0


def test_each_request_is_printed_with_its_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(per_request, "measure", lambda *_: Comparison(45_000.0, 180_000.0, 4.0))
    monkeypatch.setattr(per_request, "measure_unused", lambda *_: Comparison(180_000.0, 181_800.0, 1.01))
    assert per_request.main(argparse.Namespace(rounds=1)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small                180 µs, raw ASGI application    45 µs:  4.00 x (bar 14)"
    assert lines[2] == "small            unused features add   1.00% (bar 3%)"
    assert len(lines) == 4
