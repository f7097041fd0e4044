"""Listening sockets: how they are bound, published, withdrawn, shared and replaced."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from anthro_asgi.server.listeners import Listener, UnixListener, bind_listeners, steer, unsteer
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import ResourceUnavailable, Settings
from tests.cli.test_main import refusal
from tests.support.client import get
from tests.support.service import AT_ONCE, Service


def settings(**options: object) -> Settings:
    return load_settings({name.replace("_", "-"): [str(value)] for name, value in options.items()}, {})


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bound(owned: ExitStack, path: Path, *, replace: bool = True) -> UnixListener:
    listener = UnixListener(owned.enter_context(socket.socket(socket.AF_UNIX)), str(path), replace_existing=replace)
    listener.sock.listen()
    return listener


# --- ports ---


def listeners(owned: ExitStack, count: int) -> list[Listener]:
    """`count` listeners on one port."""
    out: list[Listener] = []
    for _ in range(count):
        sock = owned.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", out[0].sock.getsockname()[1] if out else 0))
        sock.listen(200)
        sock.setblocking(False)
        out.append(Listener(sock, 1))
    return out


def accepted(owned: ExitStack, group: list[Listener], clients: int = 60) -> list[int]:
    """How many of `clients` new connections each listener gets."""
    address = group[-1].sock.getsockname()
    for _ in range(clients):
        owned.enter_context(socket.create_connection(address))
    counts = []
    for listener in group:
        counts.append(0)
        while listener.has_pending():
            listener.sock.accept()[0].close()
            counts[-1] += 1
    return counts


def test_clients_are_steered_to_a_later_socket_until_that_is_undone(owned: ExitStack) -> None:
    group = listeners(owned, 3)
    assert all(accepted(owned, group)), "chosen by the hash"
    group[0].withdraw()
    assert accepted(owned, group) == [0, 60, 0]
    group[2].maintain()
    assert all(accepted(owned, group))


def test_steering_by_a_closed_server_loses_no_client(owned: ExitStack) -> None:
    old, new = group = listeners(owned, 2)
    old.withdraw()
    old.close()
    assert accepted(owned, [new]) == [60]
    group[0] = listeners_beside(owned, new)
    new.publish()
    assert all(accepted(owned, group))


def listeners_beside(owned: ExitStack, other: Listener) -> Listener:
    sock = owned.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(other.sock.getsockname())
    sock.listen(200)
    sock.setblocking(False)
    return Listener(sock, 1)


def test_steering_has_no_effect_on_a_unix_socket(owned: ExitStack) -> None:
    alone = owned.enter_context(socket.socket(socket.AF_UNIX))
    steer(alone, 1)
    unsteer(alone)


def test_each_worker_has_its_own_socket_on_a_port_that_others_cannot_bind() -> None:
    with bind_listeners(settings(port=0, workers=3)) as workers:
        ports = {listener.sock.getsockname()[1] for (listener,) in workers}
        assert (len(workers), len(ports)) == (3, 1)
        (port,) = ports
        for options in ({"port": port}, {"port": port, "workers": 2}):
            for (listener,) in workers:
                listener.sock.listen()
            with (
                pytest.raises(ResourceUnavailable, match="Address already in use"),
                bind_listeners(settings(**options)),
            ):
                pass
    with bind_listeners(settings(port=port)):
        pass


def test_a_port_is_shared_only_with_reuse_port() -> None:
    with bind_listeners(settings(port=0)) as ((alone,),):
        alone.sock.listen()
        port = alone.sock.getsockname()[1]
        with pytest.raises(ResourceUnavailable), bind_listeners(settings(port=port, reuse_port="true")):
            pass
    with bind_listeners(settings(port=port, reuse_port="true")) as ((one,),):
        one.sock.listen()
        with bind_listeners(settings(port=port, reuse_port="true", workers=2)) as others:
            assert [other.group_size for (other,) in others] == [2, 2]


def test_accepted_sockets_have_tcp_keepalive() -> None:
    with bind_listeners(settings(port=0)) as ((listener,),):
        listener.sock.listen()
        with socket.create_connection(listener.sock.getsockname()), listener.sock.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


# --- paths ---


def test_a_path_does_not_exist_until_it_is_published(tmp_path: Path, owned: ExitStack) -> None:
    path = tmp_path / "a"
    listener = bound(owned, path)
    assert not path.exists()
    listener.publish()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    listener.withdraw()
    assert not list(tmp_path.iterdir())


def test_a_socket_that_was_never_published_leaves_no_file(tmp_path: Path) -> None:
    with bind_listeners(settings(uds=tmp_path / "a")):
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_a_replacing_server_is_reachable_at_once_and_not_removed_by_the_old_one(
    tmp_path: Path, owned: ExitStack
) -> None:
    path = tmp_path / "a"
    old, new = bound(owned, path), bound(owned, path)
    old.publish()
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        new.publish()
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(path))
            assert (old.has_pending(), new.has_pending()) == (True, True)
    old.withdraw()
    assert path.exists()
    new.withdraw()
    assert not path.exists()


def test_a_file_with_a_reused_inode_number_is_not_removed(tmp_path: Path, owned: ExitStack) -> None:
    """A server exits long after it closed its socket, when the inode number may belong to another file."""
    path = tmp_path / "a"
    old = bound(owned, path)
    old.publish()
    os.unlink(path)
    old.close()
    new = bound(owned, path)
    new.publish()
    old._inode = new._inode
    old.withdraw()
    assert path.exists()


def test_a_server_that_has_published_first_is_not_replaced(tmp_path: Path, owned: ExitStack) -> None:
    path = tmp_path / "a"
    late, first = bound(owned, path, replace=False), bound(owned, path)
    first.publish()
    with pytest.raises(ResourceUnavailable, match="another server is listening there"):
        late.publish()
    with pytest.raises(ResourceUnavailable, match="another server is listening there"):
        bound(owned, path, replace=False)
    first.withdraw()
    late.publish()
    assert path.exists()


def test_a_file_that_is_not_a_socket_is_not_replaced(tmp_path: Path, owned: ExitStack) -> None:
    path = tmp_path / "a"
    path.write_text("precious")
    with pytest.raises(ResourceUnavailable, match="the file exists and is not a socket"):
        bound(owned, path)
    assert path.read_text() == "precious"


def test_a_path_that_cannot_be_published_is_a_one_line_error(tmp_path: Path, owned: ExitStack) -> None:
    (tmp_path / "b").mkdir()
    listener = bound(owned, tmp_path / "b" / "a")
    os.unlink(listener._temporary)
    with pytest.raises(ResourceUnavailable, match="No such file"):
        listener.publish()


def test_a_running_server_is_replaced_only_with_reuse_port(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with Service(*AT_ONCE, "--uds", path, "--reuse-port", kind=kind) as old:
        assert refusal(1, "serve", "--uds", path) == f"cannot listen on {path}: another server is listening there"
        with Service(*AT_ONCE, "--uds", path, "--reuse-port", kind=kind) as new:
            assert new.url == f"unix:{path}"
            old.send_signal()
            assert old.ended() == 0
            assert get(new.url, "/healthz").status == 200
    assert not list(tmp_path.iterdir())


def test_the_limit_of_open_files_is_raised_to_the_hard_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
    try:
        with Service(*AT_ONCE) as service:
            assert resource.prlimit(service.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
