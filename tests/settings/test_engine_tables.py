"""Several engines in the settings: `[[engine]]` tables, `--upstream NAME=URL`, and their keys."""

from pathlib import Path

import pytest

from anthro_asgi.settings.api_keys import upstream_key
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import ConfigError, Settings

TABLES = """
dialect = "sglang"
[[engine]]
name = "fast"
url = "http://a:1/v1"
dialect = "vllm"
window = 32768
max-concurrency = 64
fallback = "org/big@gpu"
connect_deadline = "2s"
[[engine]]
name = "gpu"
url = "https://b/v1"
api = "messages"
key-file = "/keys/gpu"
models = ["big", "other"]
"""
TWO = {"upstream": ["fast=http://a:1/v1", "gpu=https://b/v1"]}


def from_file(tmp_path: Path, toml: str, line: dict[str, list[str]] | None = None, **environ: str) -> Settings:
    file = tmp_path / "anthro.toml"
    file.write_text(toml, encoding="utf-8")
    return load_settings({"config": [str(file)], **(line or {})}, environ)


def complaint(line: dict[str, list[str]], **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(line, environ)
    return str(caught.value)


def test_each_table_is_an_engine_with_its_own_options_and_those_of_all(tmp_path: Path) -> None:
    settings = from_file(tmp_path, TABLES)
    assert (settings.engine_kind, settings.upstream, settings.without_effect) == ("upstream", None, ())
    assert not settings.simulated_by_default
    fast, gpu = settings.upstreams
    assert (fast.name, fast.fallback, fast.window, fast.models) == ("fast", ("org/big", "gpu"), 32768, ())
    assert (gpu.name, gpu.fallback, gpu.window, gpu.models) == ("gpu", None, None, ("big", "other"))
    of_fast, of_gpu = settings.of(fast), settings.of(gpu)
    assert (of_fast.upstream, of_fast.dialect, of_fast.connect_deadline) == ("http://a:1/v1", "vllm", 2.0)
    assert (of_gpu.upstream, of_gpu.dialect, of_gpu.connect_deadline) == ("https://b/v1", "sglang", 5.0)
    assert (of_fast.max_concurrency, of_gpu.max_concurrency) == (64, 1024)
    assert (of_fast.upstream_api, of_gpu.upstream_api) == ("auto", "messages")
    assert (of_fast.upstream_key_file, of_gpu.upstream_key_file) == (None, "/keys/gpu")
    assert "http" not in repr(settings.upstreams)


@pytest.mark.parametrize("name", ["upstream", "UPSTREAM"])
def test_named_upstreams_are_repeated_on_the_line_and_comma_separated_in_the_environment(name: str) -> None:
    if name == "upstream":
        settings = load_settings(TWO, {})
    else:
        settings = load_settings({}, {"ANTHRO_ASGI_UPSTREAM": "fast=http://a:1/v1, gpu=https://b/v1"})
    assert [(one.name, settings.of(one).upstream) for one in settings.upstreams] == [
        ("fast", "http://a:1/v1"),
        ("gpu", "https://b/v1"),
    ]


@pytest.mark.parametrize("url", ["http://a/v1?b=c,d=http://x", "unix:/run/a=b,c.sock", "http://a,b/v1"])
def test_one_url_without_a_name_is_taken_as_it_is(url: str) -> None:
    for settings in (load_settings({"upstream": [url]}, {}), load_settings({}, {"ANTHRO_ASGI_UPSTREAM": url})):
        assert (settings.upstream, settings.upstreams) == (url, ())


def test_one_engine_may_have_a_name() -> None:
    settings = load_settings({"upstream": ["only=http://a"]}, {})
    assert (settings.upstream, [one.name for one in settings.upstreams]) == (None, ["only"])


def test_the_command_line_overrides_all_tables_of_the_file(tmp_path: Path) -> None:
    assert from_file(tmp_path, TABLES, {"upstream": ["http://x"]}).upstreams == ()
    assert [one.name for one in from_file(tmp_path, TABLES, {"upstream": ["a=http://x"]}).upstreams] == ["a"]
    assert from_file(tmp_path, TABLES, {"simulate": ["true"]}).engine_kind == "simulate"


def test_each_engine_has_a_key_of_its_own() -> None:
    settings = load_settings(TWO, {"ANTHRO_ASGI_UPSTREAM_KEY_GPU": "secret-1"})
    assert [upstream_key(settings.of(one)) for one in settings.upstreams] == [None, "secret-1"]
    assert "secret" not in repr(settings)


def test_a_key_for_one_of_several_engines_has_no_effect_on_the_simulator() -> None:
    environ = {"ANTHRO_ASGI_UPSTREAM_KEY_GPU": "k", "ANTHRO_ASGI_UPSTREAM_KEY_CPU": ""}
    (option,) = load_settings({"simulate": ["true"]}, environ).without_effect
    assert (option.where, option.reason) == ("ANTHRO_ASGI_UPSTREAM_KEY_GPU", "with the simulator")


def test_a_key_for_an_engine_does_not_disturb_a_command_that_asks_no_engine() -> None:
    assert load_settings({}, {"ANTHRO_ASGI_UPSTREAM_KEY_GPU": "secret-1"}).simulated_by_default


@pytest.mark.parametrize(
    ("line", "environ", "words"),
    [
        (TWO, {"ANTHRO_ASGI_UPSTREAM_KEY": "k"}, "ANTHRO_ASGI_UPSTREAM_KEY: would send one key to all engines"),
        ({**TWO, "upstream-key-file": ["k"]}, {}, "--upstream-key-file: would send one key to all engines"),
        (TWO, {"ANTHRO_ASGI_UPSTREAM_KEY_GPV": "k"}, "'ANTHRO_ASGI_UPSTREAM_KEY_GPV': there is no engine of this name"),
        (
            {"upstream": ["http://a"]},
            {"ANTHRO_ASGI_UPSTREAM_KEY_GPU": "k"},
            "'ANTHRO_ASGI_UPSTREAM_KEY_GPU': there is no engine of this name",
        ),
        (TWO, {"ANTHRO_ASGI_UPSTREAM_KEY_GPU": "two words"}, "a key must be one word of printable ASCII"),
        ({"upstream": ["http://a", "http://b"]}, {}, "--upstream: each of several engines needs a name"),
        ({"upstream": ["a=http://a", "http://b"]}, {}, "--upstream: each of several engines needs a name"),
        ({"upstream": ["a=http://a", "a=http://b"]}, {}, "--upstream: more than one engine is called a"),
        ({"upstream": ["a-b=http://a", "a_b=http://b"]}, {}, "--upstream: more than one engine is called a-b"),
        ({"upstream": ["file=http://a", "b=http://b"]}, {}, "--upstream: an engine may not be called file"),
        ({"upstream": ["Big=http://a"]}, {}, "--upstream: NAME of NAME=URL must be at most 32"),
        ({"upstream": ["a=ftp://a"]}, {}, "--upstream: URL of NAME=URL must be http://"),
        ({"upstream": ["a=http://a"], "engine": ["a:b"]}, {}, "--upstream and --engine cannot be used together"),
    ],
)
def test_a_wrong_engine_on_the_line_or_in_the_environment_is_named(
    line: dict[str, list[str]], environ: dict[str, str], words: str
) -> None:
    assert words in complaint(line, **environ)


A = '[[engine]]\nname = "a"\nurl = "http://a"\n'


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[[engine]]\nurl = "http://a"', "engine 1: needs a name"),
        ('[[engine]]\nname = "a"', "engine 1: needs a url"),
        (f"{A}{A}", "engine: more than one engine is called a"),
        (f"{A}dialekt = 'vllm'", "engine 1: unknown key 'dialekt'; known are api, ca, "),
        (f"{A}port = 1", "engine 1: unknown key 'port'"),
        (f"{A}dialect = 'nothing'", "engine 1: dialect: 'nothing' is not one of"),
        (f"{A}dialect = ['vllm']", "engine 1: dialect: must be text or a number, not a list"),
        (f"{A}window = 0", "engine 1: window: is not between 1 and 1000000000"),
        (f"{A}window = true", "engine 1: window: must be text or a number"),
        (f"{A}models = 'm'", "engine 1: models: must be a list of names"),
        (f"{A}models = []", "engine 1: models: is empty; give it a value, or remove it"),
        (f"{A}models = [[]]", "engine 1: models: must be a list of names"),
        (f"{A}models = ['m', ' ']", "engine 1: models: is empty"),
        (f"{A}fallback = ' '", "engine 1: fallback: is empty"),
        (f"{A}window = 1979-05-27", "engine 1: window: must be text or a number"),
        (f"{A}key-file = ''", "engine 1: key-file: is empty"),
        ('[[engine]]\nname = "a"\nurl = " "', "engine 1: url: is empty, so it names no engine"),
        ('[[engine]]\nname = ""\nurl = "http://a"', "engine 1: name: is empty"),
        (f"{A}fallback = 'b'", "engine: a: fallback: no engine is called b"),
        (f"{A}fallback = 'm@a'", "engine: a: fallback: is the engine itself"),
        (f"{A}fallback = 'm@B!'", "engine 1: fallback: is not ENGINE or MODEL@ENGINE"),
        ('[[engine]]\nname = "a"\nurl = "b=http://a"', "engine 1: url: must be a URL; the name is another key"),
        ('[[engine]]\nname = "a"\nurl = 1', "engine 1: url: must be a URL"),
        ('[[engine]]\nname = "A"\nurl = "http://a"', "engine 1: name: must be at most 32"),
        ("engine = [1]", "engine 1: must be a table"),
        ("engine = []", "engine: is empty, so it names no engine"),
        (f"upstream = 'http://x'\n{A}", "upstream and [[engine]] cannot be used together"),
        (f"model = 'x.gguf'\n{A}", "cannot be used together"),
    ],
)
def test_a_wrong_table_is_named(toml: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, toml)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_of_named_upstreams_is_accepted(tmp_path: Path) -> None:
    settings = from_file(tmp_path, "[upstream]\nfast = 'http://a'\ngpu = 'http://b'")
    assert [one.name for one in settings.upstreams] == ["fast", "gpu"]


@pytest.mark.parametrize("key", ["cert", "ca", "reuse", "late-system", "think-tags", "max-event", "total-deadline"])
def test_a_table_has_the_options_of_an_upstream(key: str, tmp_path: Path) -> None:
    values = {"reuse": "never", "late-system": "fold", "think-tags": "tags", "max-event": "2K", "total-deadline": "9s"}
    settings = from_file(tmp_path, f"{A}{key} = '{values.get(key, 'x.pem')}'")
    (engine,) = settings.upstreams
    attribute = key.replace("-", "_")
    changed = settings.of(engine)
    assert getattr(changed, attribute, None) != getattr(settings, attribute, "") or getattr(
        changed, f"upstream_{attribute}"
    ) != getattr(settings, f"upstream_{attribute}")
