"""One llama.cpp server for all tests of a session."""

import importlib.util
from collections.abc import Iterator

import pytest

from tests.support.llama.server import LlamaServer


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaServer]:
    """Two slots of 8192 tokens; a request thinks only when it asks to."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.fail("xllamacpp is not installed: pip install 'anthro-asgi[test]'", pytrace=False)
    with LlamaServer() as server:
        yield server
