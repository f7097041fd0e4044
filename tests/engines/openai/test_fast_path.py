"""The fast path through a stream against the general path, which parses every chunk: both give the same deltas.

The general path, `SSEParser` and `ChunkReader`, is the oracle.
"""

import json
import random
import sys
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import pytest

from anthro_asgi.engines.openai import fast_path as module
from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.chunk_template import ChunkTemplate, learn_template
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.engines.openai.think_tags import ThinkTagFilter
from anthro_asgi.upstream.sse import SSEParser
from anthro_asgi.wire.deltas import Delta, ToolStart, deltas_of
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.errors import ApiError, Overloaded
from tests.replay import Case, cases

Json = dict[str, Any]
Outcome = tuple[list[Delta], str]
STREAMS = cases(request="POST /v1/chat/completions", status=200, streamed=True)
TEXTS = (
    " the",
    "a",
    "\n",
    'say "hi"',
    "\\",
    " café",
    " 漢字",
    "🙂",
    " 42",
    "</think>",
    "<think>",
    "{}",
    "\u2028",
    "x" * 600,
)


class CountingReader(ChunkReader):
    """Counts the chunks that it parses."""

    parsed = 0

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        payloads = list(payloads)
        self.parsed += len(payloads)
        super()._read(payloads, out)


def new_reader(tags: bool) -> CountingReader:
    numbers = count(1)
    return CountingReader(
        ["STOP"], lambda: f"toolu_{next(numbers)}", tags=ThinkTagFilter(opened=False) if tags else None
    )


def general_path(reads: list[bytes], *, tags: bool = False) -> Outcome:
    reader, parser = new_reader(tags), SSEParser()
    out: list[Delta] = []
    try:
        for data in reads:
            out += reader.feed(parser.feed(data))
        out += reader.feed(parser.end())
        out += reader.end()
    except ApiError as exc:
        return out, f"{type(exc).__name__}: {exc}"
    return out, "complete"


def fast_path(reads: list[bytes], *, tags: bool = False) -> Outcome:
    reader = FastChunkReader(new_reader(tags))
    out: list[Delta] = []
    try:
        for data in reads:
            out += deltas_of(reader.read(data))
        out += reader.rest()
        out += reader.end()
    except ApiError as exc:
        return out, f"{type(exc).__name__}: {exc}"
    return out, "complete"


def parsed(reads: list[bytes]) -> int:
    """The number of chunks that were parsed."""
    reader = new_reader(tags=False)
    short = FastChunkReader(reader)
    for data in reads:
        short.read(data)
    return reader.parsed


def cut(body: bytes, rng: random.Random, longest: int) -> list[bytes]:
    pieces = []
    while body:
        size = rng.randint(1, longest)
        pieces.append(body[:size])
        body = body[size:]
    return pieces


def events(body: bytes) -> list[bytes]:
    """One event per read, as engines write them."""
    return [event + b"\n\n" for event in body.split(b"\n\n") if event]


# ---- recordings


@pytest.mark.slow
@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_every_recording_gives_the_same_deltas_on_both_paths_however_it_is_cut(case: Case) -> None:
    rng = random.Random(case.file)
    body = case.content
    for reads in ([body], events(body), cut(body, rng, 40), cut(body, rng, 400), cut(body, rng, 4000)):
        for tags in (False, True):
            assert fast_path(reads, tags=tags) == general_path(reads, tags=tags)


# ---- generated streams in the style of each engine


def vllm(delta: Json, number: int) -> Json:
    usage = {"prompt_tokens": 9, "total_tokens": 9 + number, "completion_tokens": number}
    return chunk(delta, {"logprobs": None}, usage=usage | {"completion_tokens_details": {"reasoning_tokens": 0}})


