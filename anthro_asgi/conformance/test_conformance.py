"""`pytest --pyargs anthro_asgi.conformance --server URL`: each check of the suite is a test.

The options are those of `anthro-asgi conformance`; `anthro_asgi.testing.pytest_plugin` declares them. As in the
command, only a broken `must` fails the run. Any other broken rule is xfailed; with `--runxfail` it fails, too.
"""

from collections.abc import Iterator

try:
    import pytest
except ImportError as exc:  # pragma: no cover - only pytest loads this file
    raise ImportError("anthro_asgi.conformance.test_conformance needs pytest: pip install pytest") from exc

from .check import Check, Failure, Session, Unsupported
from .exchange import Client
from .run import chosen, first_model
from .scripted_engine import MODEL, ScriptedEngine, text


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each check of the profile."""
    profile = metafunc.config.getoption("--profile", default="server")
    metafunc.parametrize("check", chosen(profile), ids=lambda check: f"{check.weight} {check.area}: {check.name}")


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[ScriptedEngine | None]:
    """The scripted engine of the profile `gateway`."""
    if request.config.getoption("--profile") == "server":
        yield None
        return
    host, _, port = str(request.config.getoption("--engine-listen")).rpartition(":")
    with ScriptedEngine(host, int(port)) as running:
        yield running


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, engine: ScriptedEngine | None) -> Session:
    """The server under test."""
    url = request.config.getoption("--server")
    if url is None:
        raise pytest.UsageError("name the server to judge with --server URL")
    client = Client(url, request.config.getoption("--key"))
    model = request.config.getoption("--model") or (MODEL if engine is not None else first_model(client))
    return Session(client, model, engine)


def test_the_server_keeps_the_rule(check: Check, session: Session) -> None:
    """Fails with the reason and with the last exchanges."""
    session.exchanges.clear()
    if session.scripted is not None:
        session.scripted.set(text("Hello."))
    try:
        check.run(session)
    except Unsupported as exc:
        pytest.skip(str(exc))
    except Failure as exc:
        exchanges = "\n\n".join(str(exchange.shown()) for exchange in session.exchanges[-2:])
        found = f"{exc}\nauthority: {check.authority}\n{exchanges}"
        if check.weight != "must":
            pytest.xfail(found)  # returns with --runxfail
        pytest.fail(found, pytrace=False)
