"""How long a request blocks the loop: the ticker on a fake clock, and the whole service with a real engine."""

import argparse
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthro_asgi.wire.request import parse_request
from bench import bodies
from bench.records import Hold, read
from tests.checks import stall
from tests.checks.stall import Ticker, best, once

SMALL = orjson.dumps({**orjson.loads(bodies.hello()), "max_tokens": 3})


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def body_of(receive: Callable[[], Any]) -> int:
    """How many bytes there are to read."""
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            return size


async def answer(send: Callable[[Any], Any], *pieces: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_the_longest_gap_and_its_begin_are_recorded() -> None:
    clock = Clock()
    with Ticker(clock) as ticker:
        for seconds in (1.0, 4.0, 2.0):
            clock.now += seconds
            await asyncio.sleep(0)
        clock.now += 3.0  # the last is one too, though no tick follows it
    assert (ticker.longest, ticker.at) == (4.0, 101.0)


async def test_work_that_yields_counts_by_its_parts() -> None:
    clock = Clock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await body_of(receive) == len(SMALL)
        for _ in range(10):
            clock.now += 0.25
            await asyncio.sleep(0)
        clock.now += 0.5
        await answer(send, b"event: content_block_", b"delta")

    found = await once(app, "small", SMALL, clock)
    assert (found.longest_s, found.at_s, found.total_s) == (0.5, 2.5, 3.0)
    assert found.alone_s == 0.0


async def test_work_after_the_first_token_counts_too() -> None:
    clock = Clock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        await answer(send, b"content_block_delta")
        await asyncio.sleep(0)
        clock.now += 7.0

    found = await once(app, "small", SMALL, clock)
    assert (found.longest_s, found.total_s) == (7.0, 0.0)


async def test_the_body_arrives_in_pieces_one_per_loop_iteration() -> None:
    body = stall.image(300_000)
    turns: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert dict(scope["headers"])[b"content-length"] == b"%d" % len(body)
        seen = 0
        handle = asyncio.get_running_loop().call_soon(lambda: turns.append(seen))
        while seen < len(body):
            message = await receive()
            seen += len(message["body"])
            assert message["more_body"] is (seen < len(body))
            assert 0 < len(message["body"]) <= 64 * 1024
            assert turns[-1:] != [seen]
            handle = asyncio.get_running_loop().call_soon(turns.append, seen)
        handle.cancel()
        await answer(send, b"content_block_delta")

    await once(app, "image", body)
    assert len(turns) == len(body) // 65_536 + 1


async def test_an_answer_without_a_token_raises() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        await answer(send, b'{"type":"error"}')

    with pytest.raises(AssertionError, match=r"no token was sent: .*error"):
        await once(app, "small", SMALL)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("out of ink")

    with pytest.raises(ValueError, match="out of ink"):
        await once(broken, "small", SMALL)


def test_the_best_repetition_counts_beside_the_median() -> None:
    holds = [Hold(1, longest, "a", longest, at, 9.0, alone) for longest, at, alone in ((3, 1, 5), (2, 7, 6), (8, 4, 4))]
    assert best(holds) == Hold(1, 2, "a", 3, 7, 9.0, 4)


def test_the_measured_requests_have_the_sizes_in_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "_IMAGE", 2_000_000)
    found = stall.requests()
    assert list(found) == ["agent, 1 MB", "agent, 4 MB", "agent, 16 MB", "image, 2 MB"]
    for body, size in zip(found.values(), (1e6, 4e6, 16e6, 2e6), strict=True):
        assert abs(len(body) - size) < size / 100
        request = parse_request(body)
        assert (request.stream, request.max_tokens) == (True, 4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    chosen = {"small": SMALL, "image": stall.image(400_000), "agent": stall._brief(bodies.agent(1_300_000))}
    monkeypatch.setattr(stall, "requests", lambda: chosen)
    return chosen


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    stall.add_arguments(parser)
    return parser.parse_args(words)


def test_the_whole_service_is_measured_and_the_report_can_read_the_result(
    small: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hold.jsonl"
    assert stall.main(options("--repetitions", "2", "--out", str(out))) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["kind"], line["name"], line["body_bytes"]) for line in lines] == [
        ("hold", name, len(body)) for name, body in small.items()
    ]
    for line in lines:
        assert 0 < line["longest_s"] <= line["median_s"]
        assert 0 < line["longest_s"] < line["total_s"] + 1
        assert line["alone_s"] > 0
    assert [hold.longest_s for hold in read([out]).of(Hold)] == [line["longest_s"] for line in lines]
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 1 + len(small)
    assert all(row.startswith(name) for row, name in zip(table[1:], small, strict=True))


def test_a_missed_bar_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    stall.show([Hold(1, 0.005), Hold(1, 0.0051)])
    _, met, missed = capsys.readouterr().out.splitlines()
    assert not met.endswith("missed")
    assert missed.endswith("   missed")


@pytest.mark.usefixtures("small")
def test_an_empty_choice_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert stall.main(options("--only", "elephant")) == 2
    assert "elephant" in capsys.readouterr().err
