"""What each OpenAI-compatible engine can do, and how to ask it, as data (contract section 8).

An option that an engine would refuse is never sent to it, so the plain dialect asks for little. An engine that tells
which stop string matched is given them and stops by itself; for the others the stop sequences are matched here and the
generation is cut off.

Who an engine is, it says itself: in its model list, in that answer's `server` header, and where these tell nothing,
at an address that only one of them has (`PROBES`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Extras = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's way of speaking. `title` is for people. Extras are merged into the body of a chat request."""

    name: str
    title: str
    top_k: bool = False
    stops: bool = False
    """The engine is given the stop strings, and says which one matched."""
    always: Extras = field(default_factory=dict)
    """Sent with every request: what makes an engine tell more."""
    never: frozenset[str] = frozenset()
    """Fields of a chat request that this engine refuses, or ignores and may refuse in another version."""
    early_usage: Extras = field(default_factory=dict)
    """Merged into `stream_options`, so that the prompt's length comes with the first chunk."""
    stop_extras: Extras = field(default_factory=dict)
    """Sent with stop strings, so that the match is told."""
    thinking_on: Extras = field(default_factory=dict)
    """Sent when the client asks for thinking. Where there is no switch, the model does as it does."""
    thinking_off: Extras = field(default_factory=dict)
    thinking_budget: str | None = None
    """The field that bounds the tokens of the reasoning."""
    effort: bool = False
    """`reasoning_effort` is known, as low, medium or high."""
    reasoning_key: str | None = None
    """Where an assistant message of the history carries its reasoning."""
    named_choice: bool = True
    """A named tool choice is honoured; else that tool alone is sent, as required."""
    none_choice: bool = True
    """The tool choice `none` is honoured; else the tools are left out."""
    longest_tool_name: int | None = None
    """Characters. A longer name is refused, so it is shortened (see `names`)."""
    late_system: bool = False
    """A system message may stand between turns."""
    prefill: Extras = field(default_factory=dict)
    """Sent when the last message is the assistant's, so that the reply continues it."""
    counting: Literal["no", "tokenize", "input_tokens"] = "no"
    """The endpoint that counts the tokens of a chat request (see `counting`)."""
    bounds_answers: bool = False
    """A `max_tokens` above the model's window is refused, whatever the prompt."""


PLAIN: Final = Dialect("openai", "an OpenAI-compatible server", longest_tool_name=64)

_SWITCH_ON: Final = {"chat_template_kwargs": {"enable_thinking": True}}
_SWITCH_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False}}
# Templates do not agree on the name (Qwen and GLM on the one, DeepSeek and Kimi on the other) and ignore a strange one.
_BOTH_ON: Final = {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}
_BOTH_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}

LLAMACPP: Final = Dialect(
    "llamacpp",
    "llama.cpp",
    top_k=True,
    stops=True,
    # a chunk or two more an answer; `timings_per_token` tells the same, and again with every token
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
# It refuses what it does not know, tells the usage unasked, and never looks at a tool choice.
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
# Thinking is only switched off: a model that cannot think is refused when it is switched on.
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
# Its older versions refuse `parallel_tool_calls`, the newer ignore it.
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
        *(PLAIN, LLAMACPP, VLLM, SGLANG, OLLAMA, SAMBANOVA, TENSORRT),
        *(TRANSFORMERS, LLAMA_CPP_PYTHON),
    )
}

# Who is who

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
    """The dialect of an engine, by its answer to `GET /v1/models` and that answer's `server` header; None if these do
    not tell.
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


# All that `transformers serve` ever had; nobody else who has a chat has so little beside it.
_TRANSFORMERS_PATHS: Final = frozenset(
    {"/", "/health", "/load_model", "/reset", "/v1/audio/transcriptions", "/v1/chat/completions", "/v1/completions"}
    | {"/v1/models", "/v1/responses"}
)


def _by_schema(answer: Any) -> Dialect | None:
    """By what FastAPI says of the server it serves: its name, and its paths."""
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
"""Where to ask an engine whose model list tells nothing, and how to read the answer's JSON. Paths beside `/v1`."""
