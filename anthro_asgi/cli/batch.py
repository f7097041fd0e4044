"""`anthro-asgi batch submit|status|results`: message batches from the command line, on any Messages server.

A batch is a file of JSON lines, each an object with `custom_id` and `params`; it is sent while it is read. The API key
comes from the environment: `ANTHROPIC_API_KEY`, or `ANTHROPIC_AUTH_TOKEN` without it.
"""

import http.client
import json
import os
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, Final
from urllib.parse import urlsplit

from ..settings.command_line import Parser

_ROUTE: Final = "/v1/messages/batches"
_FINISHED: Final = "anthro-asgi-finished"  # a header of our own service; the API tells no progress before the end
_KEY_HINT: Final = "; the key is read from the variable ANTHROPIC_API_KEY, else from ANTHROPIC_AUTH_TOKEN"
_POLL: Final = 1.0  # seconds
_TIMEOUT: Final = 60.0  # seconds without a byte from the server
_BAR: Final = 30  # characters
_PIECE: Final = 64 * 1024  # bytes


class _Failed(Exception):
    """The text is one line for the user."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status is 1 if the server refuses, or if a request of a batch did not succeed."""
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.action](options)
    except BrokenPipeError:
        raise  # of stdout; see `main.main`
    except OSError as exc:
        reason = f"{exc.filename}: {exc.strerror}" if exc.filename else f"the connection failed: {exc.strerror or exc}"
    except (_Failed, http.client.HTTPException) as exc:
        reason = str(exc)
    print("anthro-asgi: error:", *reason.split(), file=sys.stderr)
    return 1


def parser() -> ArgumentParser:
    """The command line of `anthro-asgi batch`."""
    whole = Parser("anthro-asgi batch", description="Submit a message batch, watch it, and read its results.")
    actions = whole.add_subparsers(dest="action", metavar="submit|status|results", required=True)
    texts = {
        "submit": "send a file of JSON lines, each with custom_id and params; print the id of the batch",
        "status": "print one batch, or all, as JSON lines",
        "results": "print the results of a batch as JSON lines",
    }
    for action, text in texts.items():
        one = actions.add_parser(action, help=text, description=text)
        one.add_argument("--url", default="http://127.0.0.1:8484", help="base URL of the server (default: %(default)s)")
        if action == "submit":
            one.add_argument("file", metavar="FILE", help="file of JSON lines; - is standard input")
        elif action == "status":
            one.add_argument("id", metavar="ID", nargs="?", help="the id of the batch")
        else:
            one.add_argument("id", metavar="ID", help="the id of the batch")
        one.add_argument("--wait", action="store_true", help="wait until the batch has ended; on a terminal with a bar")
    return whole


# --- the commands ---


def _submit(options: Namespace) -> int:
    if options.file == "-":
        batch = _send(options, "standard input", sys.stdin.buffer)
    else:
        with open(options.file, "rb") as file:
            batch = _send(options, options.file, file)
    print(batch["id"], flush=True)
    return _succeeded(options, _wait(options, batch["id"])) if options.wait else 0


def _send(options: Namespace, name: str, file: IO[bytes]) -> Any:
    """The new batch. An error that names a request names its line, too. Raises as `_json`."""
    numbers: list[int] = []
    try:
        return _json(options, "POST", "", _body(name, file, numbers))
    except _Failed as exc:
        found = re.search(r"\brequests\.(\d+)\b", str(exc))
        if found is None or int(found[1]) >= len(numbers):
            raise
        raise _Failed(f"{exc} ({name}, line {numbers[int(found[1])]})") from exc


def _status(options: Namespace) -> int:
    if options.id is None and options.wait:
        print("anthro-asgi: error: --wait has no effect without the ID of a batch", file=sys.stderr)
        return 2
    if options.id is not None:
        print(json.dumps(_wait(options, options.id) if options.wait else _json(options, "GET", f"/{options.id}")))
        return 0
    after = ""
    while True:
        page = _json(options, "GET", f"?limit=100{after}")
        for batch in page["data"]:
            print(json.dumps(batch))
        if not page["has_more"]:
            return 0
        after = f"&after_id={page['last_id']}"


