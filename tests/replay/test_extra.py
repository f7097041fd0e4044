"""Recorded streams in which an engine matched a stop sequence where it must not, or emitted a part of it."""

from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.wire.deltas import Finish, ToolStart, deltas_of
from anthro_asgi.wire.stop_sequences import StopSequenceFilter

EXTRA = Path(__file__).with_name("extra")


def received(file: str, stop: str) -> list[Any]:
    """The deltas after the stop filter, for an engine that was given the stop sequence."""
    lines = (EXTRA / file).read_bytes().split(b"\n")
    reader, stop_filter = ChunkReader([stop], lambda: "toolu_1"), StopSequenceFilter([stop])
    payloads = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    deltas = [delta for payload in payloads for delta in reader.feed([payload])] + reader.end()
    return list(deltas_of(stop_filter.feed(deltas)))


@pytest.mark.clause("4.9")
def test_vllm_matching_a_stop_inside_a_tool_call_gives_no_call() -> None:
    deltas = received("vllm-0.32_stop_in_tool.sse", "Paris")
    assert not any(isinstance(delta, ToolStart) for delta in deltas)
    assert "".join(delta for delta in deltas if isinstance(delta, str)) == "Let me look.\n"
    assert deltas[-1] == Finish("stop_sequence", "Paris")


@pytest.mark.clause("4.7")
def test_the_character_of_a_multibyte_stop_that_sglang_emits_is_not_text() -> None:
    deltas = received("sglang-0.5.23_stop_multibyte_leak.sse", "字🙂é")
    assert "".join(delta for delta in deltas if isinstance(delta, str)) == "Mb: 漢"
    assert deltas[-1] == Finish("stop_sequence", "字🙂é")
