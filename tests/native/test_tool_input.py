"""The arguments of tool calls through the pump. `JsonObject`, and the Python path, are the oracles."""

import json
import random

import orjson
import pytest

from anthro_asgi.engines.shared.event_pieces import PIECE
from anthro_asgi.engines.shared.tool_arguments import JsonObject
from tests.engines.openai.test_fast_path import STREAMS, cut, events
from tests.replay import Case
from tests.support.pump_owner import (
    AFTER,
    BEFORE,
    CLOSING,
    COUNTED,
    LARGE,
    NUMBERLESS,
    OPENING,
    Owner,
    converted,
    event,
)
from tests.support.pumped import HEAD, Relay, framed, relayed
from tests.support.tool_pieces import arguments, pieces, spoiled, stream

DEEPEST = 100  # brackets
LONGEST = 64  # bytes of white space after a comma, or of a number, that a pump holds back


class Caller(Owner):
    """Takes the input too. `read` is the text so far."""

    read = ""

    def sync(self) -> None:
        self.read += self.pump.take_input()[0]
        super().sync()


def chunk(piece: str) -> bytes:
    """An engine's HTTP chunk with a piece of arguments."""
    return framed(event(json.dumps(piece).encode()))


def begun(place: bytes, owner: Owner | None = None) -> Owner:
    """A pump that goes on at `place`."""
    owner = Caller() if owner is None else owner
    owner.pump.arm(BEFORE, AFTER, b"", OPENING, CLOSING, LARGE, place)
    return owner


def released(owner: Owner, piece: str) -> str | None:
    """What the pump writes for a piece; None if it hands it back."""
    owner.written.clear()
    owner.pump.data_received(chunk(piece))
    if owner.back:
        assert owner.back == [chunk(piece)]
        assert owner.written == []
        return None
    if not owner.written:
        return ""
    (sent,) = owner.written
    text = sent.partition(OPENING)[2].removesuffix(CLOSING + b"\r\n")
    assert converted(text) == sent
    found: str = orjson.loads(text)
    assert text == orjson.dumps(found)
    return found


# ---- against Python's machine


