"""The option table and its loader: where values come from, which are errors, and the error texts."""

from pathlib import Path

import pytest

from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import OPTIONS, ConfigError, Option, ResourceUnavailable, Settings, markdown_table

BY_NAME = {option.name: option for option in OPTIONS}
SECRET_VALUE = "sk-do-not-show"

# a valid value of each option, different from its default
EXAMPLES: dict[str, tuple[str, object]] = {
    "log-level": ("debug", "debug"),
    "log-format": ("text", "text"),
    "drain-timeout": ("2m", 120.0),
    "upstream": ("http://localhost:8000/v1", "http://localhost:8000/v1"),
    "engine": ("my.module:make.engine", "my.module:make.engine"),
    "dialect": ("vllm", "vllm"),
    "model": ("model.gguf", "model.gguf"),
    "model-context": ("4096", 4096),
    "model-slots": ("2", 2),
    "model-threads": ("3", 3),
    "upstream-api": ("messages", "messages"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "uds": ("/run/a.sock", "/run/a.sock"),
    "api-key-file": ("keys.txt", "keys.txt"),
    "cors-origin": ("https://app.example:8443", ("https://app.example:8443",)),
    "upstream-key-file": ("key.txt", "key.txt"),
    "upstream-ca": ("ca.pem", "ca.pem"),
    "workers": ("4", 4),
    "worker-deadline": ("20s", 20.0),
    "drain-delay": ("5s", 5.0),
    "gc": ("python", "python"),
    "native": ("off", "off"),
    "gc-growth": ("64M", 64 << 20),
    "keep-alive": ("90s", 90.0),
    "max-head": ("8K", 8192),
    "receive-deadline": ("2s", 2.0),
    "stall-deadline": ("3s", 3.0),
    "max-concurrency": ("7", 7),
    "max-queue": ("0", 0),
    "queue-timeout": ("100ms", 0.1),
    "max-concurrency-per-key": ("2", 2),
    "batch-store": ("batches.db", "batches.db"),
    "batch-concurrency": ("3", 3),
    "batch-lease": ("5s", 5.0),
    "batch-lateness": ("20ms", 0.02),
    "max-file": ("2M", 2 << 20),
    "max-files-per-key": ("3M", 3 << 20),
    "max-body-memory": ("4M", 4 << 20),
    "max-body-memory-per-key": ("2M", 2 << 20),
    "total-deadline": ("2h", 7200.0),
    "max-event": ("1M", 1 << 20),
    "max-tool-input": ("2M", 2 << 20),
    "max-answer": ("3M", 3 << 20),
    "max-decompressed": ("4M", 4 << 20),
    "max-depth": ("9", 9),
    "max-messages": ("10", 10),
    "max-tools": ("11", 11),
    "max-stop-sequences": ("12", 12),
    "upstream-reuse": ("never", "never"),
    "connect-deadline": ("500ms", 0.5),
    "first-byte-deadline": ("1h", 3600.0),
    "silence-deadline": ("0.5s", 0.5),
    "ping-interval": ("3s", 3.0),
    "max-body": ("2MiB", 2 << 20),
    "model-alias": ("claude-*=qwen", (("claude-*", "qwen"),)),
    "server-tools": ("drop", "drop"),
    "compact-at": ("0.8", 0.8),
    "pdf": ("both", "both"),
    "web-search": ("http://127.0.0.1:8888/search", "http://127.0.0.1:8888/search"),
    "cache-diagnostics": ("all", "all"),
    "cache-diagnostics-answers": ("10", 10),
    "client-tools": ("function", "function"),
    "image-urls": ("pass", "pass"),
    "late-system": ("keep", "keep"),
    "tokenizer": ("tokenizer.json", "tokenizer.json"),
    "think-tags": ("open", "open"),
    "simulate-profile": ("flaky", "flaky"),
    "simulate-ttft": ("0", ("constant", 0.0, 0.0)),
    "simulate-ttft-per-token": ("79.8us", 0.0000798),
    "simulate-itl": ("gamma(1.5ms, 250us)", ("gamma", 0.0015, 0.00025)),
    "simulate-load-factor": ("0.05", 0.05),
    "simulate-max-running": ("8", 8),
    "simulate-max-waiting": ("0", 0),
    "simulate-cache-tokens": ("100000", 100_000),
    "simulate-cache-block": ("32", 32),
    "simulate-text": ("echo", "echo"),
    "simulate-output-tokens": ("9", ("constant", 9, 0.0)),
    "simulate-thinking-tokens": ("log-normal(600,500)", ("log-normal", 600, 500)),
    "simulate-thinking-rate": ("1", 1.0),
    "simulate-tool-rate": (".25", 0.25),
    "simulate-fail": ("cut=0.01", (("cut", 0.01),)),
    "simulate-stall": ("5s", 5.0),
    "simulate-trace": ("trace.jsonl", "trace.jsonl"),
    "simulate-seed": ("42", 42),
}


def settings_from_file(tmp_path: Path, toml: str, line: dict[str, list[str]] | None = None) -> Settings:
    file = tmp_path / "anthro.toml"
    file.write_text(toml, encoding="utf-8")
    return load_settings({"config": [str(file)], **(line or {})}, {})


def complaint(line: dict[str, list[str]], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(line, environ or {})
    assert caught.value.status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the table itself ---


def test_every_default_is_a_value_of_its_own_option() -> None:
    settings = load_settings({}, {})
    for option in OPTIONS:
        if option.default is not None:
            assert getattr(settings, option.attribute) == option.value([option.default], "default")
        else:
            single = option.name == "upstream"  # of several engines, the values are in `upstreams`
            assert getattr(settings, option.attribute) == (() if option.repeatable and not single else None)


def test_the_defaults_an_operator_relies_on() -> None:
    settings = load_settings({}, {})
    assert (settings.host, settings.port, settings.no_auth) == ("127.0.0.1", 8484, False)
    assert (settings.ping_interval, settings.max_body, settings.drain_timeout) == (10.0, 32 << 20, 30.0)
    assert (settings.max_concurrency, settings.dialect, settings.log_format) == (1024, "auto", "auto")


def test_secrets_are_read_only_from_the_environment() -> None:
    secrets = [option.name for option in OPTIONS if option.secret]
    assert secrets == ["api-keys", "upstream-key"]


def test_the_readme_table_has_a_row_for_every_option() -> None:
    rows = markdown_table().splitlines()[2:]
    assert len(rows) == len(OPTIONS)
    for option, row in zip(OPTIONS, rows, strict=True):
        assert (f"`--{option.name}" in row) is not option.secret
        assert (f"`{option.variable}`" in row) is ("environment" in option.channels)
        assert row.replace(r"\|", "").count("|") == 5


def test_settings_do_not_print_secrets() -> None:
    environ = {"ANTHRO_ASGI_API_KEYS": SECRET_VALUE, "ANTHRO_ASGI_UPSTREAM_KEY": SECRET_VALUE}
    assert SECRET_VALUE not in repr(load_settings({}, environ))


# --- where values come from ---


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_line_the_environment_and_the_file_give_the_same_value(name: str, tmp_path: Path) -> None:
    option, (text, value) = BY_NAME[name], EXAMPLES[name]
    assert value != getattr(load_settings({}, {}), option.attribute), "an example must differ from the default"
    assert getattr(load_settings({name: [text]}, {}), option.attribute) == value
    assert getattr(load_settings({}, {option.variable: text}), option.attribute) == value
    assert getattr(settings_from_file(tmp_path, f'{name} = "{text}"'), option.attribute) == value
    assert getattr(settings_from_file(tmp_path, f'{option.attribute} = "{text}"'), option.attribute) == value


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.type.metavar == "" and "file" in o.channels], ids=lambda option: option.name
)
def test_a_switch_can_be_set_on_the_command_line_in_the_environment_and_in_the_file(
    option: Option, tmp_path: Path
) -> None:
    assert getattr(load_settings({option.name: ["true"]}, {}), option.attribute) is True
    for yes, no in (("true", "false"), ("1", "0"), ("YES", "No"), ("on", "off")):
        assert getattr(load_settings({}, {option.variable: yes}), option.attribute) is True
        assert getattr(load_settings({}, {option.variable: no}), option.attribute) is False
    assert getattr(settings_from_file(tmp_path, f"{option.name} = true"), option.attribute) is True


