"""The suite as a command, as a run of pytest, and its reports; and the profile `gateway` against our own service."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.conformance.check import CHECKS, Failure, Session, Unsupported, events_of
from anthro_asgi.conformance.command import main
from anthro_asgi.conformance.exchange import Client, Exchange
from anthro_asgi.conformance.grammar import parse_events
from anthro_asgi.conformance.report import failures_in_markdown, line, page, table
from anthro_asgi.conformance.run import Finding, Report, chosen, report_of, run
from anthro_asgi.conformance.scripted_engine import MODEL, ScriptedEngine
from tests.support.service import AT_ONCE, Service


def _finding(outcome: Any, weight: Any = "must", reason: str = "") -> Finding:
    exchange = {"request": "POST /v1/messages", "request_headers": {"a": "b"}, "request_body": "<{}>", "status": 200}
    received = {"response_headers": {}, "response_body": "<script>", "cut": ""}
    return Finding("a rule holds", "area", weight, "API", outcome, reason, 0.1, [exchange | received])


def _report(*findings: Finding, server: str = "http://127.0.0.1:1") -> Report:
    return Report(server, "m", "server", "2026-01-01T00:00:00+00:00", 1.0, 10, list(findings))


def test_a_report_survives_json() -> None:
    report = _report(_finding("passed"), _finding("failed", "should", "why"))
    assert report_of(json.loads(json.dumps(report.as_json()))) == report


def test_only_broken_musts_decide() -> None:
    assert not _report(_finding("failed", "should"), _finding("not applicable")).broken_musts
    assert len(_report(_finding("failed")).broken_musts) == 1


def test_the_table_counts_by_area_and_weight() -> None:
    text = table(
        _report(_finding("passed"), _finding("failed"), _finding("failed", "should"), _finding("not applicable"))
    )
    assert text.splitlines()[1].split() == ["area", "1/2", "0/1", "-", "2"]


def test_the_page_shows_servers_side_by_side_and_escapes_what_they_sent() -> None:
    html = page([_report(_finding("failed", reason="<b>")), _report(_finding("passed"), server="other")])
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<th>other</th>") == 1
    assert 'href="#0-a-rule-holds"' in html
    assert 'id="0-a-rule-holds"' in html


def test_markdown_shows_the_request_and_the_response_of_each_failure() -> None:
    text = failures_in_markdown(_report(_finding("failed", reason="a*b\n" + "x" * 500), _finding("passed")))
    assert text.startswith("## http://127.0.0.1:1 (profile server): 1 failed\n")
    assert r"a\*b x" in text
    assert "x" * 300 not in text
    assert "~~~text\nPOST /v1/messages\n<{}>\n\n200\n<script>\n~~~" in text


def test_a_line_says_why() -> None:
    assert line(_finding("failed", reason="why")) == "FAILED  must    area: a rule holds: why"


def test_each_check_has_an_authority_and_a_name_of_its_own() -> None:
    checks = chosen("server") + chosen("gateway")
    assert len({(check.profile, check.name) for check in checks}) == len(checks) == len(CHECKS)
    assert all(check.authority for check in checks)
    assert len(chosen("server")) >= 100
    assert len(chosen("gateway")) >= 40


def test_keys_are_not_in_a_report() -> None:
    shown = Exchange("POST", "/", {"x-api-key": "secret", "authorization": "Bearer secret"}, b"").shown()
    assert "secret" not in json.dumps(shown)


@pytest.mark.parametrize("body", [b'event: ping\ndata: {"type": "ping"}', b"data: [DONE]\n\n", b'data: {"a": 1}\n\n'])
def test_a_body_that_is_no_list_of_events_fails(body: bytes) -> None:
    headers = {"content-type": "text/event-stream"}
    with pytest.raises(Failure):
        events_of(Exchange("POST", "/", {}, b"", 200, headers, body))


def test_all_forms_of_events_are_read() -> None:
    body = b': hello\r\nevent:ping\r\ndata:{"type": "ping"}\r\n\r\n'
    exchange = Exchange("POST", "/", {}, b"", 200, {"content-type": "text/event-stream; charset=utf-8"}, body)
    assert [event.type for event in events_of(exchange)] == ["ping"]


NOWHERE, GATEWAY = "http://127.0.0.1:1", ("--profile", "gateway", "--engine-listen")


def test_a_server_that_is_not_there_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for model in ([], ["--model", "m"]):
            assert main([f"http://{address}", *model]) == 2
            assert capsys.readouterr().err == f"anthro-asgi: error: cannot connect to {address}: connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["http://127.0.0.1:99999"], "not an http or https URL: http://127.0.0.1:99999"),
        (["http://[::1"], "not an http or https URL: http://[::1"),
        ([NOWHERE, "--only", "models", "--only", "absent"], "--only: no check has all of the words models, absent"),
        ([NOWHERE, "--json", "/proc/none/a.json"], "/proc/none/a.json: No such file or directory"),
        ([NOWHERE, "--compare", "/proc/none", "--html", "/dev/null"], "/proc/none: No such file or directory"),
        ([NOWHERE, "--compare", "/proc/none"], "--compare has no effect without --html or --markdown"),
        ([NOWHERE, "--engine-listen", "h:1"], "--engine-listen has no effect without --profile gateway"),
        (["--compare", "/proc/none", "--html", "/dev/null", "--json", "a"], "--json has no effect without a server"),
        (["--compare", "/proc/none", "--html", "/dev/null", "--name", "a"], "--name has no effect without a server"),
        ([], "name a server, or reports with --compare"),
        (["--model", "m"], "name a server, or reports with --compare"),
        ([NOWHERE, *GATEWAY, "x"], "--engine-listen: 'x' is not HOST:PORT"),
        ([NOWHERE, *GATEWAY, "h:x"], "--engine-listen: 'h:x' is not HOST:PORT"),
    ],
)
def test_a_run_that_cannot_be_made_is_refused_with_one_line_before_it_begins(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"anthro-asgi: error: {reason}\n"


def test_a_check_without_a_key_is_not_applicable() -> None:
    check = next(check for check in chosen("server") if check.name == "a wrong key is refused")
    with pytest.raises(Unsupported):
        check.run(Session(Client("http://127.0.0.1:1", None), "m"))


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[Service, ScriptedEngine]]:
    """The service in front of the scripted engine."""
    with ScriptedEngine() as engine, Service("--upstream", engine.url) as service:
        yield service, engine


@pytest.mark.slow
def test_the_service_keeps_every_rule_of_a_gateway(gateway: tuple[Service, ScriptedEngine]) -> None:
    service, engine = gateway
    report = run(chosen("gateway"), Client(service.url, None), MODEL, "ours", engine)
    assert [(finding.name, finding.reason) for finding in report.findings if finding.outcome != "passed"] == []


@pytest.mark.slow
def test_the_command_writes_reports_and_compares_them(
    gateway: tuple[Service, ScriptedEngine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, _ = gateway
    written, html = tmp_path / "a.json", tmp_path / "a.html"
    only = ["--only", "models", "--model", MODEL]
    assert main([service.url, *only, "--json", str(written), "--name", "one"]) == 0
    assert "models  " in capsys.readouterr().out
    assert main([service.url, *only, "--compare", str(written), "--html", str(html), "--name", "two"]) == 0
    text = html.read_text()
    assert "<th>one</th>" in text
    assert "<th>two</th>" in text


@pytest.mark.slow
def test_pytest_runs_the_installed_suite(gateway: tuple[Service, ScriptedEngine], tmp_path: Path) -> None:
    service, _ = gateway
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "anthro_asgi.conformance"]
    chosen_only = ["--server", service.url, "--model", MODEL, "-k", "models"]
    run = subprocess.run([*command, *chosen_only], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stdout
    assert "4 passed" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "options", "command_status", "pytest_status", "outcome"),
    [
        (["unknown", "model", "found"], [], 0, 0, "1 xfailed"),  # a `should`: the simulator answers under every name
        (["unknown", "model", "found"], ["--runxfail"], 0, 1, "1 failed"),
        (["wrong", "refused"], ["--key", "any"], 1, 1, "1 failed"),  # a `must`: the service has no keys
    ],
)
def test_pytest_fails_for_the_rules_for_which_the_command_fails(
    words: list[str], options: list[str], command_status: int, pytest_status: int, outcome: str, tmp_path: Path
) -> None:
    with Service("--simulate", *AT_ONCE) as service:
        only = [part for word in words for part in ("--only", word)]
        assert main([service.url, *only, *(options if "--key" in options else [])]) == command_status
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--pyargs",
            "anthro_asgi.conformance",
        ]
        arguments = ["--server", service.url, "-k", " and ".join(words), *options]
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (run.returncode, outcome in run.stdout.splitlines()[-1]) == (pytest_status, True), run.stdout


def test_a_stream_that_is_no_list_of_events_is_a_finding_and_the_run_goes_on() -> None:
    def breaks(session: Session) -> None:
        parse_events(b"data: [DONE]\n\n")

    check = replace(chosen("gateway")[0], run=breaks)
    report = run([check, check], Client("http://127.0.0.1:1", None), "m", "a server")
    assert [finding.outcome for finding in report.findings] == ["failed", "failed"]
    assert "not one event line and one data line" in report.findings[0].reason
