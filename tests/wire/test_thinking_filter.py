"""Thinking removed, or reduced to signed empty blocks: the same in a stream and in a whole Message."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.deltas import (
    Delta,
    Finish,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
)
from anthro_asgi.wire.message import PLACEHOLDER_SIGNATURE, MessageBuilder
from anthro_asgi.wire.thinking_filter import ThinkingFilter
from tests.wire.strategies import examples

END = Finish("end_turn")
SEAL = Signature(PLACEHOLDER_SIGNATURE)


def sealed(*batches: Any) -> list[Delta]:
    thoughts = ThinkingFilter(keep_signatures=True)
    return [delta for batch in batches for delta in thoughts.feed(batch)]


@pytest.mark.parametrize(
    ("deltas", "left"),
    [
        ([Thinking("a"), Thinking("b"), "c", END], [SEAL, "c", END]),
        ([Thinking("a"), END], [SEAL, END]),
        ([Thinking("a"), Signature("own"), "c", END], [Signature("own"), "c", END]),
        ([Thinking("a"), Signature(""), "c", END], [SEAL, "c", END]),
        ([Thinking("a"), Signature("1"), Thinking("b"), END], [Signature("1"), SEAL, END]),
        ([Thinking("a"), "c", Thinking("b"), "d", END], [SEAL, "c", SEAL, "d", END]),
        (
            [Thinking("a"), ToolStart("i", "n"), ToolJson("{}"), Thinking("b"), END],
            [SEAL, ToolStart("i", "n"), ToolJson("{}"), SEAL, END],
        ),
        ([Thinking("a"), Usage(1), "", Thinking("b"), END], [Usage(1), "", SEAL, END]),
        ([Thinking(""), "c", END], ["c", END]),
        ([Signature("own"), END], [Signature("own"), END]),
        ([Thinking("a"), ThinkingEstimate(9), Signature("own"), END], [ThinkingEstimate(9), Signature("own"), END]),
        ([ThinkingEstimate(9), "c", END], [ThinkingEstimate(9), SEAL, "c", END]),
        ([Thinking("a"), OtherDelta("thinking", {}), OtherDelta("text", {}), END], [SEAL, OtherDelta("text", {}), END]),
        (["c", END], ["c", END]),
    ],
    ids=repr,
)
def test_the_signature_of_each_block_is_kept_where_the_block_ended(deltas: list[Delta], left: list[Delta]) -> None:
    assert sealed(deltas) == left
    assert sealed(*deltas) == left


def test_hidden_thinking_leaves_nothing() -> None:
    thoughts = ThinkingFilter(keep_signatures=False)
    assert thoughts.feed([Usage(1), Thinking("a"), Signature("s"), "b"]) == [Usage(1), "b"]
    assert thoughts.feed([Thinking("c"), ThinkingEstimate(9)]) == []
    assert thoughts.feed(END) == [END]


DELTAS = st.sampled_from(
    [Thinking("a"), Thinking(""), Signature("s"), Signature(""), "t", "", Usage(1, 2), ToolStart("i", "n")]
)


def blocks(deltas: list[Delta]) -> list[dict[str, Any]]:
    builder = MessageBuilder("msg_1", "m", lambda: 0)
    builder.feed(deltas)
    content: list[dict[str, Any]] = builder.message(0)["content"]
    return content


@examples(200)
@given(st.lists(DELTAS, max_size=9))
def test_the_other_blocks_are_unchanged(deltas: list[Delta]) -> None:
    """Signatures are removed too: an engine's own signature comes after its thinking."""
    deltas = [*deltas, END]
    whole = [{**block, "thinking": ""} if block["type"] == "thinking" else block for block in blocks(deltas)]
    assert blocks(sealed(*deltas)) == whole