def test_every_option_has_an_example_or_is_listed_as_tested_elsewhere() -> None:
    elsewhere = {
        "config",
        "try-model",
        "tls-cert",
        "tls-key",
        "upstream-cert",
        "upstream-cert-key",
        "api-keys",
        "upstream-key",
    }
    switches = {option.name for option in OPTIONS if option.type.metavar == ""}
    assert set(EXAMPLES) | elsewhere | switches == set(BY_NAME)


def test_the_order_is_command_line_environment_file_default(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("port = 1\nmax-body = 2048\nhost = 'file'\n")
    environ = {"ANTHRO_ASGI_CONFIG": str(file), "ANTHRO_ASGI_PORT": "2", "ANTHRO_ASGI_HOST": "environment"}
    settings = load_settings({"port": ["3"]}, environ)
    assert (settings.port, settings.host, settings.max_body, settings.ping_interval) == (3, "environment", 2048, 10.0)


def test_a_config_file_on_the_command_line_replaces_the_one_in_the_environment(tmp_path: Path) -> None:
    settings = settings_from_file(tmp_path, "port = 5")
    assert load_settings({"config": [settings.config or ""]}, {"ANTHRO_ASGI_CONFIG": "/nowhere"}).port == 5


def test_native_toml_values_are_accepted(tmp_path: Path) -> None:
    settings = settings_from_file(
        tmp_path, "port = 99\nsimulate-load-factor = 2.5\nsimulate = true\nmodel-alias = ['a=b']"
    )
    assert (settings.port, settings.simulate_load_factor, settings.simulate) == (99, 2.5, True)
    assert settings.model_alias == (("a", "b"),)


def test_aliases_may_be_a_toml_table(tmp_path: Path) -> None:
    settings = settings_from_file(tmp_path, "[model-alias]\n'claude-*' = 'qwen'\nbig = 'llama=70'")
    assert settings.model_alias == (("claude-*", "qwen"), ("big", "llama=70"))


def test_aliases_are_repeated_on_the_line_and_comma_separated_in_the_environment() -> None:
    both = (("a", "x"), ("b", "y"))
    assert load_settings({"model-alias": ["a=x", "b=y"]}, {}).model_alias == both
    assert load_settings({}, {"ANTHRO_ASGI_MODEL_ALIAS": " a = x, b=y,"}).model_alias == both


def test_several_keys_are_comma_separated() -> None:
    assert load_settings({}, {"ANTHRO_ASGI_API_KEYS": "one, two"}).api_keys == ("one", "two")


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_settings({}, {"ANTHRO_ASGI_PORT": "", "ANTHRO_ASGI_API_KEYS": ""}) == load_settings({}, {})


@pytest.mark.parametrize("variable", ["ANTHRO_ASGI_UPSTREAM", "ANTHRO_ASGI_ENGINE", "ANTHRO_ASGI_MODEL"])
def test_an_empty_variable_that_should_name_an_engine_is_an_error(variable: str, tmp_path: Path) -> None:
    words = f"{variable}: is empty, so it names no engine; give it a value, or remove it"
    assert complaint({}, {variable: ""}) == words
    assert complaint({"simulate-ttft": ["1s"]}, {variable: ""}) == words
    file = tmp_path / "a.toml"
    file.write_text("simulate = true")
    assert complaint({"config": [str(file)]}, {variable: ""}) == words


def test_an_engine_on_the_command_line_overrides_an_empty_variable() -> None:
    settings = load_settings({"engine": ["a:b"]}, {"ANTHRO_ASGI_UPSTREAM": ""})
    assert (settings.engine, settings.upstream) == ("a:b", None)
    assert load_settings({"upstream": ["http://x"]}, {"ANTHRO_ASGI_UPSTREAM": ""}).upstream == "http://x"


EMPTY = ["", " ", "\t \n"]


def empty(option: Option) -> str:
    engine = ", so it names no engine" if option.name in ("upstream", "engine", "model") else ""
    return f"is empty{engine}; give it a value, or remove it"


@pytest.mark.parametrize("text", EMPTY)
def test_an_empty_value_on_the_command_line_is_an_error(text: str) -> None:
    for option in (option for option in OPTIONS if "line" in option.channels and option.type.metavar):
        assert complaint({option.name: [text]}) == f"--{option.name}: {empty(option)}"


@pytest.mark.parametrize("text", EMPTY[1:])
def test_a_variable_of_white_space_is_an_error(text: str) -> None:
    """It never counts as unset: `--simulate` in a file does not make up for an engine without a name."""
    for option in (option for option in OPTIONS if "environment" in option.channels):
        words = complaint({}, {option.variable: text})
        assert words == f"{option.variable}: {empty(option) if option.name != 'simulate' else empty(BY_NAME['engine'])}"


def test_an_empty_value_in_a_file_is_an_error_that_names_the_file_and_the_option(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    for option in (option for option in OPTIONS if "file" in option.channels and option.type.metavar):
        for text in ["''", "' '", *(["[]", "['']", "[' ']"] if option.repeatable else [])]:
            file.write_text(f"{option.name} = {text}")
            assert complaint({"config": [str(file)]}) == f"{file}: {option.name}: {empty(option)}", (option, text)


def test_a_value_of_a_wrong_type_in_a_file_is_an_error_that_names_the_file_and_the_option(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    for option in (option for option in OPTIONS if "file" in option.channels):
        for text in ("1979-05-27", "[1979-05-27]", "[[true]]", "[{a = {}}]", "{a = 1979-05-27}", "{a = {b = 1}}"):
            file.write_text(f"{option.name} = {text}")
            words = complaint({"config": [str(file)]})
            assert words.startswith(f"{file}: {option.name}"), (option, text)


def test_variables_that_kubernetes_adds_for_a_service_are_ignored() -> None:
    environ = {
        "ANTHRO_ASGI_PORT": "tcp://10.0.0.1:8484",
        "ANTHRO_ASGI_PORT_8484_TCP": "tcp://10.0.0.1:8484",
        "ANTHRO_ASGI_PORT_8484_TCP_ADDR": "10.0.0.1",
        "ANTHRO_ASGI_SERVICE_HOST": "10.0.0.1",
        "ANTHRO_ASGI_SERVICE_PORT": "8484",
        "ANTHRO_ASGI_SERVICE_PORT_HTTP": "8484",
        "ANTHRO_ASGI_CANARY_SERVICE_HOST": "10.0.0.2",
        "ANTHRO_ASGI_CANARY_PORT": "tcp://10.0.0.2:8484",
    }
    assert load_settings({}, environ) == load_settings({}, {})


# --- exclusions ---


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"simulate": ["true"], "upstream": ["http://x"]}, "--simulate and --upstream cannot be used together"),
        ({"upstream": ["http://x"], "engine": ["a:b"]}, "--upstream and --engine cannot be used together"),
        ({"uds": ["/a"], "port": ["1"]}, "--uds and --port cannot be used together"),
        ({"uds": ["/a"], "host": ["::1"]}, "--uds and --host cannot be used together"),
        ({"tls-cert": ["a.pem"]}, "--tls-cert and --tls-key must be given together"),
        ({"upstream-cert-key": ["a.pem"]}, "--upstream-cert-key needs --upstream-cert"),
        ({"tls-key": ["a.pem"]}, "--tls-cert and --tls-key must be given together"),
        ({"no-auth": ["true"], "api-key-file": ["k"]}, "--no-auth contradicts"),
    ],
)
def test_options_that_contradict_each_other_are_named(line: dict[str, list[str]], words: str) -> None:
    assert words in complaint(line)


