"""Arguments of tool calls in pieces, as engines send them, and streams of such calls. Some have to be repaired."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

_TEXTS: Final = (
    *(
        "a",
        "city",
        "Paris",
        "line\nline\n\tdef f():\n",
        'say "hi"',
        "\\",
        "C:\\new\\tab",
        "é漢🙂",
        "\x7f\u2028",
        "/",
        "",
    ),
    *("{}", '{"a":', "true,", "x" * 300, "\x00\x1f", "</tool_call>"),
)
_MOST: Final = 150  # pieces: more take long under sanitizers
_NUMBERS: Final = (0, 1, -1, 42, 3.25, -0.5, 1e30, 1.5e-7, 123456789012)
_SPACES: Final = ("", "", "", " ", "\n", "\n    ", "\t", "\r\n", " " * 70)
_SCRAPS: Final = (
    *(
        '"',
        "\\",
        "\\x",
        "\\u12",
        "\\ud83d",
        "'",
        ",",
        "}",
        "]",
        "{",
        "[",
        ":",
        "True",
        "None",
        "NaN",
        "01",
        "1.",
        "-",
        "e",
    ),
    *("\n", "\x00", "// no", "\ufeff", "}}", "undefined", "+1", ".5", "é"),
)


def arguments(rng: Random) -> str:
    """The text of a valid object."""
    spaces = _SPACES if rng.random() < 0.5 else ("", " ")
    if rng.random() < 0.5:
        return json.dumps(_object(rng, 3), ensure_ascii=rng.random() < 0.3)
    return _written(_object(rng, 4), rng, spaces)


def spoiled(text: str, rng: Random) -> str:
    """The text with something inserted, replaced, repeated or left out."""
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(text) + 1)
        to = min(len(text), at + rng.choice((0, 1, 1, 5)))
        text = text[:at] + rng.choice((rng.choice(_SCRAPS), rng.choice(_SCRAPS), text[at:to] * 2, "")) + text[to:]
    return text


def pieces(text: str, rng: Random) -> list[str]:
    """The text in pieces of a few characters each, or of many. The last one may be long."""
    longest = rng.choice((1, 2, 4, 4, 8, 8, 50, 700))
    found: list[str] = []
    while text:
        size = rng.randint(1, longest) if len(found) < _MOST else len(text)
        found.append(text[:size])
        text = text[size:]
    return found


def call(parts: Sequence[str], index: int = 0) -> list[dict[str, Any]]:
    """The deltas of a call with these pieces of arguments."""
    head = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": "f", "arguments": ""}}
    return [
        {"tool_calls": [head]},
        *({"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in parts),
    ]


def stream(rng: Random) -> list[bytes]:
    """The events of an answer with calls. The end may repeat a call, or say that the token limit was reached."""
    deltas: list[dict[str, Any]] = [{"content": " so"}] * rng.choice((0, 0, 3))
    calls = []
    for index in range(rng.choice((1, 1, 2, 3))):
        text = arguments(rng)
        if rng.random() < 0.3:
            text = spoiled(text, rng)
        calls.append((index, text))
        deltas += call(pieces(text, rng), index)
        if rng.random() < 0.1:
            deltas.append({"content": "\n"})
    reason = "tool_calls"
    if rng.random() < 0.15:
        del deltas[rng.randrange(len(deltas)) :]
        reason = rng.choice(("length", "tool_calls", "stop"))
    elif rng.random() < 0.2:
        index, text = rng.choice(calls)
        function = {"name": "f", "arguments": text}
        deltas.append({"tool_calls": [{"index": index, "id": f"call_{index}", "function": function}]})
    counts = rng.random() < 0.5
    ascii_only = rng.random() < 0.3
    found = [_event(delta, None, number if counts else None, ascii_only) for number, delta in enumerate(deltas, 1)]
    return [*found, _event({}, reason, None, ascii_only), b"data: [DONE]\n\n"]


def _event(delta: dict[str, Any], reason: str | None, number: int | None, ascii_only: bool) -> bytes:
    chunk: dict[str, Any] = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    if number is not None:
        chunk["usage"] = {"prompt_tokens": 7, "completion_tokens": number}
    text = json.dumps(chunk, ensure_ascii=ascii_only, separators=(",", ":"))
    return b"data: %b\n\n" % text.encode("utf-8", "surrogatepass")


def _object(rng: Random, levels: int) -> dict[str, Any]:
    return {rng.choice(_TEXTS): _value(rng, levels) for _ in range(rng.randint(1, 4))}


def _value(rng: Random, levels: int) -> Any:
    if not levels or rng.random() < 0.6:
        return rng.choice((rng.choice(_TEXTS), rng.choice(_TEXTS), rng.choice(_NUMBERS), True, False, None))
    if rng.random() < 0.5:
        return _object(rng, levels - 1)
    return [_value(rng, levels - 1) for _ in range(rng.randint(0, 4))]


def _written(value: Any, rng: Random, spaces: Sequence[str]) -> str:
    """JSON with white space in any place."""

    def space() -> str:
        return rng.choice(spaces)

    if isinstance(value, dict):
        members = [f"{json.dumps(key)}{space()}:{space()}{_written(one, rng, spaces)}" for key, one in value.items()]
        return "{" + space() + f"{space()},{space()}".join(members) + space() + "}"
    if isinstance(value, list):
        return "[" + space() + f"{space()},{space()}".join(_written(one, rng, spaces) for one in value) + space() + "]"
    return json.dumps(value, ensure_ascii=False)
