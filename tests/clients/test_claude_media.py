"""The real Claude Code reads a PDF; its session goes on after a picture or a PDF that the model cannot read."""

import base64
import json
import struct
import zlib
from pathlib import Path

import pytest

from tests.clients.claude import session
from tests.clients.engine import Json, call, last_role, refusal, text, tool_results
from tests.support.pdf import pdf


def png() -> bytes:
    """A red picture of 8 by 8 pixels."""
    rows = b"".join(b"\0" + b"\xff\0\0" * 8 for _ in range(8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def has_image(body: Json) -> bool:
    return any("image_url" in json.dumps(message.get("content")) for message in body["messages"])


@pytest.mark.fault("A8")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "At most 0 image(s) may be provided in one prompt."),
        (400, "local is not a multimodal model"),
        (400, "Model only supports text input; received unsupported content type 'image_url'"),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
    ],
)
def test_a_picture_that_the_model_cannot_read_does_not_end_the_session(tmp_path: Path, status: int, words: str) -> None:
    def play(body: Json, number: int) -> bytes:
        if has_image(body):
            return refusal(status, words)
        if last_role(body) == "user" and "picture" in json.dumps(body["messages"][-1]["content"]) and number < 2:
            return call("Read", json.dumps({"file_path": str(tmp_path / "project" / "red.png")}))
        return text("Going on")

    with session(tmp_path, play) as s:
        (s.folder / "red.png").write_bytes(png())
        s.claude.ask("Look at the picture red.png")
        result = s.claude.ask("Never mind, go on")
        assert not result.is_error, result
        assert result.text == "Going on"


def test_the_text_of_a_pdf_reaches_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "project" / "paper.pdf"

    def play(body: Json, number: int) -> bytes:
        results = tool_results(body)
        return text(f"I read: {results[0]}") if results else call("Read", json.dumps({"file_path": str(path)}))

    with session(tmp_path, play, "--pdf", "text") as s:
        path.write_bytes(pdf("Llamas hum.", "They spit, too."))
        result = s.claude.ask("Read paper.pdf")
        assert not result.is_error, result
        first, second = result.text.partition("[Page 1 of 2]")[2].split("[Page 2 of 2]")
        assert "Llamas hum." in first
        assert "They spit, too." in second
        assert len(s.engine.chats) == 2, "the request with the PDF was not refused"


@pytest.mark.fault("A8")
def test_a_pdf_does_not_end_the_session(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        if last_role(body) == "user" and "paper.pdf" in json.dumps(body["messages"][-1]["content"]) and number < 2:
            return call("Read", json.dumps({"file_path": str(tmp_path / "project" / "paper.pdf")}))
        return text("Going on")

    with session(tmp_path, play) as s:
        (s.folder / "paper.pdf").write_bytes(base64.b64decode(PDF))
        s.claude.ask("Read paper.pdf")
        result = s.claude.ask("Never mind, go on")
        assert not result.is_error, result
        assert result.text == "Going on"


PDF = base64.b64encode(
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
