"""`anthro-asgi bench record URL`: sends requests one after the other and records the answers with their times.

    anthro-asgi bench record http://127.0.0.1:8484 --requests 20 --out trace.jsonl
    anthro-asgi serve --simulate --simulate-trace trace.jsonl

`anthro_asgi.simulator.recordings` describes the format. The requests are made as in `bench load`, or read from a file
with one JSON object per line. The server speaks the Messages API, or chat completions with `--api chat`.
"""

import argparse
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Final

import orjson

from ..simulator.distributions import Distribution
from ..simulator.recordings import line
from ..upstream.errors import TooLarge
from ..upstream.sse import SSEParser
from .load.target import BadRun, Target, Unreachable, reason
from .load.workload import Content, Workload, read_dataset, request_headers
from .options import (
    Condition,
    file,
    has_content,
    key,
    name,
    positive,
    time_above_zero,
    unusable,
    unused_option,
)

_DELTAS: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("json", "partial_json"),
}
_REASONS: Final = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}

CONDITIONS: Final = (
    Condition(("requests", "prompt-tokens", "seed"), "with --bodies", lambda options: options.bodies is None),
)
"""The options that have an effect only with others."""

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
    """One answer as a line of a trace. Raises NoAnswer."""
    headers = request_headers(options.api, options.key, stream=True)
    with closing(_connect(target, options.timeout)) as connection:
        began = perf_counter()
        try:
            connection.request("POST", target.path, body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise NoAnswer(f"status {response.status}: {response.read(500).decode(errors='replace')}")
            deltas, stop = _read_answer(response, options.api, began)
        except TooLarge as exc:
            raise NoAnswer(str(exc)) from exc
        except OSError as exc:
            raise NoAnswer(f"the connection failed: {reason(exc)}") from exc
        except HTTPException as exc:
            raise NoAnswer(f"the response is not valid HTTP: {type(exc).__name__} {exc}") from exc
    if not (stop and deltas):
        raise NoAnswer("the stream ended early" if deltas else "the stream holds no token")
    return line(deltas, stop, request=orjson.loads(body))


def _read_answer(response: HTTPResponse, api: str, began: float) -> tuple[list[tuple[float, str, str]], str]:
    """The deltas of a stream with their times, and the stop reason. Raises NoAnswer, OSError and HTTPException."""
    read = of_messages if api == "messages" else of_chat
    parser, deltas, stop = SSEParser(), list[tuple[float, str, str]](), ""
    while data := response.read1(1 << 16):
        now = perf_counter() - began
        for payload in parser.feed(data):
            try:
                event = {} if payload == b"[DONE]" else orjson.loads(payload)
                if event.get("error"):
                    raise NoAnswer(f"an error in the stream: {event['error']}")
                said = list(read(event))
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise NoAnswer(
                    f"an event that is not one of the API: {payload[:200].decode(errors='replace')}"
                ) from exc
            for kind, text in said:
                if kind == "stop":
                    stop = text
                elif text:
                    deltas.append((now, kind, text))
    return deltas, stop


def _connect(target: Target, timeout: float) -> HTTPConnection:
    """A connection that is open. Raises NoAnswer."""
    if target.tls:
        connection: HTTPConnection = HTTPSConnection(target.name, target.port, timeout=timeout, context=target.tls)
    else:
        connection = HTTPConnection(target.name, target.port, timeout=timeout)
    try:
        if target.port:
            connection.connect()
        else:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(timeout)
            connection.sock.connect(target.hosts[0])
    except OSError as exc:
        connection.close()
        raise NoAnswer(f"cannot connect to {target.address}: {reason(exc)}") from exc
    return connection


def bodies(options: argparse.Namespace, target: Target) -> list[bytes]:
    """The bodies of the requests. Raises BadRun."""
    if options.bodies is not None:
        defaults = {"model": options.model, "max_tokens": options.output_tokens}
        return [orjson.dumps({**defaults, **body, "stream": True}) for body in read_dataset(options.bodies)]
    lengths = (Distribution.of(options.prompt_tokens), Distribution.of(options.output_tokens))
    workload = Workload(target, Content(options.api, options.model, options.key, True, *lengths, options.seed))
    return [workload.begin().request().partition(b"\r\n\r\n")[2] for _ in range(options.requests)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.usage = "%(prog)s [OPTIONS] URL"
    parser.epilog = "S is a number of seconds, or a time such as 500ms or 2m."
    add = parser.add_argument
    add("url", metavar="URL", help="a base such as http://127.0.0.1:8484")
    add("--out", type=file, metavar="FILE", help="write the trace to FILE, which must be new or empty (default stdout)")
    add("--api", choices=("messages", "chat"), default="messages", help="the server's API (default messages)")
    add("--model", type=name, default="bench", help="the model to ask for (default bench)")
    add("--key", type=key, help="API key")
    add("--bodies", type=file, metavar="FILE", help="JSON lines: bodies with messages, or objects with a prompt")
    add("--allow-remote", action="store_true", help="allow a server that is not on this machine")
    add("--requests", type=positive, default=10, metavar="N", help="number of requests without --bodies (default 10)")
    add("--prompt-tokens", type=positive, default=64, metavar="N", help="approximate prompt length (default 64)")
    add("--output-tokens", type=positive, default=256, metavar="N", help="max_tokens of each request (default 256)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the prompts (default 0)")
    add(
        "--timeout", type=time_above_zero, default=120.0, metavar="S", help="of each read from the server (default 120)"
    )


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 for an answer that could not be recorded, 2 for invalid options."""
    try:
        unused = unused_option(options, CONDITIONS, add_arguments)
        if unused is not None:
            raise BadRun(unused)
        target = Target.parse(options.url, options.api, remote=options.allow_remote)
        asked = bodies(options, target)
        with ExitStack() as stack:
            out = sys.stdout.buffer if options.out is None else stack.enter_context(_open(options.out))
            for body in asked:
                out.write(record(target, options, body))
                out.flush()
    except (BadRun, NoAnswer, Unreachable) as exc:
        print(f"anthro-asgi bench record: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, BadRun) else 1
    return 0


def _open(path: Path) -> BinaryIO:
    try:
        if has_content(path):
            raise BadRun(f"{path} has a trace already: name another file")
        return path.open("wb")
    except OSError as exc:
        raise BadRun(f"cannot write {unusable(path, exc)}") from exc
