"""Tool calls that engines interleave are released one at a time, complete and in order."""

import json
import random
import re
from collections import defaultdict
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.engines.shared.tool_calls import ToolCallQueue
from anthro_asgi.wire.deltas import Delta, Thinking, ToolJson, ToolStart
from anthro_asgi.wire.tool_input import parse_tool_input


class Feed:
    """A queue, and all deltas it has released so far."""

    def __init__(self, *, taken: tuple[str, ...] = ()) -> None:
        numbers = count(1)
        self.queue = ToolCallQueue(lambda: f"toolu_{next(numbers)}", taken)
        self.out: list[Delta] = []

    def call(
        self, arguments: str = "", *, index: int | None = None, identity: str | None = None, name: str | None = None
    ) -> list[Delta]:
        self.queue.add_call(index, identity, name, arguments)
        return self._release()

    def text(self, delta: str | Thinking) -> list[Delta]:
        self.queue.add(delta)
        return self._release()

    def end(self, *, cut: bool = False) -> list[Any]:
        self.out += self.queue.release(at_end=True, cut=cut)
        return blocks(self.out)

    def _release(self) -> list[Delta]:
        new = self.queue.release()
        self.out += new
        return new


def blocks(deltas: list[Delta]) -> list[Any]:
    """The blocks that the deltas make: text and thinking deltas unchanged, a call as (id, name, JSON text)."""
    found: list[Any] = []
    for delta in deltas:
        match delta:
            case ToolStart(identity, name):
                found.append((identity, name, ""))
            case ToolJson(fragment):
                identity, name, before = found[-1]
                found[-1] = (identity, name, before + fragment)
            case _:
                found.append(delta)
    return found


# one call


@pytest.mark.clause("5.9")
def test_a_call_streams_as_it_arrives() -> None:
    feed = Feed()
    assert feed.call(index=0, identity="a", name="look") == []  # its name may continue
    assert feed.call('{"q', index=0) == [ToolStart("a", "look"), ToolJson('{"q')]
    assert feed.call('":1', index=0) == [ToolJson('":1')]
    assert feed.call("}", index=0) == [ToolJson("}")]
    assert feed.end() == [("a", "look", '{"q":1}')]


def test_a_call_without_arguments_is_released_at_the_end() -> None:
    feed = Feed()
    assert feed.call(index=0, identity="a", name="look") == []
    assert feed.end() == [("a", "look", "")]


def test_incomplete_arguments_are_closed_at_the_end_unless_the_token_limit_cut_them() -> None:
    for cut, expected in ((False, '{"q": "Bos"}'), (True, '{"q": "Bos')):
        feed = Feed()
        feed.call('{"q": "Bos', index=0, identity="a", name="look")
        assert feed.end(cut=cut) == [("a", "look", expected)]


def test_a_call_without_an_id_gets_one() -> None:
    feed = Feed()
    feed.call("{}", index=0, name="look")
    feed.call("{}", index=1, name="leap")
    assert feed.end() == [("toolu_1", "look", "{}"), ("toolu_2", "leap", "{}")]


def test_an_id_of_the_history_or_of_this_answer_is_replaced() -> None:
    feed = Feed(taken=("call_0", "toolu_1"))
    feed.call("{}", index=0, identity="call_0", name="look")
    feed.call("{}", index=1, identity="call_1", name="look")
    feed.call("{}", index=2, identity="call_1", name="look")
    assert [identity for identity, _, _ in feed.end()] == ["toolu_2", "call_1", "toolu_3"]


def test_id_and_name_repeated_in_every_piece_are_released_once() -> None:
    feed = Feed()
    for piece in ("", "{", '"q"', ":1}", "", "\n"):
        feed.call(piece, index=0, identity="a", name="look")
    assert feed.end() == [("a", "look", '{"q":1}\n')]


@pytest.mark.parametrize("identity", ["a", None])
def test_a_name_split_over_pieces_is_joined(identity: str | None) -> None:
    feed = Feed()
    for part in ("get_", "wea", "ther"):
        assert feed.call(index=0, identity=identity, name=part) == []
    feed.call("{}", index=0)
    assert feed.end() == [(identity or "toolu_1", "get_weather", "{}")]


