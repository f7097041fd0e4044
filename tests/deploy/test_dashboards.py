"""The Grafana dashboard and the alert rules: every metric, label and value that they use exists in the service."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from anthro_asgi.engines.base import BaseEngine
from anthro_asgi.http.messages_app import MessagesApp
from anthro_asgi.wire.deltas import Batch
from anthro_asgi.wire.request import MessagesRequest
from tests.support.service import ROOT

BOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
SCRAPED = {"job", "instance"}  # labels that Prometheus gives


class TwoEngines(BaseEngine):
    engine_names = ("fast", "gpu")  # so that the metrics by engine exist

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        yield "a"


METRICS = MessagesApp(TwoEngines()).metrics
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}


def known() -> dict[str, dict[str, set[str]]]:
    """The names of all series, and for each its labels with their values; none means any."""
    series: dict[str, dict[str, set[str]]] = {
        one.name: {name: set() for name in one.labels} for one in METRICS.constants()
    }
    for family in METRICS.families:
        values = {name: {labels[at] for labels in family.places} for at, name in enumerate(family.labels)}
        if family.by_worker:
            values["worker"] = set()
        for suffix in SUFFIXES.get(family.kind, ("",)):
            series[family.name + suffix] = {**values, "le": set()} if suffix == "_bucket" else values
    return series


SERIES = known()


def expressions() -> Iterator[tuple[str, str]]:
    """Each with where it stands."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for rule in ALERTS:
        yield f"alert {rule['alert']}", rule["expr"]


EXPRESSIONS = list(expressions())


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The series that an expression reads: name, and label, operator and value of each of its conditions."""
    for name, conditions in re.findall(r"(anthro_asgi_\w+)(\{[^}]*\})?", expression):
        yield name, re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', conditions)


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=lambda part: part[:40])
def test_every_expression_uses_existing_series_labels_and_values(where: str, expression: str) -> None:
    read = list(selectors(expression))
    assert read, where
    for name, conditions in read:
        assert name in SERIES, f"{where}: there is no {name}"
        for label, operator, value in conditions:
            if label in SCRAPED:
                continue
            assert label in SERIES[name], f"{where}: {name} has no label {label}"
            pattern = value if operator in ("=~", "!~") else re.escape(value)
            found = [one for one in SERIES[name][label] if re.fullmatch(pattern, one)]
            assert found, f"{where}: {label} of {name} is never {value}"


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=lambda part: part[:40])
def test_every_expression_groups_by_existing_labels(where: str, expression: str) -> None:
    labels = {label for name, _ in selectors(expression) for label in SERIES[name]} | SCRAPED
    for names in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
        assert {name.strip() for name in names.split(",")} <= labels, where


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=lambda part: part[:40])
def test_counters_are_read_as_rates_and_gauges_are_not(where: str, expression: str) -> None:
    counters = {family.name for family in METRICS.families if family.kind == "counter"}
    for match in re.finditer(r"(?:(\w+)\()?(anthro_asgi_\w+)(?:\{[^}]*\})?(\[[^\]]+\])?", expression):
        function, name, window = match.groups()
        if name in counters or name.endswith("_bucket"):
            assert function in ("rate", "increase"), f"{where}: {name}"
            assert window
        else:
            assert function not in ("rate", "increase"), f"{where}: {name}"


def test_every_metric_is_shown_in_a_panel_or_an_alert() -> None:
    shown = {name for _, expression in EXPRESSIONS for name, _ in selectors(expression)}
    bare = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    names = {family.name for family in METRICS.families} | {constant.name for constant in METRICS.constants()}
    assert names <= bare


# the dashboard


def test_the_dashboard_has_a_row_for_each_question() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Now", "Traffic", "Latency", "Tokens", "Upstream", "Saturation", "Errors", "Engines"]


def test_the_dashboard_takes_any_data_source_job_and_instance() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD["panels"])))
    assert used == variables | {"__rate_interval"}
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            for _, conditions in selectors(target["expr"]):
                assert {label for label, _, _ in conditions} >= SCRAPED, panel["title"]


def test_panels_have_distinct_ids_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for first, second in combinations([panel["gridPos"] for panel in BOARD["panels"]], 2):
        assert (
            first["x"] + first["w"] <= second["x"]
            or second["x"] + second["w"] <= first["x"]
            or first["y"] + first["h"] <= second["y"]
            or second["y"] + second["h"] <= first["y"]
        )
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in BOARD["panels"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_description_and_a_unit(panel: Any) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        labels = {label for name, _ in selectors(target["expr"]) for label in SERIES[name]} | SCRAPED
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


# the alerts


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_a_summary_and_a_description(rule: Any) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"AnthroAsgi[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["annotations"]["description"].endswith(".")
    assert re.fullmatch(r"\d+m", rule.get("for", "1m"))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alerts_annotations_use_only_its_own_labels(rule: Any) -> None:
    grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in names.split(",")}
    plain = {label for name, _ in selectors(rule["expr"]) for label in SERIES[name]} | SCRAPED
    told = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert told <= ((grouped - {"le"}) or plain)


def test_alert_names_are_distinct() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)


def test_the_alerts_cover_the_metrics_an_operator_is_paged_for() -> None:
    watched = {name for rule in ALERTS for name, _ in selectors(rule["expr"])}
    assert watched >= {
        "anthro_asgi_requests_total",
        "anthro_asgi_time_to_first_token_seconds_bucket",
        "anthro_asgi_inter_token_latency_seconds_bucket",
        "anthro_asgi_upstream_errors_total",
        "anthro_asgi_admission_refusals_total",
        "anthro_asgi_workers_draining",
        "anthro_asgi_worker_starts_total",
        "anthro_asgi_worker_up",
    }
