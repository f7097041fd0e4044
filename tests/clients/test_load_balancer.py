"""`examples/envoy.yaml`: a real Envoy as load balancer over two replicas of an engine, behind the service."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.clients.client import Client
from tests.clients.install import ENVOY, ROOT
from tests.support.client import connect
from tests.support.service import ENDLESS, Service, until

DRIVER = "anthropic_python"

EXAMPLE = ROOT / "examples" / "envoy.yaml"
PORTS = (8000, 8001, 8002)  # of the example: Envoy's own, and those of the replicas
REQUESTS = 20  # if each goes to a random replica, all go to one of them in one of 500 000 runs


class Replica(Service):
    """A simulated engine in a process of its own."""

    command = "simulate-openai"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def answers(self) -> int:
        return sum(1 for line in self.log if line.get("path") == "/v1/chat/completions")


@contextmanager
def envoy(folder: Path, *replicas: Replica) -> Iterator[str]:
    """The example with other ports. Yields its URL, once it forwards requests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = EXAMPLE.read_text("utf-8")
    for old, new in zip(PORTS, (port, *(replica.port for replica in replicas)), strict=True):
        assert config.count(f"port_value: {old}") == 1
        config = config.replace(f"port_value: {old}", f"port_value: {new}")
    path = folder / "envoy.yaml"
    path.write_text(config, "utf-8")
    command = [str(ENVOY), "-c", str(path), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: answers(f"{url}/v1/models"))
            yield url
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Whether the server is there and gives a 200."""
    try:
        with urlopen(url) as response:  # noqa: S310 - a server of this test
            return bool(response.status == 200)
    except URLError:
        return False


def test_replicas_share_the_load_and_stand_in_for_each_other(client: Client, tmp_path: Path) -> None:
    with (
        Replica(*ENDLESS) as one,
        Replica(*ENDLESS) as other,
        envoy(tmp_path, one, other) as url,
        Service("--upstream", f"{url}/v1", may_log_errors=True) as service,
    ):

        def ask(number: int, tries: int = 1) -> None:
            for _ in range(tries):
                outcome = client.run(service.url, kind="create", stream=number % 2 == 1, params={"max_tokens": 3})
                if outcome.error is None:
                    break
            assert outcome.error is None
            assert outcome.fields["message"]["stop_reason"] == "max_tokens"

        for number in range(REQUESTS):
            ask(number)
        until(lambda: one.answers + other.answers == REQUESTS)
        assert one.answers > 0
        assert other.answers > 0

        with closing(connect(service.url)) as leaving:
            hello = {"model": "m", "max_tokens": 100_000, "messages": [{"role": "user", "content": "Hi"}]}
            leaving.request("POST", "/v1/messages", json.dumps({**hello, "stream": True}))
            assert b"message_start" in leaving.getresponse().read1()
        until(lambda: any(line.get("client_left") for replica in (one, other) for line in replica.log))

        one.stop()  # Envoy does not know yet
        for number in range(6):
            ask(number, tries=2)  # Envoy may send one on a connection that the replica closes at this moment: 529
        other.stop()
        outcome = client.run(service.url, kind="create", params={"max_tokens": 3})
        assert outcome.error is not None
        assert outcome.error["status"] == 529
        until(lambda: not answers(f"{service.url}/readyz"))
