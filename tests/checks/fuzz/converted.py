"""Mutated chunks through the native conversion alone: what it converts means the same to a JSON parser.

A trial is a stream of one engine: chunks that match its template, with texts of all kinds, of which some are broken.
For what is converted, each event is parsed, and its text encoded again, by orjson. A stream that is not broken must be
converted as a whole. `pumped` compares whole streams with the Python path; this target is for millions of trials.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from tests.checks.fuzz.mutation import mangle
from tests.checks.fuzz.native_module import new_pump
from tests.checks.fuzz.running import Breach
from tests.support.pumped import Relay, chunks, framed

_OPENING, _CLOSING = b"event: content_block_delta\ndata: {", b"}}\n\n"
_LARGE = 1 << 20
_PIECES = (
    *(b" the", b"a", b"\\n", b'\\"', b"\\\\", b"\\/", b"\\u0041", b"\\u001f", b"\\u00E9", b"\\ud83d\\ude42", b"\x7f"),
    *(
        b"\xc3\xa9",
        b"\xe6\xbc\xa2",
        b"\xf0\x9f\x99\x82",
        b"x" * 70,
        b"{}",
        b"</think>",
        b"\xe2\x80\xa8",
        b"\\b\\f\\r\\t",
    ),
)
_BROKEN = (
    *(b'"', b"\\", b"\\x", b"\\u12", b"\\ud83d", b"\\ude42", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(b"\xc0\x80", b"\n", b"\x00", b"\xf0\x9f\x99"),
)
_TEMPLATES = (
    (b'data: {"choices":[{"delta":{"content":', b"}}]}\n\n", b""),
    (b'data: {"choices": [{"index": 0, "delta": {"reasoning": ', b'}, "finish_reason": null}]}\n\n', b""),
    (
        b'data: {"id":"c","choices":[{"delta":{"content":',
        b'}}],"usage":',
        b'{"prompt_tokens":0,"completion_tokens":0,"details":{"cached":0}}}\n\n',
    ),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """`data` is the body in HTTP chunks, `whole` whether nothing in it is broken."""

    data: bytes
    template: int
    whole: bool


class _Owner(Relay):
    """A pump needs an owner."""


class Converted:
    """See the module."""

    name = "converted"

    def __init__(self) -> None:
        if new_pump is None:
            raise RuntimeError("the extension module is not built: pip install -e . needs a C compiler")
        owner = _Owner(pumped=True)
        self._pumps = []
        for before, after, numberless in _TEMPLATES:
            pump = new_pump(owner, None, _ignore, _zero, _false, -1)
            pump.arm(before, after, numberless, _OPENING, _CLOSING, _LARGE)
            self._pumps.append(pump)

    def draw(self, rng: Random) -> Trial:
        number = rng.randrange(len(_TEMPLATES))
        before, after, numberless = _TEMPLATES[number]
        whole = rng.random() < 0.3
        events = []
        for _ in range(rng.choice((1, 2, 2, 3, 8))):
            text = b"".join(rng.choices(_PIECES, k=rng.choice((1, 1, 2, 5))))
            counts = numberless
            while b":0" in counts:
                counts = counts.replace(b":0", b":%d" % (1 + rng.randrange(10 ** rng.choice((1, 3, 15)) - 1)), 1)
            if not whole and rng.random() < 0.2:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(_BROKEN) + text[at:]
            events.append(before + b'"' + text + b'"' + after + counts)
        bodies = events if rng.random() < 0.6 else [b"".join(events)]
        data = framed(*bodies)
        if not whole and rng.random() < 0.7:
            data = mangle(data, rng)
        return Trial(data, number, whole)

    def check(self, trial: Trial) -> str:
        consumed, chunk, deltas, counts, waits = self._pumps[trial.template].convert(trial.data)
        body = b"".join(_bodies(trial.data[:consumed]))
        payloads = [event.removeprefix(b"data: ") for event in body.split(b"\n\n")[:-1]]
        expected = b"".join(_event(payload) for payload in payloads)
        found = b"".join(chunks(chunk))
        if (found, deltas) != (expected, len(payloads)):
            raise Breach(f"what is converted means the same\n{found!r}\n{expected!r}")
        numberless = _TEMPLATES[trial.template][2]
        if numberless and payloads:
            usage = orjson.loads(b'{"usage":' + counts)["usage"]
            if usage != orjson.loads(payloads[-1])["usage"]:
                raise Breach(f"the counts are those of the last event\n{counts!r}")
        if trial.whole and (consumed, waits) != (len(trial.data), True):
            raise Breach(f"what is not broken is converted\n{consumed} of {len(trial.data)}")
        return "whole" if consumed == len(trial.data) else "in part" if consumed else "not converted"


def _bodies(data: bytes) -> list[bytes]:
    """The bodies of HTTP chunks in any valid form: hexadecimal digits of both cases, leading zeros."""
    found = []
    while data:
        line, _, rest = data.partition(b"\r\n")
        size = int(line, 16)
        if not line.isalnum() or not size or rest[size : size + 2] != b"\r\n":
            raise Breach(f"only whole chunks are converted\n{data!r}")
        found.append(rest[:size])
        data = rest[size + 2 :]
    return found


def _event(payload: bytes) -> bytes:
    delta: dict[str, Any] = orjson.loads(payload)["choices"][0]["delta"]
    (text,) = delta.values()
    return orjson.dumps(text).join((_OPENING, _CLOSING))


def _ignore(data: bytes) -> None:
    pass


def _zero() -> int:
    return 0


def _false() -> bool:
    return False
