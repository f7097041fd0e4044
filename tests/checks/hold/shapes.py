"""Request bodies and answers of an engine that are drawn at random, and mutated. Pure.

A `Recipe` says what a case is made of: where in the request or the answer the content stands, what it is, and how large
the whole is. A search changes one thing at a time and keeps what holds the event loop for longer.
"""

import json
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from anthro_asgi.wire.deltas import Batch, Finish
from tests.checks.hold.application import Case
from tests.support.upstream import framed, sse

CONTENTS: Final[dict[str, str]] = {
    "numbers": "1,",
    "fractions": "0.1,",
    "large integers": "12345678901234567890,",
    "empty arrays": "[],",
    "empty objects": "{},",
    "small objects": '{"a":0},',
    "small strings": '"ab",',
    "deep arrays": "[" * 40 + "1" + "]" * 40 + ",",
    "deep objects": '{"a":' * 40 + "1" + "}" * 40 + ",",
    "escapes": '"\\u20ac\\n\\"",',
    "surrogates": '"\\ud83d\\ude00\\ud83d",',
    "spaces": "1 , \n",
    "literals": "true,null,",
    "text": '"the quick brown fox, jumps over {the} lazy dog [and so on]",',
}
BREAKS: Final = {
    "nothing": "",
    "a control character": '"\x01",',
    "a constant": "True,",
    "a bracket": "]",
    "a quote": '"',
}
TEXTS: Final = ("a", "ab", "word ", "\u20ac", "\ud83d", "\n", " ", "{", '"', "\\", "<think>", "</think>", "```", "null")
STOPS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("a" * 60 + "b",),
    ("ab" * 40 + "c",),
    tuple("a" * length + "b" for length in range(1, 60)),
    ("\n\n", "word word!"),
    tuple(f"{number:02}" for number in range(64)),
)
IN_REQUEST: Final = (
    "schema",
    "tool input",
    "output schema",
    "unknown field",
    "metadata",
    "messages",
    "blocks",
    "tools",
    "deferred tools",
    "tool changes",
    "tool definitions",
    "references",
    "results",
    "server results",
    "documents",
    "thinking",
    "system blocks",
    "compactions",
    "string input",
    "string inputs",
)
IN_ANSWER: Final = ("text", "reasoning", "arguments", "arguments twice", "array", "encoded twice", "object", "junk")
PLACES: Final = IN_REQUEST + IN_ANSWER
MANY: Final[dict[str, tuple[str, str, str]]] = {
    "messages": ('"messages":[', '{"role":"user","content":"Hi"}', "]"),
    "blocks": ('"messages":[{"role":"user","content":[', '{"type":"text","text":"a"}', "]}]"),
    "tools": ('"tools":[', '{"name":"f%d","input_schema":{}}', "]"),
    "deferred tools": (
        '"tools":[{"type":"tool_search_tool_bm25_20251119","name":"tool_search_tool_bm25"},',
        '{"name":"f%d","defer_loading":true,"description":"%s"}',
        "]",
    ),
    "tool changes": (
        '"tools":[{"name":"f"}],"messages":[{"role":"user","content":"Hi"},{"role":"system","content":[',
        '{"type":"tool_removal","tool":{"type":"tool_reference","name":"f"}}',
        "]}]",
    ),
    "tool definitions": (
        '"messages":[{"role":"user","content":"Hi"},{"role":"system","content":[',
        '{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"f%d"}}}',
        "]}]",
    ),
    "references": (
        '"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]},'
        '{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[',
        '{"type":"tool_reference","tool_name":"f"}',
        "]}]}]",
    ),
    "results": (
        '"messages":[',
        '{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]},'
        '{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[]}]}',
        "]",
    ),
    "server results": (
        '"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":['
        '{"type":"web_search_tool_result","tool_use_id":"t","content":[',
        '{"type":"web_search_result","title":"a","url":"b"}',
        "]}]}]",
    ),
    "documents": (
        '"messages":[{"role":"user","content":['
        '{"type":"document","citations":{"enabled":true},"source":{"type":"content","content":[',
        '{"type":"text","text":"a"}',
        "]}}]}]",
    ),
    "thinking": (
        '"context_management":{"edits":[{"type":"clear_thinking_20251015"}]},"messages":[{"role":"user","content":"Hi"},'
        '{"role":"assistant","content":[',
        '{"type":"thinking","thinking":"a"}',
        ']},{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"a"}]}]',
    ),
    "system blocks": (
        '"messages":[{"role":"user","content":"Hi"}],"system":[',
        '{"type":"text","text":"a"}',
        "]",
    ),
    "compactions": (
        '"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"compaction","content":"a",'
        '"tool_changes":[',
        '{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"f%d"}}}',
        "]}]}]",
    ),
    "string inputs": (
        '"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[',
        '{"type":"tool_use","id":"t%d","name":"f","input":"{\\"a\\":[' + "[]," * 4000 + '0]}"}',
        "]}]",
    ),
}
"""Places that hold many equal values: what stands before them, one of them, and what stands behind them."""
_MOST_TOOLS: Final = 990
_TAIL: Final = {"messages": [{"role": "user", "content": "Hi"}]}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a case is made of. `size` is in characters of content, `event` those of one event of an answer."""

    place: str = "schema"
    contents: tuple[str, ...] = ("numbers",)
    broken: str = "nothing"
    text: str = "a"
    stops: int = 0
    size: int = 100_000
    event: int = 1_000_000
    stream: bool = True
    whole: bool = False
    in_process: bool = False

    def case(self) -> Case:
        """The request and the answer."""
        if self.place in IN_REQUEST:
            deltas: list[Batch] = ["Hi", Finish("end_turn")] if self.in_process else []
            return Case(request=self._request(), deltas=deltas)
        limits = {"model": "m", "max_tokens": 9, "stream": self.stream, "stop_sequences": STOPS[self.stops], **_TAIL}
        if not STOPS[self.stops]:
            del limits["stop_sequences"]
        return Case(json.dumps(limits).encode(), self._answer())

    def _values(self) -> str:
        unit = "".join(CONTENTS[name] for name in self.contents)
        values = unit * max(1, self.size // len(unit))
        half = len(unit) * (len(values) // len(unit) // 2)
        return values[:half] + BREAKS[self.broken] + values[half:] + "0"

    def _request(self) -> bytes:
        values = f"[{self._values()}]" if self.broken == "nothing" else "[0]"
        around = {
            "schema": '"tools":[{"name":"f","input_schema":{"enum":%s}}]',
            "tool input": '"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f",'
            '"input":{"a":%s}}]},{"role":"user","content":"Hi"}]',
            "output schema": '"output_config":{"format":{"type":"json_schema","schema":{"enum":%s}}}',
            "unknown field": '"junk":%s',
            "metadata": '"metadata":{"junk":%s}',
        }.get(self.place)
        if self.place == "string input":
            member = (
                '"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":'
                + json.dumps(f'{{"a":{values}}}')
                + '}]},{"role":"user","content":"Hi"}]'
            )
        elif around is None:
            member = self._many(*MANY[self.place])
        else:
            member = around.replace("%s", values)
        rest = "" if '"messages"' in member else ',"messages":[{"role":"user","content":"Hi"}]'
        return ('{"model":"m","max_tokens":9,"stream":true,' + member + rest + "}").encode("utf-8", "surrogatepass")

    def _many(self, head: str, unit: str, tail: str) -> str:
        count = max(1, self.size // len(unit))
        if self.place.endswith("tools"):
            count = min(count, _MOST_TOOLS)
        text = json.dumps(self.text * (self.size // count // len(self.text)))[1:-1]
        units = (unit.replace("%d", str(number)).replace("%s", text) for number in range(count))
        return head + ",".join(units) + tail

    def _answer(self) -> bytes:
        chunks = [*self._chunks(), _chunk("stop")]
        if self.whole:
            chunks[0]["choices"][0]["finish_reason"] = "stop"
            body = json.dumps(chunks[0]).encode()
            return framed(200, [("content-type", "application/json")], [body], "length")
        return sse(*chunks)

    def _chunks(self) -> list[dict[str, Any]]:
        text = (self.text * (self.size // len(self.text) + 1))[: self.size]
        match self.place:
            case "text":
                return [_chunk(content=piece) for piece in self._pieces(text)]
            case "reasoning":
                return [_chunk(reasoning_content=piece) for piece in self._pieces(text)]
            case "junk":
                return [{**_chunk(content="Hi"), "junk": piece} for piece in self._pieces(text)]
            case "object":
                return [_call({"a": ["1"] * (self.size // 8)})]
            case "array":
                return [_call(piece) for piece in self._pieces(f"[{self._values()}]")]
            case "encoded twice":
                return [_call(piece) for piece in self._pieces(json.dumps('{"a":[' + self._values() + "]}"))]
            case _:
                pieces = [_call(piece) for piece in self._pieces('{"a":[' + self._values() + "]}")]
                return pieces * (2 if self.place == "arguments twice" else 1)

    def _pieces(self, text: str) -> list[str]:
        """The text in pieces, at most 5000."""
        step = max(self.event, len(text) // 5000, 1)
        return [text[start : start + step] for start in range(0, len(text), step)]


def _chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _call(arguments: object) -> dict[str, Any]:
    return _chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}])


def drawn(source: random.Random, places: tuple[str, ...] = PLACES) -> Recipe:
    """A random recipe."""
    recipe = Recipe(source.choice(places))
    for _ in range(6):
        recipe = mutated(source, recipe)
    return recipe


def mutated(source: random.Random, recipe: Recipe) -> Recipe:
    """The recipe with one thing changed. It stays in the request, or in the answer."""
    places = IN_REQUEST if recipe.place in IN_REQUEST else IN_ANSWER
    match source.randrange(8):
        case 0:
            return replace(recipe, place=source.choice(places))
        case 1:
            return replace(recipe, contents=tuple(source.choices(tuple(CONTENTS), k=source.randint(1, 3))))
        case 2:
            return replace(recipe, broken=source.choice(tuple(BREAKS)))
        case 3:
            return replace(recipe, text="".join(source.choices(TEXTS, k=source.randint(1, 3))))
        case 4:
            return replace(recipe, stops=source.randrange(len(STOPS)))
        case 5:
            return replace(recipe, size=int(2 ** source.uniform(12, 20)))
        case 6:
            return replace(recipe, event=int(2 ** source.uniform(2, 20)))
        case _:
            chances = [source.random() for _ in range(3)]
            return replace(recipe, stream=chances[0] < 0.6, whole=chances[1] < 0.2, in_process=chances[2] < 0.5)
