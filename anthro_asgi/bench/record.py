"""`anthro-asgi bench record URL`: sends requests one after the other and records the answers with their times.

    anthro-asgi bench record http://127.0.0.1:8484 --requests 20 --out trace.jsonl
    anthro-asgi serve --simulate --simulate-trace trace.jsonl

`anthro_asgi.simulator.recordings` describes the format. The requests are made as in `bench load`, or read from a file
with one JSON object per line. The server speaks the Messages API, or chat completions with `--api chat`.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Final

import orjson

from ..simulator.distributions import Distribution
from ..simulator.recordings import line
from ..upstream.sse import SSEParser
from .load.target import BadRun, Target
from .load.workload import Content, Workload, read_dataset
from .options import positive

_DELTAS: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("json", "partial_json"),
}
_REASONS: Final = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}

Said = Iterator[tuple[str, str]]
"""Pairs of a delta's kind and text, and of `stop` and the stop reason."""


class NoAnswer(RuntimeError):
    """The server refused the request, or the stream failed or ended early."""


def of_messages(event: dict[str, Any]) -> Said:
    """The content of an event of a Messages stream."""
    match event.get("type"):
        case "content_block_start" if event["content_block"]["type"] == "tool_use":
            yield "call", event["content_block"]["name"]
        case "content_block_delta" if event["delta"]["type"] in _DELTAS:
            kind, key = _DELTAS[event["delta"]["type"]]
            yield kind, event["delta"][key]
        case "message_delta":
            yield "stop", event["delta"]["stop_reason"]


def of_chat(event: dict[str, Any]) -> Said:
    """The content of a chat completions chunk."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        yield "thinking", delta.get("reasoning_content") or delta.get("reasoning") or ""
        yield "text", delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            yield "call", function.get("name") or ""
            yield "json", function.get("arguments") or ""
        if choice.get("finish_reason"):
            yield "stop", _REASONS.get(choice["finish_reason"], "end_turn")


def record(target: Target, options: argparse.Namespace, body: bytes) -> bytes:
    """One answer as a line of a trace. Raises NoAnswer, OSError and HTTPException."""
    read = of_messages if options.api == "messages" else of_chat
    connect = HTTPSConnection if target.tls else HTTPConnection
    headers = {"content-type": "application/json"}
    headers |= {"authorization": f"Bearer {options.key}"} if options.key else {}
    with closing(connect(target.hosts[0], target.port, timeout=options.timeout)) as connection:
        began = perf_counter()
        connection.request("POST", target.path, body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise NoAnswer(f"status {response.status}: {response.read(500).decode(errors='replace')}")
        parser, deltas, reason = SSEParser(), [], ""
        while data := response.read1(1 << 16):
            now = perf_counter() - began
            for payload in parser.feed(data):
                event = {} if payload == b"[DONE]" else orjson.loads(payload)
                if event.get("error"):
                    raise NoAnswer(f"an error in the stream: {event['error']}")
                for kind, text in read(event):
                    if kind == "stop":
                        reason = text
                    elif text:
                        deltas.append((now, kind, text))
    if not (reason and deltas):
        raise NoAnswer("the stream ended early" if deltas else "the stream holds no token")
    return line(deltas, reason, request=orjson.loads(body))


def bodies(options: argparse.Namespace, target: Target) -> Iterator[bytes]:
    """The bodies of the requests. Raises BadRun."""
    if options.bodies is not None:
        for body in read_dataset(options.bodies):
            yield orjson.dumps({"model": options.model, "max_tokens": options.output_tokens, **body, "stream": True})
        return
    lengths = (Distribution.of(options.prompt_tokens), Distribution.of(options.output_tokens))
    workload = Workload(target, Content(options.api, options.model, options.key, True, *lengths, options.seed))
    for _ in range(options.requests):
        yield workload.begin().request().partition(b"\r\n\r\n")[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    add("url", metavar="URL", help="a base such as http://127.0.0.1:8484")
    add("--out", type=Path, metavar="FILE", help="write the trace to FILE (default stdout)")
    add("--api", choices=("messages", "chat"), default="messages", help="the server's API (default messages)")
    add("--model", default="bench", help="the model to ask for (default bench)")
    add("--key", help="API key")
    add("--bodies", type=Path, metavar="FILE", help="JSON lines: bodies with messages, or objects with a prompt")
    add("--allow-remote", action="store_true", help="allow a server that is not on this machine")
    add("--requests", type=positive, default=10, metavar="N", help="number of requests without --bodies (default 10)")
    add("--prompt-tokens", type=positive, default=64, metavar="N", help="approximate prompt length (default 64)")
    add("--output-tokens", type=positive, default=256, metavar="N", help="max_tokens of each request (default 256)")
    add("--seed", type=int, default=0, metavar="N", help="of the prompts (default 0)")
    add("--timeout", type=float, default=120.0, metavar="S", help="of each read from the server (default 120)")


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 for an answer that could not be recorded, 2 for invalid options."""
    try:
        if options.out is None:
            return _record_all(options, sys.stdout.buffer)
        with options.out.open("wb") as out:
            return _record_all(options, out)
    except (BadRun, OSError, HTTPException, NoAnswer, ValueError) as exc:
        print(f"anthro-asgi bench record: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, BadRun) else 1


def _record_all(options: argparse.Namespace, out: BinaryIO) -> int:
    target = Target.parse(options.url, options.api, remote=options.allow_remote)
    for body in bodies(options, target):
        out.write(record(target, options, body))
        out.flush()
    return 0
