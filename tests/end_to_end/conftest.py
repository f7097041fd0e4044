"""Services that the tests of this package share. Each starts once."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.llama.server import LlamaServer
from tests.support.service import Service

KEY = "sk-end-to-end"
AT_ONCE = ("--simulate-ttft", "0", "--simulate-itl", "0")


@pytest.fixture(scope="session")
def simulated() -> Iterator[Service]:
    """Over the simulated engine, without pauses. It requires KEY and accepts bodies of up to 1 MiB."""
    with Service("--simulate", *AT_ONCE, "--max-body", "1M", ANTHRO_ASGI_API_KEYS=KEY) as service:
        yield service


@pytest.fixture(scope="session")
def real(llama: LlamaServer) -> Iterator[Service]:
    """Over the real llama.cpp."""
    with Service("--upstream", llama.url) as service:
        yield service


@pytest.fixture(params=["simulated", "real"])
def service(request: pytest.FixtureRequest) -> Service:
    """Each of the two in turn. KEY is valid for both."""
    service: Service = request.getfixturevalue(request.param)
    return service


@dataclass(frozen=True, slots=True)
class Endless:
    """A service over a llama.cpp with one slot, and that engine. An answer to `ENDLESS` takes many seconds."""

    service: Service
    llama: LlamaServer


@pytest.fixture(scope="session")
def endless() -> Iterator[Endless]:
    with LlamaServer(ctx=32768, parallel=1) as llama, Service("--upstream", llama.url) as service:
        yield Endless(service, llama)
