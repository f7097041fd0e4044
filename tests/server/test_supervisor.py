"""Several workers: they start and stop together, and one that dies only loses its own streams."""

import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest
import trustme

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from tests.cli.test_main import refusal
from tests.support.client import ask, connect, get, post
from tests.support.service import AT_ONCE, COMMAND, ENDLESS, ROOT, Service, is_running, until

TWO = ("--workers", "2")
SHORT = ("--simulate-ttft", "0", "--simulate-itl", "10ms", "--simulate-output-tokens", "60")
DIED = "exited with status -9"


class Stream:
    """A stream that has begun. `worker` is the pid of the process that serves it."""

    def __init__(self, service: Service) -> None:
        self._connection = connect(service.url)
        self._connection.connect() if self._connection.sock is None else None
        port = None if service.url.startswith("unix:") else self._connection.sock.getsockname()[1]
        post(self._connection, stream=True, max_tokens=100_000)
        self._response = self._connection.getresponse()
        self.begun = self._response.readline()
        self.worker = next(pid for pid in service.children if port is None or port in peers(pid))

    def close(self) -> None:
        self._connection.close()

    def rest(self) -> bytes:
        return self.begun + self._response.read()

    def read_line(self) -> None:
        line = self._response.readline()
        assert line
        self.begun += line


def peers(pid: int) -> set[int]:
    """The remote ports of the process's IPv4 connections."""
    mine = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in mine}


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_logged(service: Service, words: str) -> bool:
    return any(re.search(words, line.get("message", "")) for line in service.log)


def on_each(service: Service, owned: ExitStack, of: int) -> list[Stream]:
    """Streams, at least one from each of `of` workers, sorted by worker."""
    streams: list[Stream] = []
    while len({stream.worker for stream in streams}) < of:
        streams.append(owned.enter_context(closing(Stream(service))))
    return sorted(streams, key=lambda stream: stream.worker)


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# --- start ---


def test_all_workers_serve_at_one_address_which_is_printed_once(kind: str, owned: ExitStack) -> None:
    with Service(*ENDLESS, *TWO, "--drain-timeout", "0s", kind=kind) as service:
        assert len(service.children) == 2
        assert len({stream.worker for stream in on_each(service, owned, 2)}) == 2
        service.send_signal()
        assert service.rest_of_stdout == ""
        assert service.ended() == 0


def test_workers_share_a_unix_socket(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Service(*AT_ONCE, *TWO, "--uds", str(path), kind=kind) as service:
        for _ in range(20):
            assert ask(service.url, stream=True).status == 200
        service.send_signal()
        assert service.ended() == 0
    assert not list(tmp_path.iterdir())


def test_workers_share_the_certificate(kind: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    both = str(tmp_path / "both")
    with Service(*AT_ONCE, *TWO, "--tls-cert", both, "--tls-key", both, kind=kind) as service:
        for _ in range(10):
            assert get(service.url, "/healthz", context).status == 200


def test_a_port_in_use_is_a_one_line_error() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = refusal(1, "serve", *TWO, "--port", str(port))
    assert words == f"cannot listen on 127.0.0.1 port {port}: Address already in use"


BROKEN = """
class Engine:
    async def start(self):
        {does}
    async def stream(self, request):
        yield "x"
"""


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("raise RuntimeError('no GPU here')", "the engine failed to start; see the log"),
        ("import os; os._exit(3)", "worker 0 exited before it was ready; see the log"),
    ],
)
def test_workers_that_cannot_start_end_the_service_with_one_line(tmp_path: Path, does: str, words: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN.format(does=does))
    command = [*COMMAND, "serve", "--port", "0", *TWO, "--engine", "broken:Engine"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.sub("worker [01]", "worker 0", ended.stderr.splitlines()[-1]) == f"anthro-asgi: error: {words}"
    assert ended.stderr.count("anthro-asgi: error: ") == 1


def test_workers_that_cannot_start_leave_no_file(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN.format(does="raise RuntimeError('no GPU here')"))
    (tmp_path / "sockets").mkdir()
    command = [*COMMAND, "serve", "--uds", str(tmp_path / "sockets" / "a"), *TWO, "--engine", "broken:Engine"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, timeout=20).returncode == 1
    assert not list((tmp_path / "sockets").iterdir())


# --- stop ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_of_every_worker_are_completed(kind: str, owned: ExitStack, number: int) -> None:
    with Service(*SHORT, *TWO, kind=kind) as service:
        streams = on_each(service, owned, 2)
        service.send_signal(number)
        for stream in streams:
            assert message_from_events(parse_events(stream.rest()))["content"]
        assert service.ended() == 0


def test_streams_of_every_worker_that_exceed_the_drain_timeout_get_an_error(kind: str, owned: ExitStack) -> None:
    with Service(*ENDLESS, *TWO, "--drain-timeout", "200ms", kind=kind) as service:
        streams = on_each(service, owned, 2)
        service.send_signal()
        for stream in streams:
            events = parse_events(stream.rest())
            check_stream(events)
            assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "overloaded_error")
        assert service.ended() == 0


