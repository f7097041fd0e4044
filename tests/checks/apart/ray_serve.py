"""The example for Ray Serve on a real local cluster: two replicas, streams, and clients that leave.

pip install "ray[serve]" && python -m pytest -W ignore tests/checks/apart/ray_serve.py
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from examples.ray_serve import Messages

STREAMS = 40
NOTICED = 5.0  # seconds in which a replica hears of a client that left, through Ray's proxy
HELLO = {"model": "any", "max_tokens": 40, "messages": [{"role": "user", "content": "Hello?"}]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[int]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()


def watched(folder: str) -> Any:
    """A deployment whose engine tells its replica's name, and leaves a file when its generator is closed."""

    class Engine:
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            import asyncio

            try:
                yield serve.get_replica_context().replica_id.unique_id
                while request.model == "endless":
                    await asyncio.sleep(0.02)
                    yield " more"
                yield Finish("end_turn")
            finally:
                Path(folder, "closed").touch()  # noqa: ASYNC240 - of a test

    @serve.deployment(num_replicas=2, max_ongoing_requests=64)
    @serve.ingress(lambda: MessagesApp(Engine()))
    class Watched:
        pass

    return Watched.bind()


def post(connection: http.client.HTTPConnection, **body: Any) -> http.client.HTTPResponse:
    data = json.dumps({**HELLO, **body})
    connection.request("POST", "/v1/messages", data, {"content-type": "application/json"})
    return connection.getresponse()


def streams(port: int, count: int) -> list[dict[str, Any]]:
    """So many streams at once, each whole."""
    bodies: list[bytes] = []

    def stream() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            bodies.append(post(connection, stream=True).read())

    threads = [threading.Thread(target=stream) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = []
    for body in bodies:
        events = parse_events(body)
        check_stream(events)
        assert events[-1].type == "message_stop"
        messages.append(message_from_events(events))
    return messages


def test_the_example_serves_streams_on_two_replicas(cluster: int) -> None:
    serve.run(Messages.options(num_replicas=2, autoscaling_config=None).bind())
    assert len(streams(cluster, STREAMS)) == STREAMS
    with closing(http.client.HTTPConnection("127.0.0.1", cluster, timeout=60)) as connection:
        refused = post(connection, max_tokens=-1)
        assert (refused.status, json.loads(refused.read())["type"]) == (400, "error")


def test_both_replicas_answer_and_a_client_that_leaves_reaches_the_engine(cluster: int, tmp_path: Path) -> None:
    serve.run(watched(str(tmp_path)))
    replicas = {message["content"][0]["text"] for message in streams(cluster, STREAMS)}
    assert len(replicas) == 2
    mark = tmp_path / "closed"
    mark.unlink()
    with closing(http.client.HTTPConnection("127.0.0.1", cluster, timeout=60)) as connection:
        response = post(connection, model="endless", stream=True)
        while b" more" not in response.read1(65536):
            pass
        assert not mark.exists()
    left = time.monotonic()
    while not mark.exists():
        assert time.monotonic() - left < NOTICED
        time.sleep(0.01)
    print(f"the engine was closed {time.monotonic() - left:.2f} s after its client had left")
