"""Defaults exist once, and each option has an effect: the option table against the classes that take its values."""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi import MessagesApp, factory
from anthro_asgi.engines.llamacpp.engine import LlamaCppEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.http.admission import Admission
from anthro_asgi.http.body_memory import BodyMemory
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import EXCLUSIVE, OPTIONS
from anthro_asgi.settings.values import ValueType, duration, integer, size
from anthro_asgi.simulator import Profile, SimulatedEngine
from anthro_asgi.simulator.chat_app import CompletionsApp
from anthro_asgi.upstream.pool import Deadlines
from anthro_asgi.upstream.sse import SSEParser
from anthro_asgi.wire.answer_limits import AnswerLimits
from anthro_asgi.wire.request_policy import Rules

PACKAGE = Path(__file__).parents[2] / "anthro_asgi"
DEFAULTS = load_settings({}, {})

# options that are read by name when the settings are loaded
READ_BY_THE_LOADER = {"config", "simulate_profile"}


def defaults_of(function: Callable[..., object]) -> dict[str, object]:
    """The parameters of `function` that have a default, with it."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


# each class, with the option that each of its parameters is
TAKEN: list[tuple[Callable[..., object], dict[str, str]]] = [
    (
        MessagesApp,
        {
            name: name
            for name in (
                "ping_interval",
                "max_body",
                "max_decompressed",
                "max_concurrency",
                "max_queue",
                "queue_timeout",
                "max_concurrency_per_key",
                "max_body_memory",
                "max_body_memory_per_key",
                "batch_store",
                "batch_concurrency",
                "batch_lease",
                "batch_lateness",
                "max_file",
                "max_files_per_key",
                "hide_thinking",
                "tokenizer",
                "debug",
                "pdf",
                "cache_diagnostics",
                "cache_diagnostics_answers",
                "total_deadline",
                "compact_at",
                "web_search",
            )
        },
    ),
    (CompletionsApp, {"max_body": "max_body", "max_decompressed": "max_decompressed"}),
    (
        Admission,
        {
            "limit": "max_concurrency",
            "queue": "max_queue",
            "timeout": "queue_timeout",
            "per_key": "max_concurrency_per_key",
        },
    ),
    (BodyMemory, {"limit": "max_body_memory", "per_key": "max_body_memory_per_key"}),
    (AnswerLimits, {name: name for name in ("max_event", "max_tool_input", "max_answer")}),
    (SSEParser, {"max_event": "max_event"}),
    (
        Rules,
        {
            name: name
            for name in ("keep_billing_header", "max_depth", "max_messages", "max_tools", "max_stop_sequences")
        },
    ),
    (Deadlines, {name: f"{name}_deadline" for name in ("connect", "first_byte", "silence", "total")}),
    (LlamaCppEngine, {"context": "model_context", "slots": "model_slots", "threads": "model_threads"}),
    (OpenAIEngine, {"think_tags": "think_tags"}),
]


@pytest.mark.parametrize(("taker", "names"), TAKEN, ids=lambda part: getattr(part, "__name__", ""))
def test_a_class_has_the_default_of_the_option_table(taker: Callable[..., object], names: dict[str, str]) -> None:
    found = defaults_of(taker)
    assert {name: found[name] for name in names} == {name: getattr(DEFAULTS, names[name]) for name in names}


@pytest.mark.parametrize("taker", [MessagesApp, AnswerLimits, Rules, Deadlines])
def test_no_default_of_a_class_escapes_the_comparison(taker: Callable[..., object]) -> None:
    compared = {name for one, names in TAKEN if one is taker for name in names}
    no_options = {
        "keys",
        "aliases",
        "rules",
        "limits",
        "cors_origins",
        "page",
        "pdfs",  # of the option `--pdf` and of what is installed
        "drop_server_tools",
        "pass_server_tools",
        "client_tools_as_functions",
        "pass_image_urls",
        "server_tools",
    } | ({"web_search", "files"} if taker is Rules else set())
    assert set(defaults_of(taker)) - no_options == compared


def test_the_simulator_without_arguments_is_the_simulator_of_the_default_options() -> None:
    built = factory.build_simulated_engine(DEFAULTS)
    assert isinstance(built, SimulatedEngine)
    for field in fields(Profile):
        if field.name != "fail":
            assert getattr(built.profile, field.name) == getattr(Profile(), field.name), field.name
    assert DEFAULTS.simulate_fail == (), "and the profile without failures has none"


async def engine(_: Any) -> Any:
    yield "a"


def test_the_application_without_arguments_is_the_application_of_the_default_options() -> None:
    built, plain = factory.build_app(engine, (), DEFAULTS), MessagesApp(engine)
    for name in ("_rules", "_limits", "_ping_interval", "_max_body", "_max_decompressed", "_hide_thinking"):
        assert getattr(built, name) == getattr(plain, name), name


# --- options that nothing reads ---


def attributes_read(source: str) -> Iterator[str]:
    """The attributes of anything that is called `settings` or `_settings`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if name in ("settings", "_settings"):
                yield node.attr


@pytest.mark.slow
def test_every_option_is_read_outside_the_table() -> None:
    sources = [path.read_text() for path in PACKAGE.rglob("*.py") if path.parent.name != "settings"]
    sources.append((PACKAGE / "settings" / "api_keys.py").read_text())
    read = {name for source in sources for name in attributes_read(source)}
    read |= {
        f"simulate_{field.name}" for field in fields(Profile)
    }  # factory.build_simulated_engine reads each of these
    read |= READ_BY_THE_LOADER
    read |= {"simulate"}  # means that no other engine is named: the loader checks that by EXCLUSIVE
    assert "simulate" in EXCLUSIVE[0]
    assert {option.attribute for option in OPTIONS} - read == set()


def test_an_option_that_nothing_reads_would_be_found() -> None:
    assert set(attributes_read("self._settings.port + settings.host + other.uds")) == {"port", "host"}


@pytest.mark.parametrize("name", sorted(READ_BY_THE_LOADER))
def test_the_options_that_the_loader_reads_are_named_there(name: str) -> None:
    assert f'"{name.replace("_", "-")}"' in (PACKAGE / "settings" / "loader.py").read_text()


def test_a_default_is_shown_as_an_operator_would_write_it() -> None:
    shown = {option.name: option.default for option in OPTIONS}
    assert (shown["max-body"], shown["queue-timeout"], shown["max-messages"]) == ("32MiB", "5s", "100000")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (size("0", "8G"), 65536, "64KiB"),
        (size("0", "8G"), 1 << 30, "1GiB"),
        (size("0", "8G"), 1000, "1000"),
        (duration("0s", "9h"), 90.0, "90s"),
        (duration("0s", "9h"), 3600.0, "1h"),
        (duration("0s", "9h"), 0.0, "0s"),
        (duration("0s", "9h"), 2.5, "2.5s"),
        (integer("0", "9"), 7, "7"),
    ],
)
def test_a_number_is_written_in_the_largest_unit_and_read_back(kind: ValueType, value: float, text: str) -> None:
    assert kind.write(value) == text
    assert kind.parse(text) == value
