"""Authentication by API key: both headers, in every combination."""

import hmac

import pytest

from anthro_asgi.http.auth import ApiKeys
from anthro_asgi.wire.errors import Unauthenticated

Headers = list[tuple[bytes, bytes]]
KEYS = ApiKeys(["alpha", "beta"])


@pytest.mark.clause("2.1")
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
        [(b"x-api-key", b"wrong"), (b"authorization", b"Bearer wrong"), (b"x-api-key", b"alpha")],
    ],
)
def test_a_wrong_key_is_rejected(headers: Headers) -> None:
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


def test_without_keys_every_request_passes() -> None:
    ApiKeys().authenticate([])
    ApiKeys([]).authenticate([(b"x-api-key", b"anything")])


@pytest.mark.clause("2.2")
def test_the_first_two_keys_of_a_request_are_compared_with_every_accepted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def counting(offered: bytes, known: bytes) -> bool:
        compared.append(known)
        return real(offered, known)

    monkeypatch.setattr("anthro_asgi.http.auth.compare_digest", counting)
    headers = [(b"x-api-key", b"a"), (b"authorization", b"Bearer x"), *[(b"x-api-key", b"b")] * 1000]
    ApiKeys(["a", "b", "c"]).authenticate(headers)
    assert len(compared) == 6
    assert {len(known) for known in compared} == {32}


@pytest.mark.clause("2.2")
def test_keys_never_print() -> None:
    assert repr(KEYS) == "<ApiKeys 2>"
    assert repr(ApiKeys()) == "<ApiKeys open>"
    assert b"alpha" not in b"".join(KEYS._digests)
    with pytest.raises(Unauthenticated) as caught:
        KEYS.authenticate([(b"x-api-key", b"offered-key")])
    assert "offered-key" not in str(caught.value)


@pytest.mark.parametrize("keys", [[""], ["a", ""], [" "], ["a "], ["\ta"], "abc"])
def test_a_key_that_no_header_can_carry_is_rejected(keys: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^(an API key is empty|keys is a sequence)"):
        ApiKeys(keys)
