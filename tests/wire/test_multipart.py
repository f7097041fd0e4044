"""Multipart bodies, read piece by piece: the same parts and errors, however a body is cut (RFC 7578, RFC 2046)."""

import random
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.multipart import MultipartReader, PartBegin, PartEnd, boundary_of

Part = tuple[PartBegin, bytes]
PLAIN = b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n"


def read(body: bytes, cuts: list[int] | None = None, boundary: bytes = b"B") -> list[Part]:
    """The parts of a body that arrives in pieces. Raises what the reader raises."""
    reader = MultipartReader(boundary)
    parts: list[Part] = []
    is_open = False
    for start, end in pairwise([0, *(cuts or ()), len(body)]):
        for event in reader.feed(body[start:end]):
            if isinstance(event, PartBegin):
                assert not is_open
                parts.append((event, b""))
                is_open = True
            elif isinstance(event, PartEnd):
                assert is_open
                is_open = False
            else:
                assert event
                assert is_open
                parts[-1] = (parts[-1][0], parts[-1][1] + event)
    reader.close()
    assert not is_open
    return parts


def form(*parts: tuple[str, bytes], before: bytes = b"", after: bytes = b"") -> bytes:
    """A body: each part as its headers and its content."""
    joined = b"".join(b"--B\r\n%b\r\n\r\n%b\r\n" % (head.encode(), content) for head, content in parts)
    return before + joined + b"--B--" + after


FILE = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain'
FIELD = 'content-disposition:form-data;name="n"'
AWKWARD = [
    b"",
    b"\r\n",
    b"\r\n--",
    b"\r\n--A",
    b"--B--",
    b"\n--B\n",
    b"\r\r\n--\r\n-\r\n--\r",
    b"x\r\n\r\n--b\r\nContent-Type: y\r\n\r\n",
    bytes(range(256)),
]


@pytest.mark.clause("12.2")
@pytest.mark.parametrize("content", AWKWARD)
def test_a_body_is_read_whole_byte_by_byte_at_each_cut_and_at_random_cuts(content: bytes) -> None:
    body = form((FILE, content), (FIELD, b"3600"), before=b"preamble\r\n", after=b" \r\nepilogue\r\n--B\r\n")
    expected = [(PartBegin("file", "a.txt", "text/plain"), content), (PartBegin("n", None, None), b"3600")]
    assert read(body) == expected
    assert read(body, list(range(1, len(body)))) == expected
    for cut in range(1, len(body)):
        assert read(body, [cut]) == expected
    source = random.Random(content)
    for _ in range(50):
        assert read(body, sorted(source.sample(range(1, len(body)), 5))) == expected


@given(st.lists(st.binary(max_size=40) | st.text("\r\n-B", max_size=12).map(str.encode), max_size=3), st.data())
def test_content_without_the_boundary_comes_through_unchanged(contents: list[bytes], data: st.DataObject) -> None:
    contents = [content.replace(b"\r\n--B", b"") for content in contents]
    contents = [content for content in contents if b"\r\n--B" not in b"\r\n" + content]
    body = form(*((FILE, content) for content in contents))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    assert [content for _, content in read(body, cuts)] == contents


@given(st.binary(max_size=200), st.data())
def test_bytes_that_are_no_form_give_the_same_error_or_parts_however_they_are_cut(
    noise: bytes, data: st.DataObject
) -> None:
    body = data.draw(st.sampled_from([noise, PLAIN + noise, noise + PLAIN, PLAIN + noise + b"\r\n--B--"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    assert outcome(body, cuts) == outcome(body, [])


def outcome(body: bytes, cuts: list[int]) -> object:
    try:
        return read(body, cuts)
    except InvalidRequest as exc:
        return exc.message


@pytest.mark.parametrize("name", ["a.txt", "Übersicht €.pdf", "a b;c=d.txt", "back\\slash", "%41.txt"])
def test_what_httpx_sends_is_read(name: str) -> None:
    content = b"\r\n--" * 50
    request = httpx.Request(
        "POST", "http://x", data={"expires_in_seconds": "3600"}, files={"file": (name, content, "image/png")}
    )
    body = request.read()
    field, file = read(body, boundary=boundary_of(request.headers["content-type"].encode()))
    assert field == (PartBegin("expires_in_seconds", None, None), b"3600")
    assert file == (PartBegin("file", name, "image/png"), content)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data;charset=utf-8; Boundary="a b:c"', b"a b:c"),
        (b"multipart/form-data; boundary=" + b"x" * 70, b"x" * 70),
    ],
)
def test_the_boundary_is_found_in_the_content_type(header: bytes, boundary: bytes) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"application/json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; boundary="a\\"b"',
    ],
)
def test_a_content_type_without_a_usable_boundary_is_refused(header: bytes | None) -> None:
    with pytest.raises(InvalidRequest, match=r"^content-type: "):
        boundary_of(header)


@pytest.mark.clause("12.2")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: ends before its last boundary"),
        (PLAIN + b"content", "body: ends before its last boundary"),
        (b"--Bx\r\n", "body: a boundary must be followed by a line end"),
        (b"--B" + b" " * 300 + b"\r\n", "body: a boundary must be followed by a line end"),
        (form(("no header", b"")), "body: a part has an invalid header"),
        (form(("a: b", b"")), "body: each part must have a content-disposition of form-data with a name"),
        (form(("content-disposition: form-data", b"")), "body: each part must have a content-disposition"),
        (form(("content-disposition: attachment; name=a", b"")), "body: each part must have a content-disposition"),
        (form((f"{FIELD}\r\ncontent-transfer-encoding: base64", b"")), "body: a part has a content-transfer-encoding"),
        (form((f"{FIELD}\r\nx: {'y' * 9000}", b"")), "body: the headers of a part are longer than 8192 bytes"),
        (PLAIN.replace(b"=a", b"=\xff") + b"\r\n--B--", "body: a part has a header that is not UTF-8"),
        (form(*[(FIELD, b"")] * 33), "body: more than 32 parts"),
    ],
)
def test_an_invalid_body_is_refused_with_a_reason(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body)
    assert caught.value.message.startswith(message)


def test_a_large_file_is_passed_on_without_being_kept() -> None:
    reader = MultipartReader(b"B")
    reader.feed(PLAIN)
    for _ in range(100):
        (event,) = reader.feed(b"x" * 65536)
        assert event == b"x" * 65536
        assert not reader._held
