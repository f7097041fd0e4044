"""The end of the process has a deadline, whatever an engine or a thread does."""

import signal
import time
from contextlib import closing

import pytest

from tests.support.client import connect, post
from tests.support.service import Service

LATE = "the process did not end within"
CLEANUP = 5.0  # seconds


def stream_from(service: Service) -> bytes:
    """The first line of a stream that never ends, from a client that then leaves."""
    with closing(connect(service.url)) as client:
        post(client, stream=True)
        return client.getresponse().readline()


@pytest.mark.parametrize("engine", ["IgnoresCancellation", "BlockedThread"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_engine_that_does_not_stop_is_left_behind_after_the_drain(engine: str, workers: str, kind: str) -> None:
    options = ("--engine", f"tests.server.engines:{engine}", "--workers", workers, "--drain-timeout", "100ms")
    with Service(*options, kind=kind) as service:
        assert stream_from(service) == b"event: message_start\n"
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < CLEANUP + 6
        assert any(LATE in line.get("message", "") for line in service.log)


def test_a_second_interrupt_has_a_deadline_too(kind: str) -> None:
    with Service("--engine", "tests.server.engines:IgnoresCancellation", kind=kind) as service:
        assert stream_from(service) == b"event: message_start\n"
        service.send_signal(signal.SIGINT)
        service.wait_for_lines(lambda lines: any('"draining"' in line for line in lines))
        service.send_signal(signal.SIGINT)
        assert service.ended(expected=130) == 130


def test_a_process_whose_event_loop_is_blocked_ends_too(kind: str) -> None:
    options = ("--engine", "tests.server.engines:BlocksLoop", "--drain-timeout", "100ms")
    with Service(*options, kind=kind) as service:
        assert stream_from(service) == b"event: message_start\n"
        service.send_signal()
        assert service.ended(excused=LATE, expected=1) == 1
