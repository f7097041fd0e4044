"""Wrong keywords of MessagesApp fail where they are written, with their names."""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest

from anthro_asgi import MessagesApp, MessagesRequest
from anthro_asgi.http.keyword_checks import _CHOICES, _CLASSES, _NUMBERS


async def engine(request: MessagesRequest) -> AsyncIterator[str]:
    yield "Hello"


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        *((name, "4", f"{name}: must be a") for name in _NUMBERS),
        *((name, True, f"{name}: must be a") for name in _NUMBERS),
        *((name, -1, f"{name}: must be ") for name in _NUMBERS),
        ("max_body", 1.5, "max_body: must be a whole number, not 1.5"),
        ("max_body", None, "max_body: must be a whole number, not None"),
        ("max_concurrency", 0, "max_concurrency: must be at least 1"),
        ("ping_interval", 0, "ping_interval: must be more than 0"),
        ("ping_interval", float("nan"), "ping_interval: must be more than 0"),
        ("compact_at", 80, "compact_at: is a share of the window: must be at most 1"),
        ("pdf", "image", "pdf: must be one of text, images, both, refuse, not 'image'"),
        ("cache_diagnostics", True, "cache_diagnostics: must be one of off, asked, all, not True"),
        ("cors_origins", "https://app.example", "cors_origins: must be a sequence of origins such as https://app.exa"),
        ("cors_origins", ["app.example"], "or '*'; got 'app.example'"),
        ("cors_origins", ["https://app.example/"], "or '*'; got 'https://app.example/'"),
        ("aliases", [("a", "b")], "aliases: must be a mapping of names to models"),
        ("aliases", {"a": 5}, "aliases: must be a mapping of names to models, which are text; got 5"),
        ("server_tools", {"a": "f"}, "server_tools: must be a mapping of names to functions; got 'f'"),
        ("web_search", "http://x", "web_search: must be an async function; got 'http://x'"),
        ("batch_store", "batches.db", "batch_store: must be a BatchStore; got 'batches.db'"),
        ("keys", "sk-1", "keys is a sequence of keys, not one str"),
        ("keys", b"sk-1", "keys is a sequence of keys, not one bytes"),
        ("keys", None, "keys is a sequence of keys, not one NoneType"),
        ("keys", [None], "an API key is empty or has white space around it"),
        ("rules", {"max_depth": 5}, "rules: must be an instance of Rules; got {'max_depth': 5}"),
        ("limits", 5, "limits: must be an instance of AnswerLimits; got 5"),
    ],
)
def test_a_wrong_keyword_is_named(keyword: str, value: object, words: str) -> None:
    given: dict[str, Any] = {keyword: value}
    with pytest.raises((TypeError, ValueError)) as caught:
        MessagesApp(engine, **given)
    assert words in str(caught.value)


def test_values_that_are_right_in_another_way_are_accepted() -> None:
    class Whole:
        def __index__(self) -> int:
            return 7

        def __ge__(self, other: object) -> bool:
            return True

    whole: Any = Whole()
    MessagesApp(engine, max_queue=whole, total_deadline=None, max_concurrency_per_key=None, cors_origins=["*"])
    MessagesApp(engine, queue_timeout=0, batch_lateness=0, ping_interval=float("inf"), compact_at=1)


def test_every_keyword_is_checked_but_those_that_may_be_anything() -> None:
    others = {"aliases", "server_tools", "web_search", "batch_store", "cors_origins"}
    free = {"self", "engine", "keys", "hide_thinking", "page", "debug", "tokenizer"}
    assert set(inspect.signature(MessagesApp.__init__).parameters) == {*_NUMBERS, *_CHOICES, *_CLASSES, *others, *free}