def test_a_call_waits_for_a_name_that_follows_its_arguments() -> None:
    feed = Feed()
    assert feed.call('{"q":', index=0, identity="a") == []
    assert feed.call("1}", index=0, name="look") == [ToolStart("a", "look"), ToolJson('{"q":1}')]


def test_pieces_without_an_index_go_to_the_call_of_their_id_or_to_the_last_one() -> None:
    feed = Feed()
    feed.call("{", identity="a", name="look")
    feed.call('{"x":', identity="b", name="leap")
    feed.call('"q":1', identity="a")
    feed.call("}")
    feed.call("2}", identity="b")
    assert feed.end() == [("a", "look", '{"q":1}'), ("b", "leap", '{"x":2}')]


def test_an_index_may_be_left_out_after_the_first_piece() -> None:
    feed = Feed()
    feed.call("{", index=0, identity="a", name="look")
    feed.call("{", index=1, identity="b", name="leap")
    feed.call('"q":1}', identity="a")
    feed.call("}", identity="b")
    assert feed.end() == [("a", "look", '{"q":1}'), ("b", "leap", "{}")]


def test_a_new_id_under_the_same_index_is_a_new_call() -> None:
    feed = Feed()
    feed.call('{"q":1}', index=0, identity="a", name="look")
    feed.call('{"q":2}', index=0, identity="b", name="look")
    assert feed.end() == [("a", "look", '{"q":1}'), ("b", "look", '{"q":2}')]


def test_a_new_id_without_a_name_continues_the_open_call() -> None:
    feed = Feed()
    feed.call('{"q"', index=0, identity="a", name="look")
    feed.call(":1}", index=0, identity="b")
    assert feed.end() == [("a", "look", '{"q":1}')]


@pytest.mark.parametrize("identity", [None, "same"])
@pytest.mark.parametrize("index", [None, 0])
def test_a_name_after_complete_arguments_begins_a_new_call(index: int | None, identity: str | None) -> None:
    feed = Feed()
    for name, arguments in (("look", '{"q":1}'), ("look", '{"q":2}'), ("leap", "{}")):
        feed.call(arguments, index=index, identity=identity, name=name)
    assert [(name, arguments) for _, name, arguments in feed.end()] == [
        ("look", '{"q":1}'),
        ("look", '{"q":2}'),
        ("leap", "{}"),
    ]


# several


@pytest.mark.clause("5.9")
def test_the_next_call_begins_when_the_one_before_is_complete() -> None:
    feed = Feed()
    feed.call('{"q":', index=0, identity="a", name="look")
    assert feed.call('{"x":', index=1, identity="b", name="leap") == []
    assert feed.call("1}", index=0) == [ToolJson("1}"), ToolStart("b", "leap"), ToolJson('{"x":')]
    assert feed.call("2}", index=1) == [ToolJson("2}")]


@pytest.mark.parametrize(
    "arguments",
    ['{"a":"}"}', '{"a":"\\""}', '{"a":"\\\\"}', '{"a":[{}]}', "[1]", '"{\\"a\\":1}"', '{"{":"["}', '{"a":"\\u007d"}'],
)
def test_the_end_of_the_json_is_found_wherever_it_is_cut(arguments: str) -> None:
    for cut in range(len(arguments)):
        feed = Feed()
        feed.call(arguments[:cut], index=0, identity="a", name="look")
        feed.text("t")
        assert not any(delta == "t" for delta in feed.out), f"released behind {arguments[:cut]!r}"
        assert feed.call(arguments[cut:], index=0)[-1] == "t"


def test_text_between_calls_keeps_its_place() -> None:
    feed = Feed()
    feed.call("{", index=0, identity="a", name="look")
    assert feed.text("one") == feed.text(Thinking("two")) == feed.call("{}", index=1, identity="b", name="leap") == []
    assert feed.text("three") == []
    feed.call("}", index=0)
    assert feed.end() == [("a", "look", "{}"), "one", Thinking("two"), ("b", "leap", "{}"), "three"]


def test_text_after_a_complete_call_does_not_wait() -> None:
    feed = Feed()
    feed.call("{}", index=0, identity="a", name="look")
    assert feed.text("t") == [ToolStart("a", "look"), ToolJson("{}"), "t"]
    assert not feed.queue.busy
    assert feed.queue.has_calls


