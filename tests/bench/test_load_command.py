"""The command as it is typed: against the real scripted engine, alone and behind the real service."""

import argparse
import io
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from anthro_asgi.bench.load import command as load
from anthro_asgi.bench.load.output import Progress
from anthro_asgi.bench.load.tally import Slo, Tally
from anthro_asgi.bench.options import unused_option
from bench import ceiling
from bench.process import serving
from tests.support.service import ROOT, Service
from tests.support.upstream import ThreadedUpstream, framed

Json = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[tuple[str, int]]:
    """URL and pid of a scripted engine, 500 tokens a second."""
    with serving([sys.executable, "-W", "error", "-m", "bench.scripted", "--rate", "500"]) as running:
        yield running


@pytest.fixture(scope="module")
def service(engine: tuple[str, int]) -> Iterator[Service]:
    with Service("--upstream", f"{engine[0]}/v1") as running:
        yield running


def options(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def run(folder: Path, *words: object) -> tuple[int, list[Json]]:
    """Exit status and the JSON lines."""
    file = folder / "out.jsonl"
    status = load.main(options(*words, "--json", file))
    return status, [json.loads(line) for line in file.read_text().splitlines()]


def test_load_on_the_engine_itself(engine: tuple[str, int], tmp_path: Path) -> None:
    url, pid = engine
    words = ("--api", "chat", "--concurrency", 8, "--requests", 24, "--output-tokens", 20, "--pid", pid, "--each")
    status, lines = run(tmp_path, url, *words)
    *each, result = lines
    assert status == 0
    assert (result["ok"], result["tokens"], result["errors"]) == (24, 24 * 20, {})
    assert (result["icl"]["n"], result["itl"]["n"]) == (24 * 19, 24)
    assert result["transit"]["n"] == 24 * 20
    assert 0 < result["transit"]["p50"] < result["e2e"]["p50"]
    assert result["server"]["cpu_s"] > 0
    assert result["server"]["rss_peak_mib"] >= result["server"]["rss_mib"] > 1
    assert result["client"]["cpu_us_per_chunk"] > 0
    assert [line["kind"] for line in each] == ["request"] * 24
    assert all(
        line["output_tokens"] == line["chunks"] == 20 and line["ttft"] < line["e2e"] and line["error"] is None
        for line in each
    )


def test_load_on_the_service_has_the_same_tokens_with_the_same_stamps(service: Service, tmp_path: Path) -> None:
    words = ("--concurrency", 4, "--requests", 12, "--output-tokens", 10, "--warmup", 4, "--ramp", "0.05")
    status, (result,) = run(tmp_path, service.url, *words, "--slo-e2e", 30)
    assert status == 0
    assert (result["ok"], result["errors"]) == (12, {})
    assert result["tokens"] >= 12 * 10 - 4 * 10
    assert result["transit"]["n"] == result["chunks"]
    assert result["goodput"]["fraction"] == 1.0


def test_load_at_a_rate_and_without_streaming(service: Service, tmp_path: Path) -> None:
    words = ("--rate", 100, "--arrivals", "bursts", "--burst", 5, "--requests", 10, "--no-stream", "--output-tokens", 3)
    status, (result,) = run(tmp_path, service.url, *words)
    assert status == 0
    assert (result["ok"], result["tokens"], result["late"]["n"]) == (10, 30, 10)
    assert result["ttft"]["n"] == 0


def test_a_run_without_success_has_exit_status_1(engine: tuple[str, int], tmp_path: Path) -> None:
    status, (result,) = run(tmp_path, engine[0], "--requests", 2)
    assert (status, result["errors"]) == (1, {"http 404": 2})


def test_json_on_stdout_is_the_only_output(engine: tuple[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    words = (engine[0], "--api", "chat", "--requests", 2, "--output-tokens", 2)
    assert load.main(options(*words, "--json", "-")) == 0
    assert json.loads(capsys.readouterr().out)["ok"] == 2
    assert load.main(options(*words)) == 0
    assert "2 requests" in capsys.readouterr().out


def test_the_help_names_the_defaults_of_the_lengths_the_unix_socket_and_each_exit_status() -> None:
    shown = _help()
    chosen = options("unix:/tmp/socket")
    for what, default in (("approximate length", chosen.prompt_tokens), ("max_tokens", chosen.output_tokens)):
        assert f"{what}: a number (default {default})" in shown
    assert "or unix:/path" in shown
    assert "Exit status: 0 if" in shown
    assert "130 after an interrupt." in shown


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("http://192.0.2.1:80",), "is not on this machine"),
        (("ftp://127.0.0.1",), "is not a URL of http://, https:// or unix:/path"),
        (("http://127.0.0.1:1", "--rate", 1, "--concurrency", 1), "give one of them"),
        (("http://127.0.0.1:1", "--dataset", "/proc/none"), "cannot read /proc/none: no such file or directory"),
        (("http://127.0.0.1:1", "--dataset", "/proc"), "cannot read /proc: is a directory"),
        (("http://[::1",), "'http://[::1' is not a URL"),
        (("http://user:sk-secret@127.0.0.1:1",), "a URL with a user and a password is not supported; --key sends"),
        (("http://127.0.0.1:99999",), "is not a URL: Port out of range"),
        (
            ("http://127.0.0.1:1", "--json", "/proc/none/file"),
            "cannot write /proc/none/file: no such file or directory",
        ),
        (("http://127.0.0.1:1", "--pid", 2**22 + 1), "no process"),
    ],
)
def test_contradictions_are_refused_with_a_reason(
    words: tuple[object, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.main(options(*words)) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    assert "sk-secret" not in said
    assert "Errno" not in said


# each option that needs another: its value, options with which it has no effect, and options with which it has one
CASES: dict[str, tuple[tuple[object, ...], list[tuple[object, ...]], tuple[object, ...]]] = {
    "ramp": ((1,), [("--rate", 1)], ()),
    "arrivals": (("constant",), [(), ("--concurrency", 2)], ("--rate", 1)),
    "max-open": ((5,), [()], ("--rate", 1)),
    "burst": ((5,), [(), ("--rate", 1)], ("--rate", 1, "--arrivals", "bursts")),
    "prefixes": ((3,), [()], ("--prefix-tokens", 9)),
    "prefix-tokens": ((9,), [("--dataset", "d")], ()),
    "prompt-tokens": ((9,), [("--dataset", "d")], ("--dataset", "d", "--turns", 2)),
    "thinking": ((9,), [("--api", "chat")], ()),
    "label": (("mine",), [()], ("--json", "-")),
    "append": ((), [()], ("--json", "-")),
    "each": ((), [()], ("--json", "-")),
}


@pytest.mark.parametrize("name", CASES)
def test_an_option_that_needs_another_is_refused_without_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value, unmet, met = CASES[name]
    (row,) = (row for row in load.CONDITIONS if name in row.options)
    for others in unmet:
        assert load.main(options("http://127.0.0.1:1", *others, f"--{name}", *value)) == 2
        assert capsys.readouterr().err == f"anthro-asgi bench load: --{name} has no effect {row.otherwise}\n"
    accepted = options("http://127.0.0.1:1", *met, f"--{name}", *value)
    assert unused_option(accepted, load.CONDITIONS, load.add_arguments) is None


def test_every_option_that_needs_another_has_a_case() -> None:
    assert [name for row in load.CONDITIONS for name in row.options] == list(CASES)


def test_a_server_that_refuses_the_key_points_to_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with Service("--simulate", ANTHRO_ASGI_API_KEYS="sk-right") as guarded:
        assert load.main(options(guarded.url, "--requests", 2)) == 1
        assert "hint: the server wants an API key (--key)" in capsys.readouterr().err
        assert load.main(options(guarded.url, "--requests", 2, "--key", "sk-right")) == 0
        assert "hint" not in capsys.readouterr().err


def test_results_are_added_to_earlier_ones_or_refused_and_never_lost(
    engine: tuple[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (engine[0], "--api", "chat", "--requests", 2, "--output-tokens", 2)
    file = tmp_path / "out.jsonl"
    file.touch()  # as a run leaves it that could not connect
    first = run(tmp_path, *words)[1]
    before = file.read_bytes()
    assert load.main(options(*words, "--json", file)) == 2
    assert f"{file} has results already: name another file, or add to it with --append" in capsys.readouterr().err
    assert file.read_bytes() == before
    status, lines = run(tmp_path, *words, "--append")
    assert (status, len(lines), lines[0]) == (0, 2, first[0])
    assert load.main(options(*words, "--json", "/dev/null")) == 0


@pytest.mark.parametrize(
    ("path", "api", "hint"),
    [
        ("/v1/chat/completions", "messages", "(then use --api chat), or no such model (then use --model)"),
        ("/v1/messages", "chat", "(then leave out --api chat), or no such model (then use --model)"),
    ],
)
def test_a_path_that_the_server_does_not_have_points_to_the_other_api(
    path: str, api: str, hint: str, engine: tuple[str, int], service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    url = engine[0] if path == "/v1/chat/completions" else service.url
    words = ("--requests", 2, "--output-tokens", 2, "--json", "/dev/null")
    assert load.main(options(url, "--api", api, *words)) == 1
    assert hint in capsys.readouterr().err
    assert load.main(options(url, "--api", "chat" if api == "messages" else "messages", *words)) == 0
    assert "hint" not in capsys.readouterr().err


def test_a_sweep_is_a_run_for_each_value(
    engine: tuple[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--api", "chat", "--concurrency", "1,3", "--requests", 6, "--output-tokens", 2, "--label", "mine")
    status, lines = run(tmp_path, engine[0], *words)
    assert status == 0
    assert [(line["concurrency"], line["ok"], line["label"]) for line in lines] == [(1, 6, "mine"), (3, 6, "mine")]
    assert lines[0]["workload"] == "prompts of 16 tokens, answers up to 2 tokens"
    assert len(lines[0]["quantiles"]["e2e"]) == 101
    assert "3 at once" in capsys.readouterr().out.splitlines()[-1]


def test_a_server_that_is_not_there_ends_the_command_with_its_address_and_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert load.main(options(f"http://{address}", "--duration", 600)) == 1
    assert f"cannot connect to {address}: connection refused" in capsys.readouterr().err


def test_a_unix_socket_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(options(f"unix:{tmp_path}/absent")) == 1
    said = capsys.readouterr().err
    assert said == f"anthro-asgi bench load: cannot connect to unix:{tmp_path}/absent: no such file or directory\n"


def test_a_name_without_an_address_ends_the_command_as_an_absent_server_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert load.main(options("http://absent.invalid")) == 1
    assert "anthro-asgi bench load: absent.invalid cannot be resolved: " in capsys.readouterr().err


def test_a_certificate_that_is_not_trusted_and_an_http_url_of_an_https_server_have_their_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    reply = framed(200, [("content-type", "application/json")], [b'{"usage":{"output_tokens":5}}'], "length")
    with ThreadedUpstream(reply, ssl=context) as server:
        assert load.main(options(server.url, "--requests", 1)) == 1
        said = capsys.readouterr().err
        assert f"cannot connect to {server.url.removeprefix('https://')}: its certificate is not trusted: " in said
        assert said.endswith("; name a file with the CA's certificate in SSL_CERT_FILE\n")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert load.main(options(server.url, "--requests", 1, "--no-stream")) == 0
        capsys.readouterr()
        assert load.main(options(server.url.replace("https:", "http:"), "--requests", 1)) == 1
        assert "cut: the connection was closed without an answer, as an https:// server does" in capsys.readouterr().out


def test_an_https_url_of_an_http_server_ends_the_command_with_the_reason(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.main(options(service.url.replace("http:", "https:"), "--requests", 1)) == 1
    said = capsys.readouterr().err
    assert "no TLS connection: " in said
    assert said.endswith("; is it an http:// server?\n")


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "0"),
        ("--rate", ""),
        ("--ramp", "nan"),
        ("--drain", "-1"),
        ("--warmup", "-1"),
        ("--pid", "0"),
        ("--model", " "),
        ("--label", ""),
        ("--key", "two words"),
        ("--dataset", ""),
        ("--json", ""),
        ("--extra", "{"),
        ("--slo-ttft", "soon"),
        ("--slo-ttft", "0ms"),
        ("--timeout", "-1s"),
        ("--duration", "10 parsecs"),
        ("--requests", "0"),
        ("--concurrency", "1,x"),
        ("--prompt-tokens", "odd(1, 2)"),
        ("--extra", "[]"),
        ("--duration", "inf"),
    ],
)
def test_options_out_of_range_are_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options("http://127.0.0.1:1", *words)
    said = capsys.readouterr().err
    assert words[0] in said
    assert re.search(r" value: |invalid \w+ value", said) is None, "argparse's own words name a function"


TIMES = ("--ramp", "--duration", "--drain", "--timeout", "--slo-ttft", "--slo-itl", "--slo-e2e")


def _help() -> str:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    return " ".join(parser.format_help().split())


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2.0), ("2.5", 2.5), ("2s", 2.0), ("250ms", 0.25), ("1.5m", 90.0), ("1h", 3600.0)]
)
def test_a_time_is_a_number_of_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    chosen = options("http://127.0.0.1:1", *(word for name in TIMES for word in (name, text)))
    assert [getattr(chosen, name.removeprefix("--").replace("-", "_")) for name in TIMES] == [seconds] * len(TIMES)
    assert "S is a number of seconds, or a time such as 500ms or 2m." in _help()


def test_an_interrupt_prints_the_counts_so_far(engine: tuple[str, int]) -> None:
    arguments = [engine[0], "--api", "chat", "--duration", "600", "--drain", "600", "--timeout", "1000"]
    arguments += ["--output-tokens", "20", "--json", "-", "--each"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "anthro_asgi", "bench", "load", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "request"
        process.send_signal(signal.SIGINT)
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait() == 130
    finally:
        process.kill()
        process.communicate()
    assert lines[-1]["kind"] == "load"
    assert lines[-1]["ok"] + lines[-1]["unfinished"] == len(lines)
    assert lines[-1]["unfinished"] <= 1


def test_the_ceiling_is_measured_against_a_scripted_engine(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    ceiling.add_arguments(parser)
    assert ceiling.main(parser.parse_args(["--duration", "0.05", "--concurrency", "2"])) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(ceiling._TOGETHER)
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row[1:])


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_several_elsewhere() -> None:
    plan = load._plans(options("http://127.0.0.1:1", "--requests", 4))[0]
    tally, flow = Tally(Slo(), None), argparse.Namespace(done=2, open=[1, 2, 3])
    screen, file = Screen(), io.StringIO()
    live, lines = Progress(plan, screen), Progress(plan, file)
    for progress in (live, lines):
        progress("load", flow, tally)  # type: ignore[arg-type]
    text = "load: 2 of 4 done, 3 open, 0 errors"
    assert screen.getvalue() == f"\r\x1b[2K{text}"
    assert file.getvalue() == ""
    lines._due = 0.0
    lines("load", flow, tally)  # type: ignore[arg-type]
    assert file.getvalue() == f"{text}\n"
    live.end()
    assert screen.getvalue().endswith("\x1b[2K")
