"""Who may come in: both headers, in every combination, and the file the keys are in."""

from pathlib import Path

import pytest

from anthro_asgi.http.auth import ApiKeys, client_keys, is_loopback, read_key_file, upstream_key
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import ConfigError, ResourceUnavailable, Settings
from anthro_asgi.wire.errors import Unauthenticated

Headers = list[tuple[bytes, bytes]]
KEYS = ApiKeys(["alpha", "beta"])


def settings(environ: dict[str, str] | None = None, **line: str) -> Settings:
    return load_settings({name.replace("_", "-"): [text] for name, text in line.items()}, environ or {})


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"alpha")],
        [(b"x-api-key", b"beta")],
        [(b"authorization", b"Bearer alpha")],
        [(b"authorization", b"bearer beta")],
        [(b"authorization", b"BEARER   beta ")],
        [(b"x-api-key", b" alpha ")],
        [(b"host", b"x"), (b"x-api-key", b"placeholder"), (b"authorization", b"Bearer alpha")],
        [(b"x-api-key", b"alpha"), (b"authorization", b"Bearer placeholder")],
        [(b"x-api-key", b"alpha"), (b"authorization", b"Basic abc")],
        [(b"x-api-key", b"wrong"), (b"x-api-key", b"beta")],
        [(b"authorization", b"Bearer alpha"), (b"authorization", b"Bearer wrong")],
        [(b"x-api-key", b"\xff\xfe"), (b"x-api-key", b"alpha")],
    ],
)
def test_one_valid_key_in_either_header_is_enough(headers: Headers) -> None:
    KEYS.authenticate(headers)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"gamma")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"alph")],
        [(b"x-api-key", b"alphabet")],
        [(b"x-api-key", b"ALPHA")],
        [(b"x-api-key", b"alpha,beta")],
        [(b"x-api-key", b"Bearer alpha")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer al pha")],
        [(b"x-api-key", b"\xff\x00\x80")],
        [(b"authorization", b"Bearer \xc3\xa4")],
        [(b"x-api-key", "älphä".encode())],
    ],
)
def test_a_wrong_key_is_turned_away(headers: Headers) -> None:
    with pytest.raises(Unauthenticated, match="invalid API key") as caught:
        KEYS.authenticate(headers)
    assert caught.value.status == 401
    assert (b"www-authenticate", b"Bearer") in [(n.encode(), v.encode()) for n, v in caught.value.headers]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"alpha")],
        [(b"authorization", b"alpha")],
        [(b"authorization", b"Basic alpha")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"\xff\xff")],
        [(b"cookie", b"x-api-key=alpha")],
    ],
)
def test_a_request_without_a_key_is_told_how_to_send_one(headers: Headers) -> None:
    with pytest.raises(Unauthenticated, match="no API key: send one as x-api-key or Authorization: Bearer"):
        KEYS.authenticate(headers)


def test_without_keys_everybody_comes_in() -> None:
    ApiKeys().authenticate([])
    ApiKeys([]).authenticate([(b"x-api-key", b"anything")])


def test_every_key_offered_is_compared_with_every_key_known(monkeypatch: pytest.MonkeyPatch) -> None:
    import anthro_asgi.http.auth

    compared: list[bytes] = []
    real = anthro_asgi.http.auth.compare_digest

    def counting(offered: bytes, known: bytes) -> bool:
        compared.append(known)
        return real(offered, known)

    monkeypatch.setattr(anthro_asgi.http.auth, "compare_digest", counting)
    ApiKeys(["a", "b", "c"]).authenticate([(b"x-api-key", b"a"), (b"authorization", b"Bearer x"), (b"x-api-key", b"b")])
    assert len(compared) == 9
    assert {len(known) for known in compared} == {32}


def test_keys_never_print() -> None:
    assert repr(KEYS) == "<ApiKeys 2>"
    assert repr(ApiKeys()) == "<ApiKeys open>"
    assert b"alpha" not in b"".join(KEYS._digests)
    with pytest.raises(Unauthenticated) as caught:
        KEYS.authenticate([(b"x-api-key", b"offered-key")])
    assert "offered-key" not in str(caught.value)


@pytest.mark.parametrize("keys", [[""], ["a", ""], [" "], ["a "], ["\ta"], "abc"])
def test_a_key_no_header_could_carry_is_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^(an API key is empty|keys is a sequence)"):
        ApiKeys(keys)


def test_a_key_file_has_one_key_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf# ours\r\n\r\n  one  \ntwo#2\n   # theirs\nthree")
    assert read_key_file(str(file)) == ("one", "two#2", "three")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n", b"\xef\xbb\xbf"])
def test_a_key_file_without_a_key_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no key") as caught:
        read_key_file(str(file))
    assert caught.value.status == 2


def test_a_key_file_that_is_no_text_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"secret\xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text") as caught:
        read_key_file(str(file))
    assert "secret" not in str(caught.value)


def test_a_key_file_with_a_key_no_header_can_carry_is_an_error_that_does_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\nsecret words\n")
    with pytest.raises(ConfigError, match="a key must be one word of printable ASCII") as caught:
        read_key_file(str(file))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_key_file_that_cannot_be_read_is_refused_by_the_machine(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResourceUnavailable, match="cannot read the key file"):
        read_key_file(str(tmp_path / name))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost"])
def test_an_address_only_this_machine_can_reach(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", ""])
def test_an_address_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_service_is_open_where_only_this_machine_reaches_it(host: str) -> None:
    assert client_keys(settings(host=host)) == ()


def test_the_service_is_open_on_a_unix_socket_and_by_name() -> None:
    assert client_keys(settings(uds="/run/a.sock")) == ()
    assert client_keys(settings(host="0.0.0.0", no_auth="true")) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com"])
def test_an_open_service_for_others_is_refused_with_the_three_ways_out(host: str) -> None:
    with pytest.raises(ConfigError, match=host) as caught:
        client_keys(settings(host=host))
    for way_out in ("ANTHRO_ASGI_API_KEYS", "--api-key-file", "--no-auth"):
        assert way_out in str(caught.value)


def test_keys_of_the_environment_and_of_the_file_are_valid_together(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("filed")
    assert client_keys(settings({"ANTHRO_ASGI_API_KEYS": "a,b"}, host="0.0.0.0")) == ("a", "b")
    both = settings({"ANTHRO_ASGI_API_KEYS": "a,b"}, host="0.0.0.0", api_key_file=str(file))
    assert client_keys(both) == ("a", "b", "filed")


def test_the_upstream_takes_one_key_from_one_place(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("filed\n")
    assert upstream_key(settings()) is None
    assert upstream_key(settings({"ANTHRO_ASGI_UPSTREAM_KEY": "k"})) == "k"
    assert upstream_key(settings(upstream_key_file=str(file))) == "filed"
    with pytest.raises(ConfigError, match="the upstream takes one key"):
        upstream_key(settings({"ANTHRO_ASGI_UPSTREAM_KEY": "k"}, upstream_key_file=str(file)))
    file.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="the upstream takes one key"):
        upstream_key(settings(upstream_key_file=str(file)))