def test_two_engines_in_one_environment_exclude_each_other() -> None:
    words = complaint({}, {"ANTHRO_ASGI_UPSTREAM": "http://x", "ANTHRO_ASGI_ENGINE": "a:b"})
    assert words == "ANTHRO_ASGI_UPSTREAM and ANTHRO_ASGI_ENGINE cannot be used together"


def test_no_auth_contradicts_keys_from_another_place() -> None:
    assert "--no-auth contradicts" in complaint({"no-auth": ["true"]}, {"ANTHRO_ASGI_API_KEYS": "k"})


def test_an_engine_on_the_command_line_overrides_an_engine_in_the_file(tmp_path: Path) -> None:
    settings = settings_from_file(tmp_path, "upstream = 'http://x'", {"simulate": ["true"]})
    assert (settings.simulate, settings.upstream) == (True, None)


def test_simulate_set_to_false_excludes_no_other_engine() -> None:
    settings = load_settings({"upstream": ["http://x"]}, {"ANTHRO_ASGI_SIMULATE": "false"})
    assert (settings.simulate, settings.upstream) == (False, "http://x")


def test_a_socket_on_the_command_line_overrides_the_port_in_the_environment() -> None:
    settings = load_settings({"uds": ["/a"]}, {"ANTHRO_ASGI_PORT": "0"})
    assert (settings.uds, settings.port) == ("/a", 8484)


