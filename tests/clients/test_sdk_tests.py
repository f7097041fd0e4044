"""The SDK's own tests of messages, batches and models, run against this service."""

from tests.clients.sdk_tests.__main__ import run


def test_the_tests_of_the_sdk_pass() -> None:
    assert run() == 0
