"""Options that have no effect because of another option are found, wherever they are given."""

from pathlib import Path

import pytest

from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import OPTIONS, ConfigError
from anthro_asgi.settings.presets import PRESETS
from anthro_asgi.settings.unused import DEPENDENCIES, Dependency, refuse_unused

Line = dict[str, list[str]]

HTTPS: Line = {"upstream": ["https://x"]}
# for each dependency: other options with which it is not met, and some with which it is
SURROUNDINGS: dict[str, tuple[list[Line], list[Line]]] = {
    "with one worker (--workers 1)": ([{}, {"workers": ["1"]}], [{"workers": ["2"]}]),
    "with --gc python": ([{"gc": ["python"]}], [{}, {"gc": ["bounded"]}]),
    "with --upstream-api messages": (
        [HTTPS | {"upstream-api": ["messages"]}],
        [HTTPS, HTTPS | {"upstream-api": ["chat"]}],
    ),
    "without an https upstream": (
        [{"upstream": ["http://x"]}, {"upstream": ["unix:/s"]}, {"upstream": ["a=http://x", "b=http://y"]}],
        [HTTPS, {"upstream": ["a=http://x", "b=https://y"]}],
    ),
    "without API keys (ANTHRO_ASGI_API_KEYS or --api-key-file)": (
        [{}, {"no-auth": ["true"]}],
        [{"api-key-file": ["keys"]}],
    ),
    "with --max-queue 0, except for several engines": (
        [{"max-queue": ["0"]}],
        [{}, {"max-queue": ["0"], "upstream": ["a=http://x", "b=http://y"]}],
    ),
    "without --batch-store": ([{}, HTTPS], [{"batch-store": ["b.sqlite"]}]),
    "with the value pass, except for an --upstream that may speak the Messages API": (
        [{}, HTTPS | {"upstream-api": ["chat"]}, {"engine": ["a:b"]}, {"model": ["x.gguf"]}],
        [HTTPS, HTTPS | {"upstream-api": ["messages"]}],
    ),
    "with --server-tools pass, except for the value refuse": (
        [HTTPS | {"server-tools": ["pass"]}],
        [HTTPS | {"server-tools": ["drop"]}],
    ),
    "with --cache-diagnostics off": ([{"cache-diagnostics": ["off"]}], [{}, {"cache-diagnostics": ["all"]}]),
    "with --simulate-trace": ([{"simulate-trace": ["t.jsonl"]}], [{"simulate": ["true"]}]),
    "with --simulate-text echo": ([{"simulate-text": ["echo"]}], [{}, {"simulate-text": ["seeded"]}]),
    "without --simulate-max-running": ([{}], [{"simulate-max-running": ["3"]}]),
    "without --simulate-cache-tokens": ([{}, {"simulate-cache-tokens": ["0"]}], [{"simulate-cache-tokens": ["100"]}]),
    "without --simulate-fail stall=RATE": (
        [{}, {"simulate-fail": ["429=0.1"]}, {"simulate-fail": ["stall=0"]}],
        [{"simulate-fail": ["stall=0.1"]}, {"simulate-fail": ["429=0.1", "stall=0.1"]}],
    ),
}
# a value of each option that is not its default, for types whose values cannot be derived from the default
VALUES = {
    "dialect": "vllm",
    "late-system": "fold",
    "think-tags": "tags",
    "server-tools": "pass",
    "pdf": "images",
    "simulate-text": "echo",
    "upstream-cert-key": "key.pem",
    "simulate-ttft": "7s",
    "simulate-itl": "7s",
    "simulate-output-tokens": "7",
    "simulate-thinking-tokens": "7",
    "max-file": "7M",
    "max-files-per-key": "7M",
    "max-body-memory-per-key": "7M",
    "gc-growth": "7M",
    "simulate-load-factor": "0.5",
    "simulate-thinking-rate": "0.5",
    "simulate-tool-rate": "0.5",
}
CASES = [(row, name) for row in DEPENDENCIES for name in row.options]
each_case = pytest.mark.parametrize(("row", "name"), CASES, ids=[f"{name} {row.otherwise}" for row, name in CASES])


def value(name: str) -> str:
    (option,) = (option for option in OPTIONS if option.name == name)
    return VALUES.get(name) or {"DURATION": "7s", "FILE": "file.pem"}.get(option.type.metavar, "7")


def around(name: str, others: Line) -> Line:
    extra: Line = {"upstream-cert": ["cert.pem"]} if name == "upstream-cert-key" else {}
    return others | extra | {name: [value(name)]}


