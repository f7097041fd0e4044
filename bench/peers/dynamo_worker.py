"""`python dynamo_worker.py ENGINE MODEL FOLDER`: a worker of NVIDIA Dynamo, which passes on the chunks of an engine.

It runs in the environment of the peer `dynamo`. `FOLDER` describes the model.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvloop
from dynamo.llm import ModelInput, ModelType, WorkerType, register_model  # type: ignore[import-not-found]  # in the peer's environment
from dynamo.runtime import dynamo_worker  # type: ignore[import-not-found]  # in the peer's environment


async def generate(request: dict[str, Any], context: Any = None) -> AsyncIterator[dict[str, Any]]:
    """The chunks of the engine's answer."""
    asked = {**request, "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, _, port = sys.argv[1].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
    finally:
        writer.close()


@dynamo_worker()  # type: ignore[untyped-decorator]  # in the peer's environment
async def main(runtime: Any) -> None:
    """Register the model and serve it."""
    endpoint = runtime.endpoint("bench.backend.generate")
    kind = {"worker_type": WorkerType.Aggregated}
    await register_model(ModelInput.Text, ModelType.Chat, endpoint, sys.argv[3], sys.argv[2], **kind)
    await endpoint.serve_endpoint(generate)


if __name__ == "__main__":
    uvloop.run(main())
