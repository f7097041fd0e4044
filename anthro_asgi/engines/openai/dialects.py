"""The dialects of OpenAI-compatible engines, as data: which fields each engine accepts (contract section 8).

A field that an engine would refuse is not sent to it, so the plain dialect sends few. An engine that reports which stop
string matched receives the stop strings and stops by itself. For other engines this service matches the stop sequences
and cancels the generation.

An engine is recognised by its model list, by the `server` header of that response, and if these do not identify it,
by a path that only one engine has (`PROBES`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Extras = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask one engine. `title` is for users to read. Extras are merged into the body of a chat request."""

    name: str
    title: str
    top_k: bool = False
    stops: bool = False
    """The engine receives the stop strings, and reports which one matched."""
    always: Extras = field(default_factory=dict)
    """Sent with every request, so that the engine reports more."""
    never: frozenset[str] = frozenset()
    """Fields of a chat request that this engine refuses, or ignores now and may refuse in another version."""
    early_usage: Extras = field(default_factory=dict)
    """Merged into `stream_options`, so that the first chunk reports the length of the prompt."""
    stop_extras: Extras = field(default_factory=dict)
    """Sent with stop strings, so that the engine reports which one matched."""
    thinking_on: Extras = field(default_factory=dict)
    """Sent when the client asks for thinking. Empty for an engine without a switch."""
    thinking_off: Extras = field(default_factory=dict)
    """Sent when the client disables thinking. Empty for an engine without a switch."""
    thinking_budget: str | None = None
    """The field that limits the tokens of the reasoning."""
    effort: bool = False
    """The engine accepts `reasoning_effort` with the values low, medium and high."""
    reasoning_key: str | None = None
    """The field of an assistant message in the history that holds its reasoning."""
    named_choice: bool = True
    """The engine honours a named tool choice. If not, only that tool is sent, with the choice `required`."""
    none_choice: bool = True
    """The engine honours the tool choice `none`. If not, the tools are left out."""
    longest_tool_name: int | None = None
    """In characters. Longer names are refused, so they are shortened (see `tool_names`)."""
    late_system: bool = False
    """The engine accepts a system message between turns."""
    prefill: Extras = field(default_factory=dict)
    """Sent if the last message is the assistant's, so that the answer continues it."""
    counting: Literal["no", "tokenize", "input_tokens"] = "no"
    """The endpoint that counts the tokens of a chat request (see `count_tokens`)."""
    bounds_answers: bool = False
    """The engine refuses a `max_tokens` above the model's context window, whatever the length of the prompt."""


PLAIN: Final = Dialect("openai", "an OpenAI-compatible server", longest_tool_name=64)

_SWITCH_ON: Final = {"chat_template_kwargs": {"enable_thinking": True}}
_SWITCH_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False}}
# Qwen and GLM templates know one name, DeepSeek and Kimi templates the other. Each ignores the name it does not know.
_BOTH_ON: Final = {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}
_BOTH_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}

LLAMACPP: Final = Dialect(
    "llamacpp",
    "llama.cpp",
    top_k=True,
    stops=True,
    # costs one or two more chunks per answer; `timings_per_token` would repeat the counts with every token
    always={"return_progress": True},
    stop_extras={"verbose": True},
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    thinking_budget="thinking_budget_tokens",
    effort=True,
    reasoning_key="reasoning_content",
    named_choice=False,
    counting="input_tokens",
)
VLLM: Final = Dialect(
    "vllm",
    "vLLM",
    top_k=True,
    stops=True,
    early_usage={"continuous_usage_stats": True},
    thinking_on=_BOTH_ON,
    thinking_off=_BOTH_OFF,
    thinking_budget="thinking_token_budget",
    effort=True,
    reasoning_key="reasoning",
    prefill={"add_generation_prompt": False, "continue_final_message": True},
    counting="tokenize",
    bounds_answers=True,
)
SGLANG: Final = Dialect(
    "sglang",
    "SGLang",
    top_k=True,
    stops=True,
    early_usage={"continuous_usage_stats": True},
    thinking_on=_BOTH_ON,
    thinking_off=_BOTH_OFF,
    effort=True,
    reasoning_key="reasoning_content",
    prefill={"continue_final_message": True},
    counting="tokenize",
    bounds_answers=True,
)
# It refuses unknown fields, reports usage without being asked, and ignores the tool choice.
TRANSFORMERS: Final = Dialect(
    "transformers",
    "transformers serve",
    never=frozenset({"stream_options", "tool_choice", "parallel_tool_calls", "user"}),
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    named_choice=False,
    none_choice=False,
)
LLAMA_CPP_PYTHON: Final = Dialect("llama-cpp-python", "llama-cpp-python", top_k=True)
# There is no switch to turn thinking on, because Ollama refuses it for a model that cannot think.
OLLAMA: Final = Dialect(
    "ollama",
    "Ollama",
    never=frozenset({"tool_choice"}),
    thinking_off={"reasoning_effort": "none"},
    effort=True,
    reasoning_key="reasoning",
    named_choice=False,
    none_choice=False,
)
SAMBANOVA: Final = Dialect(
    "sambanova",
    "SambaNova",
    top_k=True,
    longest_tool_name=64,
    never=frozenset({"user"}),
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    effort=True,
    reasoning_key="reasoning",
)
# Older versions refuse `parallel_tool_calls`, newer versions ignore it.
TENSORRT: Final = Dialect(
    "tensorrt-llm",
    "TensorRT-LLM",
    top_k=True,
    stops=True,
    never=frozenset({"parallel_tool_calls"}),
    early_usage={"continuous_usage_stats": True},
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    effort=True,
)