def test_a_second_interrupt_ends_everything_at_once(kind: str, owned: ExitStack) -> None:
    with Service(*ENDLESS, *TWO, "--drain-timeout", "1h", kind=kind) as service:
        streams = on_each(service, owned, 2)
        service.send_signal(signal.SIGINT)
        until(lambda: service.refuses_connections)
        for stream in streams:
            stream.read_line()
        service.send_signal(signal.SIGINT)
        assert service.ended(expected=130) == 130


def test_an_interrupt_in_a_terminal_reaches_each_worker_once(owned: ExitStack) -> None:
    """A terminal signals the whole process group. A worker that got two signals would end its streams at once."""
    with Service(*SHORT, *TWO, group_leader=True) as service:
        streams = on_each(service, owned, 2)
        service.send_signal(signal.SIGSTOP)
        os.killpg(service.pid, signal.SIGINT)
        for _ in range(10):
            assert get(service.url, "/readyz").status == 200
        service.send_signal(signal.SIGCONT)
        for stream in streams:
            assert message_from_events(parse_events(stream.rest()))["content"]
        assert service.ended() == 0


def test_workers_drain_and_exit_when_the_supervisor_is_killed(kind: str, owned: ExitStack) -> None:
    with Service(*SHORT, *TWO, kind=kind) as service, owned:
        workers = service.children
        streams = on_each(service, owned, 2)
        service.send_signal(signal.SIGKILL)
        for pid in workers:
            owned.callback(kill, pid)
        for stream in streams:
            assert message_from_events(parse_events(stream.rest()))["content"]
        until(lambda: not any(map(is_running, workers)))
        assert service.ended(expected=-signal.SIGKILL) == -signal.SIGKILL


# --- a worker dies ---


def test_a_killed_worker_only_loses_its_own_streams_and_is_replaced(kind: str, owned: ExitStack) -> None:
    with Service(*SHORT, "--workers", "3", kind=kind) as service:
        streams = on_each(service, owned, 3)
        victim = streams[0].worker
        others = set(service.children) - {victim}
        os.kill(victim, signal.SIGKILL)
        for stream in streams:
            if stream.worker != victim:
                assert message_from_events(parse_events(stream.rest()))["content"]
        line = service.logged(level="error")
        assert re.fullmatch(rf"worker \d \(pid {victim}\) {DIED}; restarting it in 0\.1 s", line["message"])
        until(lambda: len(service.children) == 3)
        assert others < set(service.children)
        for _ in range(30):
            assert get(service.url, "/healthz").status == 200
        service.send_signal()
        assert service.ended(excused=DIED) == 0


