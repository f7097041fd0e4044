"""llama.cpp's own HTTP server as a child process: both ends of it.

`python -m tests.support.llama.server MODEL` is the child. It says its address in one line on standard output, then
serves until its standard input ends or has a byte. It ends when the parent closes the pipe *and* when the parent dies
of anything at all, so no server outlives the tests. It is a process of its own because llama.cpp answers a bad model
with `abort()`.

`LlamaServer` is the parent's end: a context manager that returns once the server answers.
"""

import argparse
import http.client
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.llama.model import write_model

Thinking = Literal["off", "on", "auto"]
# Whether a request thinks that does not say. `auto` asks the template, and this one can think, so it does.
# In every setting `chat_template_kwargs.enable_thinking` decides for its own request.
REASONING: dict[Thinking, int] = {"off": 0, "on": 1, "auto": -1}

ROOT = Path(__file__).parents[3]
START_DEADLINE = 60.0  # seconds; a start takes less than one, most of it the interpreter's
ALIAS = "one-sentence"  # the model's name on the wire


# ---------------------------------------------------------------------------------------------------- the child


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.llama.server")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--uds", help="listen on this Unix socket, not on a port")
    parser.add_argument("--ctx", type=int, default=8192, help="tokens of context per slot")
    parser.add_argument("--parallel", type=int, default=2, help="slots: requests served at a time")
    parser.add_argument("--thinking", choices=REASONING, default="off")
    parser.add_argument("--api-key")
    return parser.parse_args()


def _serve(options: argparse.Namespace) -> Any:
    """Start the server's threads, which live as long as the object returned."""
    # Here, because the parent imports this file too and never needs its 30 MB of machine code.
    import xllamacpp  # type: ignore[import-untyped]  # it ships no types

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {ALIAS}
    params.hostnames = [options.uds or "127.0.0.1"]
    params.port = options.port
    params.n_ctx = options.ctx * options.parallel
    params.n_parallel = options.parallel
    params.enable_reasoning = REASONING[options.thinking]
    params.api_keys = [options.api_key] if options.api_key else []
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 64  # a queued request holds one of them, and `/metrics` needs one too
    params.endpoint_metrics = params.endpoint_props = True
    params.ui = params.warmup = params.fit_params = False
    params.verbosity = 1
    return xllamacpp.Server(params)


def main() -> None:
    options = _arguments()
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # llama.cpp's own output goes to the log; the parent reads only the address
        server = _serve(options)
        print(server.listening_address, file=answer)
    sys.stdin.buffer.read(1)
    os._exit(0)  # at once: a server with a running request would finish it first


# ---------------------------------------------------------------------------------------------------- the parent


class ServerFailed(Exception):
    """The child ended or was silent when it should have printed its address. The message ends with its log."""


class LlamaServer:
    """A running server, between `start` and `stop` or in a `with` block.

    `ctx` is in tokens per slot (the engine rounds up to a multiple of 256), `parallel` the number of slots. With `uds`
    it listens on that Unix socket (llama.cpp knows one by its suffix `.sock`), else on a free port of the loopback.
    `model` is a GGUF file; without one the model of this package is made.
    """

    def __init__(
        self,
        *,
        ctx: int = 8192,
        parallel: int = 2,
        thinking: Thinking = "off",
        api_key: str | None = None,
        uds: str | Path | None = None,
        model: str | Path | None = None,
    ) -> None:
        self.uds = None if uds is None else Path(uds).absolute()
        self.url = ""  # known after `start`; a Unix socket has no port, so there it only names the host
        self._api_key = api_key
        self._model = None if model is None else Path(model).absolute()
        self._options = [f"--ctx={ctx}", f"--parallel={parallel}", f"--thinking={thinking}"]
        self._options += [f"--api-key={api_key}"] if api_key else []
        self._options += [f"--uds={self.uds}"] if self.uds else []

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises ServerFailed."""
        self._directory = tempfile.TemporaryDirectory(prefix="llama-", ignore_cleanup_errors=True)
        self._log = Path(self._directory.name, "log")
        if self._model is None:
            self._model = Path(self._directory.name, "model.gguf")
            write_model(self._model)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.llama.server", str(self._model), *self._options],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            address = self._address()
        except BaseException:
            self.stop()
            raise
        self.url = "http://localhost" if self.uds else address
        return self

    def stop(self) -> None:
        """End the server at once. Does nothing if it has ended."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # still loading: it does not read standard input yet
            process.kill()
            process.wait()
        self._directory.cleanup()
        if self.uds is not None:
            self.uds.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def metrics(self) -> dict[str, float]:
        """The server's own gauges and counters: `requests_processing`, `tokens_predicted_total`, …"""
        lines = self.get("/metrics").decode().splitlines()
        pairs = (line.removeprefix("llamacpp:").rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def until_idle(self, within: float = 5.0) -> None:
        """Wait until no request runs or waits. The server answers between two tokens, so polling needs no pause."""
        deadline = time.monotonic() + within
        while any((now := self.metrics())[name] for name in ("requests_processing", "requests_deferred")):
            assert time.monotonic() < deadline, f"still busy after {within} s: {now}"

    def get(self, path: str) -> bytes:
        """The body of a GET, which must succeed."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=10)
        if self.uds is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.uds))
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {self._api_key}"})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status == 200, body
        return body

    def _address(self) -> str:
        pipe = self._process.stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], START_DEADLINE)
        line = pipe.readline().decode().strip() if ready else ""
        if not line:
            if not ready:
                self._process.kill()
            self._process.wait()  # then its last output is in the log
            raise ServerFailed(f"llama.cpp gave no address\n{self._log.read_text(errors='replace')[-2000:]}")
        return line


if __name__ == "__main__":
    main()