# --- the chosen engine ---


@pytest.mark.parametrize(
    ("line", "kind", "by_default"),
    [
        ({}, "simulate", True),
        ({"port": ["1"]}, "simulate", True),
        ({"simulate": ["true"]}, "simulate", False),
        ({"simulate-ttft": ["1s"]}, "simulate", False),
        ({"simulate-profile": ["flaky"]}, "simulate", False),
        ({"upstream": ["http://x"]}, "upstream", False),
        ({"engine": ["a:b"]}, "engine", False),
        ({"model": ["x.gguf"]}, "model", False),
    ],
)
def test_the_settings_say_which_engine_is_chosen_and_whether_by_default(
    line: dict[str, list[str]], kind: str, by_default: bool
) -> None:
    settings = load_settings(line, {})
    assert (settings.engine_kind, settings.simulated_by_default) == (kind, by_default)


@pytest.mark.parametrize(
    ("line", "without_effect"),
    [
        ({"upstream": ["http://x"], "simulate-ttft": ["1s"]}, ("--simulate-ttft",)),
        ({"upstream": ["http://x"], "simulate-ttft": ["20ms"]}, ()),  # its default
        ({"upstream": ["http://x"], "model-slots": ["2"]}, ("--model-slots",)),
        ({"upstream": ["http://x"], "upstream-api": ["messages"], "think-tags": ["tags"]}, ("--think-tags",)),
        ({"upstream": ["http://x"], "think-tags": ["tags"]}, ()),
        ({"engine": ["a:b"], "connect-deadline": ["1s"], "tokenizer": ["t"]}, ("--connect-deadline",)),
        ({"model": ["x.gguf"], "connect-deadline": ["1s"], "upstream-ca": ["t"]}, ("--upstream-ca",)),
        ({"simulate": ["true"], "tokenizer": ["t"], "max-answer": ["1M"]}, ("--tokenizer",)),
    ],
)
def test_options_without_effect_on_the_chosen_engine_are_found(
    line: dict[str, list[str]], without_effect: tuple[str, ...]
) -> None:
    assert tuple(option.where for option in load_settings(line, {}).without_effect) == without_effect


