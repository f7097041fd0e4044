"""Run an engine for one request, without a server: python examples/without_http.py"""

import asyncio

from anthro_asgi import Answer, deltas_of, parse_request

BODY = b'{"model":"any","max_tokens":100,"messages":[{"role":"user","content":"Hello"}]}'


async def engine(request):
    for word in ("Hello", ", ", "world"):
        yield word


async def main() -> None:
    # The whole Message, as `POST /v1/messages` returns it.
    message = await Answer(engine, parse_request(BODY)).message()
    print(message["content"], message["stop_reason"])

    # The deltas, while they are generated.
    async with Answer(engine, parse_request(BODY)) as answer:
        async for batch in answer:
            for delta in deltas_of(batch):
                if isinstance(delta, str):
                    print(delta, end="", flush=True)
    print("", answer.stop_reason, answer.usage)


if __name__ == "__main__":
    asyncio.run(main())