def llamacpp(delta: Json, number: int) -> Json:
    return {"choices": [{"finish_reason": None, "index": 0, "delta": delta}], "created": 17 + number // 50, "id": "c"}


def sglang(delta: Json, number: int) -> Json:
    return chunk({"role": None, "reasoning_content": None} | delta, {"matched_stop": None}, usage=None)


def counting_first(delta: Json, number: int) -> Json:
    return {"usage": {"completion_tokens": number}} | chunk(delta, {})


def padded(delta: Json, number: int) -> Json:
    return chunk(delta, {}, obfuscation="x" * (number * 7 % 11))


def chunk(delta: Json, more: Json, **keys: Any) -> Json:
    return {"id": "c1", "object": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None} | more]} | keys


STYLES: list[Callable[[Json, int], Json]] = [vllm, llamacpp, sglang, counting_first, padded]


def tool(arguments: str, **more: Any) -> Json:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}} | more]}


def deltas(rng: random.Random) -> list[Json]:
    """Runs of text, thinking and arguments in an order that no model produces."""
    out: list[Json] = []
    for _ in range(rng.randint(1, 5)):
        length = rng.randint(1, 12)
        match rng.randrange(4):
            case 0:
                out += [{rng.choice(["reasoning", "reasoning_content"]): rng.choice(TEXTS)} for _ in range(length)]
            case 1:
                key = rng.randrange(2)
                start = {"index": key, "id": f"call_{key}", "function": {"name": "f", "arguments": ""}}
                out.append({"tool_calls": [start]})
                out += [tool(rng.choice(['{"a":', '"b"', "}", "1", "\\"]), index=key) for _ in range(length)]
            case _:
                field = rng.choice(["content"] * 9 + ["refusal"])
                out += [{field: rng.choice((*TEXTS, ""))} for _ in range(length)]
    return out


def stream(style: Callable[[Json, int], Json], rng: random.Random) -> list[bytes]:
    """The events of a random stream, ready to send."""
    spaces = rng.choice([(",", ":"), (", ", ": ")])
    says = [style(delta, number) for number, delta in enumerate(deltas(rng), rng.choice([1, 7, 95]))]
    end: Json = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    lines = [json.dumps(said, ensure_ascii=rng.random() < 0.2, separators=spaces) for said in (*says, end)]
    return [b"data: %b\n\n" % line.encode() for line in lines] + [b"data: [DONE]\n\n"]


def mangled(event: bytes, rng: random.Random) -> bytes:
    """The event, broken or written in an unusual way."""
    place = rng.randrange(6, len(event) - 2)
    match rng.randrange(5):
        case 0:
            return event[:place] + rng.choice(b'"\\{}[]:,0n\x00\xff \n').to_bytes() + event[place + 1 :]
        case 1:
            return event[:place] + event[place + 1 :]
        case 2:
            return event.replace(b"data: ", rng.choice([b"data:", b": note\ndata: ", b"event: x\ndata: ", b""]))
        case 3:
            return event.replace(b"\n\n", rng.choice([b"\r\n\r\n", b"\n", b"\n\n\n"]))
        case _:
            return event[:place] + event[place:].replace(b"0", b"00", 1)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
@pytest.mark.parametrize("wrong", [0.0, 0.1], ids=["well formed", "mangled"])
def test_random_streams_give_the_same_deltas_on_both_paths(style: Callable[[Json, int], Json], wrong: float) -> None:
    for seed in range(300):
        rng = random.Random(f"{style.__name__} {wrong} {seed}")
        said = [mangled(event, rng) if rng.random() < wrong else event for event in stream(style, rng)]
        body = b"".join(said)
        for reads in (said, [body], cut(body, rng, rng.choice([30, 300, 3000]))):
            tags = rng.random() < 0.3
            assert fast_path(reads, tags=tags) == general_path(reads, tags=tags), seed


@pytest.mark.parametrize(
    "hostile",
    [
        b'"a","content":"b"',
        b'"a"},"delta":{"content":"b"',
        b'"a\\"',
        b'"a" , "x": "b"',
        b' "a" ',
        b"null",
        b"7",
        b'["a"]',
        b'"\\ud83d"',
        b'"\xff"',
        b'"a\nb"',
        b'""',
        b'"a',
        b"",
    ],
)
def test_a_value_that_is_not_one_string_goes_to_the_general_path(hostile: bytes) -> None:
    for style in STYLES:
        normal = [b"data: %b\n\n" % json.dumps(style({"content": "x"}, number)).encode() for number in range(11, 15)]
        odd = normal[3].replace(b'"x"', hostile)
        for reads in ([*normal, odd], [b"".join([*normal, odd])], [*normal, odd + normal[1]]):
            assert fast_path(reads) == general_path(reads)