def test_the_pump_releases_what_python_releases_and_hands_back_what_python_repairs() -> None:
    relayed_pieces = refused = 0
    for seed in range(1500):
        rng = random.Random(seed)
        text = arguments(rng)
        is_spoiled = rng.random() < 0.4
        if is_spoiled:
            text = spoiled(text, rng)
        oracle = JsonObject()
        owner: Owner | None = None
        for part in pieces(text, rng):
            if owner is None and oracle.place():
                owner = begun(oracle.place())
            was_repaired = oracle.repaired
            expected = oracle.feed(part)
            found = None if owner is None else released(owner, part)
            if found is not None:
                assert oracle.repaired is was_repaired, (seed, part)
                assert not oracle.broken, (seed, part)
                assert found == expected, (seed, part)
                relayed_pieces += 1
            elif owner is not None:
                assert is_spoiled or " " * LONGEST in text, (seed, part)
                refused += 1
                owner = None
    assert relayed_pieces > 20_000
    assert refused > 200


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        (b"{k", ['"a"', ":", "1", "}"]),
        (b'{"', ["Par", 'is"', ",", ' "b', '": ', "tr", "ue", "}"]),
        (b"{K", ["x", "\\", "n", "\\u0", "0e9", '":[', "]", "}"]),
        (b"{v", ["-", "1", ".", "5", "e", "+", "3", ", ", '"b":', "null", "}"]),
        (b"{[,", [", ", "\n", "fal", "se", "\t]", "}"]),
        (b"{[v", ["]", "}"]),
        (b"{:", [" :", ' "\\"', '"}']),
    ],
)
def test_the_pump_goes_on_at_each_place(place: bytes, parts: list[str]) -> None:
    owner = begun(place)
    found = [released(owner, part) for part in parts]
    assert "".join(text for text in found if text is not None) == "".join(parts)
    assert None not in found
    assert released(owner, " ") is None
    text, silent = owner.pump.take_input()
    assert text == "".join(parts)
    assert silent == found.count("")


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        (b"{v", ["True", "}"]),
        (b"{v", ["01", ","]),
        (b"{v", ["1.", "}"]),
        (b"{v", ["nul", "}"]),
        (b"{v", ["1", " ", "2"]),
        (b"{v", ["'a'"]),
        (b"{v", ["é"]),
        (b"{v", ["}"]),
        (b"{v", ["]"]),
        (b"{k", ["1"]),
        (b"{k", ["{"]),
        (b"{k", [":"]),
        (b"{:", ["1"]),
        (b"{:", [","]),
        (b"{,", [",", "}"]),
        (b"{,", [",", ","]),
        (b"{[,", [",", "]"]),
        (b"{[,", ["}"]),
        (b"{,", ['"']),
        (b"{,", ["}", "x"]),
        (b'{"', ["\n"]),
        (b'{"', ["\x00"]),
        (b'{"', ["\\", "x"]),
        (b'{"', ["\\'"]),
        (b'{"', ["\\u12", "g4"]),
        (b'{"', ["\ud83d"]),
        (b"{v", ["1" * 65]),
        (b"{,", ["," + " " * 64]),
        (b"{" * DEEPEST + b"v", ["{"]),
        (b"{" * DEEPEST + b"v", ["["]),
    ],
)
def test_what_python_repairs_or_a_pump_cannot_hold_is_handed_back(place: bytes, parts: list[str]) -> None:
    owner = begun(place)
    for part in parts[:-1]:
        assert released(owner, part) is not None
    assert released(owner, parts[-1]) is None
    assert owner.pump.take_input()[0] == "".join(parts[:-1])


def test_a_chunk_that_is_handed_back_leaves_no_trace() -> None:
    owner = begun(b"{v")
    first, second = framed(event(b'"[1"') + event(b'","')), framed(event(b'"2]"') + event(b'"x"'))
    owner.pump.data_received(first + second)
    assert (owner.written, owner.back) == ([converted(b'"[1"')], [second])
    assert owner.pump.take() == (2, b"", [100.0])
    assert owner.pump.take_input() == ("[1,", 1)
    owner.back.clear()
    assert released(owner, "2]}") == ",2]}"


def test_pieces_of_which_nothing_can_be_released_are_no_events_and_no_writes() -> None:
    owner = begun(b"{,")
    owner.pump.data_received(chunk(","))
    assert owner.written == []
    assert owner.pump.take() == (1, b"", [])
    assert owner.pump.take_input() == (",", 1)
    owner.pump.data_received(framed(event(b'" "') + event(b'"\\"a"') + event(b'"\\\\"')))
    assert owner.written == [converted(b'", \\"a"')]
    assert owner.pump.take() == (3, b"", [100.0])
    assert owner.pump.take_input() == (' "a\\', 2)


def test_counts_of_a_piece_of_which_nothing_can_be_released_are_kept() -> None:
    owner = Owner()
    owner.pump.arm(BEFORE, COUNTED, NUMBERLESS, OPENING, CLOSING, LARGE, b"{,")
    counts = NUMBERLESS.replace(b"0", b"5")
    owner.pump.data_received(framed(BEFORE + b'","' + COUNTED + counts))
    assert owner.pump.take() == (1, counts, [])


def test_converting_alone_changes_nothing() -> None:
    pump = begun(b"{v").pump
    for _ in range(2):
        assert pump.convert(chunk("[1,"))[1] == converted(b'"[1"')
    assert pump.take_input() == ("", 0)


@pytest.mark.parametrize("place", [b"{", b"v", b"x", b"{x", b"[[k", b"[K", b"[:", b'"{', b"{" * 101 + b"v"])
def test_a_place_that_is_none_is_refused(place: bytes) -> None:
    with pytest.raises(ValueError, match="place"):
        begun(place)


