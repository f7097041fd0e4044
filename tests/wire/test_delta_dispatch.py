"""Each place that has to know every delta class handles all of `Delta`, and rejects a class that is not in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from anthro_asgi.simulator.chat_encoder import ChunkEncoder
from anthro_asgi.wire import encoder, message
from anthro_asgi.wire.answer_limits import delta_size
from anthro_asgi.wire.deltas import (
    DELTA_TYPES,
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
)
from anthro_asgi.wire.stop_sequences import StopSequenceFilter
from anthro_asgi.wire.thinking_filter import ThinkingFilter

CITATION: Final = {"type": "char_location", "cited_text": "x"}
REDACTED: Final = {"type": "redacted_thinking", "data": "abc"}
EXAMPLES: Final[dict[type[Delta], Delta]] = {
    str: "text",
    Thinking: Thinking("thought"),
    Signature: Signature("sig"),
    ToolStart: ToolStart("toolu_1", "look"),
    ToolJson: ToolJson('{"a":1}'),
    Citation: Citation(CITATION),
    BlockStop: BlockStop(),
    Block: Block(REDACTED),
    ThinkingEstimate: ThinkingEstimate(50),
    OtherDelta: OtherDelta("text", {"type": "new_delta", "x": 1}),
    MessageFields: MessageFields({"speed": "fast"}),
    Usage: Usage(1, 2),
    Finish: Finish("end_turn"),
}
# Bytes of content in each example.
SIZES: Final[dict[type[Delta], int]] = {
    str: 4,
    Thinking: 7,
    Signature: 3,
    ToolStart: 7 + 4,
    ToolJson: 7,
    Citation: len('{"type":"char_location","cited_text":"x"}'),
    BlockStop: 0,
    Block: len('{"type":"redacted_thinking","data":"abc"}'),
    ThinkingEstimate: 0,
    OtherDelta: len('{"type":"new_delta","x":1}'),
    MessageFields: len('{"speed":"fast"}'),
    Usage: 0,
    Finish: 0,
}
# Deltas that write nothing in a chat stream, because chat completions has no field for them.
NOT_IN_A_COMPLETION: Final = {
    Signature,
    Citation,
    BlockStop,
    Block,
    ThinkingEstimate,
    OtherDelta,
    Usage,
    MessageFields,
    Finish,
}


@dataclass(slots=True)
class Unknown:
    """A delta class that is not in the union."""


def encoded(*batch: Any) -> bytes:
    stream = encoder.StreamEncoder("msg_1", "m", lambda: 1)
    stream.start()
    return stream.feed(list(batch))


def built(*batch: Any) -> None:
    message.MessageBuilder("msg_1", "m", lambda: 1).feed(list(batch))


def sized(*batch: Any) -> int:
    return sum(map(delta_size, batch))


def stop_filtered(*batch: Any) -> Any:
    return StopSequenceFilter(("never",)).feed(list(batch))


def thinking_filtered(*batch: Any) -> list[Delta]:
    return ThinkingFilter(keep_signatures=True).feed(list(batch))


def chunks(*batch: Any) -> bytes:
    return ChunkEncoder("id", "m", 0, usage=False).feed(list(batch))


PLACES: Final[tuple[Callable[..., Any], ...]] = (
    encoded,
    built,
    sized,
    stop_filtered,
    thinking_filtered,
    chunks,
)


def test_there_is_an_example_of_every_delta_class() -> None:
    assert set(EXAMPLES) == set(SIZES) == set(DELTA_TYPES)
    assert all(type(example) is delta_type for delta_type, example in EXAMPLES.items())


@pytest.mark.parametrize("delta_type", DELTA_TYPES)
@pytest.mark.parametrize("place", PLACES)
def test_every_place_handles_every_delta_class(place: Callable[..., Any], delta_type: type[Delta]) -> None:
    before = [EXAMPLES[ToolStart]] if delta_type is ToolJson else []
    place(*before, EXAMPLES[delta_type])


@pytest.mark.parametrize("place", PLACES)
def test_no_place_ignores_a_class_that_is_not_in_the_union(place: Callable[..., Any]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        place("text", Unknown())


@pytest.mark.parametrize("handler", [encoder._handler, message._handler])
def test_a_dispatch_table_cannot_be_built_with_a_class_that_has_no_handler(
    handler: Callable[[Any], Callable[..., Any]],
) -> None:
    assert len({handler(delta_type) for delta_type in DELTA_TYPES}) == len(DELTA_TYPES)
    with pytest.raises(AssertionError):
        handler(Unknown)


def test_every_delta_class_has_its_size() -> None:
    assert {delta_type: delta_size(example) for delta_type, example in EXAMPLES.items()} == SIZES


@pytest.mark.parametrize("delta_type", DELTA_TYPES)
def test_a_chat_stream_writes_exactly_the_deltas_it_has_a_field_for(delta_type: type[Delta]) -> None:
    assert bool(chunks(EXAMPLES[delta_type])) is (delta_type not in NOT_IN_A_COMPLETION)