def word(finish: str | None = None) -> bytes:
    """An event with the text `word`."""
    said = chunk({"content": "word"}, {"finish_reason": finish})
    return b"data: %b\n\n" % json.dumps(said).encode()


def test_a_read_that_ends_after_the_text_waits_for_the_rest_of_the_event() -> None:
    last = word("stop")
    place = last.index(b'"word"') + len(b'"word"')
    for reads in ([word()] * 3 + [last[:place], last[place:]], [word() * 3 + last[:place], last[place:]]):
        assert fast_path(reads) == general_path(reads)
        assert fast_path(reads)[1] == "complete"


def test_bytes_that_only_end_like_an_event_are_ignored() -> None:
    tail = word()[word().index(b'"word"') :]
    for reads in ([word(), word(), tail, word()], [word() * 2 + tail + word()]):
        assert fast_path(reads) == general_path(reads)
        assert fast_path(reads)[0] == ["word"] * 3


def test_string_fragments_that_add_up_to_the_number_of_events_are_not_taken_for_texts() -> None:
    odd = [word().replace(b'"word"', literal) for literal in (b'"a","b"', b'"c', b'd"')]
    for reads in ([word() * 2 + b"".join(odd) + word()], [word(), b"".join(odd), word()]):
        assert fast_path(reads) == general_path(reads)
        assert fast_path(reads)[1].startswith("BadUpstream")


def test_texts_of_one_read_are_encoded_as_if_each_arrived_alone() -> None:
    for texts in (["a", "\n", '"', "\\", "漢"], ["a", "\u2028", "b"]):
        for ascii_only in (False, True):
            says = [chunk({"content": text}, {}) for text in ("first", *texts)]
            said = [b"data: %b\n\n" % json.dumps(it, ensure_ascii=ascii_only).encode() for it in says]
            written = []
            for reads in (said, [said[0], b"".join(said[1:])]):
                encoder = StreamEncoder("msg_1", "m", lambda: 1)
                encoder.start()
                reader = FastChunkReader(new_reader(tags=False))
                written.append(b"".join(encoder.feed(reader.read(data)) for data in reads))
            assert written[0] == written[1]


def test_deltas_read_together_with_an_error_are_returned_before_it() -> None:
    normal = b"data: %b\n\n" % json.dumps(chunk({"content": "x"}, {})).encode()
    asks: list[Callable[[FastChunkReader], Any]] = [FastChunkReader.over, lambda reader: reader.read(normal)]
    for ask in asks:  # the first call after the deltas raises the error, and the reader then holds it no more
        reader = FastChunkReader(new_reader(tags=False))
        reader.read(normal)
        assert reader.read(normal * 2 + b'data: {"error":{"message":"gone","code":503}}\n\n') == ["x", "x"]
        with pytest.raises(Overloaded):
            ask(reader)


def test_a_complete_call_in_each_chunk_is_a_separate_call() -> None:
    said = llamacpp({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}, 1)
    reads = [b"data: %b\n\n" % json.dumps(said).encode()] * 5
    assert fast_path(reads) == general_path(reads)
    assert sum(isinstance(delta, ToolStart) for delta in general_path([*reads, word("stop")])[0]) == 5