def _results(options: Namespace) -> int:
    if options.wait:
        _wait(options, options.id)
    with _answer(options, "GET", f"/{options.id}/results") as response:
        while piece := response.read(_PIECE):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return 0


_COMMANDS: Final = {"submit": _submit, "status": _status, "results": _results}


def _wait(options: Namespace, identity: str) -> dict[str, Any]:
    """The batch, once it has ended. Shows a progress bar if stderr is a terminal."""
    shown = sys.stderr.isatty()
    while True:
        with _answer(options, "GET", f"/{identity}") as response:
            batch: dict[str, Any] = json.loads(response.read())
            finished = response.headers.get(_FINISHED)
        total = sum(batch["request_counts"].values())
        ended = batch["processing_status"] == "ended"
        if shown:
            done = total if ended else int(finished or 0)
            print(f"\r{bar(done, total)} {batch['processing_status']}\x1b[K", end="", file=sys.stderr, flush=True)
        if ended:
            if shown:
                print(file=sys.stderr)
            return batch
        time.sleep(_POLL)


def bar(done: int, total: int) -> str:
    """A progress bar."""
    filled = _BAR * done // total if total else 0
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}"


def _succeeded(options: Namespace, batch: dict[str, Any]) -> int:
    """The exit status. What did not succeed is counted on stderr."""
    counts = batch["request_counts"]
    total = sum(counts.values())
    if counts["succeeded"] == total:
        return 0
    others = ", ".join(f"{number} {what}" for what, number in counts.items() if number and what != "succeeded")
    where = f"anthro-asgi batch results {batch['id']} --url {options.url}"
    print(f"of {total} requests, {others}: `{where}` prints the reasons", file=sys.stderr)
    return 1


# --- HTTP ---


def _body(name: str, lines: IO[bytes], numbers: list[int]) -> Iterator[bytes]:
    """The body of a batch, piece by piece. Appends the number of each line that is a request to `numbers`.

    Raises _Failed for a line that is not a JSON object.
    """
    separator = b'{"requests":['
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                is_object = isinstance(json.loads(line), dict)
            except ValueError:
                is_object = False
            if not is_object:
                raise _Failed(f"{name}, line {number}: is not a JSON object")
            numbers.append(number)
            yield separator + line.strip()
            separator = b","
    yield b"]}" if separator == b"," else b'{"requests":[]}'


def _json(options: Namespace, method: str, rest: str, body: Iterator[bytes] | None = None) -> Any:
    with _answer(options, method, rest, body) as response:
        return json.loads(response.read())


def _answer(
    options: Namespace, method: str, rest: str, body: Iterator[bytes] | None = None
) -> http.client.HTTPResponse:
    """The response to a request. Raises _Failed for an error of the server, OSError and HTTPException."""
    try:
        url = urlsplit(options.url)
        host, port = url.hostname, url.port
    except ValueError:  # an invalid port or IPv6 address
        host = None
    if host is None or url.scheme not in ("http", "https"):
        raise _Failed(f"--url: {options.url!r:.80} is not a URL of a server")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT)
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01", "connection": "close"}
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        headers["x-api-key"] = key
    elif token := os.environ.get("ANTHROPIC_AUTH_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    path = f"{url.path.rstrip('/').removesuffix('/v1')}{_ROUTE}{rest}"
    if body is not None:
        headers["transfer-encoding"] = "chunked"
    try:
        connection.connect()
    except OSError as exc:
        raise _Failed(f"cannot connect to {url.netloc.rpartition('@')[2]}: {exc.strerror or exc}") from exc
    with suppress(BrokenPipeError, ConnectionResetError):  # the server may refuse a body before it has read all of it
        connection.request(method, path, body, headers, encode_chunked=body is not None)
    response = connection.getresponse()
    if response.status != 200:
        content = response.read()
        try:
            message = json.loads(content)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = "no error message"
        hint = _KEY_HINT if response.status == 401 else ""
        raise _Failed(f"the server answered {response.status}: {message}{hint}")
    return response
