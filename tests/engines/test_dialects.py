"""Which engine it is, told by its own answers, and that its dialect asks for nothing it would refuse."""

import json
from typing import Any

import pytest

from anthro_asgi.config import DIALECTS as CONFIGURABLE
from anthro_asgi.engines.dialects import DIALECTS, LLAMACPP, PLAIN, SGLANG, VLLM, Dialect, recognise
from tests.engines.asking import every_dialect
from tests.replay import cases


def owned(*owners: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "m", "owned_by": owner} for owner in owners]}


@pytest.mark.parametrize(
    ("engine", "dialect"),
    [("llamacpp", LLAMACPP), ("vllm", VLLM), ("sglang", SGLANG), ("llama-cpp-python", PLAIN)],
)
def test_a_recorded_model_list_tells_its_engine(engine: str, dialect: Dialect) -> None:
    (case,) = cases(engine, request="GET /v1/models")
    assert recognise(json.loads(case.content), "") is dialect


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("library", "ollama"),
        ("no-reply@sambanova.ai", "sambanova"),
        ("SambaNova", "sambanova"),
        ("tensorrt_llm", "tensorrt-llm"),
        ("vLLM", "vllm"),
        ("openai", "openai"),
        ("system", "openai"),
        ("", "openai"),
        (None, "openai"),
        (7, "openai"),
    ],
)
def test_an_owner_tells_the_dialect(owner: Any, name: str) -> None:
    assert recognise(owned(owner), "uvicorn") is DIALECTS[name]


def test_one_known_owner_among_others_is_enough() -> None:
    assert recognise(owned("me", None, "vllm"), "") is VLLM


@pytest.mark.parametrize("server", ["llama.cpp", "Llama.cpp/b1"])
def test_llamacpp_is_known_by_its_server_header_whatever_its_list_says(server: str) -> None:
    assert recognise(None, server) is recognise(owned("me"), server) is LLAMACPP


@pytest.mark.parametrize("models", [None, [], "x", 1, {}, {"data": None}, {"data": {"a": 1}}, {"data": [1, None]}])
def test_a_list_that_is_none_is_a_plain_engine(models: Any) -> None:
    assert recognise(models, "") is PLAIN


def test_the_dialects_are_those_an_operator_can_name() -> None:
    assert {*DIALECTS, "auto"} == set(CONFIGURABLE)
    assert all(name == dialect.name for name, dialect in DIALECTS.items())


def test_a_plain_endpoint_is_asked_for_no_option_of_a_single_engine() -> None:
    assert Dialect("openai", PLAIN.title) == PLAIN


@every_dialect
def test_only_an_engine_that_is_given_stop_strings_is_asked_to_tell_the_match(dialect: Dialect) -> None:
    assert dialect.stops or not dialect.stop_extras