def test_an_option_without_effect_is_spelled_as_it_was_given(tmp_path: Path) -> None:
    (option,) = load_settings({}, {"ANTHRO_ASGI_UPSTREAM_KEY": "k"}).without_effect
    assert option.where == "ANTHRO_ASGI_UPSTREAM_KEY"
    (option,) = settings_from_file(tmp_path, "model_slots = 2").without_effect
    assert option.where.endswith("anthro.toml: model_slots")


# --- wrong values ---

WRONG = [
    ("port", "http", "is not a whole number"),
    ("port", "-1", "is not a whole number"),
    ("port", "1.5", "is not a whole number"),
    ("port", "1_000", "is not a whole number"),
    ("port", "٣", "is not a whole number"),
    ("port", "65536", "is not between 0 and 65535"),
    ("port", "9" * 5000, "is not between 0 and 65535"),
    ("max-concurrency", "0", "is not between 1 and 65536"),
    ("max-body", "lots", "is not a size"),
    ("max-body", "1.5MiB", "is not a size"),
    ("max-body", "32MB", "is not a size"),
    ("max-body", "0", "is not between 1K and 1G"),
    ("max-body", "2G", "is not between 1K and 1G"),
    ("ping-interval", "soon", "is not a duration"),
    ("ping-interval", "0", "is not between 10ms and 1h"),
    ("ping-interval", "10", "has no unit; write for example 10s or 10ms"),
    ("simulate-itl", "gamma(5, 1ms)", "has a parameter that has no unit"),
    ("ping-interval", "nan", "is not a duration"),
    ("ping-interval", "inf", "is not a duration"),
    ("ping-interval", "1e3", "is not a duration"),
    ("silence-deadline", "25h", "is not between 10ms and 24h"),
    ("log-level", "loud", "is not one of debug, info, warning, error"),
    ("log-format", "xml", "is not one of auto, json, text"),
    ("upstream-api", "soap", "is not one of auto, chat, messages"),
    ("dialect", "klingon", "is not one of auto, openai"),
    ("upstream", "localhost:8000", "must be http://"),
    ("upstream", "ftp://host", "must be http://"),
    ("upstream", "http://a b", "must be http://"),
    ("upstream", "unix:relative.sock", "must be http://"),
    ("engine", "module", "is not of the form module:attr"),
    ("engine", "module:", "is not of the form module:attr"),
    ("model-alias", "name", "is not NAME=MODEL"),
    ("model-alias", "=model", "is not NAME=MODEL"),
    ("model-alias", "a=b*", "only NAME may have one"),
    ("host", "", "is empty"),
    ("cors-origin", "app.example", "is not an origin such as https://app.example, or *"),
    ("cors-origin", "https://app.example/", "is not an origin"),
    ("cors-origin", "https://*.example", "is not an origin"),
    ("uds", "a\0b", "contains a NUL"),
    ("simulate-seed", "x", "is not a whole number"),
    ("simulate-itl", "soon", "is not a duration"),
    ("simulate-itl", "poisson(5ms, 1ms)", "does not begin with one of uniform, normal, log-normal, gamma"),
    ("simulate-itl", "gamma(5ms, soon)", "has a parameter that is not a duration"),
    ("simulate-itl", "gamma(5ms)", "is not a duration"),
    ("simulate-itl", "uniform(5ms, 1ms)", "has a lower bound above its upper bound"),
    ("simulate-output-tokens", "normal(0, 5)", "has a parameter that is not between 1 and 1000000"),
    ("simulate-tool-rate", "2", "is not between 0 and 1"),
    ("simulate-tool-rate", "often", "is not a number"),
    ("simulate-fail", "cut", "is not KIND=RATE"),
    ("simulate-fail", "bored=1", "is not KIND=RATE with one of the kinds 429, 529, 500, error, stall, cut"),
    ("simulate-fail", "cut=2", "is not between 0 and 1"),
    ("simulate-text", "poetry", "is not one of seeded, echo"),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG)
