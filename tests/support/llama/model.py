"""A chat model of 280 kB whose every answer is known, written as a GGUF file with the standard library.

Theory. A language model is a function from the tokens so far to a score for each next token. Here the score shall
depend on the last token alone (a bigram chain), and be exact. So:

- every tensor inside the one transformer block is zero: a block adds nothing, and the last hidden state is the
  embedding of the last token;
- an embedding is a row of the Walsh matrix of order `WIDTH`. Its entries are +1 and -1, so RMS normalisation leaves it
  as it is; two different rows are orthogonal. A token whose successor matters has a row of its own: it is a *state*.
  All others share row 0, the state of rest;
- the scores are a second matrix times that row. `weight * row / WIDTH` in the line of token *t* scores `weight` in
  the row's state and exactly zero in any other; the rows' first column is always +1, so a number there scores in all
  states alike and ranks the tokens where no state decides.

What a state prefers beats every rank; what it prefers in the second place comes up where a grammar forbids the first.
That is how a required tool call comes about: the sentence is over, its end is forbidden, so a call begins; then
the grammar leaves few tokens open and the best rank of them wins. Scores lie `GAP` apart or more, so that a sampler at
any usual temperature always takes the best: same prompt or not, same bytes.

The file format is GGUF, version 3: a header, typed key-value pairs, the tensors' descriptions, then their data, each
at a multiple of 32 bytes.
"""

import itertools
import re
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Each word occurs once in all sentences together: a token has one successor.
ANSWER = (
    "Hello! I am a model made by hand, so whatever you ask, this very sentence is what comes back: plain words, then "
    "café, 漢字 and one 🙂 at its end."
)
THINKING = "They want something; mine must do."
ARGUMENT = "Paris"  # the value of every free string in a tool's input

WIDTH = 128
GAP = 16.0
FIRST, SECOND = 16384.0, 8192.0  # above the lowest rank (tokens * GAP) by far, and exact in half precision
CONTEXT = 32768
HEADS = 4  # query heads; there is one key head

Vector = list[float]


class Kind:
    """Token types of the format."""

    NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


# ---------------------------------------------------------------------------------------------------- vocabulary


def _alphabet() -> list[str]:
    """The printable character for each byte of a byte-level vocabulary (GPT-2's convention)."""
    itself = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in itself else next(spare)) for byte in range(256)]


ALPHABET = _alphabet()


def _spell(data: bytes) -> str:
    return "".join(ALPHABET[byte] for byte in data)


def _pieces(sentence: str) -> list[bytes]:
    """The words of a sentence, each with the space before it; an emoji is cut in the middle.

    Engines meet characters that span tokens all the time: one token then gives no text, the next gives it all.
    """
    return re.split(rb"(?= )|(?<=\xf0\x9f)", sentence.encode())


@dataclass
class Chain:
    """The vocabulary, and the successors of each token."""

    names: list[str] = field(default_factory=lambda: [_spell(bytes([byte])) for byte in range(256)])
    kinds: list[int] = field(default_factory=lambda: [Kind.NORMAL] * 256)
    states: dict[int, int] = field(default_factory=dict)  # token → its Walsh row
    follows: list[tuple[int, int, float]] = field(default_factory=list)  # row, next token, weight

    def token(self, name: str, kind: int = Kind.NORMAL) -> int:
        if name in self.names:
            raise ValueError(f"two tokens {name!r}: a chain cannot tell them apart")
        self.names.append(name)
        self.kinds.append(kind)
        return len(self.names) - 1

    def then(self, token: int, *choices: int) -> None:
        """`token` is followed by the first of `choices`, or by the second where a grammar forbids the first."""
        row = self.states.setdefault(token, len(self.states) + 1)
        self.follows += [(row, choice, weight) for choice, weight in zip(choices, (FIRST, SECOND), strict=False)]

    def say(self, sentence: str) -> tuple[int, int]:
        """Tokens for the sentence, each followed by the next. Returns the first and the last."""
        tokens = [self.token(_spell(piece)) for piece in _pieces(sentence)]
        for token, following in itertools.pairwise(tokens):
            self.then(token, following)
        return tokens[0], tokens[-1]

    def at_rest(self, token: int) -> None:
        """`token` follows every token that is not a state: any prompt."""
        self.follows.append((0, token, FIRST))


@dataclass
class Model:
    chain: Chain
    end: int  # of a turn
    pad: int
    ranks: list[int]  # tokens, the best first


