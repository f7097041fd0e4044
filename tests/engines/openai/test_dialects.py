"""Recognising an engine by its own answers, and that its dialect sends no field that it would refuse."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.openai.chat_request import ignored_fields, to_chat
from anthro_asgi.engines.openai.dialects import (
    DIALECTS,
    LLAMA_CPP_PYTHON,
    LLAMACPP,
    OLLAMA,
    PROBES,
    SAMBANOVA,
    SGLANG,
    TENSORRT,
    TRANSFORMERS,
    VLLM,
    Dialect,
    by_host,
    recognise,
)
from anthro_asgi.settings.options import DIALECTS as CONFIGURABLE
from anthro_asgi.upstream.origin import Origin
from tests.replay import cases
from tests.support.chat_requests import chat, every_dialect, request, user

Json = dict[str, Any]


def owned(*owners: Any) -> Json:
    return {"object": "list", "data": [{"id": "m", "owned_by": owner} for owner in owners]}


@pytest.mark.clause("8.1")
@pytest.mark.parametrize(
    ("engine", "dialect"),
    [
        ("llamacpp", LLAMACPP),
        ("vllm", VLLM),
        ("sglang", SGLANG),
        ("llama-cpp-python", LLAMA_CPP_PYTHON),
        ("max", DIALECTS["max"]),
        ("fastllm", DIALECTS["fastllm"]),
    ],
)
def test_a_recorded_model_list_identifies_its_engine(engine: str, dialect: Dialect) -> None:
    (case,) = cases(engine, request="GET /v1/models")
    assert recognise(json.loads(case.content), "") is dialect


@pytest.mark.clause("8.5")
def test_the_recorded_list_and_server_header_of_mlx_lm_identify_it() -> None:
    (case,) = cases("mlx-lm", request="GET /v1/models")
    assert recognise(json.loads(case.content), "BaseHTTP/0.6 Python/3.11.2") is DIALECTS["mlx-lm"]


@pytest.mark.clause("8.5")
def test_the_recorded_paths_of_transformers_serve_identify_it() -> None:
    (case,) = cases("transformers", request="GET /openapi.json")
    assert dict(PROBES)["/openapi.json"](json.loads(case.content)) is TRANSFORMERS


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("fastllm", "fastllm"),
        ("vllm-mlx", "vllm-mlx"),
        ("deepseek", "deepseek"),
        ("moonshot", "moonshot"),
        ("z-ai", "zai"),
        ("minimax", "minimax"),
        ("mistralai", "mistral"),
        ("xai", "xai"),
        ("google", "gemini"),
        ("nvidia", None),
        ("library", "ollama"),
        ("no-reply@sambanova.ai", "sambanova"),
        ("SambaNova", "sambanova"),
        ("tensorrt_llm", "tensorrt-llm"),
        ("vLLM", "vllm"),
        ("me", "llama-cpp-python"),
        ("openai", None),
        ("system", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_owned_by_identifies_the_dialect(owner: Any, name: str | None) -> None:
    assert recognise(owned(owner), "uvicorn") is (None if name is None else DIALECTS[name])


@pytest.mark.clause("8.5")
@pytest.mark.parametrize("makers", [("deepseek", "mistralai"), ("deepseek", None), ("google", "x")])
def test_a_gateway_that_lists_models_of_several_makers_is_none_of_them(makers: tuple[Any, ...]) -> None:
    assert recognise(owned(*makers), "") is None


@pytest.mark.clause("8.5")
@pytest.mark.parametrize(
    ("entry", "server", "name"),
    [
        ({"id": "m", "owned_by": "nvidia", "context_window": 4096}, "", "dynamo"),
        ({"id": "m", "owned_by": "", "shutdown_date": None, "max_model_len": 4096}, "uvicorn", "max"),
        ({"id": "m", "owned_by": ""}, "uvicorn", None),
        ({"id": "/m", "object": "model", "created": 1}, "BaseHTTP/0.6 Python/3.11.2", "mlx-lm"),
        ({"id": "/m", "object": "model", "created": 1}, "uvicorn", None),
        ({"id": "/m", "object": "model", "created": 1, "owned_by": "x"}, "BaseHTTP/0.6 Python/3.11.2", None),
    ],
)
def test_an_entry_of_the_list_identifies_its_engine(entry: Json, server: str, name: str | None) -> None:
    expected = None if name is None else DIALECTS[name]
    assert recognise({"object": "list", "data": [entry]}, server) is expected


@pytest.mark.clause("8.5")
@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.moonshot.ai/v1", "moonshot"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://api.z.ai/api/paas/v4", "zai"),
        ("https://open.bigmodel.cn/api/paas/v4/", "zai"),
        ("https://api.minimax.io/v1", "minimax"),
        ("https://api.minimaxi.com/v1", "minimax"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://API.x.ai/v1", "xai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.sambanova.ai/v1", "sambanova"),
        ("http://deepseek.com.example", None),
        ("http://127.0.0.1:8000", None),
        ("unix:/run/e.sock", None),
    ],
)
def test_the_host_of_a_hosted_api_identifies_its_dialect(url: str, name: str | None) -> None:
    assert by_host(Origin.parse(url).host) is (None if name is None else DIALECTS[name])


def test_one_known_owner_in_the_list_is_enough() -> None:
    assert recognise(owned("somebody", None, "vllm"), "") is VLLM


@pytest.mark.parametrize("server", ["llama.cpp", "Llama.cpp/b1"])
def test_the_server_header_of_llamacpp_takes_precedence_over_its_list(server: str) -> None:
    assert recognise(None, server) is recognise(owned("me"), server) is LLAMACPP


@pytest.mark.parametrize("models", [None, [], "x", 1, {}, {"data": None}, {"data": {"a": 1}}, {"data": [1, None]}])
def test_an_invalid_model_list_identifies_no_engine(models: Any) -> None:
    assert recognise(models, "") is None


# where the model list does not identify the engine


def fastapi(*paths: str, title: str = "FastAPI") -> Json:
    return {"openapi": "3.1.0", "info": {"title": title, "version": "0.1.0"}, "paths": {path: {} for path in paths}}


CHAT = ("/v1/chat/completions", "/v1/models", "/health")


@pytest.mark.parametrize(
    ("path", "answer", "dialect"),
    [
        ("/api/version", {"version": "0.12.6"}, OLLAMA),
        ("/api/version", {"version": "1", "deployment_id": ""}, None),
        ("/props", {"default_generation_settings": {}, "total_slots": 1}, LLAMACPP),
        ("/props", {}, None),
        ("/openapi.json", fastapi(*CHAT, "/v1/responses", "/v1/audio/transcriptions"), TRANSFORMERS),
        ("/openapi.json", fastapi(*CHAT, "/load_model", "/reset", "/new/path"), TRANSFORMERS),
        ("/openapi.json", fastapi(*CHAT, "/load_model", "/reset", title="My gateway"), None),
        ("/openapi.json", fastapi(*CHAT, "/v1/responses"), None),
        ("/openapi.json", fastapi(*CHAT, title="🦙 llama.cpp Python API"), LLAMA_CPP_PYTHON),
        ("/openapi.json", fastapi(*CHAT, "/tokenize", "/detokenize", "/version"), VLLM),
        ("/openapi.json", fastapi(*CHAT, "/flush_cache", "/tokenize", "/version"), SGLANG),
        ("/openapi.json", fastapi(*CHAT, "/v1/responses", title="My gateway"), None),
        ("/openapi.json", fastapi(*CHAT, "/v1/responses", "/admin"), None),
        ("/openapi.json", fastapi(), None),
        ("/openapi.json", {"info": [], "paths": {}}, None),
    ],
)
def test_a_path_of_its_own_identifies_an_engine(path: str, answer: Json, dialect: Dialect | None) -> None:
    assert dict(PROBES)[path](answer) is dialect


@pytest.mark.parametrize("answer", [None, [], "x", 1, {}, {"info": None, "paths": None}])
def test_an_invalid_answer_to_a_probe_identifies_no_engine(answer: Any) -> None:
    assert [read(answer) for _, read in PROBES] == [None] * len(PROBES)


# what each dialect sends


def test_the_option_lists_every_dialect() -> None:
    assert {*DIALECTS, "auto"} == set(CONFIGURABLE)
    assert all(name == dialect.name for name, dialect in DIALECTS.items())


# Fields that every implementation of `POST /v1/chat/completions` accepts.
COMMON = frozenset(
    {"model", "messages", "max_tokens", "stream", "stream_options", "temperature", "top_p", "stop", "user"}
    | {"tools", "tool_choice", "parallel_tool_calls", "response_format"}
)
# Further fields that an engine accepts, by its documentation or because it accepts any field.
ALSO = {
    "openai": {"top_k"},
    "llamacpp": {
        *("top_k", "return_progress", "verbose", "chat_template_kwargs", "thinking_budget_tokens", "reasoning_effort"),
    },
    "vllm": {
        *("top_k", "chat_template_kwargs", "thinking_token_budget", "reasoning_effort"),
        *("add_generation_prompt", "continue_final_message"),
    },
    "sglang": {"top_k", "chat_template_kwargs", "reasoning_effort", "continue_final_message"},
    "transformers": {"chat_template_kwargs"},
    "llama-cpp-python": {"top_k"},
    "ollama": {"reasoning_effort"},
    "sambanova": {"top_k", "chat_template_kwargs", "reasoning_effort"},
    "tensorrt-llm": {"top_k", "chat_template_kwargs", "reasoning_effort"},
    "max": {"top_k", "chat_template_kwargs", "reasoning_effort"},
    "mlx-lm": {"top_k", "chat_template_kwargs"},
    "vllm-mlx": {"top_k", "chat_template_kwargs"},
    "fastllm": {"top_k", "chat_template_kwargs"},
    "dynamo": {"top_k", "chat_template_kwargs", "reasoning_effort"},
    "deepseek": {"thinking", "reasoning_effort"},
    "moonshot": {"thinking"},
    "zai": {"thinking"},
    "minimax": set[str](),
    "mistral": set[str](),
    "xai": set[str](),
    "gemini": {"reasoning_effort"},
    "openrouter": {"top_k", "reasoning"},
    "groq": set[str](),
}
# Common fields that an engine ignores or refuses.
WITHOUT = {
    "transformers": {"stream_options", "tool_choice", "parallel_tool_calls", "user", "response_format"},
    "ollama": {"tool_choice"},
    "sambanova": {"user"},
    "tensorrt-llm": {"parallel_tool_calls"},
    "mlx-lm": {"tool_choice", "parallel_tool_calls", "response_format"},
    "deepseek": {"response_format"},
    "zai": {"response_format"},
    "minimax": {"response_format"},
    "mistral": {"user", "stream_options"},
}
EVERYTHING: Json = {
    "temperature": 1,
    "top_p": 0.5,
    "top_k": 5,
    "stop_sequences": ["x"],
    "metadata": {"user_id": "u"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "tools": [{"name": "look"}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
}


@pytest.mark.clause("8.2")
@every_dialect
def test_no_engine_receives_a_field_that_it_would_refuse(dialect: Dialect) -> None:
    prefilled = (user("a"), {"role": "assistant", "content": "It"})
    for thinking in ({"type": "disabled"}, {"type": "adaptive"}, EVERYTHING["thinking"]):
        sent = chat(*prefilled, dialect=dialect, **EVERYTHING | {"thinking": thinking})
        assert set(sent) <= (COMMON | ALSO[dialect.name]) - WITHOUT.get(dialect.name, set())


@pytest.mark.clause("3.5")
@every_dialect
def test_top_k_zero_is_never_sent(dialect: Dialect) -> None:
    assert "top_k" not in chat(dialect=dialect, top_k=0)
    assert ("top_k" in chat(dialect=dialect, top_k=5)) is ("top_k" in ALSO[dialect.name])


@every_dialect
def test_only_an_engine_that_receives_stop_strings_is_asked_to_report_the_match(dialect: Dialect) -> None:
    assert dialect.stops or not dialect.stop_extras
    sent = chat(dialect=dialect, stop_sequences=["x"])
    assert ("stop" in sent) is (dialect in (LLAMACPP, VLLM, SGLANG, TENSORRT))
    assert ("verbose" in sent) is (dialect is LLAMACPP)


@every_dialect
def test_tool_choice_none_is_sent_in_a_way_that_the_engine_honours(dialect: Dialect) -> None:
    sent = chat(dialect=dialect, tools=[{"name": "look"}], tool_choice={"type": "none"})
    if dialect.name in ("transformers", "ollama", "mlx-lm", "zai"):
        assert not {"tools", "tool_choice"} & set(sent)
    else:
        assert (sent["tool_choice"], len(sent["tools"])) == ("none", 1)


BUDGETS = {LLAMACPP.name: "thinking_budget_tokens", VLLM.name: "thinking_token_budget"}


@every_dialect
def test_a_thinking_budget_is_sent_if_the_dialect_has_a_field_for_it(dialect: Dialect) -> None:
    sent = chat(dialect=dialect, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [key for key, value in sent.items() if value == 1024] == [
        BUDGETS[name] for name in [dialect.name] if name in BUDGETS
    ]
    assert dialect.thinking_budget not in chat(dialect=dialect, thinking={"type": "adaptive"})


def test_thinking_on_ollama_is_never_switched_on_and_is_switched_off_by_an_effort() -> None:
    off = {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}
    assert chat(dialect=OLLAMA, **off)["reasoning_effort"] == "none"
    assert "reasoning_effort" not in chat(dialect=OLLAMA, thinking={"type": "adaptive"})


@pytest.mark.clause("8.2")
def test_early_counts_are_requested_from_engines_that_can_report_them() -> None:
    early = {name for name, dialect in DIALECTS.items() if dialect.early_usage or dialect.always}
    assert early == {LLAMACPP.name, VLLM.name, SGLANG.name, TENSORRT.name}


def test_sambanova_receives_reasoning_in_the_field_it_uses() -> None:
    assert SAMBANOVA.reasoning_key == OLLAMA.reasoning_key == "reasoning"


@every_dialect
def test_each_field_is_either_sent_or_named_as_ignored(dialect: Dialect) -> None:
    asked = request(**EVERYTHING | {"tools": [{"name": "look", "strict": True}]})
    sent, ignored = to_chat(asked, dialect), ignored_fields(asked, dialect)
    effects = {
        "metadata.user_id": "user" in sent,
        "output_config.effort": "reasoning_effort" in sent,
        "output_config.format": "response_format" in sent,
        "thinking": any(sent.get(key) == value for key, value in dialect.thinking_on.items()),
        "thinking.budget_tokens": 1024 in sent.values(),
        "tool_choice": sent.get("tool_choice") == "required",
        "tool_choice.disable_parallel_tool_use": "parallel_tool_calls" in sent,
        "tools.strict": "strict" in sent["tools"][0]["function"],
        "top_k": "top_k" in sent,
    }
    if dialect.name in ("deepseek", "moonshot"):  # the forced call switches thinking off
        effects |= {"thinking": True, "output_config.effort": True}
    assert ignored == [path for path, has_effect in effects.items() if not has_effect]


@every_dialect
def test_a_request_without_options_has_nothing_to_ignore(dialect: Dialect) -> None:
    assert ignored_fields(request(), dialect) == []