def test_arguments_for_an_earlier_call_are_not_given_to_the_next_call() -> None:
    def start(index: int) -> Json:
        return {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": ""}}

    both = {"tool_calls": [start(1), {"index": 1, "function": {"arguments": "{"}}]}  # never a template
    says = [{"tool_calls": [start(0)]}, tool("{"), tool("}"), both, tool(" "), tool(" "), tool("}", index=1)]
    said = [b"data: %b\n\n" % json.dumps(llamacpp(it, 1)).encode() for it in says] + [word("stop")]
    assert fast_path(said) == general_path(said)


@pytest.mark.parametrize(
    "counts",
    [(int("1" * 20), int("1" * 19 + "2"), int("9" * 20)), (10**18, 10**18 + 1), (1, 1.5), (10, 20), (1e3, 2e3)],
)
def test_the_latest_counts_are_reported_whatever_their_form(counts: tuple[float, ...]) -> None:
    said = [chunk({"content": "x"}, {}, usage={"prompt_tokens": 9, "completion_tokens": it}) for it in counts]
    reads = [b"data: %b\n\n" % json.dumps(it).encode() for it in said] + [word("stop")]
    for read in (reads, [b"".join(reads)]):
        assert fast_path(read) == general_path(read)


def test_a_template_is_verified_against_its_chunk() -> None:
    said = chunk({"content": "x"}, {})
    assert learn_template(json.dumps(said).encode(), said) is not None
    assert learn_template(json.dumps(said).encode(), said | {"id": "another"}) is None
    assert learn_template(json.dumps(said, indent=1).encode(), said) is None


# ---- which path is taken


@pytest.mark.parametrize("style", [vllm, llamacpp, sglang], ids=lambda style: style.__name__)
@pytest.mark.parametrize("together", [1, 8])
def test_a_steady_stream_of_text_is_read_on_the_fast_path(style: Callable[[Json, int], Json], together: int) -> None:
    said = [b"data: %b\n\n" % json.dumps(style({"content": f" {n}"}, n)).encode() for n in range(400)]
    reads = [b"".join(said[begin : begin + together]) for begin in range(0, 400, together)]
    assert parsed(reads) <= 40  # the first, and one for each new shape of the counts or of `created`


@pytest.mark.parametrize("delta", [{"reasoning": "hm"}, {"reasoning_content": "hm"}, tool("1"), tool("1", id=None)])
def test_a_steady_stream_of_thinking_or_arguments_is_read_on_the_fast_path(delta: Json) -> None:
    start = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"'}}]}
    said = [b"data: %b\n\n" % json.dumps(vllm(it, 500)).encode() for it in [start] + [delta] * 200]
    assert parsed(said) <= 5
    assert fast_path(said) == general_path(said)


def test_learning_stops_when_no_template_ever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bytes] = []

    def counted(payload: bytes, chunk: Json) -> ChunkTemplate | None:
        tries.append(payload)
        return learn_template(payload, chunk)

    monkeypatch.setattr(module, "learn_template", counted)
    said = [chunk({"content": "x"}, {}, padding="y" * number) for number in range(100)]
    parsed([b"data: %b\n\n" % json.dumps(it).encode() for it in said])
    assert 0 < len(tries) < 10


def test_a_long_call_keeps_few_of_its_pieces() -> None:
    start = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"'}}]}
    reader = new_reader(tags=False)
    short = FastChunkReader(reader)
    for said in [start] + [tool("1")] * 1000:
        short.read(b"data: %b\n\n" % json.dumps(llamacpp(said, 1)).encode())
    assert len(reader._calls._queue[0].arguments._object._recent) <= 65  # type: ignore[union-attr]


def test_a_token_allocates_no_lasting_memory() -> None:
    start = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"'}}]}
    for first, delta in (
        ({"content": "a"}, {"content": "b"}),
        ({"reasoning": "a"}, {"reasoning": "b"}),
        (start, tool("1")),
    ):
        short = FastChunkReader(new_reader(tags=False))
        encoder = StreamEncoder("msg_1", "m", lambda: 1)
        encoder.start()
        said = [b"data: %b\n\n" % json.dumps(vllm(it, 500)).encode() for it in (first, *[delta] * 130)]
        for data in said:
            encoder.feed(short.read(data))
        before = sys.getallocatedblocks()
        for _ in range(65 * 40):  # whole rounds of what a call looks at together
            encoder.feed(short.read(said[-1]))
        assert sys.getallocatedblocks() - before < 100