def test_what_follows_a_call_without_arguments_waits_for_them() -> None:
    feed = Feed()
    feed.call(index=0, identity="a", name="look")
    assert feed.call("{}", index=1, identity="b", name="leap") == []
    assert feed.call("{}", index=0) == [ToolStart("a", "look"), ToolJson("{}")]
    assert feed.end()[-1] == ("b", "leap", "{}")


def test_long_arguments_are_scanned_once() -> None:
    feed = Feed()
    feed.call('{"q":"', index=0, identity="a", name="look")
    feed.text("t")
    for _ in range(20_000):  # scanning everything each time would read 2 billion characters
        feed.call("x" * 10, index=0)
    assert feed.call('"}', index=0)[-1] == "t"


# any interleaving

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[]é🙂\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"}', max_size=2), inner, max_size=3),
    max_leaves=6,
)
INPUTS = st.one_of(
    st.just(""),
    st.dictionaries(st.text("ab}", max_size=3), VALUES, max_size=3).map(json.dumps),
    st.dictionaries(st.text("ab", max_size=3), VALUES, min_size=1, max_size=3).map(
        lambda value: json.dumps(value, ensure_ascii=False)[:-1]  # broke off
    ),
)
CALLS = st.lists(st.tuples(INPUTS, st.booleans()), min_size=1, max_size=4)


@pytest.mark.slow
@pytest.mark.clause("5.9")
@settings(derandomize=True, deadline=None, max_examples=200)
@given(calls=CALLS, seed=st.integers(0, 1 << 32))
def test_any_interleaving_is_released_completely_and_in_order(calls: list[tuple[str, bool]], seed: int) -> None:
    """Compared with a model that records the order in which items began, and the pieces of each."""
    feed, chance = Feed(), random.Random(seed)
    said: list[Any] = []  # texts, and the indexes of calls, in the order they began
    left = {index: arguments for index, (arguments, _) in enumerate(calls)}
    sent: dict[int, str] = defaultdict(str)
    names = [f"tool{index}" for index in range(len(calls))]
    while left:
        step: Any = chance.choice([*left, "text", "thought"])
        if isinstance(step, str):
            delta = f"text {len(said)}" if step == "text" else Thinking(f"thought {len(said)}")
            said.append(delta)
            feed.text(delta)
        else:
            piece = left[step][: chance.randint(0, len(left[step]))]
            first = step not in sent
            identity = f"id{step}" if calls[step][1] and first else None
            feed.call(piece, index=step, identity=identity, name=names[step] if first else None)
            said += [step] if first else []
            sent[step] += piece
            left[step] = left[step][len(piece) :]
            if not left[step]:
                del left[step]
        check_nothing_waits_without_reason(feed, said, sent, names)
    for block, item in zip(feed.end(), said, strict=True):
        if isinstance(item, int):
            assert block[1] == names[item]
            assert_is_the_object(block[2], sent[item])
        else:
            assert block == item
    identities = [block[0] for block in blocks(feed.out) if isinstance(block, tuple)]
    assert len(set(identities)) == len(identities) == len(calls)
    assert {f"id{index}" for index, (_, given_one) in enumerate(calls) if given_one} <= set(identities)


def check_nothing_waits_without_reason(feed: Feed, said: list[Any], sent: dict[int, str], names: list[str]) -> None:
    """Every item that something follows is released up to the first incomplete call; of that call all but a token."""
    released = blocks(feed.out)
    due = next((n for n, item in enumerate(said) if isinstance(item, int) and not is_json(sent[item])), len(said))
    assert len(released) >= min(due, len(said) - 1)
    for block, item in zip(released, said, strict=False):
        if not isinstance(item, int):
            assert block == item
            continue
        assert block[1] == names[item]
        assert sent[item].startswith(block[2])
        assert HELD_TOKEN.fullmatch(sent[item][len(block[2]) :])


HELD_TOKEN = re.compile(r",?\s*(?:[a-zA-Z]*|-?[0-9.eE+-]*)|\\(?:u[0-9a-f]{0,3})?")


def assert_is_the_object(released: str, sent: str) -> None:
    """`released` is the object that was sent; if that broke off, an object that begins like it."""
    value = json.loads(released or "{}")
    assert isinstance(value, dict)
    if is_json(sent):
        assert value == json.loads(sent)
    else:
        assert list(value)[:-1] == list(parse_tool_input(sent) or {})[: len(value) - 1]


def is_json(value: str) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True
