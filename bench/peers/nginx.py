"""The system's nginx, if installed: one worker, `proxy_pass` without buffering, kept-open connections to the engine."""

import shutil
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .peer import Launch, Peer, Unavailable

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
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
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

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        said = subprocess.run([self._path(), "-v"], capture_output=True, text=True, check=False, timeout=10)
        return said.stderr.strip().rpartition("/")[2]

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, engine=urlsplit(upstream).netloc, port=port))
        return Launch([self._path(), "-p", str(folder), "-e", "stderr", "-c", str(config)])

    def _path(self) -> str:
        path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if path is None:
            raise Unavailable("not installed: apt-get install --no-install-recommends nginx")
        return path
