"""The command line of the scripted engine."""

import argparse
import asyncio

import uvloop

from anthro_asgi.bench.processes import keep_pauses_short, many_files

from ..process import listen
from .serving import Engine, Settings
from .styles import STYLES


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scripted", description="Scripted OpenAI-compatible engine.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=0, help="port to listen on (default 0: any free port)")
    add("--unix", metavar="PATH", help="a Unix socket to listen on too")
    add("--rate", type=float, default=0.0, help="tokens/s of each stream (default 0: as fast as read)")
    add("--lockstep", action="store_true", help="all streams write at the same moment")
    add("--tokens", type=int, default=64, help="length of an answer without max_tokens (default 64)")
    add("--style", choices=sorted(STYLES), default="vllm", help="the engine whose chunks to write (default vllm)")
    add("--usage-every-chunk", action="store_true", help="token counts in every chunk, even if not requested")
    add("--together", type=int, default=1, help="tokens per write, all with the same text (default 1)")
    add("--model", default="scripted", help="the name of its model (default scripted)")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    style = STYLES[options.style]
    pace = (options.rate, options.lockstep, options.tokens)
    settings = Settings(style, *pace, options.usage_every_chunk, options.model, options.together)
    engine = Engine(settings)
    asyncio.get_running_loop().call_soon(keep_pauses_short)
    try:
        await listen(engine.connect, options.host, options.port, options.unix)
    finally:
        engine.close()


if __name__ == "__main__":
    many_files()
    uvloop.run(_serve(_options()))
