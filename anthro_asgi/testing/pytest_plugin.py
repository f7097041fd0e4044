"""The pytest plugin: pytest loads it by the entry point `anthro_asgi` of the installed package.

Importing it imports nothing of the kit, because it is loaded in every run of pytest. The fixtures import it.
"""

import sys
from collections.abc import Iterator
from typing import Any

try:
    import pytest
except ImportError as exc:  # pragma: no cover - only pytest loads this file
    raise ImportError("anthro_asgi.testing.pytest_plugin needs pytest: pip install pytest") from exc


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance suite, only to a run that names the suite."""
    if any("anthro_asgi.conformance" in word or "anthro_asgi/conformance" in word for word in sys.argv):
        group = parser.getgroup("anthro_asgi.conformance")
        group.addoption("--server", metavar="URL", help="the server to judge")
        group.addoption("--model", help="the model to ask for (default: the first that the server lists)")
        group.addoption("--key", help="the API key")
        group.addoption("--profile", choices=("server", "gateway"), default="server")
        group.addoption("--engine-listen", metavar="HOST:PORT", default="127.0.0.1:9000")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark that gives options to the fixtures."""
    config.addinivalue_line(
        "markers",
        "messages_options(**options): keywords of MessagesServer or InProcessMessages for the fixture of this test",
    )


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of the marks, of which the closest to the test wins."""
    options: dict[str, Any] = {}
    for mark in request.node.iter_markers("messages_options"):
        if mark.args:
            raise pytest.UsageError("messages_options takes keywords only, such as messages_options(keys=['sk-right'])")
        options = {**mark.kwargs, **options}
    return options


@pytest.fixture
def messages_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A running `anthro_asgi.testing.MessagesServer`: a scripted Messages API on a free port of 127.0.0.1.

    The test fails at its end if a request got no reply because none was scripted for it.
    """
    from .messages import MessagesServer

    with MessagesServer(**_options(request)) as server:
        yield server
    server.check()


@pytest.fixture
def in_process_messages(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A running `anthro_asgi.testing.InProcessMessages`: a scripted Messages API without sockets, in a thread.

    Its clients may be sync or async. The test fails at its end as with `messages_server`.
    """
    from .messages import InProcessMessages

    with InProcessMessages(**_options(request)) as messages:
        yield messages
    messages.check()