def _model() -> Model:
    chain = Chain()
    pad, _start, end = (chain.token(name, Kind.CONTROL) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    call, called, think, thought = (
        chain.token(name, Kind.USER_DEFINED) for name in ("<tool_call>", "</tool_call>", "<think>", "</think>")
    )
    opening, blank, argument = (chain.token(_spell(text)) for text in (b'\n{"name": "', b"\n\n", ARGUMENT.encode()))
    quote = ord('"')

    first, last = chain.say(ANSWER)
    chain.at_rest(first)
    chain.then(last, end, call)
    first, last = chain.say(THINKING)
    chain.then(think, first)
    chain.then(last, thought)
    chain.then(thought, blank)
    chain.then(call, opening)
    chain.then(called, end)
    chain.then(quote, end, argument)
    chain.then(argument, quote)
    return Model(chain, end, pad, _ranks(chain, called))


def _ranks(chain: Chain, called: int) -> list[int]:
    """The preference where a grammar decides: close what is open, then continue, and white space last."""
    favoured = [*b'"}]', called, *b",:4t"]
    printable = [byte for byte in range(33, 127) if byte not in favoured]
    seen = {*favoured, *printable}
    return [*favoured, *printable, *(token for token in range(len(chain.names) - 1, -1, -1) if token not in seen)]


# ---------------------------------------------------------------------------------------------------- matrices


def _walsh(row: int) -> Vector:
    return [-1.0 if (row & column).bit_count() % 2 else 1.0 for column in range(WIDTH)]


def _embeddings(chain: Chain) -> list[Vector]:
    if len(chain.states) >= WIDTH:
        raise ValueError(f"{len(chain.states)} states do not fit {WIDTH} orthogonal rows with one to rest")
    rest = _walsh(0)
    return [_walsh(chain.states[token]) if token in chain.states else rest for token in range(len(chain.names))]


def _scores(model: Model) -> list[Vector]:
    lines = [[0.0] * WIDTH for _ in model.ranks]
    for row, token, weight in model.chain.follows:
        lines[token] = [old + weight / WIDTH * sign for old, sign in zip(lines[token], _walsh(row), strict=True)]
    for rank, token in enumerate(model.ranks):
        lines[token][0] -= GAP * rank
    return lines


# ---------------------------------------------------------------------------------------------------- the file


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _uint(value: int) -> tuple[int, bytes]:
    return 4, struct.pack("<I", value)


def _float(value: float) -> tuple[int, bytes]:
    return 6, struct.pack("<f", value)


def _bool(value: bool) -> tuple[int, bytes]:
    return 7, struct.pack("<?", value)


def _text(value: str) -> tuple[int, bytes]:
    return 8, _string(value)


def _array(kind: int, items: Sequence[bytes]) -> tuple[int, bytes]:
    return 9, struct.pack("<IQ", kind, len(items)) + b"".join(items)


def _metadata(model: Model, template: str) -> dict[str, tuple[int, bytes]]:
    chain = model.chain
    return {
        "general.architecture": _text("llama"),
        "general.name": _text("one-sentence"),
        "llama.context_length": _uint(CONTEXT),
        "llama.embedding_length": _uint(WIDTH),
        "llama.block_count": _uint(1),
        "llama.feed_forward_length": _uint(WIDTH // HEADS),
        "llama.attention.head_count": _uint(HEADS),
        "llama.attention.head_count_kv": _uint(1),
        "llama.attention.layer_norm_rms_epsilon": _float(1e-6),
        "llama.rope.dimension_count": _uint(WIDTH // HEADS),
        "llama.vocab_size": _uint(len(chain.names)),
        "tokenizer.ggml.model": _text("gpt2"),
        "tokenizer.ggml.pre": _text("qwen2"),
        "tokenizer.ggml.tokens": _array(8, [_string(name) for name in chain.names]),
        "tokenizer.ggml.token_type": _array(5, [struct.pack("<i", kind) for kind in chain.kinds]),
        # The loader wants one merge at least; this one joins two spaces into a token that does not exist.
        "tokenizer.ggml.merges": _array(8, [_string(" ".join(_spell(b"  ")))]),
        "tokenizer.ggml.bos_token_id": _uint(model.pad),
        "tokenizer.ggml.eos_token_id": _uint(model.end),
        "tokenizer.ggml.padding_token_id": _uint(model.pad),
        "tokenizer.ggml.add_bos_token": _bool(False),
        "tokenizer.chat_template": _text(Path(__file__).with_name(template).read_text()),
    }


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]  # the fastest dimension first
    kind: int  # 0 single precision, 1 half
    data: bytes


def _half(name: str, lines: Sequence[Vector]) -> Tensor:
    flat = [value for line in lines for value in line]
    return Tensor(name, (WIDTH, len(lines)), 1, struct.pack(f"<{len(flat)}e", *flat))


def _zeros(name: str, columns: int, lines: int) -> Tensor:
    return Tensor(f"blk.0.{name}.weight", (columns, lines), 1, bytes(2 * columns * lines))


def _ones(name: str) -> Tensor:
    return Tensor(name, (WIDTH,), 0, struct.pack("<f", 1.0) * WIDTH)


def _tensors(model: Model) -> list[Tensor]:
    narrow = WIDTH // HEADS
    return [
        _half("token_embd.weight", _embeddings(model.chain)),
        _half("output.weight", _scores(model)),
        *map(_ones, ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")),
        *(_zeros(name, WIDTH, WIDTH) for name in ("attn_q", "attn_output")),
        *(_zeros(name, WIDTH, narrow) for name in ("attn_k", "attn_v", "ffn_gate", "ffn_up")),
        _zeros("ffn_down", narrow, WIDTH),
    ]


def _padding(length: int) -> bytes:
    return bytes(-length % 32)


def _described(tensors: Iterable[Tensor]) -> tuple[bytes, bytes]:
    """The descriptions of the tensors, and their data."""
    head, data = b"", b""
    for tensor in tensors:
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += _string(tensor.name) + shape + struct.pack("<IQ", tensor.kind, len(data))
        data += tensor.data + _padding(len(tensor.data))
    return head, data


def write_model(path: str | Path, template: str = "template.jinja") -> None:
    """Write the model to `path`, the same bytes each time. `template` is a file of this folder."""
    model = _model()
    pairs, tensors = _metadata(model, template), _tensors(model)
    described, data = _described(tensors)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(_string(key) + struct.pack("<I", kind) + value for key, (kind, value) in pairs.items())
    head += described
    Path(path).write_bytes(head + _padding(len(head)) + data)


if __name__ == "__main__":
    write_model(sys.argv[1])
