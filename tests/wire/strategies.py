"""Random examples for the tests of wire: JSON, text in pieces, and deltas in every order that the rules allow."""

from collections.abc import Sequence
from typing import Any, TypeVar, get_args

import orjson
from hypothesis import settings
from hypothesis import strategies as st

from anthro_asgi.wire.deltas import (
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    Signature,
    StopReason,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
)

Json = dict[str, Any]
Pieces = TypeVar("Pieces", bound=Sequence[Any])


def examples(count: int) -> settings:
    """`count` examples. All else is as in the profile of `tests/conftest.py`."""
    return settings(max_examples=count)


# Text that breaks naive writers: multi-byte characters, line separators, controls, quotes, lone surrogates.
TEXTS = st.text(
    st.sampled_from('ab \n\r\t"\\/{}[],:é漢🙂\u2028\u0085\x00\x1f\ufeff') | st.characters(codec="utf-8"), max_size=8
)
BROKEN_TEXTS = st.text(st.sampled_from("a🙂\ud83d\ude00\udfff"), max_size=5)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.dictionaries(TEXTS, values, max_size=3)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=8)


@st.composite
def pieces(draw: st.DrawFn, whole: Pieces, most: int = 6) -> list[Pieces]:
    """`whole`, cut at random places; two cuts may coincide."""
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=most)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]  # type: ignore[misc]


_COUNTS = st.none() | st.integers(0, 10**6)
_USAGES = st.builds(Usage, _COUNTS, _COUNTS, _COUNTS, _COUNTS)
_NOTES: st.SearchStrategy[Delta] = _USAGES | st.sampled_from(["", Thinking(""), Signature("")])
_BLOCKS = st.sampled_from(
    [
        Block({"type": "redacted_thinking", "data": "c2VjcmV0"}),
        Block({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"title": "é\u2028"}]}),
        Block({"type": "container_upload", "file_id": "file_\ud83d"}),
    ]
)


@st.composite
def _calls(draw: st.DrawFn) -> list[Delta]:
    """A tool call: its input in pieces, with deltas between them that do not end the call."""
    out: list[Delta] = [ToolStart("", draw(st.sampled_from(["weather", "a-b_9"])))]
    value = draw(st.just({}) | objects(VALUES))
    for piece in draw(pieces(orjson.dumps(value).decode() if value else "")):
        out.append(ToolJson(piece))
        out += draw(st.lists(_NOTES, max_size=1))
    return out


@st.composite
def scripts(draw: st.DrawFn) -> list[Delta]:
    """A random walk of an engine: any deltas in any allowed order, then a Finish."""
    single: st.SearchStrategy[Delta] = (
        TEXTS
        | BROKEN_TEXTS
        | st.builds(Thinking, TEXTS)
        | st.builds(Signature, st.sampled_from(["", "c2ln"]))
        | _BLOCKS
        | st.just(BlockStop())
        | st.builds(Citation, st.fixed_dictionaries({"type": st.just("page_location"), "cited_text": TEXTS}))
    )
    steps = draw(st.lists((single | _NOTES).map(lambda delta: [delta]) | _calls(), max_size=10))
    out: list[Delta] = []
    for number, step in enumerate(steps):
        if isinstance(step[0], ToolStart):
            step[0] = ToolStart(f"toolu_{number}", step[0].name)
        out += step
    reason = draw(st.sampled_from(get_args(StopReason)))
    return [*out, Finish(reason, draw(st.sampled_from([None, "END"])))]


@st.composite
def batches(draw: st.DrawFn, deltas: list[Delta]) -> list[Batch]:
    """The same deltas as an engine may yield them: single, or in lists."""
    return [group[0] if len(group) == 1 and draw(st.booleans()) else group for group in draw(pieces(deltas)) if group]
