"""TLS with generated certificates, and Unix sockets."""

import asyncio
import re
import socket
import ssl
import warnings
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from anthro_asgi.upstream.errors import Broken, ConnectFailed, Timeout
from anthro_asgi.upstream.http_parsers import PARSERS, ParserFactory
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.upstream.pool import Pool
from tests.support.upstream import ScriptedUpstream, Wire, framed, json_answer, raw_answer, sse
from tests.upstream.test_exchange import body_of, endless

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


class Authority:
    """A certificate authority: its CA file, contexts for servers, and client certificates."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str = "127.0.0.1", **validity: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, **validity).configure_cert(context)
        return context

    def mutual_tls_server(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """A context that requires a client certificate of this authority."""
        context = self.server()
        context.maximum_version = newest
        context.verify_mode = ssl.CERT_REQUIRED
        self._ca.configure_trust(context)
        return context

    def client_certificate(self) -> str:
        """A file with a client certificate and its key."""
        file = str(self._folder / "ours.pem")
        self._ca.issue_cert("sidecar.example").private_key_and_cert_chain_pem.write_to_path(file)
        return file


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@both
async def test_requests_are_sent_over_verified_tls(parser: ParserFactory, authority: Authority) -> None:
    large = framed(200, [], [b"x" * 1000] * 2000, "length")
    async with ScriptedUpstream(sse({"a": 1}), large, endless, ssl=authority.server()) as upstream:
        pool = Pool(Origin.parse(upstream.url, ca_file=authority.file), parser=parser)
        assert await body_of(pool) == b'data: {"a": 1}\n\ndata: [DONE]\n\n'
        async with pool.exchange("POST", "/", body=b"y" * 3_000_000) as response:
            await upstream.until(lambda: " paused " in repr(response._connection))
            assert len(await response.read_all(1 << 30)) == 2_000_000
        assert len(upstream.requests[1].body) == 3_000_000
        assert upstream.accepted == 1
        async with pool.exchange("GET", "/") as response:
            assert await response.read() == b"a"
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.open == 0)
        await pool.aclose()


@both
async def test_an_early_refusal_is_read_over_tls(parser: ParserFactory, authority: Authority) -> None:
    async def refuse(wire: Wire) -> None:
        await wire.send(json_answer(413, {}))
        await wire.gone()

    async with ScriptedUpstream(refuse, ssl=authority.server(), reads_bodies=False) as upstream:
        pool = Pool(Origin.parse(upstream.url, ca_file=authority.file), parser=parser)
        async with pool.exchange("POST", "/", body=b"y" * (32 << 20)) as response:
            assert (response.status, await response.read_all(9)) == (413, b"{}")
        assert pool.slots_used == 0
        await pool.aclose()


async def test_a_body_cut_short_over_tls_is_broken(authority: Authority) -> None:
    async def cut(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-length", "9")], b"short"))
        wire.reset()

    async with ScriptedUpstream(cut, ssl=authority.server()) as upstream:
        pool = Pool(Origin.parse(upstream.url, ca_file=authority.file))
        with pytest.raises(Broken):
            await body_of(pool)
        await pool.aclose()


async def test_an_unknown_authority_is_a_failed_connect(authority: Authority) -> None:
    async with ScriptedUpstream(json_answer(200, {}), ssl=authority.server()) as upstream:
        pool = Pool(Origin.parse(upstream.url))
        with pytest.raises(
            ConnectFailed, match="its certificate is not trusted: unable to get local issuer certificate"
        ):
            await body_of(pool)
        assert (pool.slots_used, upstream.requests) == (0, [])


async def test_a_certificate_for_another_host_is_a_failed_connect(authority: Authority) -> None:
    async with ScriptedUpstream(json_answer(200, {}), ssl=authority.server("other.example")) as upstream:
        pool = Pool(Origin.parse(upstream.url, ca_file=authority.file))
        with pytest.raises(ConnectFailed, match="certificate is not valid for '127"):
            await body_of(pool)
        assert (pool.slots_used, upstream.requests) == (0, [])


async def test_a_certificate_that_has_expired_is_a_failed_connect(authority: Authority) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    server = authority.server(not_before=yesterday - timedelta(days=1), not_after=yesterday)
    async with ScriptedUpstream(json_answer(200, {}), ssl=server) as upstream:
        pool = Pool(Origin.parse(upstream.url, ca_file=authority.file))
        with pytest.raises(ConnectFailed, match="certificate has expired"):
            await body_of(pool)
        assert (pool.slots_used, upstream.requests) == (0, [])


async def test_tls_older_than_1_2_is_a_failed_connect(authority: Authority) -> None:
    server = authority.server()
    server.set_ciphers("ALL:@SECLEVEL=0")  # otherwise OpenSSL itself refuses this version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1_1
    async with ScriptedUpstream(json_answer(200, {}), ssl=server) as upstream:
        origin = Origin.parse(upstream.url, ca_file=authority.file)
        pool = Pool(origin)
        with pytest.raises(ConnectFailed):
            await body_of(pool)
        assert (pool.slots_used, upstream.requests) == (0, [])
        assert origin.tls is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            origin.tls.minimum_version = ssl.TLSVersion.TLSv1_1
        origin.tls.set_ciphers("ALL:@SECLEVEL=0")
        assert await body_of(pool) == b"{}", "only the version was refused"
        await pool.aclose()


both_versions = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@both_versions
async def test_a_server_that_requires_a_client_certificate_gets_it(
    authority: Authority, newest: ssl.TLSVersion
) -> None:
    async def answer(wire: Wire) -> None:
        shown.append(wire._transport.get_extra_info("peercert")["subjectAltName"])
        await wire.send(json_answer(200, {}))

    shown: list[Any] = []
    async with ScriptedUpstream(answer, ssl=authority.mutual_tls_server(newest)) as upstream:
        pool = Pool(Origin.parse(upstream.url, ca_file=authority.file, cert_file=authority.client_certificate()))
        assert await body_of(pool) == b"{}"
        assert shown == [(("DNS", "sidecar.example"),)]
        await pool.aclose()


@both_versions
@pytest.mark.parametrize("missing", [True, False], ids=["none", "of another authority"])
async def test_a_server_refuses_a_missing_or_foreign_client_certificate(
    authority: Authority, newest: ssl.TLSVersion, missing: bool, tmp_path: Path
) -> None:
    """The server is a thread, because asyncio's server closes without the alert that most servers send."""
    (tmp_path / "other").mkdir()
    ours = None if missing else Authority(tmp_path / "other").client_certificate()
    context, received = authority.mutual_tls_server(newest), b""

    def accept() -> None:
        nonlocal received
        raw, _ = listener.accept()
        with raw.dup() as lingering, suppress(ssl.SSLError, OSError):
            with suppress(ssl.SSLError), context.wrap_socket(raw, server_side=True) as wrapped:
                received = wrapped.recv(1)
            lingering.shutdown(socket.SHUT_WR)
            while lingering.recv(65536):  # so that no RST overtakes the alert
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = asyncio.create_task(asyncio.to_thread(accept))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        pool = Pool(Origin.parse(url, ca_file=authority.file, cert_file=ours))
        # with TLS 1.3 the client learns of it only after its request
        with pytest.raises(ConnectFailed if newest is ssl.TLSVersion.TLSv1_2 else Broken) as caught:
            await body_of(pool)
        await accepting
    assert re.search("(?i)alert|certificate.required", str(caught.value)), "the log should say why"
    assert (pool.slots_used, received) == (0, b"")


