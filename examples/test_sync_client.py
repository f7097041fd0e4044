"""Test code that uses the sync SDK: pip install . anthropic pytest pytest-xdist && pytest examples/test_sync_client.py

The fixture `messages_server` comes with the installed package. It is a real server on a free port of 127.0.0.1.
"""

import anthropic
import pytest

from anthro_asgi.testing import error, matching

# The code under test.


def summarize(client, text):
    message = client.messages.create(
        model="claude-test", max_tokens=100, messages=[{"role": "user", "content": f"Summarize: {text}"}]
    )
    return message.content[0].text


# Its tests.


def test_the_summary_is_the_text_of_the_answer(messages_server):
    messages_server.script("A short story.")
    client = messages_server.client(anthropic.Anthropic)

    assert summarize(client, "A long story.") == "A short story."

    (request,) = messages_server.requests
    assert request.model == "claude-test"
    assert request.text == "Summarize: A long story."
    assert request.api_key == "sk-test"
    assert request.headers["user-agent"].startswith("Anthropic/Python")


def test_answers_can_depend_on_what_was_asked(messages_server):
    messages_server.when(matching(text="war"), "Tolstoy.")
    messages_server.when(lambda request: len(request.text) > 500, "Too long; did not read.")
    messages_server.otherwise("A short story.")
    client = messages_server.client(anthropic.Anthropic)

    assert summarize(client, "War and peace") == "Tolstoy."
    assert summarize(client, "word " * 200) == "Too long; did not read."
    assert summarize(client, "Anything else") == "A short story."


def test_a_refused_request_raises(messages_server):
    messages_server.script(error(400, "prompt is too long: 9000 tokens > 8192 maximum"))
    client = messages_server.client(anthropic.Anthropic)

    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        summarize(client, "A long story.")


def test_code_that_creates_its_own_client_finds_the_server_by_the_environment(messages_server, monkeypatch):
    for name, value in messages_server.environment.items():
        monkeypatch.setenv(name, value)
    messages_server.script("A short story.")

    assert summarize(anthropic.Anthropic(), "A long story.") == "A short story."