def test_python_is_told_after_2_kib_of_arguments() -> None:
    owner = begun(b'{"')
    for _ in range(5):
        owner.pump.data_received(chunk("x" * 500))
    assert owner.calls == [(5, b"", [100.0] * 5)]
    assert owner.pump.take_input() == ("", 0)


def test_more_arguments_than_python_reads_at_once_are_handed_back() -> None:
    for pieces_of_a_read, relayed_pieces in (([PIECE], 1), ([PIECE + 1], 0), ([2000] * 4, 2)):
        owner = begun(b'{"')
        form = [chunk("x" * size) for size in pieces_of_a_read]
        owner.pump.data_received(b"".join(form))
        assert b"".join(owner.back) == b"".join(form[relayed_pieces:])
        assert owner.pump.take()[0] + sum(call[0] for call in owner.calls if isinstance(call, tuple)) == relayed_pieces


def test_a_place_is_known_unless_something_is_held_back() -> None:
    known = {
        '{"': b"{K",
        '{"a': b"{K",
        '{"a"': b"{:",
        '{"a":': b"{v",
        '{"a":"': b'{"',
        '{"a":[{': b"{[{k",
        '{"a":[0 ': b"{[,",
        '{"a":[]': b"{,",
    }
    for text, place in known.items():
        oracle = JsonObject()
        oracle.feed(text)
        assert oracle.place() == place
    for text in ("", '{"a":1', '{"a":tr', '{"a":"",', '{"a":"\\', '{"a":1}', '{"a"}'):
        oracle = JsonObject()
        oracle.feed(text)
        assert oracle.place() == b"", text


# ---- whole streams against the Python path


def test_random_calls_give_the_client_the_same_bytes_with_and_without_a_pump() -> None:
    relayed_pieces = 0
    for seed in range(600):
        rng = random.Random(seed)
        form = [framed(one) for one in stream(rng)]
        body = b"".join(form)
        for reads in (form, [body], cut(body, rng, rng.choice([30, 300, 3000]))):
            relay = Relay(pumped=True)
            for data in (HEAD, *reads):
                relay.receive(data)
            assert relay.end() == relayed(reads, pumped=False), seed
            relayed_pieces += relay.pumped_input
    assert relayed_pieces > 50_000


CALLING = [
    case for case in STREAMS if case.content.count(b'"arguments"') > 4 and b'"function_call"' not in case.content
]


@pytest.mark.parametrize("case", CALLING, ids=str)
def test_recorded_calls_are_relayed_by_a_pump(case: Case) -> None:
    """Not those that have few pieces, or each piece twice, as `tool_calls` and as `function_call`."""
    reads = [framed(one) for one in events(case.content)]
    relay = Relay(pumped=True)
    for data in (HEAD, *reads):
        relay.receive(data)
    assert relay.end() == relayed(reads, pumped=False)
    assert relay.pumped_input >= 4


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_steady_call_is_relayed_by_a_pump(spaced: bool, ascii_only: bool) -> None:
    value = {f"k{number}": [number, f"größer\n{number}", True, None, {"a": -1.5}] for number in range(40)}
    text = json.dumps(value, indent=2 if spaced else None, ensure_ascii=ascii_only)
    parts = [text[at : at + 4] for at in range(0, len(text), 4)]
    reads = [framed(b"data: %b\n\n" % json.dumps(delta).encode()) for delta in deltas_of_call(parts)]
    relay = Relay(pumped=True)
    for data in (HEAD, *reads):
        relay.receive(data)
    relay.end()
    assert relay.pumped_input >= len(parts) - 8


def deltas_of_call(parts: list[str]) -> list[object]:
    def delta(call: dict[str, object]) -> object:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}

    first = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    return [delta(first), *(delta({"index": 0, "function": {"arguments": part}}) for part in parts)]
