"""nginx: one worker, `proxy_pass` without buffering, kept-open connections to the engine."""

from pathlib import Path
from typing import Final

from .envs import debian, said
from .peer import Launch, Peer, is_path

_CONFIG: Final = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 32m;
    client_body_buffer_size 1m;
    upstream engine {{ server {engine}; keepalive 128; }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Host localhost;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


class Nginx(Peer):
    name = "nginx"
    label = "nginx proxy_pass"
    api = "chat"
    unix = True

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._program = debian(cache / "envs" / self.name, "nginx", install=install)
        return said(self._program, "-v").strip().rpartition("/")[2]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        config = folder / "nginx.conf"
        engine, listen = (f"unix:{one}" if is_path(one) else one for one in (engine, listen))
        config.write_text(_CONFIG.format(folder=folder, engine=engine, listen=listen))
        words = ["-p", str(folder), "-e", "stderr", "-c", str(config)]
        return Launch([*self._program.command, *words], self._program.environment)
