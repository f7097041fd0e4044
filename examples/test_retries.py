"""Test retries, backoff and timeouts: pip install . anthropic pytest pytest-xdist && pytest examples/test_retries.py"""

import anthropic
import httpx2
import pytest

from anthro_asgi.testing import Cut, Stall, error

HELLO = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello?"}]}


def said(message):
    return message.content[0].text


def test_a_rate_limit_is_retried_after_the_time_that_the_server_asks_for(messages_server):
    messages_server.script(error(429, "slow down", retry_after=0.3), "Hello!")
    client = messages_server.client(anthropic.Anthropic)

    assert said(client.messages.create(**HELLO)) == "Hello!"

    first, second = messages_server.requests
    assert (first.status, second.status) == (429, 200)
    assert second.received - first.received >= 0.3  # seconds
    assert second.headers["x-stainless-retry-count"] == "1"
    assert second.raw_body == first.raw_body


def test_overload_then_a_lost_connection_then_an_answer(messages_server):
    messages_server.script(error(529, retry_after=0.01), Cut(), "Hello!")
    client = messages_server.client(anthropic.Anthropic, max_retries=2)

    assert said(client.messages.create(**HELLO)) == "Hello!"
    assert [request.status for request in messages_server.requests] == [529, None, 200]


def test_retries_end(messages_server):
    messages_server.otherwise(error(500, retry_after=0.01))
    client = messages_server.client(anthropic.Anthropic, max_retries=3)

    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**HELLO)
    assert len(messages_server.requests) == 4


def test_an_invalid_request_is_not_retried(messages_server):
    messages_server.script(error(400, "no"))
    client = messages_server.client(anthropic.Anthropic, max_retries=3)

    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**HELLO)
    assert len(messages_server.requests) == 1


def test_a_silent_server_is_a_timeout(messages_server):
    messages_server.script(Stall())
    client = messages_server.client(anthropic.Anthropic, max_retries=0, timeout=0.2)

    with pytest.raises(anthropic.APITimeoutError):
        client.messages.create(**HELLO)
    (request,) = messages_server.requests
    request.wait_ended()
    assert request.client_left


def test_a_stream_that_falls_silent_is_a_timeout(messages_server):
    messages_server.script(["Hel", Stall()])
    client = messages_server.client(anthropic.Anthropic, max_retries=0, timeout=0.3)

    with client.messages.stream(**HELLO) as stream:
        texts = iter(stream.text_stream)
        assert next(texts) == "Hel"
        with pytest.raises(httpx2.ReadTimeout):
            next(texts)
