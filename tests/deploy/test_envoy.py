"""`examples/envoy.yaml`, as far as it can be checked without Envoy. `tests/clients/test_load_balancer.py` runs it."""

import re
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT

CONFIG = yaml.safe_load((ROOT / "examples" / "envoy.yaml").read_text("utf-8"))["static_resources"]
PAGE = (ROOT / "docs" / "how-to" / "several-engines.md").read_text("utf-8")
(LISTENER,) = CONFIG["listeners"]
(CLUSTER,) = CONFIG["clusters"]
CONNECTIONS: dict[str, Any] = LISTENER["filter_chains"][0]["filters"][0]["typed_config"]
ROUTE: dict[str, Any] = CONNECTIONS["route_config"]["virtual_hosts"][0]["routes"][0]["route"]


def ports() -> list[int]:
    """Of the replicas."""
    (group,) = CLUSTER["load_assignment"]["endpoints"]
    return [entry["endpoint"]["address"]["socket_address"]["port_value"] for entry in group["lb_endpoints"]]


def test_the_service_of_the_page_asks_envoy_and_the_page_names_the_replicas() -> None:
    address = LISTENER["address"]["socket_address"]
    assert f"--upstream http://{address['address']}:{address['port_value']}/v1" in PAGE
    assert re.findall(r"the ports (\d+) and (\d+)", PAGE) == [tuple(map(str, ports()))]


def test_only_this_machine_reaches_the_engines_through_envoy() -> None:
    assert LISTENER["address"]["socket_address"]["address"] == "127.0.0.1"


@pytest.mark.parametrize(("settings", "name"), [(CONNECTIONS, "stream_idle_timeout"), (ROUTE, "timeout")])
def test_an_answer_may_take_any_time(settings: dict[str, Any], name: str) -> None:
    assert settings[name] == "0s"


def test_an_answer_that_may_have_begun_is_not_repeated() -> None:
    assert ROUTE["retry_policy"]["retry_on"] == "connect-failure,refused-stream"


def test_a_replica_is_chosen_by_its_load_and_its_health() -> None:
    assert CLUSTER["lb_policy"] == "LEAST_REQUEST"
    (check,) = CLUSTER["health_checks"]
    assert check["http_health_check"]["path"] == "/health"
