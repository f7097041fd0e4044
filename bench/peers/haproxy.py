"""HAProxy: HTTP mode, one thread, kept-open connections to the engine."""

from pathlib import Path
from typing import Final

from .envs import debian, said
from .peer import Launch, Peer

_CONFIG: Final = """\
global
    nbthread 1
    maxconn 9000
defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend clients
    bind {listen} backlog 4096
    default_backend engines
backend engines
    http-reuse always
    server engine {engine} maxconn 9000
"""


class HAProxy(Peer):
    name = "haproxy"
    label = "HAProxy, HTTP relay"
    api = "chat"
    unix = True

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._program = debian(cache / "envs" / self.name, "haproxy", install=install)
        return said(self._program, "-v").split()[2]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        config = folder / "haproxy.cfg"
        config.write_text(_CONFIG.format(engine=engine, listen=listen))
        return Launch([*self._program.command, "-f", str(config), "-db", "-q"], self._program.environment)
