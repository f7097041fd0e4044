"""API keys as the settings configure them: key files, addresses that need a key, the key for the upstream."""

from pathlib import Path

import pytest

from anthro_asgi.settings.api_keys import client_keys, is_loopback, read_key_file, upstream_key
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import ConfigError, ResourceUnavailable, Settings


def settings(environ: dict[str, str] | None = None, **line: str) -> Settings:
    return load_settings({name.replace("_", "-"): [text] for name, text in line.items()}, environ or {})


def test_a_key_file_has_one_key_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf# ours\r\n\r\n  one  \ntwo#2\n   # theirs\nthree")
    assert read_key_file(str(file)) == ("one", "two#2", "three")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n", b"\xef\xbb\xbf"])
def test_a_key_file_without_a_key_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="contains no key") as caught:
        read_key_file(str(file))
    assert caught.value.status == 2


def test_a_key_file_that_is_not_text_is_an_error_that_does_not_quote_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"secret\xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text") as caught:
        read_key_file(str(file))
    assert "secret" not in str(caught.value)


def test_an_invalid_key_in_a_file_is_an_error_that_does_not_quote_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\nsecret words\n")
    with pytest.raises(ConfigError, match="a key must be one word of printable ASCII") as caught:
        read_key_file(str(file))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_key_file_that_cannot_be_read_is_an_unavailable_resource(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResourceUnavailable, match="cannot read the key file"):
        read_key_file(str(tmp_path / name))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost"])
def test_a_loopback_address_is_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", ""])
def test_any_other_address_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.clause("2.3")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_no_key_is_needed_on_a_loopback_address(host: str) -> None:
    assert client_keys(settings(host=host)) == ()


@pytest.mark.clause("2.3")
def test_no_key_is_needed_on_a_unix_socket_or_with_no_auth() -> None:
    assert client_keys(settings(uds="/run/a.sock")) == ()
    assert client_keys(settings(host="0.0.0.0", no_auth="true")) == ()


@pytest.mark.clause("2.3")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com"])
def test_a_public_address_without_keys_is_an_error_that_names_the_three_remedies(host: str) -> None:
    with pytest.raises(ConfigError, match=host) as caught:
        client_keys(settings(host=host))
    for remedy in ("ANTHRO_ASGI_API_KEYS", "--api-key-file", "--no-auth"):
        assert remedy in str(caught.value)


@pytest.mark.clause("2.2")
def test_keys_from_the_environment_and_from_the_file_are_all_valid(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("filed")
    assert client_keys(settings({"ANTHRO_ASGI_API_KEYS": "a,b"}, host="0.0.0.0")) == ("a", "b")
    both = settings({"ANTHRO_ASGI_API_KEYS": "a,b"}, host="0.0.0.0", api_key_file=str(file))
    assert client_keys(both) == ("a", "b", "filed")


def test_the_upstream_key_comes_from_one_place_only(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("filed\n")
    assert upstream_key(settings()) is None
    assert upstream_key(settings({"ANTHRO_ASGI_UPSTREAM_KEY": "k"})) == "k"
    assert upstream_key(settings(upstream_key_file=str(file))) == "filed"
    with pytest.raises(ConfigError, match="more than one upstream key is configured"):
        upstream_key(settings({"ANTHRO_ASGI_UPSTREAM_KEY": "k"}, upstream_key_file=str(file)))
    file.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="more than one upstream key is configured"):
        upstream_key(settings(upstream_key_file=str(file)))
