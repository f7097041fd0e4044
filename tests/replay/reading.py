"""An independent reader of recorded answers, written without any of the package's own code.

It handles only these recordings: each event is one `data: ` line, and calls have an index and do not interleave. Its
result is the part of a Message that the engine decides: the content blocks, the stop reason and the token counts.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.replay import Case

Json = dict[str, Any]
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@dataclass
class Reading:
    """`content` has the blocks of a Message; a call's `input` is the text of its arguments, `id` None if it had none.

    `tokens` are those of the prompt and of the answer. Each is None if the engine does not report it, for example
    because the answer was cancelled at a stop sequence.
    """

    content: list[Json]
    stop_reason: str
    stop_sequence: str | None
    tokens: tuple[int | None, int | None]


def read(case: Case, stops: list[str]) -> Reading:
    chunks = _chunks(case)
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    choices.sort(key=lambda choice: int(choice["index"]))
    deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    content = _without_blanks(_content(deltas))
    if not content and any(delta.get("content") == "" for delta in deltas):
        content = [{"type": "text", "text": ""}]
    found = _cut_at_stop(content, stops)
    if found:
        return Reading(content, "stop_sequence", found, (None, None))
    reason = REASONS[next(choice["finish_reason"] for choice in choices if choice.get("finish_reason"))]
    told = next((stop for stop in stops for choice in choices if stop in _matches(choice)), None)
    if told is not None:
        reason = "stop_sequence"
    called = any(block["type"] == "tool_use" for block in content)
    if called and reason == "end_turn":
        reason = "tool_use"
    if reason == "tool_use" and not called:
        reason = "end_turn"
    return Reading(content, reason, told if reason == "stop_sequence" else None, _tokens(chunks))


def _chunks(case: Case) -> list[Json]:
    if not case.streamed:
        return [json.loads(case.content)]
    lines = case.content.decode().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line != "data: [DONE]"]


def _content(deltas: list[Json]) -> list[Json]:
    blocks: list[Json] = []
    calls: dict[Any, Json] = {}
    for delta in deltas:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        for kind, words in (("thinking", thought), ("text", delta.get("content"))):
            if words and blocks and blocks[-1]["type"] == kind:
                blocks[-1][kind] += words
            elif words:
                blocks.append({"type": kind, kind: words})
        for position, call in enumerate(delta.get("tool_calls") or ()):
            index = call.get("index", position)
            if index not in calls:
                calls[index] = {"type": "tool_use", "id": call.get("id"), "name": call["function"]["name"], "input": ""}
                blocks.append(calls[index])
            calls[index]["input"] += call["function"].get("arguments") or ""
    return blocks


def _without_blanks(content: list[Json]) -> list[Json]:
    """The blocks without white space between them, as a client receives them."""
    if not any(block["type"] == "tool_use" or block.get("text", "").strip() for block in content):
        return content
    return [block for block in content if block["type"] != "text" or block["text"].strip()]


def _cut_at_stop(content: list[Json], stops: list[str]) -> str | None:
    """Takes away the first stop sequence in a text and all that follows it."""
    for number, block in enumerate(content):
        text = block.get("text", "")
        for end in range(len(text)):
            for stop in sorted(stops, key=len, reverse=True):
                if text[: end + 1].endswith(stop):
                    block["text"] = text[: end + 1 - len(stop)]
                    del content[number + bool(block["text"]) :]
                    return stop
    return None


def _matches(choice: Json) -> tuple[Any, Any]:
    return choice.get("stop_reason"), choice.get("matched_stop")


def _tokens(chunks: list[Json]) -> tuple[int | None, int | None]:
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    if usages:
        return usages[-1]["prompt_tokens"], usages[-1]["completion_tokens"]
    return None, None