async def test_tls_to_a_plain_http_server_is_a_failed_connect(authority: Authority) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = Pool(Origin.parse(f"https://127.0.0.1:{port}", ca_file=authority.file))
    with pytest.raises(ConnectFailed):
        await body_of(pool)
    assert pool.slots_used == 0
    server.close()


async def test_a_handshake_that_does_not_end_is_a_connect_timeout(authority: Authority) -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    origin = Origin.parse(f"https://127.0.0.1:{port}", ca_file=authority.file)
    pool = Pool(origin, deadlines=Deadlines(connect=0.05))
    with pytest.raises(Timeout) as caught:
        await body_of(pool)
    assert caught.value.phase == "connect"
    assert pool.slots_used == 0
    await closed.wait()
    server.close()


# Failed connects, and Unix sockets


async def test_a_refused_connection_is_a_failed_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pool = Pool(Origin.parse(f"http://127.0.0.1:{port}"))
    with pytest.raises(ConnectFailed, match=f"http://127.0.0.1:{port}"):
        await body_of(pool)
    assert pool.slots_used == 0


@pytest.mark.parametrize("host", ["x" * 64 + ".invalid", "a..b"])
async def test_a_host_name_that_cannot_be_resolved_is_a_failed_connect(host: str) -> None:
    pool = Pool(Origin.parse(f"http://{host}"))
    with pytest.raises(ConnectFailed):
        await body_of(pool)
    assert pool.slots_used == 0


@both
async def test_requests_are_sent_over_a_unix_socket(parser: ParserFactory, tmp_path: Path) -> None:
    async with ScriptedUpstream(json_answer(200, {}), uds=str(tmp_path / "e.sock")) as upstream:
        pool = Pool(Origin.parse(upstream.url + "/v1"), parser=parser)
        for _ in range(2):
            assert await body_of(pool) == b"{}"
        assert upstream.requests[0].headers["host"] == "localhost"
        assert upstream.accepted == 1
        assert repr(pool).startswith(f"<Pool unix:{tmp_path}/e.sock idle=1 ")
        await pool.aclose()


async def test_a_missing_unix_socket_is_a_failed_connect(tmp_path: Path) -> None:
    pool = Pool(Origin.parse(f"unix:{tmp_path}/absent.sock"))
    with pytest.raises(ConnectFailed, match=r"absent\.sock: no such file or directory"):
        await body_of(pool)
    (tmp_path / "file.sock").write_text("no socket")
    with pytest.raises(ConnectFailed):
        await body_of(Pool(Origin.parse(f"unix:{tmp_path}/file.sock")))
    assert pool.slots_used == 0


async def test_connecting_waits_while_the_accept_queue_of_a_unix_socket_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "e.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        pool = Pool(Origin.parse(f"unix:{path}"), deadlines=Deadlines(connect=0.05))
        with pytest.raises(Timeout) as caught:
            await body_of(pool)
        assert caught.value.phase == "connect"
        assert pool.slots_used == 0

        pool = Pool(Origin.parse(f"unix:{path}"))
        task = asyncio.create_task(body_of(pool))
        await asyncio.sleep(0.05)  # several attempts while the queue is full
        listener.accept()[0].close()
        wire, _ = await asyncio.get_running_loop().run_in_executor(None, listener.accept)
        with wire:
            wire.sendall(json_answer(200, "at last"))
            assert await task == b'"at last"'
        await pool.aclose()
