"""The names, types and lifetimes of uploaded files."""

import pytest

from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.file_metadata import lifetime_of, media_type_of, stored_name

pytestmark = pytest.mark.clause("12.2")


@pytest.mark.parametrize(
    ("filename", "mime_type", "stored"),
    [
        ("a.txt", "text/plain", "a.txt"),
        ("/home/me/a.txt", "text/plain", "a.txt"),
        ("C:\\Users\\me\\a.txt", "text/plain", "a.txt"),
        ("..", "text/plain", ".."),
        (None, "application/pdf", "unnamed.pdf"),
        ("", "text/plain", "unnamed.txt"),
        ("folder/", "application/x-odd", "unnamed"),
        ("x" * 255, "text/plain", "x" * 255),
        ("Übersicht €.pdf", "application/pdf", "Übersicht €.pdf"),
    ],
)
def test_the_last_component_of_a_path_is_the_name(filename: str | None, mime_type: str, stored: str) -> None:
    assert stored_name(filename, mime_type) == stored


@pytest.mark.parametrize("filename", ["x" * 256, "a\nb", "a\x00", "<a>", 'a"b', "a|b", "what?", "*", "a:b"])
def test_a_name_with_forbidden_characters_is_refused(filename: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^file: its filename must have at most 255 characters"):
        stored_name(filename, "text/plain")


@pytest.mark.parametrize(
    ("content_type", "mime_type"),
    [(None, "text/plain"), ("Text/Plain; charset=utf-8", "text/plain"), ("application/pdf", "application/pdf")],
)
def test_a_media_type_has_no_parameters(content_type: str | None, mime_type: str) -> None:
    assert media_type_of(content_type) == mime_type


@pytest.mark.parametrize("content_type", ["", "text", "text/", "a b/c", "text/" + "x" * 255])
def test_what_is_no_media_type_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^file: its content-type"):
        media_type_of(content_type)


def test_a_lifetime_is_between_an_hour_and_ninety_days() -> None:
    assert (lifetime_of("3600"), lifetime_of("7776000")) == (3600, 7776000)
    for text in ("3599", "7776001", "", "-3600", "3600.0", "1e4", "٣٦٠٠", "9" * 5000):
        with pytest.raises(InvalidRequest, match=r"^expires_in_seconds: must be an integer from 3600 to 7776000"):
            lifetime_of(text)