def test_a_wrong_value_is_reported_with_its_option(name: str, text: str, words: str) -> None:
    said = complaint({name: [text]})
    assert said.startswith(f"--{name}: ")
    assert words in said
    assert len(said) < 300


@pytest.mark.parametrize(("name", "text", "words"), [row for row in WRONG if row[1] and "\0" not in row[1]])
def test_a_wrong_value_in_the_environment_is_reported_with_its_variable(name: str, text: str, words: str) -> None:
    said = complaint({}, {BY_NAME[name].variable: text})
    assert said.startswith(f"{BY_NAME[name].variable}: ")
    assert words in said


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("prot = 1", "unknown option 'prot'; did you mean port?"),
        ("max_bodi = 1", "did you mean max-body?"),
        (
            "api-keys = ['a']",
            "api-keys: can only be set as the environment variable ANTHRO_ASGI_API_KEYS; did you mean api-key-file?",
        ),
        ("config = 'b.toml'", "config: can only be set as --config or the environment variable ANTHRO_ASGI_CONFIG"),
        ("try_model = 'm'", "try_model: can only be set as --try-model"),
        ("[[server]]\nport = 1", "unknown section [[server]]; the only one is [[engine]]"),
        ("qqqqqq = 1", "unknown option 'qqqqqq'"),
        ("[server]\nport = 1", "unknown section [server]; write the options at the top of the file, without"),
        ("port = true", "port: must be text or a number, not true"),
        ("simulate = 1", "simulate: must be true or false, not a number"),
        ("simulate = 'yes'", "simulate: must be true or false, not text"),
        ("port = [1, 2]", "port: must be text or a number, not a list"),
        ("host = {a = 'b'}", "host: must be text or a number, not a table"),
        ("port = 1979-05-27", "port: must be text or a number, not a date or a time"),
        ("upstream = [true]", "upstream: must be text, a list of texts or a table, not true"),
        ("cors-origin = {a = 'b'}", "cors-origin: must be text or a list of texts, not a table"),
        ("model-alias = {a = ['b']}", "model-alias: must be text, a list of texts or a table, not a list"),
        ("upstream = {}", "upstream: is empty, so it names no engine"),
        ("upstream = [{}]", "upstream: is empty, so it names no engine"),
        ("upstream = [[]]", "upstream: must be text, a list of texts or a table, not a list"),
        ("model-alias = {}", "model-alias: is empty; give it a value, or remove it"),
        ("[engine]\nname = 'a'", "engine: is one table; write [[engine]] for each engine"),
        ("model-alias = {a = 1}", ""),
        ("ping-interval = nan", "ping-interval: 'nan' is not a duration"),
        ("max_body = 2048\nmax-body = 2048", "given more than once"),
        ("port = ", "is not valid TOML"),
        ("port = 1\nport = 2", "is not valid TOML"),
    ],
)
def test_an_error_in_a_file_names_the_file_and_the_option(tmp_path: Path, toml: str, words: str) -> None:
    if not words:
        assert settings_from_file(tmp_path, toml).model_alias == (("a", "1"),)
        return
    with pytest.raises(ConfigError) as caught:
        settings_from_file(tmp_path, toml)
    said = str(caught.value)
    assert words in said
    assert "anthro.toml" in said
    assert "\n" not in said
    assert caught.value.status == 2