def reasons(line: Line, name: str) -> list[str]:
    return [option.reason for option in load_settings(line, {}).without_effect if option.name == name]


@each_case
def test_an_option_that_depends_on_another_is_found_without_it_and_not_with_it(row: Dependency, name: str) -> None:
    unmet, met = SURROUNDINGS[row.otherwise]
    for others in unmet:
        settings = load_settings(around(name, others), {})
        assert (name, f"--{name}", row.otherwise, row.is_refused) in settings.without_effect
        if row.is_refused:
            with pytest.raises(ConfigError, match=f"has no effect {row.otherwise.split(' (')[0]}"):
                refuse_unused(settings)
        elif name not in others:
            refuse_unused(settings)
    for others in met:
        assert reasons(around(name, others), name) == []


def test_every_dependency_has_surroundings() -> None:
    assert set(SURROUNDINGS) == {row.otherwise for row in DEPENDENCIES}
    assert len(CASES) == len(set(CASES)) > 25


def test_each_reason_names_another_option() -> None:
    """An operator must find the option that is missing."""
    for row in DEPENDENCIES:
        named = [
            option.name for option in OPTIONS if f"--{option.name}" in row.otherwise or option.name in row.otherwise
        ]
        assert set(named) - set(row.options), row.otherwise


@each_case
def test_in_the_environment_or_a_file_it_is_found_and_not_refused(row: Dependency, name: str, tmp_path: Path) -> None:
    line = around(name, SURROUNDINGS[row.otherwise][0][-1])
    environ = {f"ANTHRO_ASGI_{key.upper().replace('-', '_')}": ",".join(texts) for key, texts in line.items()}
    variable = f"ANTHRO_ASGI_{name.upper().replace('-', '_')}"
    settings = load_settings({}, environ)
    assert (name, variable, row.otherwise, row.is_refused) in settings.without_effect
    refuse_unused(settings)
    del environ[variable]
    file = tmp_path / "a.toml"
    file.write_text(f'{name} = "{value(name)}"\n')
    settings = load_settings({"config": [str(file)]}, environ)
    assert (name, f"{file}: {name}", row.otherwise, row.is_refused) in settings.without_effect
    refuse_unused(settings)


def test_an_option_of_one_of_several_engines_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        '[[engine]]\nname = "a"\nurl = "http://x"\nca = "ca.pem"\n'
        '[[engine]]\nname = "b"\nurl = "https://y"\nca = "ca.pem"\napi = "messages"\ndialect = "vllm"\n'
    )
    assert [(one.where, one.reason) for one in load_settings({"config": [str(file)]}, {}).without_effect] == [
        ("upstream-ca of the engine a", "without an https upstream"),
        ("dialect of the engine b", "with --upstream-api messages"),
    ]


def test_a_client_key_without_its_certificate_is_an_error_in_a_table_too(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[[engine]]\nname = "a"\nurl = "https://x"\ncert-key = "k.pem"\n')
    with pytest.raises(ConfigError, match="--upstream-cert-key needs --upstream-cert"):
        load_settings({"config": [str(file)]}, {})


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_profile_gives_is_a_default_and_never_without_effect(preset: str) -> None:
    line = {"simulate-profile": [preset], "simulate-cache-tokens": ["0"], "simulate-text": ["echo"]}
    assert load_settings(line, {}).without_effect == ()


def test_a_profile_with_an_upstream_is_named_once() -> None:
    settings = load_settings({"simulate-profile": ["flaky"], "upstream": ["http://x"]}, {})
    assert [one.where for one in settings.without_effect] == ["--simulate-profile"]


def test_simulate_openai_shares_its_environment_with_serve() -> None:
    """Only its own options are judged, and always with the simulator."""
    environ = {"ANTHRO_ASGI_UPSTREAM": "http://x", "ANTHRO_ASGI_BATCH_LEASE": "7s", "ANTHRO_ASGI_UPSTREAM_KEY_A": "k"}
    settings = load_settings({"simulate-ttft": ["1s"]}, environ, "simulate-openai")
    assert (settings.engine_kind, settings.simulated_by_default, settings.upstream) == ("simulate", False, None)
    assert [one.where for one in settings.without_effect] == ["ANTHRO_ASGI_UPSTREAM_KEY_A"]
    settings = load_settings({"worker-deadline": ["7s"], "simulate-stall": ["7s"]}, environ, "simulate-openai")
    assert [one.name for one in settings.without_effect][:2] == ["worker-deadline", "simulate-stall"]
