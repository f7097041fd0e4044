"""An upstream at the service's own address is refused when the service starts."""

import socket
from pathlib import Path

import pytest

from anthro_asgi.cli.own_address import refuse_own_address
from anthro_asgi.server.listeners import bind_listeners
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import ConfigError
from tests.cli.test_main import _has_ipv6, refusal

OTHER = "203.0.113.7"  # an address for documentation (RFC 5737): no machine has it
EVERYWHERE = "0.0.0.0"  # noqa: S104 - the tests are about it
IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


def refused(host: str, *upstreams: str, **more: str) -> str | None:
    """The error of a service that listens on `host` and asks `upstreams`, each with PORT for the service's own port."""
    environ = {"ANTHRO_ASGI_HOST": host, "ANTHRO_ASGI_PORT": "0", "ANTHRO_ASGI_NO_AUTH": "true"}
    with bind_listeners(load_settings({}, environ)) as ((listener, *others),):
        port = str(listener.sock.getsockname()[1])
        given = {name.replace("_", "-"): [text.replace("PORT", port)] for name, text in more.items()}
        if upstreams:
            given["upstream"] = [url.replace("PORT", port) for url in upstreams]
        try:
            refuse_own_address([listener, *others], load_settings(given, environ))
        except ConfigError as exc:
            return str(exc).replace(port, "PORT")
    return None


@pytest.mark.parametrize(
    ("host", "upstream"),
    [
        ("127.0.0.1", "http://127.0.0.1:PORT/v1"),
        ("127.0.0.1", "http://localhost:PORT"),
        ("127.0.0.1", "https://127.0.0.1:PORT/v1"),
        ("127.0.0.1", "http://0.0.0.0:PORT/v1"),
        (EVERYWHERE, "http://127.0.0.1:PORT/v1"),
        (EVERYWHERE, "http://127.0.0.2:PORT/v1"),
        (EVERYWHERE, "http://localhost:PORT/openai/v1"),
        ("localhost", "http://127.0.0.1:PORT/v1"),
        ("localhost", "http://LOCALHOST:PORT/v1"),
        pytest.param("::1", "http://[::1]:PORT/v1", marks=IPV6),
        pytest.param("::1", "http://[::]:PORT/v1", marks=IPV6),
        pytest.param("::", "http://127.0.0.1:PORT/v1", marks=IPV6),
        pytest.param("::", "http://[::ffff:127.0.0.1]:PORT/v1", marks=IPV6),
    ],
)
def test_an_upstream_that_is_the_service_itself_is_refused(host: str, upstream: str) -> None:
    shown = upstream.lower().partition("://")[2].partition("/")[0].replace("port", "PORT")
    assert refused(host, upstream) == (
        f"--upstream: {shown} is the address of this service; name that of the engine, "
        "or choose another --port for the service"
    )


def test_the_name_of_this_machine_is_its_address() -> None:
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, 1, socket.AF_INET)
    except OSError:
        pytest.skip("the name of this machine has no address")
    assert refused(EVERYWHERE, f"http://{name}:PORT/v1") is not None


@pytest.mark.parametrize(
    ("host", "upstream"),
    [
        ("127.0.0.1", "http://127.0.0.1:1/v1"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("127.0.0.1", "http://127.0.0.2:PORT/v1"),
        (EVERYWHERE, f"http://{OTHER}:PORT/v1"),
        (EVERYWHERE, "http://engine.invalid:PORT/v1"),
        ("127.0.0.1", "unix:/run/engine.sock"),
        pytest.param("::1", "http://127.0.0.1:PORT/v1", marks=IPV6),
    ],
)
def test_another_server_is_not_refused(host: str, upstream: str) -> None:
    assert refused(host, upstream) is None


def test_a_name_of_another_machine_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS server that does not answer would hold the start for many seconds."""
    asked = []
    real = socket.getaddrinfo

    def recorded(host: str, port: int, *arguments: int, **more: int) -> object:
        asked.append((host, more.get("flags")))
        return real(host, port, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    assert refused("127.0.0.1", "http://engine.example:PORT/v1") is None
    assert [flags for host, flags in asked if host == "engine.example"] == [socket.AI_NUMERICHOST]


def test_one_of_several_engines_is_named() -> None:
    error = refused("127.0.0.1", "big=http://127.0.0.1:1/v1", "small=http://localhost:PORT/v1")
    assert error is not None
    assert error.startswith("engine small: localhost:PORT is the address of this service")


def test_a_web_search_at_the_own_address_is_refused() -> None:
    error = refused("127.0.0.1", "http://127.0.0.1:1/v1", web_search="http://127.0.0.1:PORT")
    assert error is not None
    assert error.startswith("--web-search: 127.0.0.1:PORT is the address of this service")


def test_the_own_unix_socket_is_refused_also_by_another_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    own, other = tmp_path / "a.sock", tmp_path / "b.sock"
    for engine, refusal_expected in ((own, True), (tmp_path / "link" / "a.sock", True), (other, False)):
        settings = load_settings({"uds": [str(own)], "upstream": [f"unix:{engine}/v1"]}, {})
        with bind_listeners(settings) as ((listener,),):
            if refusal_expected:
                with pytest.raises(ConfigError, match=f"{engine} is the socket of this service"):
                    refuse_own_address([listener], settings)
            else:
                refuse_own_address([listener], settings)


def test_the_command_says_it_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = refusal(2, "serve", "--port", str(port), "--upstream", f"http://127.0.0.1:{port}/v1")
    assert words.startswith(f"--upstream: 127.0.0.1:{port} is the address of this service")