DIALECTS: Final = {
    dialect.name: dialect
    for dialect in (
        PLAIN,
        LLAMACPP,
        VLLM,
        SGLANG,
        OLLAMA,
        SAMBANOVA,
        TENSORRT,
        TRANSFORMERS,
        LLAMA_CPP_PYTHON,
    )
}

# recognising an engine

_BY_OWNER: Final = {
    "llamacpp": LLAMACPP,
    "vllm": VLLM,
    "sglang": SGLANG,
    "library": OLLAMA,
    "sambanova": SAMBANOVA,
    "no-reply@sambanova.ai": SAMBANOVA,
    "tensorrt_llm": TENSORRT,
    "me": LLAMA_CPP_PYTHON,
}


def recognise(models: Any, server: str) -> Dialect | None:
    """The dialect of an engine from its answer to `GET /v1/models`; None if that does not identify it.

    `models` is the parsed body, None if there is none. `server` is the answer's `server` header.
    """
    if server.lower().startswith("llama.cpp"):
        return LLAMACPP
    entries = models.get("data") if isinstance(models, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        owner = entry.get("owned_by") if isinstance(entry, dict) else None
        known = _BY_OWNER.get(owner.lower()) if isinstance(owner, str) else None
        if known is not None:
            return known
    return None


def _by_version(answer: Any) -> Dialect | None:
    return OLLAMA if isinstance(answer, dict) and set(answer) == {"version"} else None


def _by_properties(answer: Any) -> Dialect | None:
    return LLAMACPP if isinstance(answer, dict) and "default_generation_settings" in answer else None


# All paths of all versions of `transformers serve`. Other servers with a chat endpoint have more.
_TRANSFORMERS_PATHS: Final = frozenset(
    {
        "/",
        "/health",
        "/load_model",
        "/reset",
        "/v1/audio/transcriptions",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/responses",
    }
)


def _by_schema(answer: Any) -> Dialect | None:
    """The dialect from FastAPI's description of the server: its title and its paths."""
    info, paths = (answer.get("info"), answer.get("paths")) if isinstance(answer, dict) else (None, None)
    if not isinstance(info, dict) or not isinstance(paths, dict):
        return None
    if "llama.cpp" in str(info.get("title")):
        return LLAMA_CPP_PYTHON
    if "/flush_cache" in paths:
        return SGLANG
    if "/tokenize" in paths and "/version" in paths:
        return VLLM
    bare = {"/health", "/v1/chat/completions", "/v1/responses"} <= set(paths) <= _TRANSFORMERS_PATHS
    return TRANSFORMERS if bare and info.get("title") == "FastAPI" else None


PROBES: Final[tuple[tuple[str, Callable[[Any], Dialect | None]], ...]] = (
    ("/api/version", _by_version),
    ("/props", _by_properties),
    ("/openapi.json", _by_schema),
)
"""Paths (beside `/v1`) that identify an engine whose model list does not, and how to read the JSON each returns."""