def test_a_file_that_is_not_utf8_is_not_valid_toml(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"host = '\xff'")
    assert "is not valid TOML" in complaint({"config": [str(file)]})


@pytest.mark.parametrize("path", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_an_unavailable_resource(tmp_path: Path, path: str) -> None:
    with pytest.raises(ResourceUnavailable, match="--config: cannot read") as caught:
        load_settings({"config": [str(tmp_path / path)]}, {})
    assert caught.value.status == 1


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("ANTHRO_ASGI_PROT", "'ANTHRO_ASGI_PROT': unknown variable; did you mean ANTHRO_ASGI_PORT?"),
        ("ANTHRO_ASGI_API_KEY", "did you mean ANTHRO_ASGI_API_KEYS?"),
        ("ANTHRO_ASGI_READY", "ANTHRO_ASGI_READY: can only be set as --ready"),
        ("ANTHRO_ASGI_port", "did you mean ANTHRO_ASGI_PORT?"),
        ("ANTHRO_ASGI_", "'ANTHRO_ASGI_': unknown variable"),
        ("ANTHRO_ASGI_QQQQQQ", "'ANTHRO_ASGI_QQQQQQ': unknown variable"),
    ],
)
def test_an_unknown_variable_is_an_error_that_does_not_quote_its_value(variable: str, words: str) -> None:
    said = complaint({}, {variable: SECRET_VALUE})
    assert said.endswith(words)
    assert SECRET_VALUE not in said


def test_variables_without_the_prefix_are_ignored() -> None:
    assert load_settings({}, {"ANTHRO_ASGIX": "1", "PORT": "x", "anthro_asgi_port": "x"}).port == 8484


@pytest.mark.parametrize("text", ["two words", "sch\u00f6n", "tab\tbed", "line\nfeed"])
@pytest.mark.parametrize("variable", ["ANTHRO_ASGI_API_KEYS", "ANTHRO_ASGI_UPSTREAM_KEY"])
def test_an_invalid_key_is_an_error_that_does_not_quote_it(variable: str, text: str) -> None:
    assert complaint({}, {variable: text}) == f"{variable}: a key must be one word of printable ASCII"


def test_keys_that_are_only_commas_are_an_error() -> None:
    assert complaint({}, {"ANTHRO_ASGI_API_KEYS": " , "}) == "ANTHRO_ASGI_API_KEYS: contains only commas"


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("1K", 1024), ("1KiB", 1024), ("3 MiB", 3 << 20), ("1G", 1 << 30)]
)
def test_a_size_may_have_a_binary_unit(text: str, size: int) -> None:
    assert load_settings({"max-body": [text]}, {}).max_body == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10.0), ("700ms", 0.7), (".5s", 0.5), ("2 m", 120.0), ("1.h", 3600.0)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert load_settings({"ping-interval": [text]}, {}).ping_interval == seconds


def test_zero_needs_no_unit() -> None:
    assert load_settings({"queue-timeout": ["0"]}, {}).queue_timeout == 0.0
