"""`python -m anthro_asgi.engines.llamacpp.child`: llama.cpp's own HTTP server. It runs until its standard input ends.

The standard input ends when the parent closes the pipe and when the parent dies, so the server never outlives it. One
line on standard output reports that the model is loaded. The output of llama.cpp goes to standard error.

It ignores SIGINT and SIGTERM: who sends them to all processes of the service wants the service to finish its answers.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("socket")
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def _serve(options: argparse.Namespace) -> Any:
    """Start the server's threads. They live as long as the returned object."""
    try:
        import xllamacpp  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        sys.exit("a model file needs an extra: pip install 'anthro-asgi[llama]'")
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {Path(options.model).stem}
    params.hostnames = [options.socket]
    params.n_ctx = options.context * options.slots
    params.n_parallel = options.slots
    if options.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.n_threads_http = 64 + options.slots  # a request that waits for a slot occupies a thread
    params.endpoint_metrics = params.endpoint_props = True
    params.ui = False
    params.verbosity = 1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as exc:  # llama.cpp has printed the reason
        sys.exit(str(exc))


def main() -> None:
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        server = _serve(options)
        print("loaded", server.listening_address, file=answer)
    sys.stdin.buffer.read()
    os._exit(0)  # a normal exit would wait until running requests are finished


if __name__ == "__main__":
    main()
