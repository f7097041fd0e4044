"""Which request bodies are processed in steps."""

import pytest

from anthro_asgi.wire.large.cooperative import LARGE_BODY, takes_long

TEXT = b'{"messages":[{"role":"user","content":"' + b"The quick brown fox, jumps over the lazy dog. " * 4000 + b'"}]}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (TEXT, False),
        (TEXT * 2, True),  # larger than LARGE_BODY
        (b"[" + b"1," * 5_000 + b"1]", False),
        (b"[" + b"1," * 20_000 + b"1]", True),
        (b"[" + b'{"a":0},' * 2_500 + b"1]", True),
        (b"[" + b"[]," * 6_000 + b"1]", True),
        (b"[" + b'"ab",' * 17_000 + b"1]", True),
        (b"[" + b'{"role":"user","content":"Hi"},' * 1_500 + b"1]", True),
        (b'["' + rb"\ud83d" * 3_000 + b'"]', True),
        (b'["' + b"a" * LARGE_BODY + b'"]', True),
    ],
)
def test_a_large_or_dense_body_takes_long(body: bytes, expected: bool) -> None:
    assert takes_long([body]) is expected
    assert takes_long([body[: len(body) // 2], body[len(body) // 2 :]]) is expected