def test_clients_in_the_queue_of_a_dead_worker_are_served_by_its_replacement(kind: str) -> None:
    with Service(*AT_ONCE, *TWO, kind=kind) as service, ExitStack() as owned:
        (victim, other) = service.children
        for pid in (victim, other):
            os.kill(pid, signal.SIGSTOP)
        host, _, port = service.url.removeprefix("http://").partition(":")
        clients = [owned.enter_context(socket.create_connection((host, int(port)), 20)) for _ in range(40)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        os.kill(victim, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}
        service.send_signal()
        assert service.ended(excused=DIED) == 0


def test_a_worker_that_keeps_dying_is_restarted_with_a_growing_delay(tmp_path: Path) -> None:
    doom = tmp_path / "doom"
    with Service(*TWO, "--engine", "tests.server.engines:FailingStart", DOOM=str(doom)) as service:
        service.may_log_errors = True
        doom.touch()
        os.kill(service.children[0], signal.SIGKILL)
        for words in (
            r"exited with status -9; restarting it in 0\.1 s",
            r"exited with status 1 \(the engine failed to start; see the log\); restarting it in 0\.2 s",
            r"exited with status 1 \(the engine failed to start; see the log\); restarting it in 0\.4 s",
        ):
            until(partial(is_logged, service, words))
        assert len(service.children) <= 2
        doom.unlink()
        until(lambda: len(service.children) == 2)
        for _ in range(20):
            assert get(service.url, "/healthz").status == 200
        assert sum("restarting it" in line.get("message", "") for line in service.log) == 3


def test_every_worker_reports_the_counts_of_all_workers_even_of_dead_ones() -> None:
    with Service(*AT_ONCE, *TWO) as service:
        for _ in range(20):
            assert ask(service.url).status == 200
        expected = 'requests_total{route="/v1/messages",status="200",stop_reason="end_turn",stream="false"} 20.0\n'
        until(lambda: expected.encode() in get(service.url, "/metrics").body)
        os.kill(service.children[0], signal.SIGKILL)
        until(lambda: b"worker_starts_total" in get(service.url, "/metrics").body)
        service.logged(level="error")
        until(lambda: len(service.children) == 2)
        body = get(service.url, "/metrics").body.decode()
        assert expected in body
        assert sorted(re.findall(r'worker_starts_total\{worker="\d"\} (\d)', body)) == ["1", "2"]
        service.send_signal()
        assert service.ended(excused=DIED) == 0


# --- reload ---


def test_every_worker_reloads_the_keys_and_later_workers_have_them(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-old\n")

    def admitted(key: str) -> set[int]:
        out = set()
        for _ in range(20):
            with closing(connect(service.url)) as connection:
                connection.request("GET", "/v1/models", headers={"x-api-key": key})
                out.add(connection.getresponse().status)
        return out

    with Service(*AT_ONCE, *TWO, "--api-key-file", str(keys)) as service:
        assert admitted("sk-old") == {200}
        keys.write_text("sk-new\n")
        service.send_signal(signal.SIGHUP)
        until(lambda: sum(line.get("event") == "reloaded" for line in service.log) == 3)
        for _ in range(2):
            assert (admitted("sk-new"), admitted("sk-old")) == ({200}, {401})
            for pid in service.children:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            until(lambda: len(service.children) == 2)
        service.send_signal()
        assert service.ended(excused=DIED) == 0


def test_a_failed_reload_of_keys_logs_one_line_and_keeps_the_old_ones(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-old\n")
    with Service(*AT_ONCE, *TWO, "--api-key-file", str(keys)) as service:
        keys.unlink()
        service.send_signal(signal.SIGHUP)
        line = service.logged(level="error")
        assert line["message"] == f"reload failed: cannot read the key file {keys}: No such file or directory"
        for _ in range(10):
            assert get(service.url, "/v1/models").status == 401
        assert sum(line.get("level") == "error" for line in service.log) == 1
        service.send_signal()
        assert service.ended(excused="reload failed") == 0
