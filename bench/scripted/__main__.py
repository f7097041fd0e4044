"""The command: parses options, listens, says where, and serves until SIGTERM or SIGINT."""

import argparse
import asyncio
import gc
import signal
import sys

import uvloop

from ..process import many_files
from .serving import Engine, Settings
from .styles import STYLES

_BACKLOG = 4096  # thousands of clients may connect at once


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scripted", description="A scripted OpenAI-compatible engine."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default 0: any that is free)")
    parser.add_argument("--rate", type=float, default=0.0, help="tokens/s of each stream (default 0: as fast as read)")
    parser.add_argument("--lockstep", action="store_true", help="all streams write in the same moment")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer whose request has no max_tokens")
    parser.add_argument("--style", choices=sorted(STYLES), default="vllm", help="whose chunks (default vllm)")
    parser.add_argument("--usage-every-chunk", action="store_true", help="token counts in every chunk, asked or not")
    parser.add_argument("--model", default="scripted", help="the name of its model (default scripted)")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    style = STYLES[options.style]
    settings = Settings(style, options.rate, options.lockstep, options.tokens, options.usage_every_chunk, options.model)
    engine = Engine(settings)
    server = await loop.create_server(engine.connect, options.host, options.port, backlog=_BACKLOG)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    gc.freeze()
    try:
        await stop.wait()
    finally:
        engine.pace.close()
        server.close()


if __name__ == "__main__":
    many_files()
    uvloop.run(_serve(_options()))
    sys.exit(0)
