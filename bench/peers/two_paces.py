"""`python -m bench.peers.two_paces`: the scripted engine, with one model that streams as fast as it is read.

Fairness is about a fast stream beside slow ones behind one service, and a service has one upstream.
"""

import argparse
import asyncio
import signal
from dataclasses import replace
from typing import Any, Final

import uvloop

from ..scripted.serving import Engine, Settings, Wire
from ..scripted.styles import VLLM

UNPACED: Final = "unpaced"  # the name of that model
_BACKLOG: Final = 4096


class TwoPacesWire(Wire):
    """One connection; which engine answers is decided by each request for itself."""

    def __init__(self, paced: Engine, unpaced: Engine) -> None:
        super().__init__(paced)
        self._paced = paced
        self._unpaced = unpaced

    def _start(self, request: dict[str, Any], prompt: int, tokens: int) -> None:
        self._engine = self._unpaced if request.get("model") == UNPACED else self._paced
        super()._start(request, prompt, tokens)


async def serve(port: int, rate: float, model: str) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT: `model` at `rate` tokens/s a stream, and the other one."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    settings = Settings(VLLM, rate=rate, model=model)
    paced, unpaced = Engine(settings), Engine(replace(settings, rate=0.0, model=UNPACED))
    server = await loop.create_server(lambda: TwoPacesWire(paced, unpaced), "127.0.0.1", port, backlog=_BACKLOG)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    try:
        await stop.wait()
    finally:
        paced.pace.close()
        unpaced.pace.close()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.two_paces", description="A scripted engine.")
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (default: any that is free)")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens/s of a paced stream (default 50)")
    parser.add_argument("--model", default="scripted", help="the name of the paced model (default scripted)")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.rate, options.model))


if __name__ == "__main__":
    main()
